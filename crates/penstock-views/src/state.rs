//! What is kept of one entity under one view: the newest values, and partial sums a pane. Batch and stream share it.
//!
//! Every partial is a whole number (floats as so many 10^-decimals), so that no order of adding shows in the result.

use crate::Fault;
use crate::cell::{Bytes, Cell, Seen, put_varint};
use crate::view::{Aggregate, Function, Kind, View, Window};

const FORMAT: u8 = 1;
/// Beyond this a float has no place in a sum.
const LARGEST: f64 = 9.2e18;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// The time of the newest event; None: there was none.
    newest_us: Option<i64>,
    /// The newest values of `view.columns`, a cell each.
    latest: Vec<Cell>,
    /// A list for each window of the view, oldest pane first.
    windows: Vec<Vec<Pane>>,
}

#[derive(Clone, Debug, PartialEq)]
struct Pane {
    number: i64,
    /// Those of the aggregates over this window, in their order.
    partials: Vec<Partial>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Partial {
    count: u64,
    sum: i128,
    /// `last`: the newest value that is not null, and its time.
    last: Option<(i64, Cell)>,
}

impl State {
    pub fn newest_us(&self) -> Option<i64> {
        self.newest_us
    }

    /// Adds an event. Of events at the same time the later one counts as newer. `cells`: an input of the view each.
    pub fn add(&mut self, view: &View, time_us: i64, cells: &[Cell]) {
        self.windows.resize_with(view.windows.len(), Vec::new);
        let before = self.newest_us;
        let newest = before.map_or(time_us, |before| before.max(time_us));
        self.newest_us = Some(newest);
        if before.is_none_or(|before| time_us >= before) {
            self.latest.clear();
            let values = view.columns.iter().map(|(_, at)| cells[*at].clone());
            self.latest.extend(values);
        }
        for (number, (window, panes)) in view.windows.iter().zip(&mut self.windows).enumerate() {
            let first = window.kept(newest);
            let stale = panes.partition_point(|pane| pane.number < first);
            panes.drain(..stale);
            if window.pane(time_us) >= first {
                let pane = pane_of(panes, window, time_us, view, number);
                let own = view.aggregates.iter().filter(|a| a.window == number);
                for (aggregate, partial) in own.zip(&mut pane.partials) {
                    partial.add(view, aggregate, time_us, cells);
                }
            }
        }
    }

    /// The view's outputs at a time, or at the newest event's where that is later. Adds them to `to`.
    pub fn read(&self, view: &View, at_us: i64, to: &mut Vec<Cell>) {
        let at_us = as_of(self.newest_us, at_us);
        let empty = is_empty(view, self.newest_us, at_us);
        match empty {
            true => to.extend(view.columns.iter().map(|_| Cell::Null)),
            false => to.extend(self.latest.iter().cloned()),
        }
        let mut places = vec![0; view.windows.len()];
        for aggregate in &view.aggregates {
            let place = &mut places[aggregate.window];
            let mut total = Partial::default();
            if !empty && let Some(panes) = self.windows.get(aggregate.window) {
                let (first, last) = view.windows[aggregate.window].counted(at_us);
                let counted = panes.iter().filter(|p| (first..=last).contains(&p.number));
                counted.for_each(|pane| total.merge(&pane.partials[*place]));
            }
            *place += 1;
            to.push(total.result(view, aggregate));
        }
    }

    pub fn encode(&self, view: &View, to: &mut Vec<u8>) {
        to.push(FORMAT);
        to.extend_from_slice(&view.fingerprint.to_le_bytes());
        to.push(u8::from(self.newest_us.is_some()));
        to.extend_from_slice(&self.newest_us.unwrap_or_default().to_le_bytes());
        if self.newest_us.is_some() {
            self.latest.iter().for_each(|cell| cell.write(to));
        }
        for (number, window) in view.windows.iter().enumerate() {
            let panes = self.windows.get(number).map_or(&[][..], Vec::as_slice);
            put_varint(to, panes.len() as u64);
            let mut before = window.kept(self.newest_us.unwrap_or_default());
            for pane in panes {
                put_varint(to, (pane.number - before) as u64);
                before = pane.number;
                let own = view.aggregates.iter().filter(|a| a.window == number);
                for (aggregate, partial) in own.zip(&pane.partials) {
                    partial.write(aggregate, to);
                }
            }
        }
    }

