//! The plan: names resolved to indices, parameters checked, dictionaries attached; immutable from then on.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::dictionary::Dictionary;
use crate::error::PlanError;
use crate::functions::Function;
use crate::keys::{MAX_SLOT, VALUE_BITS};
use crate::spec::{ItemSpec, PlanSpec, RoleSpec, SourceSpec, Takes};

/// What a plan is given besides its JSON.
#[derive(Default)]
pub struct Attachments {
    pub dictionaries: HashMap<String, Arc<Dictionary>>,
    /// Addresses of C functions, by the names the plan calls them.
    pub functions: HashMap<String, usize>,
}

/// What an item is to the outside.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Role {
    Define,
    Slot { id: u64, null_key: bool },
    Dense { default: f32 },
}

/// One define, slot or dense. Sources number the raw columns first, then the items in file order.
#[derive(Debug)]
pub(crate) struct Item {
    pub name: String,
    pub role: Role,
    pub function: Function,
    pub from: Vec<usize>,
    pub weight: Option<usize>,
}

impl Item {
    /// A key of this item is this, or'ed with the value: the slot's id in the high bits, nothing for a define.
    pub(crate) fn base(&self) -> u64 {
        match self.role {
            Role::Slot { id, .. } => id << VALUE_BITS,
            _ => 0,
        }
    }

    pub(crate) fn null_key(&self) -> bool {
        matches!(self.role, Role::Slot { null_key: true, .. })
    }
}

/// A compiled plan. Cheap to share (`Arc`), and never changed by applying it.
#[derive(Debug)]
pub struct Plan {
    pub(crate) name: String,
    pub(crate) seed: u64,
    pub(crate) columns: Vec<String>,
    pub(crate) items: Vec<Item>,
}

impl Plan {
    /// Compile the resolved plan's JSON.
    pub fn compile(json: &str, attachments: &Attachments) -> Result<Self, PlanError> {
        let spec: PlanSpec = serde_json::from_str(json)?;
        if spec.penstock != "plan/1" {
            return Err(PlanError::Version(spec.penstock));
        }
        let seed = spec
            .seed
            .parse()
            .map_err(|_| PlanError::Seed(spec.seed.clone()))?;
        let dictionaries = dictionaries(&spec, attachments)?;
        let functions = functions(&spec, attachments)?;
        let columns = columns(&spec);
        let mut plan = Plan {
            name: spec.name.clone(),
            seed,
            columns,
            items: Vec::with_capacity(spec.items.len()),
        };
        let (mut names, mut ids) = (HashSet::new(), HashMap::new());
        for item in &spec.items {
            let fault = |reason| PlanError::Item {
                item: item.name.clone(),
                reason,
            };
            if !names.insert(item.name.as_str()) {
                return Err(fault("the name is taken by an earlier item".into()));
            }
            if let (RoleSpec::Slot, Some(id)) = (item.role, item.id)
                && let Some(other) = ids.insert(id, item.name.clone())
            {
                return Err(fault(format!("slot id {id} is already that of '{other}'")));
            }
            let compiled = plan.item(item, &dictionaries, &functions).map_err(fault)?;
            plan.items.push(compiled);
        }
        Ok(plan)
    }

    fn item(
        &self,
        spec: &ItemSpec,
        dictionaries: &HashMap<&str, Arc<Dictionary>>,
        functions: &HashMap<&str, (Takes, usize)>,
    ) -> Result<Item, String> {
        if spec.rev != 1 {
            return Err(format!(
                "revision {} of {} is not known to this kernel",
                spec.rev, spec.function
            ));
        }
        let from = spec
            .from
            .iter()
            .map(|source| self.source(source))
            .collect::<Result<Vec<_>, _>>()?;
        let weight = spec
            .weight
            .as_ref()
            .map(|source| self.source(source))
            .transpose()?;
        let function = Function::compile(spec, dictionaries, functions)?;
        let role = match spec.role {
            RoleSpec::Define => Role::Define,
            RoleSpec::Slot => match spec.id {
                Some(id @ 1..=MAX_SLOT) => Role::Slot {
                    id,
                    null_key: spec.null_key,
                },
                Some(id) => return Err(format!("slot id {id} is not in 1..{MAX_SLOT}")),
                None => return Err("a slot needs an id".into()),
            },
            RoleSpec::Dense if spec.default.is_finite() && (spec.default as f32).is_finite() => {
                Role::Dense {
                    default: spec.default as f32,
                }
            }
            RoleSpec::Dense => return Err(format!("default {} is not a finite f32", spec.default)),
        };
        if weight.is_some() && spec.role != RoleSpec::Slot {
            return Err("only slots have weights".into());
        }
        function.check_place(&spec.function, spec.role, from.len())?;
        let numbers: &[usize] = if function.reads_numbers() { &from } else { &[] };
        if let Some(slot) = numbers
            .iter()
            .chain(&weight)
            .find_map(|source| self.slot(*source))
        {
            return Err(format!("'{slot}' is a slot; keys are not numbers"));
        }
        Ok(Item {
            name: spec.name.clone(),
            role,
            function,
            from,
            weight,
        })
    }

