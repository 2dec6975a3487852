//! ONNX Runtime: its library is loaded once a process, from the wheel; a session a lane.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use ort::session::builder::GraphOptimizationLevel;
use ort::session::{NoSelectedOutputs, RunOptions, Session, SessionInputValue};
use ort::value::{DynValue, Tensor as OrtTensor, TensorElementType, ValueType};

use super::dense::Dense;
use super::live::Lanes;
use super::manifest::broken;
use crate::error::{Fault, Kind, Result};
use crate::tensor::{Data, Datatype, Tensor, TensorSpec, Texts};

static LOADED: Mutex<bool> = Mutex::new(false);

/// Loads `libonnxruntime.so`. Fails with what the loader says; once loaded, further calls do nothing.
pub fn load_runtime(library: &Path) -> Result<()> {
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if !*loaded {
        let fault = |error: ort::Error| {
            Fault::internal(format!("ONNX Runtime {}: {error}", library.display()))
        };
        ort::init_from(library).map_err(fault)?.commit();
        *loaded = true;
    }
    Ok(())
}

fn is_loaded() -> bool {
    *LOADED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A model's graph, as bytes: each lane makes its own session of it.
#[derive(Clone)]
pub(super) struct Graph {
    bytes: Arc<Vec<u8>>,
    threads: usize,
    pub inputs: Vec<TensorSpec>,
    pub outputs: Vec<TensorSpec>,
}

pub(super) struct Run {
    session: Session,
    options: Arc<RunOptions<NoSelectedOutputs>>,
    /// Of a model that follows a chain: whose session it is, and a place among its lanes.
    dense: u64,
    _lane: Option<Lanes>,
}

impl Graph {
    pub fn open(folder: &Path, name: &str, threads: usize) -> Result<Graph> {
        if !is_loaded() {
            let said = "it needs ONNX Runtime, which was not found: pip install 'penstock[local]'";
            return Err(broken(folder, said));
        }
        let bytes = std::fs::read(folder.join(name))
            .map_err(|error| broken(folder, format!("{name}: {error}")))?;
        let mut graph = Graph {
            bytes: Arc::new(bytes),
            threads: threads.max(1),
            inputs: vec![],
            outputs: vec![],
        };
        let session = graph
            .session()
            .map_err(|error| broken(folder, format!("{name}: {error}")))?;
        let specs = |outlets: &[ort::value::Outlet]| {
            outlets
                .iter()
                .map(|outlet| spec(outlet.name(), outlet.dtype()))
                .collect::<std::result::Result<Vec<_>, String>>()
                .map_err(|what| broken(folder, format!("{name}: {what}")))
        };
        let found = (specs(session.inputs())?, specs(session.outputs())?);
        (graph.inputs, graph.outputs) = found;
        Ok(graph)
    }

    fn session(&self) -> ort::Result<Session> {
        Session::builder()?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_intra_threads(self.threads)?
            .with_inter_threads(1)?
            .with_intra_op_spinning(false)?
            .commit_from_memory(&self.bytes)
    }

    pub fn threads(&self) -> usize {
        self.threads
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The same graph with other weights in it.
    pub fn with_bytes(&self, bytes: Vec<u8>) -> Graph {
        Graph {
            bytes: Arc::new(bytes),
            ..self.clone()
        }
    }

    pub fn session_of(&self) -> Result<Session> {
        self.session().map_err(internal)
    }

    pub fn run(&self) -> Result<Run> {
        let made = || Ok((self.session()?, RunOptions::new()?));
        let (session, options) = made().map_err(internal)?;
        Ok(Run {
            session,
            options: Arc::new(options),
            dense: 0,
            _lane: None,
        })
    }
}

impl Run {
    /// As one of the lanes of a model that follows a chain.
    pub fn among(self, lanes: &Lanes, dense: &Dense) -> Run {
        Run {
            dense: dense.number,
            _lane: Some(lanes.clone()),
            ..self
        }
    }

    /// From here on it runs this graph.
    pub fn follow(&mut self, dense: &Dense) -> Result<()> {
        if self.dense != dense.number {
            dense.exchange(&mut self.session)?;
            self.dense = dense.number;
        }
        Ok(())
    }

    pub fn options(&self) -> Arc<RunOptions<NoSelectedOutputs>> {
        self.options.clone()
    }

    /// Runs the graph on named values, each filled by `fill`; `read` sees each output by name.
    pub fn run<T>(
        &mut self,
        inputs: Vec<(&str, DynValue)>,
        read: impl FnOnce(&ort::session::SessionOutputs) -> Result<T>,
    ) -> Result<T> {
        let inputs: Vec<(std::borrow::Cow<str>, SessionInputValue)> = inputs
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        let outputs = self
            .session
            .run_with_options(inputs, &*self.options)
            .map_err(|error| {
                let text = error.to_string();
                if text.contains("terminate flag") {
                    Fault::new(Kind::Late, "the deadline passed while the model ran")
                } else if text.contains("while running") {
                    // An operator failed, not the check of what came in: live would fail of it too if it were the client's.
                    Fault::internal(format!("the model's graph failed: {text}"))
                } else {
                    Fault::invalid(format!("the model's graph refused the inputs: {text}"))
                }
            })?;
        read(&outputs)
    }
}

/// A tensor as the runtime takes it.
pub(super) fn value(shape: &[usize], data: Data) -> Result<DynValue> {
    let shape: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
    let made = match data {
        Data::Bool(v) => OrtTensor::from_array((shape, v)).map(OrtTensor::into_dyn),
        Data::U8(v) => OrtTensor::from_array((shape, v)).map(OrtTensor::into_dyn),
        Data::U16(v) => OrtTensor::from_array((shape, v)).map(OrtTensor::into_dyn),
        Data::U32(v) => OrtTensor::from_array((shape, v)).map(OrtTensor::into_dyn),
        Data::U64(v) => OrtTensor::from_array((shape, v)).map(OrtTensor::into_dyn),
        Data::I8(v) => OrtTensor::from_array((shape, v)).map(OrtTensor::into_dyn),
        Data::I16(v) => OrtTensor::from_array((shape, v)).map(OrtTensor::into_dyn),
        Data::I32(v) => OrtTensor::from_array((shape, v)).map(OrtTensor::into_dyn),
        Data::I64(v) => OrtTensor::from_array((shape, v)).map(OrtTensor::into_dyn),
        Data::F32(v) => OrtTensor::from_array((shape, v)).map(OrtTensor::into_dyn),
        Data::F64(v) => OrtTensor::from_array((shape, v)).map(OrtTensor::into_dyn),
        Data::Bytes(texts) => {
            let strings: Vec<String> = texts
                .iter()
                .map(|text| String::from_utf8_lossy(text).into_owned())
                .collect();
            OrtTensor::from_string_array((shape, &strings[..])).map(OrtTensor::into_dyn)
        }
    };
    made.map_err(|error| Fault::invalid(error.to_string()))
}

/// An output as it goes out.
pub(super) fn tensor(name: &str, value: &ort::value::ValueRef<'_>) -> Result<Tensor> {
    let ValueType::Tensor { ty, .. } = value.dtype() else {
        return Err(Fault::internal(format!("output '{name}' is not a tensor")));
    };
    macro_rules! numbers {
        ($($element:ident, $rust:ty, $data:ident);*) => {
            match ty {
                $(TensorElementType::$element => {
                    let (shape, values) = value.try_extract_tensor::<$rust>().map_err(internal)?;
                    (sizes(shape), Data::$data(values.to_vec()))
                })*
                TensorElementType::String => {
                    let (shape, strings) = value.try_extract_strings().map_err(internal)?;
                    let mut texts = Texts::default();
                    strings.iter().for_each(|text| texts.push(text.as_bytes()));
                    (sizes(shape), Data::Bytes(texts))
                }
                other => return Err(Fault::internal(format!("output '{name}' is of {other:?}"))),
            }
        };
    }
    let (shape, data) = numbers!(
        Bool, bool, Bool; Uint8, u8, U8; Uint16, u16, U16; Uint32, u32, U32; Uint64, u64, U64;
        Int8, i8, I8; Int16, i16, I16; Int32, i32, I32; Int64, i64, I64; Float32, f32, F32; Float64, f64, F64
    );
    Ok(Tensor::new(name, shape, data))
}

fn internal(error: ort::Error) -> Fault {
    Fault::internal(error.to_string())
}

fn sizes(shape: &[i64]) -> Vec<usize> {
    shape.iter().map(|&n| n.max(0) as usize).collect()
}

fn spec(name: &str, value: &ValueType) -> std::result::Result<TensorSpec, String> {
    let ValueType::Tensor { ty, shape, .. } = value else {
        return Err(format!("'{name}' is {value}, not a tensor"));
    };
    let datatype = match ty {
        TensorElementType::Bool => Datatype::Bool,
        TensorElementType::Uint8 => Datatype::U8,
        TensorElementType::Uint16 => Datatype::U16,
        TensorElementType::Uint32 => Datatype::U32,
        TensorElementType::Uint64 => Datatype::U64,
        TensorElementType::Int8 => Datatype::I8,
        TensorElementType::Int16 => Datatype::I16,
        TensorElementType::Int32 => Datatype::I32,
        TensorElementType::Int64 => Datatype::I64,
        TensorElementType::Float32 => Datatype::F32,
        TensorElementType::Float64 => Datatype::F64,
        TensorElementType::String => Datatype::Bytes,
        other => return Err(format!("'{name}' is of {other:?}, which is not served")),
    };
    Ok(TensorSpec {
        name: name.into(),
        datatype,
        shape: shape.iter().copied().collect(),
    })
}
