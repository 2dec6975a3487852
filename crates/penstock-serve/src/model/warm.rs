//! Rows to warm up with: the bundle's own where it has some, else one of nothing.

use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef};
use arrow_schema::{DataType, TimeUnit};
use num_traits::{NumCast, ToPrimitive};

use super::weights::Rows;
use crate::tensor::{Data, Datatype, Tensor, TensorSpec, Texts};

const FILE: &str = "warmup.parquet";

/// The columns of the bundle's warm-up rows that are inputs and that a tensor holds; none where it has no such rows.
pub(super) fn rows(folder: &Path, inputs: &[TensorSpec]) -> Vec<Tensor> {
    if !folder.join(FILE).is_file() {
        return vec![];
    }
    let Ok(rows) = Rows::read(folder, FILE) else {
        return vec![];
    };
    let column = |spec: &TensorSpec| tensor(spec, rows.named(&spec.name)?);
    inputs.iter().filter_map(column).collect()
}

/// One row: nulls for columns, zeros for tensors.
pub(super) fn nothing(inputs: &[TensorSpec], columns: bool) -> Vec<Tensor> {
    let zero = |spec: &TensorSpec| {
        let shape: Vec<usize> = spec.shape.iter().map(|&n| n.max(1) as usize).collect();
        let count = shape.iter().product();
        let data = match spec.datatype {
            Datatype::Bool => Data::Bool(vec![false; count]),
            Datatype::U8 => Data::U8(vec![0; count]),
            Datatype::U16 => Data::U16(vec![0; count]),
            Datatype::U32 => Data::U32(vec![0; count]),
            Datatype::U64 => Data::U64(vec![0; count]),
            Datatype::I8 => Data::I8(vec![0; count]),
            Datatype::I16 => Data::I16(vec![0; count]),
            Datatype::I32 => Data::I32(vec![0; count]),
            Datatype::I64 => Data::I64(vec![0; count]),
            Datatype::F32 => Data::F32(vec![0.0; count]),
            Datatype::F64 => Data::F64(vec![0.0; count]),
            Datatype::Bytes => {
                let mut texts = Texts::default();
                (0..count).for_each(|_| texts.push(b""));
                Data::Bytes(texts)
            }
        };
        let mut made = Tensor::new(spec.name.clone(), shape, data);
        made.nulls = columns.then(|| vec![true; count]);
        made
    };
    inputs.iter().map(zero).collect()
}

/// A column's cells, or those of a list a row (which a tensor of several values a row is stored as).
fn tensor(spec: &TensorSpec, column: &ArrayRef) -> Option<Tensor> {
    let rows = column.len();
    let inner = column
        .as_fixed_size_list_opt()
        .map(|lists| (lists.values(), lists.value_length() as usize));
    let (column, width) = inner.unwrap_or((column, 1));
    let data = match spec.datatype {
        Datatype::Bytes => Data::Bytes(Texts::of(column)?),
        Datatype::U8 => Data::U8(numbers(column)?),
        Datatype::U16 => Data::U16(numbers(column)?),
        Datatype::U32 => Data::U32(numbers(column)?),
        Datatype::U64 => Data::U64(numbers(column)?),
        Datatype::I8 => Data::I8(numbers(column)?),
        Datatype::I16 => Data::I16(numbers(column)?),
        Datatype::I32 => Data::I32(numbers(column)?),
        Datatype::I64 => Data::I64(numbers(column)?),
        Datatype::F32 => Data::F32(numbers(column)?),
        Datatype::F64 => Data::F64(numbers(column)?),
        Datatype::Bool => Data::Bool(column.as_boolean_opt()?.values().iter().collect()),
    };
    let mut made = Tensor::new(spec.name.clone(), shape(&spec.shape, rows, width)?, data);
    let nulls = (0..column.len()).map(|row| column.is_null(row)).collect();
    made.nulls = (column.null_count() > 0).then_some(nulls);
    Some(made)
}

/// `asked` with `rows` in front and `width` values a row behind it; None where they do not go in.
fn shape(asked: &[i64], rows: usize, width: usize) -> Option<Vec<usize>> {
    let mut shape = vec![rows];
    let tail = asked.get(1..).unwrap_or_default();
    let fixed: usize = tail.iter().map(|&n| n.max(1) as usize).product();
    let mut left = width.checked_div(fixed)?;
    for &n in tail {
        // What may be of any length: the first such takes what is left.
        let mut free = |_| std::mem::replace(&mut left, 1);
        shape.push(usize::try_from(n).unwrap_or_else(&mut free));
    }
    (shape[1..].iter().product::<usize>() == width).then_some(shape)
}

/// Numbers of any type as `T`; instants as microseconds. A null, and what does not fit, is 0: these rows only warm up.
fn numbers<T: NumCast + Default>(column: &ArrayRef) -> Option<Vec<T>> {
    fn all<A: ArrowPrimitiveType<Native: ToPrimitive>, T: NumCast + Default>(
        column: &ArrayRef,
    ) -> Option<Vec<T>> {
        let cell = |cell: Option<A::Native>| cell.and_then(T::from).unwrap_or_default();
        Some(column.as_primitive::<A>().iter().map(cell).collect())
    }
    match column.data_type() {
        DataType::Int8 => all::<Int8Type, T>(column),
        DataType::Int16 => all::<Int16Type, T>(column),
        DataType::Int32 => all::<Int32Type, T>(column),
        DataType::Int64 => all::<Int64Type, T>(column),
        DataType::UInt8 => all::<UInt8Type, T>(column),
        DataType::UInt16 => all::<UInt16Type, T>(column),
        DataType::UInt32 => all::<UInt32Type, T>(column),
        DataType::UInt64 => all::<UInt64Type, T>(column),
        DataType::Float32 => all::<Float32Type, T>(column),
        DataType::Float64 => all::<Float64Type, T>(column),
        DataType::Timestamp(TimeUnit::Microsecond, _) => all::<TimestampMicrosecondType, T>(column),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{FixedSizeListArray, Int64Array};
    use arrow_schema::Field;

    use super::*;

    #[test]
    fn several_values_a_row_have_the_shape_that_is_asked_for() {
        let field = Arc::new(Field::new("item", DataType::Int64, true));
        let cells = Arc::new(Int64Array::from_iter_values(0..12));
        let lists = FixedSizeListArray::try_new(field, 6, cells, None).expect("lists");
        let column: ArrayRef = Arc::new(lists);
        let spec = |shape: &[i64]| TensorSpec {
            name: "x".into(),
            datatype: Datatype::I32,
            shape: shape.to_vec(),
        };
        for (asked, given) in [
            (&[-1, 6][..], &[2, 6][..]),
            (&[-1, 2, 3], &[2, 2, 3]),
            (&[-1, -1], &[2, 6]),
            (&[-1, 3, -1, -1], &[2, 3, 2, 1]),
        ] {
            let made = tensor(&spec(asked), &column).expect("a tensor");
            assert_eq!(made.shape, given);
            assert_eq!(made.data, Data::I32((0..12).collect()));
        }
        assert!(tensor(&spec(&[-1, 4]), &column).is_none());
        assert!(tensor(&spec(&[-1]), &column).is_none());
    }
}