    /// What `encode` wrote. `Redeclared` where that was under another declaration.
    pub fn decode(view: &View, bytes: &[u8]) -> Result<State, Fault> {
        let mut from = Bytes(bytes);
        let newest_us = read_head(view, &mut from)?;
        let newest = newest_us.unwrap_or_default();
        let mut state = State {
            newest_us,
            ..State::default()
        };
        if newest_us.is_some() {
            let cells = view.columns.iter().map(|_| Cell::read(&mut from));
            state.latest = cells.collect::<Result<_, _>>()?;
        }
        for (number, window) in view.windows.iter().enumerate() {
            let count = from.varint()?;
            let mut before = window.kept(newest);
            let mut panes = Vec::with_capacity(count.min(64) as usize);
            for _ in 0..count {
                let step = i64::try_from(from.varint()?).map_err(|_| Fault::Damaged)?;
                before = before.checked_add(step).ok_or(Fault::Damaged)?;
                let own = view.aggregates.iter().filter(|a| a.window == number);
                let partials = own
                    .map(|a| Partial::read(a, &mut from))
                    .collect::<Result<_, _>>()?;
                panes.push(Pane {
                    number: before,
                    partials,
                });
            }
            state.windows.push(panes);
        }
        Ok(state)
    }
}

/// The newest event's time, from the front of a blob. `Redeclared` where it was written under another declaration.
pub(crate) fn read_head(view: &View, from: &mut Bytes<'_>) -> Result<Option<i64>, Fault> {
    if from.byte()? != FORMAT {
        return Err(Fault::Damaged);
    }
    if from.word()? != view.fingerprint {
        return Err(Fault::Redeclared(view.name.clone()));
    }
    let any = from.byte()? == 1;
    let newest = from.word()? as i64;
    Ok(any.then_some(newest))
}

/// As of when an entity is read: the time asked for, or its newest event's where that is later.
pub(crate) fn as_of(newest_us: Option<i64>, at_us: i64) -> i64 {
    newest_us.map_or(at_us, |newest| newest.max(at_us))
}

/// Whether nothing is known of an entity by then.
pub(crate) fn is_empty(view: &View, newest_us: Option<i64>, at_us: i64) -> bool {
    let gone = |newest| {
        view.ttl_us
            .is_some_and(|ttl| at_us.saturating_sub(newest) > ttl)
    };
    newest_us.is_none_or(gone)
}

fn pane_of<'p>(
    panes: &'p mut Vec<Pane>,
    window: &Window,
    time_us: i64,
    view: &View,
    of: usize,
) -> &'p mut Pane {
    let number = window.pane(time_us);
    let at = panes.partition_point(|pane| pane.number < number);
    if panes.get(at).is_none_or(|pane| pane.number != number) {
        let count = view.aggregates.iter().filter(|a| a.window == of).count();
        let partials = vec![Partial::default(); count];
        panes.insert(at, Pane { number, partials });
    }
    &mut panes[at]
}

impl Partial {
    fn add(&mut self, view: &View, aggregate: &Aggregate, time_us: i64, cells: &[Cell]) {
        let Some(at) = aggregate.input else {
            self.count = self.count.saturating_add(1);
            return;
        };
        let cell = &cells[at];
        match aggregate.function {
            Function::Count => self.count = self.count.saturating_add((!cell.is_null()).into()),
            Function::Sum | Function::Mean => {
                if let Some(units) = units(cell, view.inputs[at].kind, aggregate.decimals) {
                    self.count = self.count.saturating_add(1);
                    self.sum = self.sum.wrapping_add(i128::from(units));
                }
            }
            Function::Last => {
                let newer = self.last.as_ref().is_none_or(|(time, _)| time_us >= *time);
                if newer && !cell.is_null() {
                    self.last = Some((time_us, cell.clone()));
                }
            }
        }
    }

