//! What a raw column holds, by the Arrow type that training saw, and which tensors stand for it.

use crate::tensor::Datatype;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Int,
    UInt,
    F32,
    F64,
    Bool,
    /// Text `YYYY-MM-DD`.
    Date,
    /// Microseconds since the epoch.
    Time,
    /// JSON in BYTES.
    List(Box<Kind>),
    /// Nobody recorded it: whatever comes.
    Any,
}

impl Kind {
    /// By Arrow's name of a type, as `str(pyarrow.DataType)` gives it. None: no tensor can stand for it.
    pub fn named(name: &str) -> Option<Kind> {
        Some(match name {
            "" | "null" => Kind::Any,
            "string" | "large_string" | "string_view" => Kind::Text,
            "int8" | "int16" | "int32" | "int64" => Kind::Int,
            "uint8" | "uint16" | "uint32" | "uint64" => Kind::UInt,
            "float" | "halffloat" => Kind::F32,
            "double" => Kind::F64,
            "bool" => Kind::Bool,
            "date32[day]" | "date64[ms]" => Kind::Date,
            _ if name.starts_with("timestamp[") => Kind::Time,
            _ if name.starts_with("decimal") => Kind::F64,
            _ => return Kind::nested(name),
        })
    }

    fn nested(name: &str) -> Option<Kind> {
        if let Some(rest) = name.strip_prefix("dictionary<values=") {
            return Kind::named(rest.split(',').next()?);
        }
        // Of a fixed-size list the size follows the bracket.
        let (outer, inner) = name.rsplit_once('>')?.0.split_once('<')?;
        if !outer.ends_with("list") && !outer.ends_with("list_view") {
            return None;
        }
        let inner = inner.split_once(": ")?.1;
        match Kind::named(inner.trim_end_matches(" not null"))? {
            Kind::List(_) => None,
            inner => Some(Kind::List(Box::new(inner))),
        }
    }

    /// The tensors that the metadata asks for.
    pub fn datatype(&self) -> Datatype {
        match self {
            Kind::Text | Kind::Date | Kind::List(_) | Kind::Any => Datatype::Bytes,
            Kind::Int | Kind::Time => Datatype::I64,
            Kind::UInt => Datatype::U64,
            Kind::F32 | Kind::F64 => Datatype::F64,
            Kind::Bool => Datatype::Bool,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrow_names_are_understood() {
        for (name, kind) in [
            ("int32", Kind::Int),
            (
                "dictionary<values=string, indices=int32, ordered=0>",
                Kind::Text,
            ),
            ("list<item: string>", Kind::List(Box::new(Kind::Text))),
            (
                "large_list<element: int64 not null>",
                Kind::List(Box::new(Kind::Int)),
            ),
            (
                "fixed_size_list<item: float>[4]",
                Kind::List(Box::new(Kind::F32)),
            ),
            ("timestamp[ns, tz=UTC]", Kind::Time),
            ("decimal128(10, 2)", Kind::F64),
        ] {
            assert_eq!(Kind::named(name), Some(kind), "{name}");
        }
        assert_eq!(Kind::named("struct<a: int64>"), None);
        assert_eq!(Kind::named("list<item: list<item: int64>>"), None);
    }
}
