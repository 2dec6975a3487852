//! An inference request in JSON, with or without binary tensors after it.

use std::borrow::Cow;

use super::cursor::{Cursor, Parsed};
use super::elements;
use crate::error::{Fault, Result};
use crate::tensor::{Data, Datatype, Tensor};
use crate::wire::limits::{Limits, Room};
use crate::wire::parameters::{self, PARAMETERS, Parameter};
use crate::wire::{Call, binary, input_fault};

/// Reads a body. `header_bytes`: where its JSON ends and the binary tensors begin (`Inference-Header-Content-Length`);
/// None: it is all JSON.
///
/// Fails with `Invalid` (what is malformed, naming the input), `TooLarge` or `Unsupported`.
pub fn request(body: &[u8], header_bytes: Option<usize>, limits: &Limits) -> Result<Call> {
    let (json, tail) = match header_bytes {
        None => (body, None),
        Some(length) => {
            let (json, tail) = body.split_at_checked(length).ok_or_else(|| {
                Fault::invalid(format!(
                    "Inference-Header-Content-Length is {length} where the body has {} bytes",
                    body.len()
                ))
            })?;
            (json, Some(tail))
        }
    };
    let mut reader = Reader {
        cursor: Cursor::new(json).map_err(malformed)?,
        tail,
        room: Room::new(*limits),
        call: Call::default(),
    };
    reader.body()?;
    if let Some(rest) = reader.tail.filter(|rest| !rest.is_empty()) {
        return Err(Fault::invalid(format!(
            "{} bytes of binary data are left after the last input took its binary_data_size",
            rest.len()
        )));
    }
    reader.call.check()?;
    Ok(reader.call)
}

fn malformed(what: String) -> Fault {
    Fault::invalid(format!(
        "the body is not the JSON of an inference request: {what}"
    ))
}

struct Reader<'a> {
    cursor: Cursor<'a>,
    /// Binary data that no input has taken yet; None: the body said that it has none.
    tail: Option<&'a [u8]>,
    room: Room,
    call: Call,
}

/// What is known of an input so far; its fields come in any order.
#[derive(Default)]
struct Input<'a> {
    name: Option<Cow<'a, str>>,
    shape: Option<Vec<usize>>,
    datatype: Option<Datatype>,
    binary_bytes: Option<usize>,
    data: Given<'a>,
}

#[derive(Default)]
enum Given<'a> {
    #[default]
    Nothing,
    /// It came before its shape or datatype.
    Unread(Cursor<'a>),
    Read(Data, Option<Vec<bool>>),
}

impl<'a> Reader<'a> {
    fn body(&mut self) -> Result<()> {
        self.cursor.expect(b'{', "'{'").map_err(malformed)?;
        let mut inputs = false;
        if !self.cursor.take(b'}') {
            loop {
                let key = self.cursor.key().map_err(malformed)?;
                match key.as_ref() {
                    "id" => self.call.id = Some(self.id()?),
                    "inputs" if inputs => return Err(malformed("'inputs' is given twice".into())),
                    "inputs" => {
                        inputs = true;
                        self.array("inputs", Reader::input)?;
                    }
                    "outputs" => self.array("outputs", Reader::output)?,
                    "parameters" => {
                        let Reader { cursor, call, .. } = self;
                        let take = |name: &str, value: &Parameter| {
                            parameters::of_request(call, name, value)
                        };
                        each_parameter(cursor, malformed, take)?;
                    }
                    _ => self.cursor.skip().map_err(malformed)?,
                }
                if !self.cursor.more(b'}').map_err(malformed)? {
                    break;
                }
            }
        }
        self.cursor.end().map_err(malformed)?;
        if !inputs {
            return Err(malformed("it has no 'inputs'".into()));
        }
        Ok(())
    }

    fn id(&mut self) -> Result<String> {
        let id = self
            .cursor
            .string()
            .map_err(|what| malformed(format!("'id': {what}")))?;
        Ok(id.into_owned())
    }

