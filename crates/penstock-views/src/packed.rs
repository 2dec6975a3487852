//! What a blob tells at a time, without unpacking it into a `State`: what requests read. The laws hold it to that.

use crate::Fault;
use crate::cell::{Bytes, Seen};
use crate::state::{as_of, is_empty, read_head, read_sum, result};
use crate::view::{Aggregate, Function, View};

/// Reads blobs of one view, one after the other.
pub struct Reader<'v> {
    view: &'v View,
    /// The aggregates over each window, in their order.
    over: Vec<Vec<usize>>,
    totals: Vec<Total>,
    /// The panes of each window that count at a time: mostly the one that was asked for before.
    counted: (Option<i64>, Vec<(i64, i64)>),
}

/// `Partial`, of values that stay in the blob: moving cells costs more than reading them.
#[derive(Clone, Copy, Default)]
struct Total {
    count: u64,
    sum: i128,
    /// Where the newest value lies; 0: there is none.
    last: usize,
}

impl<'v> Reader<'v> {
    pub fn new(view: &'v View) -> Reader<'v> {
        let over = |window| {
            let aggregates = view.aggregates.iter().enumerate();
            let over = aggregates.filter(|(_, aggregate)| aggregate.window == window);
            over.map(|(at, _)| at).collect()
        };
        Reader {
            view,
            over: (0..view.windows.len()).map(over).collect(),
            totals: Vec::new(),
            counted: (None, Vec::new()),
        }
    }

    /// Tells the view's outputs at a time one after the other, and as of when that is. As `State::decode` and `read`.
    pub fn read(
        &mut self,
        blob: &[u8],
        at_us: i64,
        mut told: impl FnMut(Seen<'_>),
    ) -> Result<i64, Fault> {
        let (view, mut from) = (self.view, Bytes(blob));
        let newest_us = read_head(view, &mut from)?;
        let at_us = as_of(newest_us, at_us);
        let empty = is_empty(view, newest_us, at_us);
        for _ in &view.columns {
            let cell = match newest_us {
                Some(_) => Seen::read(&mut from)?,
                None => Seen::Null,
            };
            told(if empty { Seen::Null } else { cell });
        }
        if self.counted.0 != Some(at_us) {
            let counted = view.windows.iter().map(|window| window.counted(at_us));
            self.counted = (Some(at_us), counted.collect());
        }
        self.totals.clear();
        self.totals.resize(view.aggregates.len(), Total::default());
        let windows = view.windows.iter().zip(&self.over).zip(&self.counted.1);
        for ((window, over), (first, last)) in windows {
            let count = from.varint()?;
            if count == 0 {
                continue;
            }
            let mut pane = window.kept(newest_us.unwrap_or_default());
            for _ in 0..count {
                let step = i64::try_from(from.varint()?).map_err(|_| Fault::Damaged)?;
                let Some(next) = pane.checked_add(step) else {
                    return Err(Fault::Damaged);
                };
                pane = next;
                let counts = !empty && *first <= pane && pane <= *last;
                for at in over {
                    let mut total = self.totals[*at];
                    total.merge(&view.aggregates[*at], blob, &mut from)?;
                    if counts {
                        self.totals[*at] = total;
                    }
                }
            }
        }
        for (aggregate, total) in view.aggregates.iter().zip(&self.totals) {
            let last = match total.last {
                0 => Seen::Null,
                at => Seen::read(&mut Bytes(&blob[at..]))?,
            };
            told(result(view, aggregate, total.count, total.sum, last));
        }
        Ok(at_us)
    }
}

impl Total {
    /// With a later pane, which is read `from` the blob.
    #[inline]
    fn merge(
        &mut self,
        aggregate: &Aggregate,
        blob: &[u8],
        from: &mut Bytes<'_>,
    ) -> Result<(), Fault> {
        match aggregate.function {
            Function::Count => self.count = self.count.saturating_add(from.varint()?),
            Function::Sum | Function::Mean => {
                let (count, sum) = read_sum(from)?;
                self.count = self.count.saturating_add(count);
                self.sum = self.sum.wrapping_add(sum);
            }
            Function::Last => {
                if from.byte()? == 1 {
                    from.word()?;
                    self.last = blob.len() - from.0.len();
                    Seen::read(from)?;
                }
            }
        }
        Ok(())
    }
}
