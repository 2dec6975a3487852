//! CSV records: where fields begin and end (RFC 4180, LF or CRLF). csv-core does not tell `""` from nothing, and our
//! users' nulls depend on it, so the splitter is our own.

/// The two bytes that give a CSV its shape. `quote` None: quotes are ordinary characters.
#[derive(Clone, Copy, Debug)]
pub struct Dialect {
    pub sep: u8,
    pub quote: Option<u8>,
}

/// One field's bytes inside the chunk, without its quotes. `doubled`: it holds doubled quotes to undo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    pub start: usize,
    pub end: usize,
    pub quoted: bool,
    pub doubled: bool,
}

/// How a record ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Whole,
    /// A quote was opened and never closed before the data's end.
    Unclosed,
    /// Something other than a separator follows a closing quote.
    AfterQuote,
}

/// Split the record at `start` into `fields`. Returns where the next record begins and how this one ended.
///
/// A record that did not end whole is given up at its first line's end, so that one stray quote costs one line.
pub fn split(
    data: &[u8],
    start: usize,
    dialect: Dialect,
    fields: &mut Vec<Field>,
) -> (usize, Ending) {
    fields.clear();
    let mut at = start;
    loop {
        if dialect.quote.is_some() && data.get(at) == dialect.quote.as_ref() {
            let quote = data[at];
            let (end, doubled) = match closing(data, at + 1, quote) {
                Some(found) => found,
                None => return (next_line(data, start), Ending::Unclosed),
            };
            fields.push(Field {
                start: at + 1,
                end,
                quoted: true,
                doubled,
            });
            at = end + 1;
            match data.get(at) {
                None => return (at, Ending::Whole),
                Some(&b) if b == dialect.sep => at += 1,
                Some(b'\n') => return (at + 1, Ending::Whole),
                Some(b'\r') if data.get(at + 1) == Some(&b'\n') => return (at + 2, Ending::Whole),
                Some(b'\r') if at + 1 == data.len() => return (at + 1, Ending::Whole),
                Some(_) => return (next_line(data, at), Ending::AfterQuote),
            }
        } else {
            let mut end = at;
            while end < data.len() && data[end] != dialect.sep && data[end] != b'\n' {
                end += 1;
            }
            let over = end == data.len() || data[end] == b'\n';
            let trimmed = if over && end > at && data[end - 1] == b'\r' {
                end - 1
            } else {
                end
            };
            fields.push(Field {
                start: at,
                end: trimmed,
                quoted: false,
                doubled: false,
            });
            if over {
                return ((end + 1).min(data.len()), Ending::Whole);
            }
            at = end + 1;
        }
    }
}

/// The bytes of a field, its doubled quotes undone into `scratch` where there are any.
pub fn text<'a>(
    data: &'a [u8],
    field: Field,
    quote: Option<u8>,
    scratch: &'a mut Vec<u8>,
) -> &'a [u8] {
    let raw = &data[field.start..field.end];
    let Some(quote) = quote.filter(|_| field.doubled) else {
        return raw;
    };
    scratch.clear();
    let mut rest = raw;
    while let Some(at) = memchr::memchr(quote, rest) {
        scratch.extend_from_slice(&rest[..=at]);
        rest = &rest[(at + 2).min(rest.len())..];
    }
    scratch.extend_from_slice(rest);
    scratch
}

/// The end of the last whole record in `data`, 0 where there is none.
pub fn last_end(data: &[u8], dialect: Dialect) -> usize {
    let Some(quote) = dialect.quote.filter(|&q| memchr::memchr(q, data).is_some()) else {
        return memchr::memrchr(b'\n', data).map_or(0, |at| at + 1);
    };
    let (mut at, mut last, mut field_start) = (0, 0, true);
    while at < data.len() {
        if field_start && data[at] == quote {
            match closing(data, at + 1, quote) {
                Some((end, _)) => at = end + 1,
                None => return last,
            }
            field_start = false;
            continue;
        }
        // To the next byte that matters: what lies between is one unquoted field's.
        match memchr::memchr2(dialect.sep, b'\n', &data[at..]) {
            Some(found) => {
                at += found + 1;
                field_start = true;
                if data[at - 1] == b'\n' {
                    last = at;
                }
            }
            None => return last,
        }
    }
    last
}

/// Where the quote that closes a field stands, and whether doubled quotes lie before it.
fn closing(data: &[u8], mut at: usize, quote: u8) -> Option<(usize, bool)> {
    let mut doubled = false;
    loop {
        let found = at + memchr::memchr(quote, data.get(at..)?)?;
        if data.get(found + 1) != Some(&quote) {
            return Some((found, doubled));
        }
        doubled = true;
        at = found + 2;
    }
}

fn next_line(data: &[u8], from: usize) -> usize {
    memchr::memchr(b'\n', &data[from..]).map_or(data.len(), |at| from + at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMA: Dialect = Dialect {
        sep: b',',
        quote: Some(b'"'),
    };

    fn records(data: &str) -> Vec<(Vec<String>, Ending)> {
        let (mut at, mut out, mut fields, data) = (0, Vec::new(), Vec::new(), data.as_bytes());
        while at < data.len() {
            let (next, ending) = split(data, at, COMMA, &mut fields);
            let row = fields.iter().map(|&f| {
                let mut scratch = Vec::new();
                String::from_utf8(text(data, f, COMMA.quote, &mut scratch).to_vec()).unwrap()
            });
            out.push((row.collect(), ending));
            at = next;
        }
        out
    }

    #[test]
    fn quotes_hold_separators_newlines_and_doubled_quotes() {
        let rows = records("a,\"b,\n\"\"c\"\"\",\r\n\"\",x\"y,z");
        assert_eq!(rows[0].0, ["a", "b,\n\"c\"", ""]);
        assert_eq!(rows[1].0, ["", "x\"y", "z"]);
    }

    #[test]
    fn a_stray_quote_costs_one_line() {
        let rows = records("\"a,b\nc,d\n");
        assert_eq!(rows[0].1, Ending::Unclosed);
        assert_eq!(rows[1], (vec!["c".into(), "d".into()], Ending::Whole));
        assert_eq!(records("\"a\"b,c\nd\n")[0].1, Ending::AfterQuote);
    }

    #[test]
    fn a_chunk_ends_where_a_record_ends() {
        assert_eq!(last_end(b"a,b\nc,\"d\ne", COMMA), 4);
        assert_eq!(last_end(b"a,b\nc,\"d\ne\"\nf", COMMA), 12);
        assert_eq!(last_end(b"a\"b\nc", COMMA), 4);
        assert_eq!(last_end(b"abc", COMMA), 0);
    }
}
