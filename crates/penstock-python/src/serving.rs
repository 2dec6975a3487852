//! Bindings of `penstock-serve`.

mod following;
mod host;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, BinaryArray, BooleanArray, PrimitiveArray, make_array};
use arrow_data::ArrayData;
use arrow_pyarrow::PyArrowType;
use arrow_schema::DataType;
use following::PyFollowing;
use penstock_serve::model::{Call, Following, Lane, Model, Options, load_runtime};
use penstock_serve::{Data, Fault, Kind, Tensor, TensorSpec, Texts};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<PyServedModel>()?;
    module.add_class::<host::PyHost>()?;
    module.add_class::<PyFollowing>()?;
    module.add_function(wrap_pyfunction!(inference_descriptors, module)?)
}

/// schemas/inference.proto as a serialised FileDescriptorSet: clients make their messages from it.
#[pyfunction]
fn inference_descriptors() -> &'static [u8] {
    penstock_serve::DESCRIPTORS
}

/// A client's fault is a ValueError, ours a RuntimeError.
fn raised(fault: Fault) -> PyErr {
    match fault.kind {
        Kind::Internal => PyRuntimeError::new_err(fault.message),
        _ => PyValueError::new_err(fault.message),
    }
}

type Declared = (String, &'static str, Vec<i64>);
/// A tensor: its name, its shape, its elements.
type Given = (String, Vec<usize>, PyArrowType<ArrayData>);

/// A bundle as the serving host opens and scores it, without the host: for proofs and offline comparisons.
#[pyclass(name = "ServedModel", frozen, module = "penstock._native")]
struct PyServedModel {
    model: Arc<Model>,
    lane: Mutex<Lane>,
}

#[pymethods]
impl PyServedModel {
    /// `onnxruntime`: where libonnxruntime.so is; "" where no graph needs it. `functions`: addresses of user functions.
    /// `overlay_bytes`: the model follows a chain, with so much room beside its rows.
    #[new]
    #[pyo3(signature = (folder, onnxruntime = PathBuf::new(), functions = None, threads = 1, overlay_bytes = None))]
    fn new(
        py: Python<'_>,
        folder: PathBuf,
        onnxruntime: PathBuf,
        functions: Option<HashMap<String, usize>>,
        threads: usize,
        overlay_bytes: Option<u64>,
    ) -> PyResult<Self> {
        let following = overlay_bytes.map(|overlay_bytes| Following {
            overlay_bytes,
            max_lag_s: f64::INFINITY,
        });
        let options = Options {
            threads,
            functions: functions.unwrap_or_default(),
            following,
        };
        let open = || {
            if !onnxruntime.as_os_str().is_empty() {
                load_runtime(&onnxruntime)?;
            }
            let model = Arc::new(Model::open(&folder, &options)?);
            let lane = Mutex::new(model.lane()?);
            Ok(PyServedModel { model, lane })
        };
        py.detach(open).map_err(raised)
    }

    /// For whoever follows its chain; None where it follows none.
    fn following(&self) -> Option<PyFollowing> {
        let model = self.model.clone();
        model.progress().map(|_| PyFollowing::of(model))
    }

    /// Generation and sequence number that the last `predict` saw; None where it follows no chain.
    #[getter]
    fn position(&self) -> Option<(u64, u64)> {
        let lane = self.lane.lock().unwrap_or_else(PoisonError::into_inner);
        lane.position().map(|at| (at.generation, at.sequence))
    }

    /// (name, datatype, shape) of each input; -1 is any size.
    #[getter]
    fn inputs(&self) -> Vec<Declared> {
        declared(&self.model.signature().inputs)
    }

    /// The second input form.
    #[getter]
    fn mapped(&self) -> Vec<Declared> {
        declared(&self.model.signature().mapped)
    }

    #[getter]
    fn outputs(&self) -> Vec<Declared> {
        declared(&self.model.signature().outputs)
    }

    #[getter]
    fn platform(&self) -> &str {
        &self.model.signature().platform
    }

    /// Score named tensors, each (name, shape, elements as one flat Arrow array); outputs come alike.
    ///
    /// Raises ValueError naming the input that does not fit.
    #[pyo3(signature = (tensors, broadcast = Vec::new()))]
    fn predict(
        &self,
        py: Python<'_>,
        tensors: Vec<Given>,
        broadcast: Vec<String>,
    ) -> PyResult<Vec<Given>> {
        let tensors = tensors
            .into_iter()
            .map(|(name, shape, data)| tensor(name, shape, make_array(data.0)))
            .collect::<PyResult<Vec<_>>>()?;
        let run = || {
            let mut lane = self.lane.lock().unwrap_or_else(PoisonError::into_inner);
            let call = Call {
                tensors: &tensors,
                broadcast: &broadcast,
            };
            let (mut answers, _) = lane.run(&[call]);
            answers.pop().unwrap_or_else(|| Ok(vec![]))
        };
        let outputs = py.detach(run).map_err(raised)?;
        Ok(outputs.into_iter().map(given).collect())
    }
}

fn declared(specs: &[TensorSpec]) -> Vec<Declared> {
    specs
        .iter()
        .map(|spec| (spec.name.clone(), spec.datatype.name(), spec.shape.clone()))
        .collect()
}

fn tensor(name: String, shape: Vec<usize>, array: ArrayRef) -> PyResult<Tensor> {
    if shape.iter().product::<usize>() != array.len() {
        let said = format!("input '{name}': {} elements for {shape:?}", array.len());
        return Err(PyValueError::new_err(said));
    }
    fn numbers<T: ArrowPrimitiveType>(array: &ArrayRef) -> Vec<T::Native> {
        array.as_primitive::<T>().values().to_vec()
    }
    let nulls =
        (array.null_count() > 0).then(|| (0..array.len()).map(|at| array.is_null(at)).collect());
    let data = match array.data_type() {
        DataType::Boolean => Data::Bool(array.as_boolean().values().iter().collect()),
        DataType::UInt8 => Data::U8(numbers::<UInt8Type>(&array)),
        DataType::UInt16 => Data::U16(numbers::<UInt16Type>(&array)),
        DataType::UInt32 => Data::U32(numbers::<UInt32Type>(&array)),
        DataType::UInt64 => Data::U64(numbers::<UInt64Type>(&array)),
        DataType::Int8 => Data::I8(numbers::<Int8Type>(&array)),
        DataType::Int16 => Data::I16(numbers::<Int16Type>(&array)),
        DataType::Int32 => Data::I32(numbers::<Int32Type>(&array)),
        DataType::Int64 => Data::I64(numbers::<Int64Type>(&array)),
        DataType::Float32 => Data::F32(numbers::<Float32Type>(&array)),
        DataType::Float64 => Data::F64(numbers::<Float64Type>(&array)),
        other => match Texts::of(&array) {
            Some(texts) => Data::Bytes(texts),
            None => {
                let what = format!("input '{name}': a tensor holds no {other}");
                return Err(PyValueError::new_err(what));
            }
        },
    };
    let mut made = Tensor::new(name, shape, data);
    made.nulls = nulls;
    Ok(made)
}

fn given(tensor: Tensor) -> Given {
    fn array<T: ArrowPrimitiveType>(values: Vec<T::Native>) -> ArrayData {
        PrimitiveArray::<T>::from_iter_values(values).into_data()
    }
    let data = match tensor.data {
        Data::Bool(v) => BooleanArray::from(v).into_data(),
        Data::U8(v) => array::<UInt8Type>(v),
        Data::U16(v) => array::<UInt16Type>(v),
        Data::U32(v) => array::<UInt32Type>(v),
        Data::U64(v) => array::<UInt64Type>(v),
        Data::I8(v) => array::<Int8Type>(v),
        Data::I16(v) => array::<Int16Type>(v),
        Data::I32(v) => array::<Int32Type>(v),
        Data::I64(v) => array::<Int64Type>(v),
        Data::F32(v) => array::<Float32Type>(v),
        Data::F64(v) => array::<Float64Type>(v),
        Data::Bytes(texts) => BinaryArray::from_iter_values(texts.iter()).into_data(),
    };
    (tensor.name, tensor.shape, PyArrowType(data))
}
