//! What holds for any events: order and storing do not show, damage is told, and keys are kept apart.

use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, LargeStringArray, RecordBatch};
use penstock_views::{
    Aggregate, Cell, Column, Fault, Function, Keys, Kind, Reader, State, View, Window, add, open,
    read,
};
use proptest::prelude::*;

fn view() -> View {
    let over = |name: &str, function, input, window| Aggregate {
        name: name.into(),
        function,
        input,
        window,
        decimals: 2,
    };
    View {
        name: "v".into(),
        entity: "e".into(),
        keys: vec![Column {
            name: "k".into(),
            kind: Kind::Str,
        }],
        inputs: vec![Column {
            name: "x".into(),
            kind: Kind::Float,
        }],
        columns: vec![("newest".into(), 0)],
        aggregates: vec![
            over("count", Function::Count, None, 0),
            over("sum", Function::Sum, Some(0), 1),
            over("mean", Function::Mean, Some(0), 0),
            over("last", Function::Last, Some(0), 1),
        ],
        windows: vec![
            Window {
                size_us: 60,
                every_us: 10,
                tumbling: false,
            },
            Window {
                size_us: 25,
                every_us: 25,
                tumbling: true,
            },
        ],
        ttl_us: Some(80),
        fingerprint: 7,
    }
}

fn told(state: &State, at_us: i64) -> Vec<Cell> {
    let mut row = Vec::new();
    state.read(&view(), at_us, &mut row);
    row
}

fn events() -> impl Strategy<Value = Vec<(i64, Option<f64>)>> {
    prop::collection::vec((-200i64..200, prop::option::of(-1e6f64..1e6)), 0..40)
}

fn cell(value: Option<f64>) -> [Cell; 1] {
    [value.map_or(Cell::Null, Cell::Float)]
}

proptest! {
    #[test]
    fn a_state_is_read_back_as_it_was_written(events in events(), at in -300i64..500) {
        let (view, mut state) = (view(), State::default());
        for (time, value) in events {
            state.add(&view, time, &cell(value));
            let mut blob = Vec::new();
            state.encode(&view, &mut blob);
            let back = State::decode(&view, &blob).unwrap();
            prop_assert_eq!(told(&back, at), told(&state, at));
            // Requests read blobs as they lie there: to the same cells.
            let mut row = Vec::new();
            let mut reader = Reader::new(&view);
            let as_of = reader.read(&blob, at, |cell| row.push(cell.kept())).unwrap();
            prop_assert_eq!(row, told(&state, at));
            prop_assert_eq!(as_of, state.newest_us().map_or(at, |newest| newest.max(at)));
            state = back;
        }
    }

    #[test]
    fn the_order_of_events_at_different_times_does_not_show(mut events in events(), at in 0i64..500) {
        events.sort_by_key(|(time, _)| *time);
        events.dedup_by_key(|(time, _)| *time);
        let (view, mut forth, mut back) = (view(), State::default(), State::default());
        events.iter().for_each(|(time, value)| forth.add(&view, *time, &cell(*value)));
        events.iter().rev().for_each(|(time, value)| back.add(&view, *time, &cell(*value)));
        prop_assert_eq!(told(&forth, at), told(&back, at));
    }

    #[test]
    fn a_blob_that_was_cut_or_changed_is_no_panic(events in events(), cut in 0usize..400, at in 0usize..400, bit in 0u8..8) {
        let (view, mut state, mut blob) = (view(), State::default(), Vec::new());
        events.iter().for_each(|(time, value)| state.add(&view, *time, &cell(*value)));
        state.encode(&view, &mut blob);
        let read = |blob: &[u8]| {
            let mut row = Vec::new();
            Reader::new(&view).read(blob, 0, |cell| row.push(cell.kept())).map(|_| row)
        };
        let cut = &blob[..cut.min(blob.len())];
        prop_assert_eq!(State::decode(&view, cut).is_ok(), read(cut).is_ok());
        let length = blob.len();
        blob[at % length] ^= 1 << bit;
        match State::decode(&view, &blob) {
            Ok(state) => prop_assert_eq!(format!("{:?}", told(&state, 0)), format!("{:?}", read(&blob).unwrap())),
            Err(_) => prop_assert!(read(&blob).is_err()),
        }
    }
}

#[test]
fn sums_that_floats_would_lose_are_exact() {
    let (view, mut state) = (view(), State::default());
    for value in [9e13, 0.01, -9e13] {
        state.add(&view, 1, &cell(Some(value)));
    }
    state.add(&view, 1, &cell(Some(f64::NAN)));
    assert_eq!(told(&state, 30)[2], Cell::Float(0.01));
    assert_eq!(told(&state, 30)[1], Cell::Int(4));
}

#[test]
fn another_declaration_s_blob_is_refused() {
    let (view, mut blob) = (view(), Vec::new());
    State::default().encode(&view, &mut blob);
    let other = View {
        fingerprint: 8,
        ..view
    };
    assert!(matches!(State::decode(&other, &blob), Err(Fault::Redeclared(name)) if name == "v"));
}

#[test]
fn views_and_keys_whose_names_run_together_are_kept_apart() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&format!("lmdb:{}", folder.path().display()), true, 1 << 24).unwrap();
    let long = "k".repeat(300);
    for (name, keys) in [("v", ["ab", "a"]), ("bv", ["a", long.as_str()])] {
        let view = View {
            name: name.into(),
            ..view()
        };
        store
            .declare(&view, &serde_json::to_string(&view).unwrap(), false)
            .unwrap();
        let columns: [(&str, ArrayRef); 3] = [
            ("k", Arc::new(LargeStringArray::from(keys.to_vec()))),
            ("t", Arc::new(Int64Array::from(vec![1, 1]))),
            (
                "x",
                Arc::new(arrow_array::Float64Array::from(vec![name.len() as f64; 2])),
            ),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        assert_eq!(add(&*store, &view, &batch, "", "1").unwrap(), 0);
    }
    let newest = |name: &str, keys: Vec<&str>| {
        let view = View {
            name: name.into(),
            ..view()
        };
        let keys = Keys::new(vec![Arc::new(LargeStringArray::from(keys))]).unwrap();
        let found = read(&*store, &[(&view, &keys)], 2).unwrap().remove(0);
        format!("{:?}", found.values.column(0))
    };
    assert!(newest("v", vec!["ab", "a"]).contains("1.0,\n  1.0"));
    assert!(newest("bv", vec!["a", &long]).contains("2.0,\n  2.0"));
    assert!(newest("v", vec![&long]).contains("null"));
    store
        .declare(
            &View {
                name: "v".into(),
                ..view()
            },
            "{}",
            true,
        )
        .unwrap();
    assert!(newest("v", vec!["a"]).contains("null") && newest("bv", vec!["a"]).contains("2.0"));
}