    /// With a later pane.
    fn merge(&mut self, later: &Partial) {
        self.count = self.count.saturating_add(later.count);
        self.sum = self.sum.wrapping_add(later.sum);
        if later.last.is_some() {
            self.last.clone_from(&later.last);
        }
    }

    fn result(&self, view: &View, aggregate: &Aggregate) -> Cell {
        let last = self.last.as_ref().map(|(_, cell)| cell.seen());
        result(
            view,
            aggregate,
            self.count,
            self.sum,
            last.unwrap_or_default(),
        )
        .kept()
    }

    fn write(&self, aggregate: &Aggregate, to: &mut Vec<u8>) {
        match aggregate.function {
            Function::Count => put_varint(to, self.count),
            Function::Sum | Function::Mean => {
                put_varint(to, self.count);
                // Zigzag: small numbers of either sign are short.
                let zigzag = (self.sum << 1) ^ (self.sum >> 127);
                put_varint(to, zigzag as u64);
                put_varint(to, (zigzag as u128 >> 64) as u64);
            }
            Function::Last => match &self.last {
                None => to.push(0),
                Some((time, cell)) => {
                    to.push(1);
                    to.extend_from_slice(&time.to_le_bytes());
                    cell.write(to);
                }
            },
        }
    }

    fn read(aggregate: &Aggregate, from: &mut Bytes<'_>) -> Result<Partial, Fault> {
        let mut partial = Partial::default();
        match aggregate.function {
            Function::Count => partial.count = from.varint()?,
            Function::Sum | Function::Mean => {
                (partial.count, partial.sum) = read_sum(from)?;
            }
            Function::Last => {
                if from.byte()? == 1 {
                    let time = from.word()? as i64;
                    partial.last = Some((time, Cell::read(from)?));
                }
            }
        }
        Ok(partial)
    }
}

/// What `Partial::write` has of a sum: how many values, and their total.
#[inline]
pub(crate) fn read_sum(from: &mut Bytes<'_>) -> Result<(u64, i128), Fault> {
    let count = from.varint()?;
    let zigzag = u128::from(from.varint()?) | u128::from(from.varint()?) << 64;
    Ok((count, (zigzag >> 1) as i128 ^ -((zigzag & 1) as i128)))
}

/// What an aggregate tells, of all panes that count.
#[inline]
pub(crate) fn result<'a>(
    view: &View,
    aggregate: &Aggregate,
    count: u64,
    sum: i128,
    last: Seen<'a>,
) -> Seen<'a> {
    let float = aggregate
        .input
        .is_some_and(|at| view.inputs[at].kind == Kind::Float);
    let total = || match float {
        true => sum as f64 / 10f64.powi(aggregate.decimals as i32),
        false => sum as f64,
    };
    match aggregate.function {
        Function::Count => Seen::Int(i64::try_from(count).unwrap_or(i64::MAX)),
        Function::Sum if float => Seen::Float(total()),
        Function::Sum => {
            let within = sum.clamp(i64::MIN.into(), i64::MAX.into());
            Seen::Int(i64::try_from(within).unwrap_or_default())
        }
        Function::Mean if count == 0 => Seen::Null,
        Function::Mean => Seen::Float(total() / count as f64),
        Function::Last => last,
    }
}

/// The whole number that a value adds to a sum; None for null, NaN and what is too large.
fn units(cell: &Cell, kind: Kind, decimals: u32) -> Option<i64> {
    match cell {
        Cell::Int(value) if kind == Kind::Int => Some(*value),
        Cell::Float(value) => {
            let scaled = value * 10f64.powi(decimals as i32);
            (scaled.abs() <= LARGEST).then(|| scaled.round() as i64)
        }
        _ => None,
    }
}
