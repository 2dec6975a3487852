//! The JSON documents of metadata, configuration, statistics and the index, as Triton's REST has them.

use std::time::Duration;

use serde_json::{Value, json};

use crate::service::{Config, Description, IndexEntry, State, Statistics};
use crate::tensor::{Datatype, TensorSpec};

pub(super) fn description(description: &Description) -> Value {
    let mut document = json!({
        "name": description.name,
        "versions": description.versions.iter().map(AsRef::as_ref).collect::<Vec<&str>>(),
        "platform": description.platform,
        "inputs": specs(&description.inputs),
        "outputs": specs(&description.outputs),
        "properties": description.properties,
    });
    if !description.mapped.is_empty() {
        document["mapped_inputs"] = specs(&description.mapped);
    }
    document
}

fn specs(specs: &[TensorSpec]) -> Value {
    let spec = |spec: &TensorSpec| json!({"name": spec.name, "datatype": spec.datatype.name(), "shape": spec.shape});
    specs.iter().map(spec).collect()
}

pub(super) fn config(config: &Config) -> Value {
    let description = &config.description;
    let tensor = |spec: &TensorSpec| json!({"name": spec.name, "data_type": type_name(spec.datatype), "dims": dims(spec)});
    let parameters = description
        .properties
        .iter()
        .map(|(name, value)| (name.clone(), json!({"string_value": value})));
    json!({
        "name": description.name,
        "platform": description.platform,
        "backend": "penstock",
        "max_batch_size": config.max_batch_rows,
        "input": description.inputs.iter().map(tensor).collect::<Value>(),
        "output": description.outputs.iter().map(tensor).collect::<Value>(),
        "instance_group": [{"name": description.name, "kind": "KIND_CPU", "count": config.concurrency}],
        "dynamic_batching": {"preferred_batch_size": [], "max_queue_delay_microseconds": 0},
        "parameters": parameters.collect::<serde_json::Map<_, _>>(),
    })
}

/// Of a model's configuration: the shape without the rows.
pub(crate) fn dims(spec: &TensorSpec) -> &[i64] {
    spec.shape.split_first().map_or(&[], |(_, dims)| dims)
}

/// A datatype's name in a model's configuration.
pub(crate) fn type_name(datatype: Datatype) -> String {
    match datatype {
        Datatype::Bytes => "TYPE_STRING".to_owned(),
        other => format!("TYPE_{other}"),
    }
}

pub(super) fn index(models: &[IndexEntry]) -> Value {
    let entry = |entry: &IndexEntry| {
        json!({
            "name": entry.name,
            "version": entry.version.as_ref(),
            "state": state_name(entry.state),
            "reason": entry.reason,
        })
    };
    models.iter().map(entry).collect()
}

pub(crate) fn state_name(state: State) -> &'static str {
    match state {
        State::Loading => "LOADING",
        State::Ready => "READY",
        State::Unloading => "UNLOADING",
        State::Unavailable => "UNAVAILABLE",
    }
}

/// Nanoseconds as the protocol counts them: 584 years fit.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn statistics(all: &[Statistics]) -> Value {
    let took = |&(count, sum): &(u64, Duration)| json!({"count": count, "ns": nanos(sum)});
    let none = json!({"count": 0, "ns": 0});
    let one = |statistics: &Statistics| {
        let batches = statistics.batches.iter().map(|(rows, run)| {
            json!({"batch_size": rows, "compute_input": none, "compute_infer": took(run), "compute_output": none})
        });
        json!({
            "name": statistics.name,
            "version": statistics.version.as_ref(),
            "last_inference": statistics.last_ms,
            "inference_count": statistics.rows,
            "execution_count": statistics.executions,
            "inference_stats": {
                "success": took(&statistics.succeeded),
                "fail": took(&statistics.failed),
                "queue": took(&statistics.queue),
                "compute_input": took(&statistics.input),
                "compute_infer": took(&statistics.run),
                "compute_output": none,
                "cache_hit": none,
                "cache_miss": none,
            },
            "response_stats": {},
            "batch_stats": batches.collect::<Value>(),
            "memory_usage": [],
        })
    };
    json!({"model_stats": all.iter().map(one).collect::<Value>()})
}
