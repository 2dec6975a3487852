//! What a blob tells at a time, without unpacking it into a `State`: what requests read. The laws hold it to that.

use crate::Fault;
use crate::cell::{Bytes, Cell};
use crate::state::{Partial, as_of, is_empty, read_head};
use crate::view::View;

/// Reads blobs of one view, one after the other.
pub struct Reader<'v> {
    view: &'v View,
    totals: Vec<Partial>,
}

impl<'v> Reader<'v> {
    pub fn new(view: &'v View) -> Reader<'v> {
        Reader {
            view,
            totals: Vec::with_capacity(view.aggregates.len()),
        }
    }

    /// The view's outputs at a time, in place of what `to` holds; and as of when that is. As `State::decode` and `read`.
    pub fn read(&mut self, blob: &[u8], at_us: i64, to: &mut Vec<Cell>) -> Result<i64, Fault> {
        let (view, mut from) = (self.view, Bytes(blob));
        let newest_us = read_head(view, &mut from)?;
        let at_us = as_of(newest_us, at_us);
        let empty = is_empty(view, newest_us, at_us);
        to.clear();
        if newest_us.is_some() {
            for _ in &view.columns {
                to.push(Cell::read(&mut from)?);
            }
        }
        if empty {
            to.clear();
            to.resize(view.columns.len(), Cell::Null);
        }
        self.totals.clear();
        self.totals
            .resize(view.aggregates.len(), Partial::default());
        for (number, window) in view.windows.iter().enumerate() {
            let (first, last) = window.counted(at_us);
            let mut pane = window.kept(newest_us.unwrap_or_default());
            for _ in 0..from.varint()? {
                let step = i64::try_from(from.varint()?).map_err(|_| Fault::Damaged)?;
                pane = pane.checked_add(step).ok_or(Fault::Damaged)?;
                let counts = !empty && first <= pane && pane <= last;
                for (aggregate, total) in view.aggregates.iter().zip(&mut self.totals) {
                    if aggregate.window == number {
                        let partial = Partial::read(aggregate, &mut from)?;
                        if counts {
                            total.merge(&partial);
                        }
                    }
                }
            }
        }
        for (aggregate, total) in view.aggregates.iter().zip(self.totals.drain(..)) {
            to.push(total.result(view, aggregate));
        }
        Ok(at_us)
    }
}
