//! The resolved plan as it travels: JSON, written by `penstock.features`, read by every engine and by serving.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Debug, Deserialize)]
pub(crate) struct PlanSpec {
    pub penstock: String,
    #[serde(default)]
    pub name: String,
    pub seed: String,
    #[serde(default)]
    pub dicts: BTreeMap<String, DictSpec>,
    #[serde(default)]
    pub functions: BTreeMap<String, FunctionSpec>,
    pub items: Vec<ItemSpec>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct DictSpec {
    pub sha256: String,
    pub entries: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct FunctionSpec {
    pub takes: Takes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Takes {
    F64,
    U64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RoleSpec {
    Define,
    Slot,
    Dense,
}

#[derive(Debug, Deserialize)]
pub(crate) struct ItemSpec {
    #[serde(rename = "as")]
    pub role: RoleSpec,
    pub name: String,
    pub id: Option<u64>,
    #[serde(rename = "fn")]
    pub function: String,
    #[serde(default = "first_revision")]
    pub rev: u64,
    #[serde(default)]
    pub from: Vec<SourceSpec>,
    #[serde(default)]
    pub params: Map<String, Value>,
    pub weight: Option<SourceSpec>,
    #[serde(default)]
    pub null_key: bool,
    #[serde(default)]
    pub default: f64,
}

fn first_revision() -> u64 {
    1
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SourceSpec {
    Column(String),
    Item(usize),
}

/// A formula's tree: `{"num": 1.5}`, `{"arg": 0}`, `{"op": "+", "args": [...]}`, `{"call": "log", "args": [...]}`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Tree {
    Num { num: f64 },
    Arg { arg: usize },
    Op { op: String, args: Vec<Tree> },
    Call { call: String, args: Vec<Tree> },
}
