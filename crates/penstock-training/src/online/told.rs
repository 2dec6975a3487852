//! What a chain is told of a model in training: changed rows as they score, keys that went, and what is no key's (ADR 0043).
//!
//! A table of the chain is a field. Its rows are the weight and then the factors; what a row has for its next step stays here.

use std::collections::HashSet;

use penstock_table::delta::{self, Pack, PackError, Packer};

use super::model::Model;
use super::step::{FIRST, W};
use super::trainer::Trainer;

/// The weight of the bias; of the numbers, in order; and their factors, number by number.
pub const BIAS: &str = "bias";
pub const NUMBERS: &str = "numbers";
pub const NUMBER_FACTORS: &str = "number_factors";

/// A weight that is no key's: name, shape, values.
pub type Own = (&'static str, Vec<u64>, Vec<f32>);

impl Model {
    /// Values of a row that score.
    pub(crate) fn scoring(&self) -> usize {
        1 + self.settings.rank()
    }

    /// The weights that are no key's; no entries for what the model has none of.
    pub fn own_weights(&self) -> Vec<Own> {
        let (count, rank) = (self.numbers as u64, self.settings.rank());
        let rows = || (1..=self.numbers).map(|number| self.own_row(number));
        let mut out = vec![(BIAS, vec![1], vec![self.own_row(0)[W]])];
        if count > 0 {
            out.push((NUMBERS, vec![count], rows().map(|row| row[W]).collect()));
        }
        if count > 0 && rank > 0 {
            let factors = rows().flat_map(|row| &row[FIRST..FIRST + rank]);
            let factors = factors.copied().collect();
            out.push((NUMBER_FACTORS, vec![count, rank as u64], factors));
        }
        out
    }
}

/// Between two calls of `learn`; rows that wait for their micro-batch have changed nothing yet.
impl Trainer {
    /// From here on changes are kept for `consumer`, who has the rows as they are.
    pub fn track(&mut self, consumer: &str) {
        delta::track(&mut self.model.store, consumer);
    }

    /// As `delta::pack`: what changed since `consumer` was told last, and of field i the keys `named[i]` as they are. Costs
    /// what the changed rows cost.
    pub fn pack(
        &mut self,
        consumer: &str,
        named: Vec<HashSet<u64>>,
        packer: Packer,
    ) -> Result<(Pack, Vec<u32>), PackError> {
        let settings = &self.model.settings;
        let factors = settings.factors.as_ref();
        let factors = factors.map(|_| FIRST..FIRST + settings.rank());
        let columns = std::iter::once(W..W + 1).chain(factors).collect();
        delta::pack(&mut self.model.store, consumer, named, packer.only(columns))
    }

    /// `consumer` has everything before these epochs, one a field.
    pub fn tell(&mut self, consumer: &str, epochs: &[u32]) {
        delta::tell(&mut self.model.store, consumer, epochs);
    }
}
