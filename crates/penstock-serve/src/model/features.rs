//! A model over raw columns: its plan maps them, its encoder lays them out, its scorer scores them.

use std::path::Path;
use std::time::Duration;

use super::Call;
use super::cells::floats;
use super::deep::{DeepForm, DeepScorer};
use super::encode::Encoder;
use super::graph::Run;
use super::inputs::{Column, Given, mapped_specs, rows, unknown};
use super::kinds::Kind;
use super::linear::{InputForm, MachineForm, MachineScorer, TreeScorer, TreesForm};
use super::live::{Follows, Position};
use super::manifest::{Manifest, broken};
use super::mapping::{Mapped, Mapper, Workspace};
use super::matrix::Matrix;
use super::online::{OnlineForm, OnlineScorer};
use super::{Options, Signature, Stopper};
use crate::error::{Fault, Result};
use crate::tensor::{Data, Datatype, Tensor, TensorSpec};

pub(super) struct FeatureModel {
    columns: Vec<Column>,
    mapper: Option<Mapper>,
    encoder: Encoder,
    scorer: Scorer,
    /// The fingerprint of its plan; empty where there is none.
    plan: String,
    /// Trained on one matrix without column names: the tensor that holds its rows.
    matrix: Option<InputForm>,
}

enum Scorer {
    Trees(TreeScorer),
    Machine(MachineScorer),
    Online(OnlineScorer),
    Deep(DeepScorer),
}

/// What a lane keeps between runs.
pub(super) struct Desk {
    work: Workspace,
    mapped: Mapped,
    matrix: Matrix,
    run: Option<Run>,
    /// Where in its chain the model stood as the last run saw it; None where it follows none.
    position: Option<Position>,
}

