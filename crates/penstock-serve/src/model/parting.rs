//! A plan in two: what some columns alone decide, and the rest. With a user and a thousand candidates, the user's
//! features are mapped once.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use penstock_features::Attachments;
use serde_json::{Value as Json, json};

use super::part::Part;

/// Sets of broadcast columns that are remembered: clients have a few shapes of request, and cannot fill memory.
const REMEMBERED: usize = 16;

pub(super) struct Parting {
    document: Json,
    attachments: Attachments,
    raw: Vec<String>,
    /// By which raw columns are broadcast.
    made: Mutex<HashMap<Vec<bool>, Option<Arc<Parts>>>>,
}

pub(super) struct Parts {
    pub fixed: Part,
    pub varying: Part,
    /// The features that `fixed` gives; the others are `varying`'s, even if either computes more on its way.
    names: HashSet<String>,
}

impl Parts {
    /// Whether it is from this part that a feature is taken.
    pub fn gives(&self, part: &Part, name: &str) -> bool {
        self.names.contains(name) == std::ptr::eq(part, &self.fixed)
    }
}

impl Parting {
    pub fn new(
        document: &str,
        attachments: Attachments,
        raw: &[String],
    ) -> Result<Parting, String> {
        Ok(Parting {
            document: serde_json::from_str(document).map_err(|error| error.to_string())?,
            attachments,
            raw: raw.to_vec(),
            made: Mutex::default(),
        })
    }

    /// The two parts; None where there is nothing to gain, or too many shapes of request have been seen.
    pub fn of(&self, broadcast: &[bool]) -> Option<Arc<Parts>> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = made.get(broadcast) {
            return found.clone();
        }
        if made.len() == REMEMBERED {
            return None;
        }
        let parts = self.part(broadcast).map(Arc::new);
        made.insert(broadcast.to_vec(), parts.clone());
        parts
    }

    fn part(&self, broadcast: &[bool]) -> Option<Parts> {
        let items = self.document["items"].as_array()?;
        let is_fixed = |column: &str| {
            let at = self.raw.iter().position(|name| name == column);
            at.is_some_and(|at| broadcast[at])
        };
        let mut fixed: Vec<bool> = vec![];
        for item in items {
            let own = sources(item).all(|source| match source {
                Source::Column(name) => is_fixed(name),
                Source::Item(at) => fixed.get(at).copied().unwrap_or(false),
            });
            fixed.push(own);
        }
        let given = |wanted: bool| -> BTreeSet<usize> {
            let outputs = (0..items.len()).filter(|&at| items[at]["as"] != "define");
            outputs.filter(|&at| fixed[at] == wanted).collect()
        };
        let (alone, rest) = (given(true), given(false));
        if alone.is_empty() || rest.is_empty() {
            return None;
        }
        let name = |&at: &usize| items[at]["name"].as_str().map(str::to_string);
        Some(Parts {
            names: alone.iter().filter_map(name).collect(),
            fixed: self.compile(items, alone)?,
            varying: self.compile(items, rest)?,
        })
    }

    /// A plan of these items and all that they read.
    fn compile(&self, items: &[Json], wanted: BTreeSet<usize>) -> Option<Part> {
        let mut kept = wanted;
        for at in (0..items.len()).rev() {
            if kept.contains(&at) {
                kept.extend(sources(&items[at]).filter_map(|source| match source {
                    Source::Item(before) => Some(before),
                    Source::Column(_) => None,
                }));
            }
        }
        let places: HashMap<usize, usize> = kept.iter().copied().zip(0..).collect();
        let moved = |source: &Json| match source["item"].as_u64() {
            Some(at) => json!({"item": places[&(at as usize)]}),
            None => source.clone(),
        };
        let item = |&at: &usize| {
            let mut item = items[at].clone();
            if let Some(from) = item["from"].as_array() {
                item["from"] = from.iter().map(moved).collect();
            }
            if item["weight"].is_object() {
                item["weight"] = moved(&item["weight"]);
            }
            item
        };
        let mut document = self.document.clone();
        document["items"] = kept.iter().map(item).collect();
        Part::compile(&document.to_string(), &self.attachments, &self.raw).ok()
    }
}

enum Source<'j> {
    Column(&'j str),
    Item(usize),
}

fn sources(item: &Json) -> impl Iterator<Item = Source<'_>> {
    let from = item["from"].as_array().into_iter().flatten();
    let weight = item.get("weight").filter(|weight| weight.is_object());
    from.chain(weight).filter_map(|source| {
        let column = source["column"].as_str().map(Source::Column);
        column.or_else(|| source["item"].as_u64().map(|at| Source::Item(at as usize)))
    })
}
