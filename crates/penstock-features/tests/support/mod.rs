//! A plan that has every function, and batches read back as rows.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::*;
use penstock_features::{Attachments, Dictionary, MappedRow, MappedSlot, Plan};

extern "C" fn half(x: f64) -> f64 {
    x / 2.0
}

extern "C" fn mix(x: u64) -> u64 {
    x.rotate_left(7) ^ 0x9e37_79b9
}

/// Every function in every place, over the columns of `laws`.
pub fn every_function() -> Plan {
    let cities = Dictionary::from_values(["Paris", "Rome", "", "Zürich 東京 🦀"]).unwrap();
    let sha256 = cities.sha256();
    let json = format!(
        r#"{{"penstock":"plan/1","name":"all","seed":"18446744073709551615",
        "dicts":{{"cities":{{"sha256":"{sha256}","entries":4}}}},
        "functions":{{"m:half":{{"sha256":"","takes":"f64"}},"m:mix":{{"sha256":"","takes":"u64"}}}},
        "items":[
        {{"as":"define","name":"pieces","fn":"split","from":[{{"column":"city"}}],"params":{{"sep":"|"}}}},
        {{"as":"slot","name":"city_h","id":1,"fn":"hash","from":[{{"column":"city"}}],"null_key":true}},
        {{"as":"slot","name":"id_h","id":2,"fn":"hash","from":[{{"column":"id"}}],"weight":{{"column":"weight"}}}},
        {{"as":"slot","name":"city_i","id":3,"fn":"pickcat","from":[{{"column":"city"}}],"params":{{"dict":"cities","unknown":"skip"}},"null_key":true}},
        {{"as":"slot","name":"price_b","id":4,"fn":"piecewise","from":[{{"column":"price"}}],"params":{{"bounds":[-10,0,0.5,10,50]}}}},
        {{"as":"slot","name":"hour","id":5,"fn":"bucketize_time","from":[{{"column":"at"}}],"params":{{"part":"hour_of_week","tz":"America/New_York"}}}},
        {{"as":"slot","name":"city_price","id":6,"fn":"combine","from":[{{"column":"city"}},{{"item":4}},{{"column":"id"}}],"null_key":true}},
        {{"as":"slot","name":"tag_h","id":7,"fn":"hash","from":[{{"column":"tags"}}],"weight":{{"column":"weight"}}}},
        {{"as":"slot","name":"tag_city","id":8,"fn":"descartes","from":[{{"item":7}},{{"item":0}},{{"column":"city"}}],"params":{{"max":10000}}}},
        {{"as":"slot","name":"hits","id":9,"fn":"hit","from":[{{"column":"tags"}},{{"column":"liked"}}],"null_key":true}},
        {{"as":"slot","name":"last","id":10,"fn":"sequence","from":[{{"column":"counts"}}],"params":{{"length":2}}}},
        {{"as":"slot","name":"set","id":11,"fn":"multi_hot","from":[{{"column":"tags"}}]}},
        {{"as":"slot","name":"mixed","id":12,"fn":"udf","from":[{{"item":7}}],"params":{{"function":"m:mix"}}}},
        {{"as":"define","name":"log_d","fn":"log1p","from":[{{"column":"price"}}]}},
        {{"as":"define","name":"last_d","fn":"sequence","from":[{{"column":"liked"}}],"params":{{"length":3}}}},
        {{"as":"define","name":"cross_d","fn":"combine","from":[{{"column":"city"}},{{"column":"id"}}]}},
        {{"as":"slot","name":"last_set","id":13,"fn":"multi_hot","from":[{{"item":14}}]}},
        {{"as":"slot","name":"cross_h","id":2047,"fn":"hash","from":[{{"item":15}}],"null_key":true}},
        {{"as":"slot","name":"log_b","id":14,"fn":"piecewise","from":[{{"item":13}}],"params":{{"bounds":[0,1,2]}}}},
        {{"as":"dense","name":"halved","fn":"udf","from":[{{"column":"price"}}],"params":{{"function":"m:half"}},"default":-1.0}},
        {{"as":"dense","name":"clipped","fn":"clip","from":[{{"column":"price"}}],"params":{{"min":-5,"max":5}}}},
        {{"as":"dense","name":"z","fn":"normalize","from":[{{"column":"price"}}],"params":{{"method":"zscore","mean":3,"std":0.7}}}},
        {{"as":"dense","name":"price_i","fn":"piecewise","from":[{{"column":"price"}}],"params":{{"bounds":[0]}},"default":9}},
        {{"as":"dense","name":"common","fn":"overlap","from":[{{"column":"tags"}},{{"column":"liked"}}],"default":-2}},
        {{"as":"dense","name":"poly","fn":"formula","from":[{{"column":"price"}},{{"item":13}},{{"column":"id"}}],
          "params":{{"expr":{{"op":"+","args":[{{"call":"max","args":[{{"arg":0}},{{"arg":1}},{{"num":0.25}}]}},
            {{"op":"%","args":[{{"arg":2}},{{"num":7}}]}}]}}}}}}
        ]}}"#
    );
    let attachments = Attachments {
        dictionaries: [("cities".to_string(), Arc::new(cities))].into(),
        functions: [
            ("m:half".to_string(), half as *const () as usize),
            ("m:mix".to_string(), mix as *const () as usize),
        ]
        .into(),
    };
    Plan::compile(&json, &attachments).unwrap()
}

/// A mapped batch as rows.
pub fn mapped_rows(plan: &Plan, batch: &RecordBatch) -> Vec<MappedRow> {
    let column = |name: &str| batch.column_by_name(name).unwrap();
    (0..batch.num_rows())
        .map(|row| MappedRow {
            slots: plan
                .slots()
                .map(|name| {
                    let keys = column(name).as_list::<i64>().value(row);
                    let weights = batch.column_by_name(&format!("{name}__weight"));
                    let weights = weights.map(|weights| weights.as_list::<i64>().value(row));
                    MappedSlot {
                        keys: keys
                            .as_primitive::<arrow_array::types::UInt64Type>()
                            .values()
                            .to_vec(),
                        weights: weights.map_or_else(Vec::new, |weights| {
                            weights
                                .as_primitive::<arrow_array::types::Float32Type>()
                                .values()
                                .to_vec()
                        }),
                    }
                })
                .collect(),
            dense: plan
                .dense()
                .map(|name| {
                    column(name)
                        .as_primitive::<arrow_array::types::Float32Type>()
                        .value(row)
                })
                .collect(),
        })
        .collect()
}
