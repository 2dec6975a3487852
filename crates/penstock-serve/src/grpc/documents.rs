//! The messages of metadata, configuration, statistics and the index.

use std::time::Duration;

use crate::http::documents::{dims, nanos, state_name};
use crate::service::{Config, Description, IndexEntry, Statistics};
use crate::tensor::{Datatype, TensorSpec};
use crate::wire::proto::message::model_instance_group::Kind;
use crate::wire::proto::message::model_metadata_response::TensorMetadata;
use crate::wire::proto::message::repository_index_response::ModelIndex;
use crate::wire::proto::message::{
    DataType, InferBatchStatistics, InferStatistics, ModelConfig, ModelDynamicBatching, ModelInput,
    ModelInstanceGroup, ModelMetadataResponse, ModelOutput, ModelParameter, ModelStatistics,
    StatisticDuration,
};

pub(super) fn description(description: Description) -> ModelMetadataResponse {
    let specs = |specs: Vec<TensorSpec>| {
        let spec = |spec: TensorSpec| TensorMetadata {
            name: spec.name,
            datatype: spec.datatype.name().to_owned(),
            shape: spec.shape,
        };
        specs.into_iter().map(spec).collect()
    };
    ModelMetadataResponse {
        name: description.name,
        versions: description
            .versions
            .iter()
            .map(|version| version.as_ref().to_owned())
            .collect(),
        platform: description.platform,
        inputs: specs(description.inputs),
        outputs: specs(description.outputs),
        properties: description.properties.into_iter().collect(),
        mapped_inputs: specs(description.mapped),
    }
}

fn data_type(datatype: Datatype) -> i32 {
    let of = match datatype {
        Datatype::Bool => DataType::TypeBool,
        Datatype::U8 => DataType::TypeUint8,
        Datatype::U16 => DataType::TypeUint16,
        Datatype::U32 => DataType::TypeUint32,
        Datatype::U64 => DataType::TypeUint64,
        Datatype::I8 => DataType::TypeInt8,
        Datatype::I16 => DataType::TypeInt16,
        Datatype::I32 => DataType::TypeInt32,
        Datatype::I64 => DataType::TypeInt64,
        Datatype::F32 => DataType::TypeFp32,
        Datatype::F64 => DataType::TypeFp64,
        Datatype::Bytes => DataType::TypeString,
    };
    of.into()
}

pub(super) fn config(config: Config) -> ModelConfig {
    let description = config.description;
    let small = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let input = |spec: &TensorSpec| ModelInput {
        name: spec.name.clone(),
        data_type: data_type(spec.datatype),
        dims: dims(spec).to_vec(),
        // A model that maps raw columns takes those that are left out as null.
        optional: !description.mapped.is_empty(),
    };
    let output = |spec: &TensorSpec| ModelOutput {
        name: spec.name.clone(),
        data_type: data_type(spec.datatype),
        dims: dims(spec).to_vec(),
    };
    let group = ModelInstanceGroup {
        name: description.name.clone(),
        count: small(config.concurrency),
        kind: Kind::Cpu.into(),
    };
    let parameter =
        |(name, string_value): (String, String)| (name, ModelParameter { string_value });
    ModelConfig {
        input: description.inputs.iter().map(input).collect(),
        output: description.outputs.iter().map(output).collect(),
        name: description.name,
        platform: description.platform,
        backend: "penstock".to_owned(),
        max_batch_size: small(config.max_batch_rows),
        instance_group: vec![group],
        dynamic_batching: Some(ModelDynamicBatching::default()),
        parameters: description.properties.into_iter().map(parameter).collect(),
    }
}

pub(super) fn entry(entry: IndexEntry) -> ModelIndex {
    ModelIndex {
        name: entry.name,
        version: entry.version.as_ref().to_owned(),
        state: state_name(entry.state).to_owned(),
        reason: entry.reason,
    }
}

pub(super) fn statistics(statistics: Statistics) -> ModelStatistics {
    let took = |(count, sum): (u64, Duration)| {
        Some(StatisticDuration {
            count,
            ns: nanos(sum),
        })
    };
    let batch = |(batch_size, run): (u64, (u64, Duration))| InferBatchStatistics {
        batch_size,
        compute_infer: took(run),
        ..InferBatchStatistics::default()
    };
    ModelStatistics {
        name: statistics.name,
        version: statistics.version.as_ref().to_owned(),
        last_inference: statistics.last_ms,
        inference_count: statistics.rows,
        execution_count: statistics.executions,
        inference_stats: Some(InferStatistics {
            success: took(statistics.succeeded),
            fail: took(statistics.failed),
            queue: took(statistics.queue),
            compute_input: took(statistics.input),
            compute_infer: took(statistics.run),
            ..InferStatistics::default()
        }),
        batch_stats: statistics.batches.into_iter().map(batch).collect(),
        ..ModelStatistics::default()
    }
}
