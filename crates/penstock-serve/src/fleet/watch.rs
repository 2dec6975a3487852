//! A canary under watch: its guards' counts, and whether they have taken it back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::desired::Guards;
use super::events::Events;
use super::guards::{Outcome, Side, Watched};
use super::significance::Share;

/// What makes a canary the same one after a change of the configuration: then its counts and its verdict stay.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    pub model: String,
    pub label: String,
    pub bundle: String,
    pub live_bundle: String,
    pub salt: String,
    pub guards: Guards,
}

pub struct Watch {
    pub identity: Identity,
    watched: Mutex<Watched>,
    tripped: AtomicBool,
    why: Mutex<String>,
}

impl Watch {
    pub fn new(identity: Identity) -> Watch {
        Watch {
            watched: Mutex::new(Watched::new(&identity.guards)),
            identity,
            tripped: AtomicBool::new(false),
            why: Mutex::default(),
        }
    }

    /// Whether its traffic goes to live instead.
    pub fn tripped(&self) -> bool {
        self.tripped.load(Ordering::Relaxed)
    }

    /// Why it was rolled back; "" where it was not.
    pub fn why(&self) -> String {
        self.why.lock().clone()
    }

    /// Failed requests of the newest, live's and the canary's.
    pub fn error_shares(&self) -> [Share; 2] {
        self.watched.lock().error_shares()
    }

    pub fn count(
        &self,
        side: Side,
        outcome: Outcome,
        rows: usize,
        took: Duration,
        scores: &[f32],
        events: &Events,
    ) {
        let scores = scores.iter().copied();
        let Some(verdict) = self.watched.lock().count(side, outcome, rows, took, scores) else {
            return;
        };
        let Identity {
            model,
            label,
            bundle,
            ..
        } = &self.identity;
        if !verdict.rolls_back {
            events.tell("score_shift", model, label, bundle, &verdict.why);
        } else if !self.tripped.swap(true, Ordering::Relaxed) {
            self.why.lock().clone_from(&verdict.why);
            events.tell("rollback", model, label, bundle, &verdict.why);
        }
    }
}