    fn array(&mut self, name: &str, read: fn(&mut Self, usize) -> Result<()>) -> Result<()> {
        let of = |what: String| malformed(format!("'{name}': {what}"));
        self.cursor.expect(b'[', "'['").map_err(of)?;
        if self.cursor.take(b']') {
            return Ok(());
        }
        for place in 0.. {
            self.room.tensor()?;
            read(self, place)?;
            if !self.cursor.more(b']').map_err(of)? {
                break;
            }
        }
        Ok(())
    }

    fn input(&mut self, place: usize) -> Result<()> {
        let mut input = Input::default();
        let read = self
            .fields(&mut input)
            .and_then(|()| self.finish(&mut input));
        let (shape, data, nulls) =
            read.map_err(|fault| input_fault(input.name.as_deref(), place, fault))?;
        let name = input.name.unwrap_or_default().into_owned();
        self.call.tensors.push(Tensor {
            name,
            shape,
            data,
            nulls,
        });
        Ok(())
    }

    fn fields(&mut self, input: &mut Input<'a>) -> Result<()> {
        self.cursor.expect(b'{', "'{'").map_err(Fault::invalid)?;
        if self.cursor.take(b'}') {
            return Ok(());
        }
        loop {
            let key = self.cursor.key().map_err(Fault::invalid)?;
            let twice = match key.as_ref() {
                "name" => input
                    .name
                    .replace(self.cursor.string().map_err(Fault::invalid)?)
                    .is_some(),
                "shape" => input.shape.replace(self.shape()?).is_some(),
                "datatype" => input.datatype.replace(self.datatype()?).is_some(),
                "parameters" => {
                    let size = &mut input.binary_bytes;
                    let take =
                        |name: &str, value: &Parameter| parameters::of_input(size, name, value);
                    each_parameter(&mut self.cursor, Fault::invalid, take)?;
                    false
                }
                "data" => {
                    let twice = !matches!(input.data, Given::Nothing);
                    input.data = self.data(input)?;
                    twice
                }
                _ => {
                    self.cursor.skip().map_err(Fault::invalid)?;
                    false
                }
            };
            if twice {
                return Err(Fault::invalid(format!("'{key}' is given twice")));
            }
            if !self.cursor.more(b'}').map_err(Fault::invalid)? {
                return Ok(());
            }
        }
    }

