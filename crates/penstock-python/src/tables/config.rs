//! The JSON that describes a model's tables and slots, as `penstock.training.tables` writes it.

use penstock_table::{
    Admission, Bounds, Dtype, Engine, Eviction, GradientRules, Init, Keys, Missing, Optimizer,
    Score, TableConfig, TableError, UserCall, UserFunction,
};
use serde::Deserialize;

#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
pub(super) struct Store {
    #[serde(default)]
    pub threads: usize,
    tables: Vec<Table>,
    slots: Vec<Slot>,
}

#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
struct Slot {
    slot: u32,
    table: usize,
    #[serde(default)]
    mapped: bool,
}

#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
struct Table {
    name: String,
    dim: usize,
    #[serde(default)]
    dtype: DtypeName,
    optimizer: OptimizerSpec,
    learning_rate: f32,
    #[serde(default)]
    clip_value: Option<f32>,
    #[serde(default)]
    clip_norm: Option<f32>,
    #[serde(default)]
    l1: f32,
    #[serde(default)]
    l2: f32,
    #[serde(default)]
    decay: f32,
    init: InitSpec,
    #[serde(default)]
    missing: Option<MissingName>,
    #[serde(default)]
    admission: AdmissionSpec,
    #[serde(default)]
    eviction: EvictionSpec,
    #[serde(default)]
    seed: u64,
    #[serde(default)]
    memory_limit: Option<u64>,
    #[serde(default)]
    expected_rows: u64,
}

#[derive(Deserialize, Clone, Default)]
#[serde(rename_all = "lowercase")]
enum DtypeName {
    #[default]
    F32,
    F16,
    Bf16,
}

#[derive(Deserialize, Clone)]
#[serde(rename_all = "lowercase")]
enum MissingName {
    Zeros,
    Init,
}

#[derive(Deserialize, Clone)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
enum OptimizerSpec {
    Sgd,
    Momentum {
        momentum: f32,
        #[serde(default)]
        nesterov: bool,
    },
    Adagrad {
        epsilon: f32,
        #[serde(default)]
        initial: f32,
    },
    Rowwise {
        epsilon: f32,
        #[serde(default)]
        initial: f32,
    },
    Adam {
        beta1: f32,
        beta2: f32,
        epsilon: f32,
        #[serde(default)]
        per_row: bool,
    },
    Ftrl {
        beta: f32,
        l1: f32,
        l2: f32,
    },
    User {
        address: usize,
        state: usize,
        initial: f32,
    },
}

#[derive(Deserialize, Clone)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
enum InitSpec {
    Constant { value: f32 },
    Uniform { low: f32, high: f32 },
    Normal { mean: f32, deviation: f32 },
    Truncated { mean: f32, deviation: f32 },
}

#[derive(Deserialize, Clone, Default)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
enum AdmissionSpec {
    #[default]
    Always,
    Count {
        least: u32,
        sketch_bytes: usize,
        halve_every: u64,
    },
    Probability {
        p: f64,
    },
}

#[derive(Deserialize, Clone, Default)]
#[serde(deny_unknown_fields)]
struct EvictionSpec {
    #[serde(default)]
    ttl_s: Option<u32>,
    #[serde(default)]
    least_count: Option<u32>,
    #[serde(default)]
    least_norm: Option<f32>,
    #[serde(default)]
    score: Option<ScoreSpec>,
    /// The address of a user's function.
    #[serde(default)]
    policy: Option<usize>,
    #[serde(default)]
    grace_s: u32,
}

#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
struct ScoreSpec {
    show_weight: f32,
    click_weight: f32,
    half_life_s: u32,
    least: f32,
}

