//! What each key of a row means, in words, from the very run that made the key.

use crate::block::{Block, Kind};
use crate::canonical::Writer;
use crate::civil;
use crate::error::ApplyError;
use crate::eval::State;
use crate::functions::{Family, Function};
use crate::plan::{Item, Plan, Role};
use crate::row::Value;

/// One key of a row.
#[derive(Debug, Clone, PartialEq)]
pub struct Explained {
    pub item: String,
    pub key: u64,
    pub text: String,
    pub weight: f32,
}

impl Plan {
    /// Every key of a row, in file order, with what it stands for.
    pub fn explain_row(&self, row: &[Value<'_>]) -> Result<Vec<Explained>, ApplyError> {
        let mut state = State::default();
        state.trace = true;
        self.evaluate_row(row, &mut state)?;
        let teller = Teller {
            plan: self,
            blocks: &state.blocks,
        };
        let mut found = Vec::new();
        for (index, item) in self.items.iter().enumerate() {
            let source = self.columns.len() + index;
            let block = &state.blocks[source];
            if !matches!(item.role, Role::Slot { .. }) {
                continue;
            }
            for e in block.row(0).filter(|e| block.valid.bits[*e]) {
                let weight = if block.weighted {
                    block.weights[e] as f32
                } else {
                    1.0
                };
                found.push(Explained {
                    item: item.name.clone(),
                    key: block.words[e],
                    text: teller.element(source, e),
                    weight,
                });
            }
        }
        Ok(found)
    }
}

struct Teller<'r> {
    plan: &'r Plan,
    blocks: &'r [Block<'r>],
}

impl Teller<'_> {
    /// What element `e` of a source is.
    fn element(&self, source: usize, e: usize) -> String {
        let block = &self.blocks[source];
        match self.plan.item_of(source) {
            Some(item) if block.kind == Kind::UInt && !moves_elements(item) => {
                self.of_item(item, block, e)
            }
            _ => plain(block, e),
        }
    }

    /// What the value of an item was made of.
    fn of_item(&self, item: &Item, block: &Block<'_>, e: usize) -> String {
        if matches!(item.role, Role::Slot { .. })
            && crate::keys::NULL_VALUE == block.words[e] & crate::keys::NULL_VALUE
        {
            return "null".into();
        }
        let origin = if block.lists {
            block.origins.get(e).copied().unwrap_or(e)
        } else {
            e
        };
        let value = block.words[e] ^ item.base();
        match &item.function {
            Function::Hash | Function::MultiHot | Function::Sequence { .. } | Function::Hit => {
                self.element(item.from[0], origin)
            }
            Function::Pickcat {
                dictionary,
                unknown,
            } => {
                let text = self.element(item.from[0], origin);
                let known = self.blocks[item.from[0]].bytes.get(origin).map_or_else(
                    || dictionary.get(text.as_bytes()).is_some(),
                    |bytes| dictionary.get(bytes).is_some(),
                );
                if known || unknown.is_none() {
                    format!("{text} = entry {value}")
                } else {
                    format!("{text} is not in the dictionary: {value}")
                }
            }
            Function::Piecewise { bounds } => {
                let at = usize::try_from(value)
                    .unwrap_or(usize::MAX)
                    .min(bounds.len());
                let range = match (at.checked_sub(1).map(|below| bounds[below]), bounds.get(at)) {
                    (None, Some(above)) => format!("below {above}"),
                    (Some(below), Some(above)) => format!("in [{below}, {above})"),
                    (Some(below), None) => format!("from {below} up"),
                    (None, None) => String::new(),
                };
                format!("{} {range}", self.element(item.from[0], origin))
            }
            Function::Time { part, .. } => format!(
                "{} {value} of {}",
                part.name(),
                self.element(item.from[0], origin)
            ),
            Function::Combine => self.parts(item, |_| Some(0)),
            Function::Descartes { .. } => self.combination(item, origin),
            _ if item.from.len() == 1 => {
                format!("{value} from {}", self.element(item.from[0], origin))
            }
            _ => value.to_string(),
        }
    }

    /// `city=Paris × price_b=12 in [10, 50)`.
    fn parts(&self, item: &Item, element: impl Fn(usize) -> Option<usize>) -> String {
        let part = |(input, source): (usize, &usize)| {
            let text = element(input).map_or_else(|| "null".into(), |e| self.element(*source, e));
            format!("{}={text}", self.plan.source_name(*source))
        };
        item.from
            .iter()
            .enumerate()
            .map(part)
            .collect::<Vec<_>>()
            .join(" × ")
    }

    /// The parts of the `ordinal`-th combination, last part fastest.
    fn combination(&self, item: &Item, ordinal: usize) -> String {
        let held = |source: &usize| -> Vec<usize> {
            let block = &self.blocks[*source];
            block.row(0).filter(|e| block.valid.bits[*e]).collect()
        };
        let elements: Vec<Vec<usize>> = item.from.iter().map(held).collect();
        let mut rest = ordinal;
        let mut chosen = vec![None; elements.len()];
        for (input, part) in elements
            .iter()
            .enumerate()
            .rev()
            .filter(|(_, part)| !part.is_empty())
        {
            chosen[input] = Some(part[rest % part.len()]);
            rest /= part.len();
        }
        self.parts(item, |input| chosen[input])
    }
}

/// Whether this define's elements are those of its input, not made by it.
fn moves_elements(item: &Item) -> bool {
    let family = item.function.family();
    item.role == Role::Define
        && (family == Family::Selections || matches!(item.function, Function::Identity))
}

/// A raw value, or a define's or dense's number.
fn plain(block: &Block<'_>, e: usize) -> String {
    if block.valid.bits.get(e) != Some(&true) {
        return "null".into();
    }
    match block.kind {
        Kind::Float => block.floats[e].to_string(),
        Kind::Time => civil::show(block.ints[e]),
        _ => String::from_utf8_lossy(Writer::default().bytes(block, e)).into_owned(),
    }
}
