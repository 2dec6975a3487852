//! Request ids and trace context: read from a request's headers, echoed in its reply.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::service::Trace;

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const PARENT: HeaderName = HeaderName::from_static("traceparent");
const STATE: HeaderName = HeaderName::from_static("tracestate");

/// Longer ones are not passed on: they are in every line of the log.
const LONGEST: usize = 256;

/// A request's headers to be echoed.
#[derive(Clone, Debug)]
pub struct Echo {
    id: HeaderValue,
    parent: Option<HeaderValue>,
    state: Option<HeaderValue>,
}

impl Echo {
    pub fn of(headers: &HeaderMap) -> Echo {
        let given = |name: &HeaderName| {
            let value = headers.get(name)?;
            let text = value.to_str().ok()?;
            (!text.is_empty() && text.len() <= LONGEST).then(|| value.clone())
        };
        Echo {
            id: given(&REQUEST_ID).unwrap_or_else(fresh),
            parent: given(&PARENT),
            state: given(&STATE),
        }
    }

    pub fn into(self, headers: &mut HeaderMap) {
        headers.insert(REQUEST_ID, self.id);
        for (name, value) in [(PARENT, self.parent), (STATE, self.state)] {
            if let Some(value) = value {
                headers.insert(name, value);
            }
        }
    }

    pub fn trace(&self) -> Trace {
        let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
        Trace {
            request: text(&self.id),
            parent: self.parent.as_ref().map(text),
            state: self.state.as_ref().map(text),
        }
    }
}

/// An id that no other request of this process has, nor, in all likelihood, of any other.
fn fresh() -> HeaderValue {
    static BEGIN: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(std::process::id()));
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    // Odd, so that multiplying by it is one to one.
    let id = BEGIN.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut text = [0; 16];
    for (place, digit) in text.iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(id >> (60 - 4 * place) & 15) as usize];
    }
    HeaderValue::from_bytes(&text).expect("hex digits are visible ASCII")
}