    fn source(&self, source: &SourceSpec) -> Result<usize, String> {
        match source {
            SourceSpec::Column(name) => {
                let found = self.columns.iter().position(|column| column == name);
                found.ok_or_else(|| format!("column '{name}' is unknown"))
            }
            SourceSpec::Item(index) if *index < self.items.len() => Ok(self.columns.len() + index),
            SourceSpec::Item(index) => Err(format!(
                "it reads from item {index}, which does not come before it"
            )),
        }
    }

    fn slot(&self, source: usize) -> Option<&str> {
        let item = self.item_of(source)?;
        matches!(item.role, Role::Slot { .. }).then_some(item.name.as_str())
    }

    /// The item behind a source; None for a raw column.
    pub(crate) fn item_of(&self, source: usize) -> Option<&Item> {
        source
            .checked_sub(self.columns.len())
            .map(|index| &self.items[index])
    }

    /// What people call a source.
    pub(crate) fn source_name(&self, source: usize) -> &str {
        self.item_of(source)
            .map_or_else(|| self.columns[source].as_str(), |item| item.name.as_str())
    }

    /// The feature file's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The raw columns it reads, in order of first use; rows are given in this order.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The names of its slots, in file order.
    pub fn slots(&self) -> impl Iterator<Item = &str> {
        let slots = self
            .items
            .iter()
            .filter(|item| matches!(item.role, Role::Slot { .. }));
        slots.map(|item| item.name.as_str())
    }

    /// The names of its dense features, in file order.
    pub fn dense(&self) -> impl Iterator<Item = &str> {
        let dense = self
            .items
            .iter()
            .filter(|item| matches!(item.role, Role::Dense { .. }));
        dense.map(|item| item.name.as_str())
    }

    /// Whether the slot of this name has weights of its own.
    pub fn is_weighted(&self, slot: &str) -> bool {
        self.items
            .iter()
            .any(|item| item.name == slot && self.weighted(item))
    }

    /// Whether this item's keys carry weights: its own, or those of slots that it crosses.
    pub(crate) fn weighted(&self, item: &Item) -> bool {
        let crossed = |source: &usize| {
            self.item_of(*source)
                .is_some_and(|part| self.weighted(part))
        };
        matches!(item.role, Role::Slot { .. })
            && (item.weight.is_some()
                || matches!(item.function, Function::Descartes { .. })
                    && item.from.iter().any(crossed))
    }
}

fn columns(spec: &PlanSpec) -> Vec<String> {
    let mut seen = HashSet::new();
    let sources = spec
        .items
        .iter()
        .flat_map(|item| item.from.iter().chain(&item.weight));
    sources
        .filter_map(|source| match source {
            SourceSpec::Column(name) if seen.insert(name) => Some(name.clone()),
            _ => None,
        })
        .collect()
}

fn dictionaries<'s>(
    spec: &'s PlanSpec,
    attachments: &Attachments,
) -> Result<HashMap<&'s str, Arc<Dictionary>>, PlanError> {
    let mut found = HashMap::new();
    for (name, wanted) in &spec.dicts {
        let fault = |reason: String| PlanError::Dictionary {
            name: name.clone(),
            reason,
        };
        let given = attachments.dictionaries.get(name);
        let given =
            given.ok_or_else(|| fault("it is named by the plan but was not given to it".into()))?;
        if given.len() as u64 != wanted.entries || given.sha256() != wanted.sha256 {
            return Err(fault(format!(
                "its content is not what the plan was made with ({} values, sha256 {}; wanted {}, {})",
                given.len(),
                given.sha256(),
                wanted.entries,
                wanted.sha256,
            )));
        }
        found.insert(name.as_str(), Arc::clone(given));
    }
    Ok(found)
}

fn functions<'s>(
    spec: &'s PlanSpec,
    attachments: &Attachments,
) -> Result<HashMap<&'s str, (Takes, usize)>, PlanError> {
    let functions: &BTreeMap<_, _> = &spec.functions;
    functions
        .iter()
        .map(|(name, function)| match attachments.functions.get(name) {
            Some(address) if *address != 0 => Ok((name.as_str(), (function.takes, *address))),
            _ => Err(PlanError::MissingFunction(name.clone())),
        })
        .collect()
}