    fn data(&mut self, input: &Input) -> Result<Given<'a>> {
        if let (Some(datatype), Some(shape)) = (input.datatype, &input.shape) {
            let count = self.room.elements(shape)?;
            let read = elements::read(&mut self.cursor, datatype, shape, count);
            return read
                .map(|(data, nulls)| Given::Read(data, nulls))
                .map_err(Fault::invalid);
        }
        self.cursor
            .lay_aside()
            .map(Given::Unread)
            .map_err(Fault::invalid)
    }

    /// All fields are there: the data, from wherever they are.
    fn finish(&mut self, input: &mut Input<'a>) -> Result<(Vec<usize>, Data, Option<Vec<bool>>)> {
        let missing = |field: &str| Fault::invalid(format!("has no '{field}'"));
        if input.name.is_none() {
            return Err(missing("name"));
        }
        let datatype = input.datatype.ok_or_else(|| missing("datatype"))?;
        let shape = input.shape.take().ok_or_else(|| missing("shape"))?;
        let (data, nulls) = match (std::mem::take(&mut input.data), input.binary_bytes) {
            (Given::Nothing, None) => return Err(missing("data")),
            (Given::Nothing, Some(size)) => {
                let bytes = self.binary(size)?;
                let count = self.room.elements(&shape)?;
                (
                    binary::read(bytes, datatype, &shape, count).map_err(Fault::invalid)?,
                    None,
                )
            }
            (_, Some(_)) => {
                return Err(Fault::invalid(
                    "has both 'data' and 'binary_data_size'; give one",
                ));
            }
            (Given::Unread(mut cursor), None) => {
                let count = self.room.elements(&shape)?;
                elements::read(&mut cursor, datatype, &shape, count).map_err(Fault::invalid)?
            }
            (Given::Read(data, nulls), None) => (data, nulls),
        };
        Ok((shape, data, nulls))
    }

    fn binary(&mut self, size: usize) -> Result<&'a [u8]> {
        let tail = self.tail.ok_or_else(|| {
            Fault::invalid("has a 'binary_data_size', but the request has no header Inference-Header-Content-Length")
        })?;
        let (own, rest) = tail.split_at_checked(size).ok_or_else(|| {
            Fault::invalid(format!(
                "its binary_data_size is {size}, but only {} bytes of binary data are left in the body",
                tail.len()
            ))
        })?;
        self.tail = Some(rest);
        Ok(own)
    }

    fn shape(&mut self) -> Result<Vec<usize>> {
        let bad = |what: String| Fault::invalid(format!("'shape': {what}"));
        self.cursor.expect(b'[', "'['").map_err(bad)?;
        let mut shape = Vec::with_capacity(2);
        if self.cursor.take(b']') {
            return Ok(shape);
        }
        loop {
            let text = self.cursor.number("a dimension").map_err(bad)?;
            shape.push(text.parse().map_err(|_| {
                bad(format!(
                    "{text} is not a dimension: an integer that is not negative"
                ))
            })?);
            if shape.len() > self.room.rank() {
                // Counts the dimensions, which are too many.
                self.room.elements(&shape)?;
            }
            if !self.cursor.more(b']').map_err(bad)? {
                return Ok(shape);
            }
        }
    }

    fn datatype(&mut self) -> Result<Datatype> {
        let name = self
            .cursor
            .string()
            .map_err(|what| Fault::invalid(format!("'datatype': {what}")))?;
        datatype(&name)
    }

    fn output(&mut self, place: usize) -> Result<()> {
        let of = |what: String| malformed(format!("output {}: {what}", place + 1));
        self.cursor.expect(b'{', "'{'").map_err(of)?;
        let (mut name, mut binary) = (None, None);
        if !self.cursor.take(b'}') {
            loop {
                let key = self.cursor.key().map_err(of)?;
                match key.as_ref() {
                    "name" => name = Some(self.cursor.string().map_err(of)?.into_owned()),
                    "parameters" => {
                        let take = |key: &str, value: &Parameter| {
                            parameters::of_output(&mut binary, key, value)
                        };
                        each_parameter(&mut self.cursor, of, take)?;
                    }
                    _ => self.cursor.skip().map_err(of)?,
                }
                if !self.cursor.more(b'}').map_err(of)? {
                    break;
                }
            }
        }
        self.call
            .wanted
            .push(name.ok_or_else(|| of("has no 'name'".into()))?);
        self.call.forms.push(binary);
        Ok(())
    }
}

/// Reads an object of parameters, and what is made of each. `wrong` says where it stands.
fn each_parameter<'a>(
    cursor: &mut Cursor<'a>,
    wrong: impl Fn(String) -> Fault,
    mut take: impl FnMut(&str, &Parameter<'a>) -> Result<()>,
) -> Result<()> {
    cursor.expect(b'{', "'{' of parameters").map_err(&wrong)?;
    if cursor.take(b'}') {
        return Ok(());
    }
    for _ in 0..PARAMETERS {
        let name = cursor.key().map_err(&wrong)?;
        let value = parameter(cursor).map_err(&wrong)?;
        take(&name, &value)?;
        if !cursor.more(b'}').map_err(&wrong)? {
            return Ok(());
        }
    }
    Err(wrong(format!("more than {PARAMETERS} parameters")))
}

fn parameter<'a>(cursor: &mut Cursor<'a>) -> Parsed<Parameter<'a>> {
    Ok(match cursor.peek() {
        Some(b'"') => Parameter::Text(cursor.string()?),
        Some(b't') if cursor.word("true") => Parameter::Bool(true),
        Some(b'f') if cursor.word("false") => Parameter::Bool(false),
        Some(b'-' | b'0'..=b'9') => {
            let text = cursor.number("a number")?;
            text.parse().map_or(Parameter::Other, Parameter::Int)
        }
        _ => {
            cursor.skip()?;
            Parameter::Other
        }
    })
}

/// The datatype of this name; a fault that lists those there are. It does not name the input.
pub fn datatype(name: &str) -> Result<Datatype> {
    Datatype::named(name).ok_or_else(|| {
        Fault::invalid(format!(
            "datatype {name:?} is not served; there are BOOL, INT8-INT64, UINT8-UINT64, FP32, FP64 and BYTES"
        ))
    })
}
