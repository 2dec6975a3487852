//! The host's log: a JSON object a line on stderr.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

/// Writes a line: what happened ("certificates_reloaded"), at which level ("info", "warning", "error"), and what belongs to it.
pub fn write(level: &str, event: &str, fields: Map<String, Value>) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let mut line = json!({"ts": now.as_secs_f64(), "level": level, "event": event});
    if let Value::Object(object) = &mut line {
        object.extend(fields);
    }
    // Nobody is left to be told when stderr is closed.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
