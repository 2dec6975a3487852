//! Weights by raw key, from a bundle's Parquet files.

use std::fs::File;
use std::path::Path;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type};
use arrow_array::{Array, ArrayRef, Int32Array, RecordBatch, UInt64Array};
use arrow_schema::DataType;
use arrow_select::concat::concat_batches;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use penstock_training::key_table::KeyTable;

use super::manifest::broken;
use super::matrix::Keys;
use crate::error::{Fault, Result};

/// A Parquet file of a bundle, whole.
pub(super) struct Rows<'f> {
    folder: &'f Path,
    name: &'f str,
    batch: RecordBatch,
}

impl<'f> Rows<'f> {
    pub fn read(folder: &'f Path, name: &'f str) -> Result<Rows<'f>> {
        let fault = |error: &dyn std::fmt::Display| broken(folder, format!("{name}: {error}"));
        let file = File::open(folder.join(name)).map_err(|error| fault(&error))?;
        let reader = ParquetRecordBatchReaderBuilder::try_new(file)
            .and_then(|builder| builder.with_batch_size(1 << 16).build())
            .map_err(|error| fault(&error))?;
        let schema = arrow_array::RecordBatchReader::schema(&reader);
        let batches = reader
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(|error| fault(&error))?;
        let batch = concat_batches(&schema, &batches).map_err(|error| fault(&error))?;
        Ok(Rows {
            folder,
            name,
            batch,
        })
    }

    pub fn fault(&self, what: &str) -> Fault {
        broken(self.folder, format!("{}: {what}", self.name))
    }

    pub fn named(&self, name: &str) -> Option<&ArrayRef> {
        self.batch.column_by_name(name)
    }

    fn column(&self, name: &str, wanted: &DataType) -> Result<&ArrayRef> {
        let column = self.batch.column_by_name(name);
        column
            .filter(|c| c.data_type() == wanted && c.null_count() == 0)
            .ok_or_else(|| self.fault(&format!("column {name}")))
    }

    pub fn fields(&self) -> Result<&Int32Array> {
        Ok(self.column("field", &DataType::Int32)?.as_primitive())
    }

    pub fn keys(&self) -> Result<&UInt64Array> {
        Ok(self.column("key", &DataType::UInt64)?.as_primitive())
    }

    pub fn f64s(&self, name: &str) -> Result<&[f64]> {
        let column = self.column(name, &DataType::Float64)?;
        Ok(column.as_primitive::<Float64Type>().values())
    }

    pub fn f32s(&self, name: &str) -> Result<&[f32]> {
        let column = self.column(name, &DataType::Float32)?;
        Ok(column.as_primitive::<Float32Type>().values())
    }

    /// A column of lists of f32, all `width` long, one after another.
    pub fn vectors(&self, name: &str, width: usize) -> Result<Vec<f32>> {
        let fault = || self.fault(&format!("column {name}"));
        let column = self.batch.column_by_name(name).ok_or_else(fault)?;
        let values = match column.data_type() {
            DataType::FixedSizeList(..) => column.as_fixed_size_list().values().clone(),
            DataType::List(_) => column.as_list::<i32>().values().clone(),
            DataType::LargeList(_) => column.as_list::<i64>().values().clone(),
            _ => return Err(fault()),
        };
        let floats = values
            .as_primitive_opt::<Float32Type>()
            .ok_or_else(fault)?
            .values();
        if floats.len() != width * self.batch.num_rows() {
            return Err(fault());
        }
        Ok(floats.to_vec())
    }

    /// Where each of `count` fields begins among the rows, which are sorted by field.
    pub fn bounds(&self, count: usize) -> Result<Vec<usize>> {
        let fields = self.fields()?.values();
        let outside = fields.iter().any(|&f| f < 0 || f as usize >= count);
        if !fields.is_sorted() || outside {
            return Err(self.fault("its fields are out of order"));
        }
        Ok((0..=count as i32)
            .map(|field| fields.partition_point(|&f| f < field))
            .collect())
    }
}

/// A weight a key, field by field.
pub(super) struct Weights(Vec<KeyTable>);

impl Weights {
    pub fn read(folder: &Path, name: &str, fields: usize) -> Result<Weights> {
        if fields == 0 {
            return Ok(Weights(vec![]));
        }
        let rows = Rows::read(folder, name)?;
        let (keys, weights) = (rows.keys()?.values(), rows.f64s("weight")?);
        let tables = rows.bounds(fields)?;
        let tables = tables.windows(2).map(|at| {
            KeyTable::new(&keys[at[0]..at[1]], &weights[at[0]..at[1]])
                .map_err(|error| rows.fault(&error.to_string()))
        });
        Ok(Weights(tables.collect::<Result<_>>()?))
    }

    /// `margins[row] += sum of weight * value` over all fields.
    pub fn add(&self, fields: &[Keys], margins: &mut [f64]) -> Result<()> {
        for (table, keys) in self.0.iter().zip(fields) {
            table
                .add(&keys.offsets, &keys.keys, keys.values.as_deref(), margins)
                .map_err(|error| Fault::internal(error.to_string()))?;
        }
        Ok(())
    }
}
