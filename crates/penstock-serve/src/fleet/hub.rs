//! What all versions of a fleet share: crash markers, events, the sample log, impressions, the watchdog.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::events::Events;
use super::markers::Markers;
use super::watchdog::Watchdog;
use crate::samples::{Impressions, Samples};

pub struct Hub {
    pub markers: Markers,
    pub events: Events,
    pub samples: ArcSwapOption<Samples>,
    pub impressions: ArcSwapOption<Impressions>,
    pub watchdog: Watchdog,
}

impl Hub {
    pub fn new(markers: Markers) -> Arc<Hub> {
        Arc::new(Hub {
            markers,
            events: Events::default(),
            samples: ArcSwapOption::empty(),
            impressions: ArcSwapOption::empty(),
            watchdog: Watchdog::start(),
        })
    }
}
