//! Rows to warm up with: the bundle's own where it has some, else one of nothing.

use std::path::Path;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Float64Type, Int64Type, TimeUnit, UInt64Type};

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

fn tensor(spec: &TensorSpec, column: &ArrayRef) -> Option<Tensor> {
    let rows = column.len();
    let wanted = match spec.datatype {
        Datatype::Bytes => DataType::LargeBinary,
        Datatype::I64 => DataType::Int64,
        Datatype::U64 => DataType::UInt64,
        Datatype::F32 => DataType::Float32,
        Datatype::F64 => DataType::Float64,
        Datatype::Bool => DataType::Boolean,
        _ => return None,
    };
    let column = match column.data_type() {
        DataType::Timestamp(_, zone) => {
            let micros = DataType::Timestamp(TimeUnit::Microsecond, zone.clone());
            cast(column, &micros).ok()?
        }
        _ => column.clone(),
    };
    let column = cast(&column, &wanted).ok()?;
    let data = match spec.datatype {
        Datatype::Bytes => {
            let mut texts = Texts::default();
            let each = column.as_binary::<i64>().iter();
            each.for_each(|text| texts.push(text.unwrap_or_default()));
            Data::Bytes(texts)
        }
        Datatype::I64 => Data::I64(column.as_primitive::<Int64Type>().values().to_vec()),
        Datatype::U64 => Data::U64(column.as_primitive::<UInt64Type>().values().to_vec()),
        Datatype::F32 => Data::F32(column.as_primitive::<Float32Type>().values().to_vec()),
        Datatype::F64 => Data::F64(column.as_primitive::<Float64Type>().values().to_vec()),
        _ => Data::Bool(column.as_boolean().values().iter().collect()),
    };
    let mut made = Tensor::new(spec.name.clone(), vec![rows], data);
    let nulls = (0..rows).map(|row| column.is_null(row)).collect();
    made.nulls = (column.null_count() > 0).then_some(nulls);
    Some(made)
}
