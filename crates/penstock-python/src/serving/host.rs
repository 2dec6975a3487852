//! The serving host: doors over a fleet, steered by JSON documents. Requests never see Python.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use penstock_serve::Service;
use penstock_serve::auth::TokenSettings;
use penstock_serve::door::{Doors, Open, Settings};
use penstock_serve::fleet::markers::Markers;
use penstock_serve::fleet::{Desired, Fleet};
use penstock_serve::model::{Model, load_runtime};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use super::following::PyFollowing;
use super::raised;

/// A running host: it answers from the moment it is made, and is ready once `apply` was told what to serve.
#[pyclass(name = "Host", frozen, module = "penstock._native")]
pub struct PyHost {
    fleet: Fleet<Model>,
    open: Mutex<Option<Open>>,
    addresses: (String, String),
}

fn wrong(error: &dyn std::fmt::Display) -> PyErr {
    PyValueError::new_err(error.to_string())
}

#[pymethods]
impl PyHost {
    /// `settings`: the doors', as JSON. `markers`: the file where workers say what they run, for whoever looks after a
    /// crash. `onnxruntime`: where libonnxruntime.so is; "" serves only models without a graph.
    ///
    /// Raises ValueError for settings that cannot be, RuntimeError where ports or files cannot be had.
    #[new]
    #[pyo3(signature = (settings, markers = None, onnxruntime = PathBuf::new()))]
    fn new(
        py: Python<'_>,
        settings: &str,
        markers: Option<PathBuf>,
        onnxruntime: PathBuf,
    ) -> PyResult<Self> {
        let settings: Settings = serde_json::from_str(settings).map_err(|error| wrong(&error))?;
        let markers = match markers {
            Some(path) => Markers::create(&path)
                .map_err(|error| PyRuntimeError::new_err(format!("{}: {error}", path.display())))?,
            None => Markers::none(),
        };
        let open = || {
            if !onnxruntime.as_os_str().is_empty() {
                load_runtime(&onnxruntime)?;
            }
            let fleet = Fleet::new(markers);
            let doors = Doors::bind(settings)?;
            let addresses = (doors.http().to_string(), doors.grpc().to_string());
            let open = doors.serve(Arc::new(fleet.clone()))?;
            Ok(PyHost {
                fleet,
                open: Mutex::new(Some(open)),
                addresses,
            })
        };
        py.detach(open).map_err(raised)
    }

    /// HOST:PORT of HTTP and of gRPC.
    #[getter]
    fn addresses(&self) -> (String, String) {
        self.addresses.clone()
    }

    /// Make it serve what the document says; returns, as JSON, what came of it. Blocks while models load.
    fn apply(&self, py: Python<'_>, desired: &str) -> PyResult<String> {
        let desired = Desired::parse(desired).map_err(|error| wrong(&error))?;
        let report = py.detach(|| self.fleet.apply(desired));
        serde_json::to_string(&report).map_err(|error| wrong(&error))
    }

    /// Who serves, who gets what and how it goes, as JSON; does not wait for `apply`.
    fn status(&self) -> PyResult<String> {
        serde_json::to_string(&self.fleet.status()).map_err(|error| wrong(&error))
    }

    /// Whether everything serves as it should, and follows as closely as it should.
    fn ready(&self) -> bool {
        Service::ready(&self.fleet)
    }

    /// A version that is loaded and follows a chain; None where it is not or does not.
    fn following(&self, model: &str, label: &str) -> Option<PyFollowing> {
        let model = self.fleet.engine(model, label)?;
        model.progress().map(|_| PyFollowing::of(model))
    }

    /// What happened since the last call, a JSON document each.
    fn events(&self) -> Vec<String> {
        self.fleet.events()
    }

    /// Requests from now on are judged by these tokens (JSON).
    fn set_tokens(&self, tokens: &str) -> PyResult<()> {
        let tokens: Vec<TokenSettings> =
            serde_json::from_str(tokens).map_err(|error| wrong(&error))?;
        self.opened(|open| open.set_tokens(&tokens).map_err(raised))
    }

    fn reload_certificates(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.opened(|open| open.reload_certificates().map_err(raised)))
    }

    /// Not ready at once; connections for `accept_s` more seconds; then what is there is answered, within `finish_s`.
    /// Returns whether all was. The host is closed afterwards.
    fn drain(&self, py: Python<'_>, accept_s: f64, finish_s: f64) -> bool {
        py.detach(|| {
            let open = self
                .open
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            self.fleet.drain();
            let (accept, finish) = (seconds(accept_s), seconds(finish_s));
            let all = open.is_some_and(|open| open.drain(accept, finish));
            self.fleet.close(finish);
            all
        })
    }
}

impl PyHost {
    fn opened(&self, work: impl FnOnce(&Open) -> PyResult<()>) -> PyResult<()> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        match open.as_ref() {
            Some(open) => work(open),
            None => Err(PyRuntimeError::new_err("the host was drained")),
        }
    }
}

fn seconds(given: f64) -> Duration {
    Duration::try_from_secs_f64(given).unwrap_or_default()
}