impl FeatureModel {
    pub fn open(
        folder: &Path,
        manifest: &Manifest,
        form: &str,
        options: &Options,
    ) -> Result<FeatureModel> {
        let columns = manifest
            .signature
            .inputs
            .iter()
            .map(|spec| {
                let kind = Kind::named(&spec.kind).ok_or_else(|| {
                    let said = format!(
                        "column {} is {}, which no tensor holds",
                        spec.name, spec.kind
                    );
                    broken(folder, said)
                })?;
                Ok(Column {
                    name: spec.name.clone(),
                    kind,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let names: Vec<String> = columns.iter().map(|column| column.name.clone()).collect();
        let mapper = match manifest.plan.as_str() {
            "" => None,
            fingerprint => Some(Mapper::open(
                folder,
                fingerprint,
                &options.functions,
                &names,
            )?),
        };
        let encoder = Encoder::open(folder, &manifest.encoder, mapper.as_ref(), &columns)?;
        let mut matrix = None;
        let scorer = match form {
            "trees" => {
                let mut form: TreesForm = manifest.form(folder)?;
                matrix = form.input.take();
                let width = matrix.as_ref().map_or(encoder.width(), |m| m.width);
                let fields = encoder.fields();
                Scorer::Trees(TreeScorer::open(folder, &form, width, fields)?)
            }
            "svm" => {
                let form: MachineForm = manifest.form(folder)?;
                Scorer::Machine(MachineScorer::open(folder, form)?)
            }
            "online" => {
                let form: OnlineForm = manifest.form(folder)?;
                Scorer::Online(OnlineScorer::open(folder, form, options)?)
            }
            "deep" => {
                let form: DeepForm = manifest.form(folder)?;
                Scorer::Deep(DeepScorer::open(folder, form, options)?)
            }
            other => {
                return Err(broken(
                    folder,
                    format!("a model of the unknown form {other}"),
                ));
            }
        };
        Ok(FeatureModel {
            columns,
            mapper,
            encoder,
            scorer,
            plan: manifest.plan.clone(),
            matrix,
        })
    }

    pub fn signature(&self, algorithm: &str) -> Signature {
        let inputs = match &self.matrix {
            Some(matrix) => vec![TensorSpec {
                name: matrix.name.clone(),
                datatype: Datatype::F64,
                shape: vec![-1, matrix.width as i64],
            }],
            None => {
                let column = |column: &Column| TensorSpec {
                    name: column.name.clone(),
                    datatype: column.kind.datatype(),
                    shape: vec![-1],
                };
                self.columns.iter().map(column).collect()
            }
        };
        let mapped = self.mapper.as_ref().map(|mapper| {
            mapped_specs(mapper.slots.len(), mapper.dense.len(), mapper.is_weighted())
        });
        let score = match self.classes() {
            1 => ("score", vec![-1]),
            classes => ("probabilities", vec![-1, classes as i64]),
        };
        Signature {
            platform: format!("penstock_{algorithm}"),
            inputs,
            mapped: mapped.unwrap_or_default(),
            outputs: vec![TensorSpec {
                name: score.0.into(),
                datatype: Datatype::F32,
                shape: score.1,
            }],
        }
    }

    fn width(&self) -> usize {
        let matrix = self.matrix.as_ref();
        matrix.map_or(self.encoder.width(), |matrix| matrix.width)
    }

    fn classes(&self) -> usize {
        match &self.scorer {
            Scorer::Trees(trees) => trees.classes(),
            _ => 1,
        }
    }

    pub fn deep(&self) -> Option<&DeepScorer> {
        match &self.scorer {
            Scorer::Deep(deep) => Some(deep),
            _ => None,
        }
    }

    /// What follows a chain; None where nothing does.
    pub fn live(&self) -> Option<&dyn Follows> {
        match &self.scorer {
            Scorer::Deep(deep) => deep.live().map(|live| live as &dyn Follows),
            Scorer::Online(online) => online.live().map(|live| live as &dyn Follows),
            Scorer::Trees(_) | Scorer::Machine(_) => None,
        }
    }

    /// Opens the base of a bundle's folder beside what is shown.
    pub fn stage(&self, folder: &Path, manifest: &Manifest, at: Position) -> Result<()> {
        if manifest.plan != self.plan {
            let (given, own) = (&manifest.plan, &self.plan);
            let said = format!(
                "the base {} is of the feature plan {given}, here it is {own}",
                folder.display()
            );
            return Err(Fault::invalid(said));
        }
        match &self.scorer {
            Scorer::Deep(deep) => deep.stage(folder, at),
            Scorer::Online(online) => online.stage(folder, manifest, at),
            Scorer::Trees(_) | Scorer::Machine(_) => Err(Fault::internal("it follows no chain")),
        }
    }

    pub fn desk(&self) -> Result<Desk> {
        let run = self.deep().map(DeepScorer::run).transpose()?;
        Ok(Desk {
            work: Workspace::default(),
            mapped: Mapped::default(),
            matrix: Matrix::new(self.width(), self.encoder.fields()),
            run,
            position: None,
        })
    }

    /// Reads a call into the desk's matrix. Returns its rows.
    pub fn take(&self, call: &Call, desk: &mut Desk) -> Result<usize> {
        if let Some(matrix) = &self.matrix {
            return matrix.take(call, &mut desk.matrix);
        }
        let (slots, dense) = match &self.mapper {
            Some(mapper) => (mapper.slots.len(), mapper.dense.len()),
            None => (0, 0),
        };
        let given = Given::read(call, &self.columns, slots, dense)?;
        if let Some(mapper) = &self.mapper {
            mapper.map(&given, &mut desk.work, &mut desk.mapped)?;
        }
        self.encoder
            .append(&given, &desk.mapped, &mut desk.matrix)?;
        Ok(given.rows)
    }

    /// Scores what is in the matrix: [rows x classes], and what looking rows up took. `stopper` may end it.
    pub fn score(&self, desk: &mut Desk, stopper: &Stopper) -> Result<(Vec<f64>, Duration)> {
        stopper.check()?;
        let (matrix, mut looked_up) = (&desk.matrix, Duration::ZERO);
        let (scores, position) = match &self.scorer {
            Scorer::Trees(trees) => (trees.scores(matrix, stopper)?, None),
            Scorer::Machine(machine) => (machine.scores(matrix)?, None),
            Scorer::Online(online) => online.scores(matrix)?,
            Scorer::Deep(deep) => {
                let run = desk.run.as_mut();
                let run = run.ok_or_else(|| Fault::internal("a lane without a session"))?;
                let (scores, took, position) = deep.scores(matrix, run, stopper)?;
                looked_up = took;
                (scores, position)
            }
        };
        desk.position = position;
        Ok((scores, looked_up))
    }

    /// The scores of `rows` rows from `start` as this model's output.
    pub fn output(&self, scores: &[f64], start: usize, rows: usize) -> Tensor {
        let classes = self.classes();
        let own = &scores[start * classes..(start + rows) * classes];
        let data = Data::F32(own.iter().map(|&score| score as f32).collect());
        match classes {
            1 => Tensor::new("score", vec![rows], data),
            _ => Tensor::new("probabilities", vec![rows, classes], data),
        }
    }
}

impl InputForm {
    /// Reads the one tensor of a call into the matrix. Returns its rows.
    fn take(&self, call: &Call, matrix: &mut Matrix) -> Result<usize> {
        let rows = rows(call)?;
        let [tensor] = call.tensors else {
            let said = format!("the model takes one input, '{}'", self.name);
            return Err(Fault::invalid(said));
        };
        if tensor.name != self.name {
            return Err(unknown(tensor, &[&self.name]));
        }
        let numbers = floats(&tensor.data);
        match (numbers, tensor.shape.as_slice()) {
            (Some(numbers), [_, width]) if *width == self.width => {
                matrix.numbers.extend_from_slice(&numbers);
            }
            _ => {
                return Err(Fault::invalid(format!(
                    "input '{}' is {} of shape {:?}, not FP64 of [rows, {}]",
                    self.name,
                    tensor.data.datatype(),
                    tensor.shape,
                    self.width
                )));
            }
        }
        matrix.rows += rows;
        Ok(rows)
    }
}

impl Desk {
    pub fn clear(&mut self) {
        self.matrix.clear();
    }

    pub fn run(&self) -> Option<&Run> {
        self.run.as_ref()
    }

    pub fn position(&self) -> Option<Position> {
        self.position
    }
}
