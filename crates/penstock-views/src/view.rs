//! A declared view, as the control side writes it: what an event has, what is kept of it, for how long.

use serde::{Deserialize, Serialize};

use crate::Fault;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Int,
    Float,
    Str,
    Bool,
}

/// A value that events bring, or that reading gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    pub name: String,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Function {
    Count,
    Sum,
    Mean,
    Last,
}

/// Over one of the view's windows. `input`: of its inputs; `count` may do without.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Aggregate {
    pub name: String,
    pub function: Function,
    #[serde(default)]
    pub input: Option<usize>,
    pub window: usize,
    /// Floats are added as whole numbers of 10^-decimals.
    #[serde(default)]
    pub decimals: u32,
}

/// Time is cut into panes of `every_us` since the epoch. Sliding: the last `size_us / every_us` panes, the one under way
/// among them. Tumbling (`every_us` = `size_us`): the last pane that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    pub size_us: i64,
    pub every_us: i64,
    pub tumbling: bool,
}

/// A view. Events have `inputs`; what is read are `columns` (inputs as the newest event had them), then `aggregates`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct View {
    pub name: String,
    pub entity: String,
    /// The columns that name an entity, each an int or a str.
    pub keys: Vec<Column>,
    pub inputs: Vec<Column>,
    /// Name in the result, and which input.
    pub columns: Vec<(String, usize)>,
    pub aggregates: Vec<Aggregate>,
    pub windows: Vec<Window>,
    #[serde(default)]
    pub ttl_us: Option<i64>,
    /// Of the declaration: what was written under another one is not read.
    pub fingerprint: u64,
}

/// More panes than that are no window but a history.
pub const MOST_PANES: i64 = 10_000;

impl View {
    /// From the control side's JSON. Fails for what contradicts itself.
    pub fn parse(text: &str) -> Result<View, Fault> {
        let view: View = serde_json::from_str(text).map_err(|e| Fault::Declared(e.to_string()))?;
        view.check().map_err(Fault::Declared)?;
        Ok(view)
    }

    fn check(&self) -> Result<(), String> {
        let input = |at: usize| self.inputs.get(at).ok_or(format!("it has no input {at}"));
        for (name, at) in &self.columns {
            input(*at).map_err(|wrong| format!("column '{name}': {wrong}"))?;
        }
        for aggregate in &self.aggregates {
            let name = &aggregate.name;
            let of = aggregate.input.map(input).transpose()?;
            let fits = match (aggregate.function, of) {
                (Function::Count, _) | (Function::Last, Some(_)) => true,
                (Function::Sum | Function::Mean, Some(of)) => {
                    matches!(of.kind, Kind::Int | Kind::Float)
                }
                (_, None) => false,
            };
            if !fits || aggregate.window >= self.windows.len() || aggregate.decimals > 15 {
                return Err(format!(
                    "aggregate '{name}' does not fit its input or window"
                ));
            }
        }
        for window in &self.windows {
            let whole = window.every_us > 0 && window.size_us % window.every_us == 0;
            if !whole || window.panes() < 1 || window.panes() > MOST_PANES {
                return Err(format!(
                    "a window of {} us in panes of {} us",
                    window.size_us, window.every_us
                ));
            }
        }
        if self.ttl_us.is_some_and(|ttl| ttl <= 0) {
            return Err("a ttl that is not positive".into());
        }
        Ok(())
    }

    /// What reading gives, in order.
    pub fn outputs(&self) -> Vec<Column> {
        let columns = self.columns.iter().map(|(name, at)| Column {
            name: name.clone(),
            kind: self.inputs[*at].kind,
        });
        let aggregates = self.aggregates.iter().map(|aggregate| Column {
            name: aggregate.name.clone(),
            kind: match (aggregate.function, aggregate.input) {
                (Function::Count, _) => Kind::Int,
                (Function::Mean, _) => Kind::Float,
                (_, Some(at)) => self.inputs[at].kind,
                (_, None) => Kind::Int,
            },
        });
        columns.chain(aggregates).collect()
    }
}

impl Window {
    pub fn panes(&self) -> i64 {
        self.size_us / self.every_us
    }

    pub fn pane(&self, time_us: i64) -> i64 {
        time_us.div_euclid(self.every_us)
    }

    /// The first and last pane that count at a time.
    pub fn counted(&self, at_us: i64) -> (i64, i64) {
        let now = self.pane(at_us);
        match self.tumbling {
            true => (now.saturating_sub(1), now.saturating_sub(1)),
            false => (now.saturating_sub(self.panes() - 1), now),
        }
    }

    /// The first pane that may still count at this time or later.
    pub fn kept(&self, at_us: i64) -> i64 {
        self.counted(at_us).0
    }
}
