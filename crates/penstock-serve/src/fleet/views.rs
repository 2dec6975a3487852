//! Feature views that the host fetches itself: a request brings an entity's keys, its columns are added before the plan.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{Array, ArrayRef, Int64Array, LargeStringArray};
use penstock_views::{Found, Keys, Store, View};
use serde::{Deserialize, Serialize};

use crate::error::{Fault, Kind, Result};
use crate::service::{Fetched, Request, ViewNote};
use crate::tensor::{Data, Tensor, TensorSpec, Texts};

/// How large an LMDB file may be that is only read.
const ROOM: usize = 64 << 30;

/// Which views a model reads, and where they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ViewsSpec {
    /// `lmdb:PATH` or `redis://HOST:PORT/DB`.
    pub store: String,
    /// Their names.
    pub views: Vec<String>,
}

/// A model's views, ready to be fetched.
pub struct Views {
    spec: ViewsSpec,
    store: Arc<dyn Store>,
    views: Arc<[View]>,
}

impl Views {
    fn open(spec: &ViewsSpec) -> std::result::Result<Views, String> {
        let store = penstock_views::open(&spec.store, false, ROOM).map_err(|e| e.to_string())?;
        let known = store.views().map_err(|e| e.to_string())?;
        let views = spec.views.iter().map(|name| {
            let about = known.iter().find(|(view, _)| view == name);
            let (_, about) = about.ok_or_else(|| format!("the store has no view '{name}'"))?;
            View::parse(&about.declared).map_err(|e| format!("view '{name}': {e}"))
        });
        let views = views.collect::<std::result::Result<_, _>>()?;
        let spec = spec.clone();
        Ok(Views { spec, store, views })
    }

    /// Those that are wanted: the ones that serve, or others. Says why they cannot be had.
    pub fn bring(
        wanted: Option<&ViewsSpec>,
        serving: Option<&Arc<Views>>,
    ) -> std::result::Result<Option<Arc<Views>>, String> {
        let Some(wanted) = wanted else {
            return Ok(None);
        };
        match serving.filter(|views| views.spec == *wanted) {
            Some(views) => Ok(Some(views.clone())),
            None => Views::open(wanted).map(|views| Some(Arc::new(views))),
        }
    }

    /// Adds to a request what the views tell of its entities now. Columns that the client sent stay as they are, columns
    /// that the model does not read are left out, and so are keys that it does not read: these go to the sample log alone.
    pub async fn add(&self, request: &mut Request, inputs: &[TensorSpec]) -> Result<()> {
        let asked = (self.views.iter())
            .map(|view| keys_of(view, request))
            .collect::<Result<Vec<_>>>()?;
        let (keys, broadcast): (Vec<Keys>, Vec<bool>) = asked.into_iter().unzip();
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let now_us = i64::try_from(now.as_micros()).unwrap_or(i64::MAX);
        let (store, views) = (self.store.clone(), self.views.clone());
        let read = move || {
            let asked: Vec<(&View, &Keys)> = views.iter().zip(&keys).collect();
            penstock_views::read(&*store, &asked, now_us)
        };
        let found = match self.store.waits() {
            false => read(),
            // A reply that is on its way over the network holds up nobody else.
            true => (tokio::task::spawn_blocking(read).await)
                .map_err(|error| Fault::internal(error.to_string()))?,
        };
        let found = found.map_err(|error| Fault {
            retry_after_s: Some(1),
            ..Fault::new(
                Kind::Unavailable,
                format!("its feature views cannot be read: {error}"),
            )
        })?;
        let mut notes = Vec::with_capacity(found.len());
        for ((view, found), shared) in self.views.iter().zip(found).zip(broadcast) {
            let names = found.values.schema();
            for (field, column) in names.fields().iter().zip(found.values.columns()) {
                let read = inputs.iter().any(|input| input.name == *field.name());
                let sent = request
                    .tensors
                    .iter()
                    .any(|tensor| tensor.name == *field.name());
                if read && !sent {
                    request.tensors.push(tensor(field.name(), column));
                    if shared {
                        request.broadcast.push(field.name().clone());
                    }
                }
            }
            notes.push(note(view, found));
        }
        let reads = |name: &str| inputs.iter().any(|input| input.name == name);
        let is_key = |tensor: &Tensor| {
            let name = tensor.name.strip_suffix(".null").unwrap_or(&tensor.name);
            self.views
                .iter()
                .flat_map(|view| &view.keys)
                .any(|key| key.name == name)
                && !reads(name)
        };
        let (aside, tensors) = std::mem::take(&mut request.tensors)
            .into_iter()
            .partition(is_key);
        request.tensors = tensors;
        let of = |name: &String| request.tensors.iter().any(|tensor| tensor.name == *name);
        let broadcast = std::mem::take(&mut request.broadcast);
        request.broadcast = broadcast.into_iter().filter(of).collect();
        request.fetched = Some(Arc::new(Fetched { aside, notes }));
        Ok(())
    }
}

fn note(view: &View, found: Found) -> ViewNote {
    // Of files, how many events were read says it; their names are long.
    #[derive(Deserialize)]
    struct OfFiles {
        offset: u64,
    }
    let at = match serde_json::from_str::<OfFiles>(&found.position) {
        Ok(files) => format!("{{\"offset\":{}}}", files.offset),
        Err(_) if found.position.is_empty() => "{}".to_owned(),
        Err(_) => found.position,
    };
    ViewNote {
        view: view.name.clone(),
        at,
        as_of_us: found.as_of_us,
    }
}

