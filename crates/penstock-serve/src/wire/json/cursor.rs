//! A place in a JSON text, and the tokens after it.
//!
//! A reader of our own rather than serde_json's: tensors are read straight into their type (integers never through a
//! float), `NaN` and the infinities that Python's `json` writes are taken where floats are, and errors name the input.

use std::borrow::Cow;

/// What is wrong, and where: a message without a subject ("expected ',' at byte 12").
pub type Parsed<T> = std::result::Result<T, String>;

/// How deep values that are not looked at may nest.
const DEPTH: usize = 64;

#[derive(Clone)]
pub struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8]) -> Parsed<Cursor<'a>> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Cursor { text, at: 0 }),
            Err(bad) => Err(format!("invalid UTF-8 at byte {}", bad.valid_up_to())),
        }
    }

    /// The next byte that is not white space. It is not consumed.
    #[inline]
    pub fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(&byte) = bytes.get(self.at) {
            if byte > b' ' || !matches!(byte, b' ' | b'\n' | b'\t' | b'\r') {
                return Some(byte);
            }
            self.at += 1;
        }
        None
    }

    /// Consumes `byte` if it is next.
    #[inline]
    pub fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    #[inline]
    pub fn expect(&mut self, byte: u8, what: &str) -> Parsed<()> {
        if self.take(byte) {
            Ok(())
        } else {
            Err(self.wrong(what))
        }
    }

    /// "expected WHAT at byte N, found ..."
    pub fn wrong(&mut self, what: &str) -> String {
        let found = match self.peek() {
            None => "the end".to_owned(),
            Some(_) => {
                let next: String = self.text[self.at..].chars().take(12).collect();
                format!("{next:?}")
            }
        };
        format!("expected {what} at byte {}, found {found}", self.at)
    }

    /// Bytes left.
    pub fn left(&self) -> usize {
        self.text.len() - self.at
    }

    /// Nothing but white space follows.
    pub fn end(&mut self) -> Parsed<()> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.wrong("the end of the JSON")),
        }
    }

    /// After an element of an object or array: whether another follows. Consumes the comma or the closing byte.
    #[inline]
    pub fn more(&mut self, close: u8) -> Parsed<bool> {
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(byte) if byte == close => {
                self.at += 1;
                Ok(false)
            }
            _ => Err(self.wrong(if close == b']' {
                "',' or ']'"
            } else {
                "',' or '}'"
            })),
        }
    }

    /// A key and its colon.
    pub fn key(&mut self) -> Parsed<Cow<'a, str>> {
        let key = self.string()?;
        self.expect(b':', "':'")?;
        Ok(key)
    }

    pub fn string(&mut self) -> Parsed<Cow<'a, str>> {
        self.expect(b'"', "a string")?;
        let (text, start) = (self.text, self.at);
        let mut end = start;
        loop {
            match text.as_bytes().get(end) {
                Some(b'"') => {
                    self.at = end + 1;
                    return Ok(Cow::Borrowed(&text[start..end]));
                }
                Some(b'\\') => break,
                Some(0..0x20) => {
                    return Err(format!("a control character in a string at byte {end}"));
                }
                Some(_) => end += 1,
                None => {
                    return Err(format!(
                        "the string that begins at byte {start} does not end"
                    ));
                }
            }
        }
        let mut owned = String::with_capacity(end - start + 32);
        owned.push_str(&text[start..end]);
        self.at = end;
        self.escaped(&mut owned)?;
        Ok(Cow::Owned(owned))
    }

    /// The rest of a string that has escapes, its closing quote consumed.
    fn escaped(&mut self, owned: &mut String) -> Parsed<()> {
        loop {
            let rest = &self.text.as_bytes()[self.at..];
            let plain = rest
                .iter()
                .position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20))
                .ok_or_else(|| "a string does not end".to_owned())?;
            owned.push_str(&self.text[self.at..self.at + plain]);
            self.at += plain;
            match rest[plain] {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => owned.push(self.escape()?),
                _ => {
                    return Err(format!(
                        "a control character in a string at byte {}",
                        self.at
                    ));
                }
            }
        }
    }

    fn escape(&mut self) -> Parsed<char> {
        let at = self.at;
        self.at += 2;
        Ok(match self.text.as_bytes().get(at + 1) {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.code_point(at),
            _ => return Err(format!("an escape that JSON does not have at byte {at}")),
        })
    }

    /// `\uXXXX`, or two that are a surrogate pair; the first's `\u` is consumed.
    fn code_point(&mut self, at: usize) -> Parsed<char> {
        let bad = || format!("half a surrogate pair at byte {at}");
        let first = self.hex4()?;
        let code = match first {
            0xd800..0xdc00 => {
                if !self.text.as_bytes()[self.at..].starts_with(b"\\u") {
                    return Err(bad());
                }
                self.at += 2;
                let second = self.hex4()?;
                if !(0xdc00..0xe000).contains(&second) {
                    return Err(bad());
                }
                0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)
            }
            code => code,
        };
        char::from_u32(code).ok_or_else(bad)
    }

    fn hex4(&mut self) -> Parsed<u32> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4);
        let code = digits.and_then(|digits| {
            digits.iter().try_fold(0, |code, digit| {
                Some(code << 4 | char::from(*digit).to_digit(16)?)
            })
        });
        let code =
            code.ok_or_else(|| format!("\\u without four hex digits at byte {}", self.at))?;
        self.at += 4;
        Ok(code)
    }

    /// Consumes `word` if it is next.
    pub fn word(&mut self, word: &str) -> bool {
        self.peek();
        let found = self.text.as_bytes()[self.at..].starts_with(word.as_bytes());
        self.at += if found { word.len() } else { 0 };
        found
    }

    /// A number as JSON has them, its text. `what` is said to be expected where there is none.
    pub fn number(&mut self, what: &str) -> Parsed<&'a str> {
        self.peek();
        let (text, start) = (self.text, self.at);
        let digits = |mut at: usize| {
            while text.as_bytes().get(at).is_some_and(u8::is_ascii_digit) {
                at += 1;
            }
            at
        };
        let is = |at: usize, set: &[u8]| text.as_bytes().get(at).is_some_and(|b| set.contains(b));
        let whole = start + usize::from(is(start, b"-"));
        let mut end = digits(whole);
        if end == whole {
            return Err(self.wrong(what));
        }
        if end > whole + 1 && is(whole, b"0") {
            return Err(format!("a number that begins with 0 at byte {start}"));
        }
        if is(end, b".") {
            let fraction = digits(end + 1);
            if fraction == end + 1 {
                return Err(format!("a point without digits after it at byte {end}"));
            }
            end = fraction;
        }
        if is(end, b"eE") {
            let from = end + 1 + usize::from(is(end + 1, b"+-"));
            let exponent = digits(from);
            if exponent == from {
                return Err(format!("an exponent without digits at byte {end}"));
            }
            end = exponent;
        }
        self.at = end;
        Ok(&text[start..end])
    }

    /// Any value, left unread. `NaN` and the infinities count as numbers.
    pub fn skip(&mut self) -> Parsed<()> {
        self.skip_within(DEPTH)
    }

    /// As `skip`; where it began, to be read later.
    pub fn lay_aside(&mut self) -> Parsed<Cursor<'a>> {
        self.peek();
        let begin = self.clone();
        self.skip()?;
        Ok(begin)
    }

    fn skip_within(&mut self, depth: usize) -> Parsed<()> {
        let Some(deeper) = depth.checked_sub(1) else {
            return Err(format!(
                "values nest deeper than {DEPTH} at byte {}",
                self.at
            ));
        };
        match self.peek() {
            Some(b'"') => self.string().map(drop),
            Some(open @ (b'[' | b'{')) => {
                let close = open + 2;
                self.at += 1;
                if self.take(close) {
                    return Ok(());
                }
                loop {
                    if open == b'{' {
                        self.key()?;
                    }
                    self.skip_within(deeper)?;
                    if !self.more(close)? {
                        return Ok(());
                    }
                }
            }
            Some(b'-' | b'0'..=b'9') if !self.text[self.at..].starts_with("-I") => {
                self.number("a number").map(drop)
            }
            _ if ["null", "true", "false", "NaN", "Infinity", "-Infinity"]
                .iter()
                .any(|word| self.word(word)) =>
            {
                Ok(())
            }
            _ => Err(self.wrong("a value")),
        }
    }
}