impl Store {
    /// The tables, empty.
    pub(super) fn build(&self) -> Result<penstock_table::Store, TableError> {
        let mut store = penstock_table::Store::default();
        let engine = Engine {
            threads: self.threads.max(1),
            ..Engine::default()
        };
        for table in &self.tables {
            store.add_table(table.clone().config(), engine)?;
        }
        for Slot {
            slot,
            table,
            mapped,
        } in &self.slots
        {
            store.add_slot(
                *slot,
                *table,
                if *mapped { Keys::Mapped } else { Keys::Raw },
            )?;
        }
        Ok(store)
    }
}

impl Table {
    fn config(self) -> TableConfig {
        let optimizer = match self.optimizer {
            OptimizerSpec::Sgd => Optimizer::Sgd,
            OptimizerSpec::Momentum { momentum, nesterov } => {
                Optimizer::Momentum { momentum, nesterov }
            }
            OptimizerSpec::Adagrad { epsilon, initial } => Optimizer::Adagrad { epsilon, initial },
            OptimizerSpec::Rowwise { epsilon, initial } => {
                Optimizer::RowwiseAdagrad { epsilon, initial }
            }
            OptimizerSpec::Adam {
                beta1,
                beta2,
                epsilon,
                per_row,
            } => Optimizer::Adam {
                beta1,
                beta2,
                epsilon,
                per_row,
            },
            OptimizerSpec::Ftrl { beta, l1, l2 } => Optimizer::Ftrl { beta, l1, l2 },
            OptimizerSpec::User {
                address,
                state,
                initial,
            } => Optimizer::User(user(address, state, initial)),
        };
        let eviction = self.eviction;
        TableConfig {
            dtype: match self.dtype {
                DtypeName::F32 => Dtype::F32,
                DtypeName::F16 => Dtype::F16,
                DtypeName::Bf16 => Dtype::Bf16,
            },
            gradient: GradientRules {
                clip_value: self.clip_value,
                clip_norm: self.clip_norm,
                l1: self.l1,
                l2: self.l2,
                decay: self.decay,
                compensation: 0.0,
            },
            init: match self.init {
                InitSpec::Constant { value } => Init::Constant(value),
                InitSpec::Uniform { low, high } => Init::Uniform { low, high },
                InitSpec::Normal { mean, deviation } => Init::Normal { mean, deviation },
                InitSpec::Truncated { mean, deviation } => Init::Truncated { mean, deviation },
            },
            missing: self.missing.map(|missing| match missing {
                MissingName::Zeros => Missing::Zeros,
                MissingName::Init => Missing::Init,
            }),
            admission: match self.admission {
                AdmissionSpec::Always => Admission::Always,
                AdmissionSpec::Count {
                    least,
                    sketch_bytes,
                    halve_every,
                } => Admission::Count {
                    least,
                    sketch_bytes,
                    halve_every,
                },
                AdmissionSpec::Probability { p } => Admission::Probability(p),
            },
            eviction: Eviction {
                ttl_s: eviction.ttl_s,
                least_count: eviction.least_count,
                least_norm: eviction.least_norm,
                score: eviction.score.map(|score| Score {
                    show_weight: score.show_weight,
                    click_weight: score.click_weight,
                    half_life_s: score.half_life_s,
                    least: score.least,
                }),
                policy: eviction.policy.map(|address| user(address, 0, 0.0)),
                grace_s: eviction.grace_s,
            },
            seed: self.seed,
            bounds: Bounds {
                memory_limit: self.memory_limit,
                ..Bounds::default()
            },
            expected_rows: self.expected_rows,
            ..TableConfig::new(self.name, self.dim, optimizer, self.learning_rate)
        }
    }
}

fn user(address: usize, state: usize, initial: f32) -> UserFunction {
    // SAFETY: the address is that of a function of this type, which `penstock.training.user_functions` compiled by this
    // signature, and which its EmbeddingTables hold as long as they live; numba's cfuncs are plain machine code that any
    // thread may run.
    unsafe {
        let call = std::mem::transmute::<*const (), UserCall>(address as *const ());
        UserFunction::new(call, std::ptr::null_mut(), state, initial)
    }
}