/// The keys of a view in a request, and whether they stand for every row.
fn keys_of(view: &View, request: &Request) -> Result<(Keys, bool)> {
    let named = view.keys.iter().map(|key| {
        let found = request
            .tensors
            .iter()
            .find(|tensor| tensor.name == key.name);
        let tensor = found.ok_or_else(|| {
            Fault::invalid(format!(
                "input '{}' is missing: view '{}' is looked up by it",
                key.name, view.name
            ))
        })?;
        let mark = format!("{}.null", key.name);
        let mark = request.tensors.iter().find(|tensor| tensor.name == mark);
        let nulls = match mark.map(|mark| &mark.data) {
            Some(Data::Bool(nulls)) => Some(nulls.as_slice()),
            _ => tensor.nulls.as_deref(),
        };
        let column = key_column(tensor, nulls, key.kind == penstock_views::Kind::Int);
        let column = column.ok_or_else(|| {
            let wanted = match key.kind {
                penstock_views::Kind::Int => "INT64",
                _ => "BYTES of UTF-8",
            };
            Fault::invalid(format!(
                "input '{}' is {}, and view '{}' is looked up by {wanted}",
                key.name,
                tensor.data.datatype(),
                view.name
            ))
        })?;
        let shared = request.broadcast.contains(&key.name);
        Ok((column, shared))
    });
    let named = named.collect::<Result<Vec<_>>>()?;
    let shared = named.iter().all(|(_, shared)| *shared);
    let rows = named
        .iter()
        .map(|(column, _)| column.len())
        .max()
        .unwrap_or_default();
    let columns: Vec<ArrayRef> = (named.into_iter())
        .map(|(column, shared)| {
            if shared {
                repeated(&column, rows)
            } else {
                column
            }
        })
        .collect();
    if let Some((key, column)) = view
        .keys
        .iter()
        .zip(&columns)
        .find(|(_, c)| c.len() != rows)
    {
        let said = format!(
            "input '{}' has leading dimension {}, not {rows}",
            key.name,
            column.len()
        );
        return Err(Fault::invalid(said));
    }
    let keys = Keys::new(columns).map_err(|error| Fault::invalid(error.to_string()))?;
    Ok((keys, shared))
}

/// One value for each of several rows, where another key of the entity has as many.
fn repeated(column: &ArrayRef, rows: usize) -> ArrayRef {
    if column.len() != 1 || rows == 1 {
        return column.clone();
    }
    match column.data_type() {
        arrow_schema::DataType::Int64 => {
            let values = column.as_primitive::<Int64Type>();
            let value = values.is_valid(0).then(|| values.value(0));
            Arc::new(Int64Array::from(vec![value; rows]))
        }
        _ => {
            let values = column.as_string::<i64>();
            let value = values.is_valid(0).then(|| values.value(0));
            Arc::new(LargeStringArray::from(vec![value; rows]))
        }
    }
}

fn key_column(tensor: &Tensor, nulls: Option<&[bool]>, int: bool) -> Option<ArrayRef> {
    let is_null = |at: usize| nulls.is_some_and(|nulls| nulls.get(at) == Some(&true));
    if !int {
        let Data::Bytes(texts) = &tensor.data else {
            return None;
        };
        let texts = texts
            .iter()
            .enumerate()
            .map(|(at, text)| match is_null(at) {
                true => Some(None),
                false => std::str::from_utf8(text).ok().map(Some),
            });
        let texts = texts.collect::<Option<Vec<_>>>()?;
        return Some(Arc::new(LargeStringArray::from(texts)));
    }
    let numbers: Vec<i64> = match &tensor.data {
        Data::I64(v) => v.clone(),
        Data::I32(v) => v.iter().map(|v| i64::from(*v)).collect(),
        Data::I16(v) => v.iter().map(|v| i64::from(*v)).collect(),
        Data::I8(v) => v.iter().map(|v| i64::from(*v)).collect(),
        Data::U32(v) => v.iter().map(|v| i64::from(*v)).collect(),
        Data::U16(v) => v.iter().map(|v| i64::from(*v)).collect(),
        Data::U8(v) => v.iter().map(|v| i64::from(*v)).collect(),
        Data::U64(v) => v
            .iter()
            .map(|v| i64::try_from(*v).ok())
            .collect::<Option<_>>()?,
        _ => return None,
    };
    let numbers = numbers.into_iter().enumerate();
    let numbers: Vec<Option<i64>> = numbers.map(|(at, v)| (!is_null(at)).then_some(v)).collect();
    Some(Arc::new(Int64Array::from(numbers)))
}

fn tensor(name: &str, column: &ArrayRef) -> Tensor {
    let shape = vec![column.len()];
    let data = match column.data_type() {
        arrow_schema::DataType::Int64 => {
            let values = column.as_primitive::<Int64Type>().iter();
            Data::I64(values.map(Option::unwrap_or_default).collect())
        }
        arrow_schema::DataType::Float64 => {
            let values = column.as_primitive::<Float64Type>().iter();
            Data::F64(values.map(|v| v.unwrap_or(f64::NAN)).collect())
        }
        arrow_schema::DataType::Boolean => {
            let values = column.as_boolean().iter();
            Data::Bool(values.map(Option::unwrap_or_default).collect())
        }
        _ => Data::Bytes(Texts::of(column).unwrap_or_default()),
    };
    let nulls =
        (column.null_count() > 0).then(|| (0..column.len()).map(|at| column.is_null(at)).collect());
    Tensor {
        nulls,
        ..Tensor::new(name, shape, data)
    }
}
