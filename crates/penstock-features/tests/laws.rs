//! What holds for every plan and every row: a batch, its rows one by one, any cutting into batches and any number of
//! threads give the same bits.

mod support;

use std::sync::Arc;

use arrow_array::builder::*;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::*;
use penstock_features::{Form, MappedRow, OnError, Options, Plan, Scratch, Value};
use proptest::prelude::*;
use support::{every_function, mapped_rows};

/// A row of the plan's raw columns: name, number, time, two lists, weights.
#[derive(Debug, Clone)]
struct Raw {
    city: Option<String>,
    id: Option<i64>,
    price: Option<f64>,
    at: Option<i64>,
    tags: Option<Vec<Option<String>>>,
    liked: Option<Vec<Option<String>>>,
    counts: Option<Vec<Option<i64>>>,
    weight: Option<f64>,
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("Paris".into()),
        Just("Rome".into()),
        Just("a|b||c".into()),
        Just("Zürich 東京 🦀".into()),
        "[a-z]{1,20}",
        "[a-z]{130,300}",
    ]
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![
        Just(f64::NAN),
        Just(f64::INFINITY),
        Just(f64::NEG_INFINITY),
        Just(-0.0),
        Just(1e300),
        Just(9_007_199_254_740_993.0),
        -100.0..100.0,
    ]
}

fn words() -> impl Strategy<Value = Vec<Option<String>>> {
    prop_oneof![
        4 => prop::collection::vec(prop::option::of(text()), 0..6),
        1 => prop::collection::vec(prop::option::of(text()), 30..60),
    ]
}

fn raw() -> impl Strategy<Value = Raw> {
    let some = prop::option::of::<BoxedStrategy<i64>>;
    (
        prop::option::of(text()),
        some(any::<i64>().boxed()),
        prop::option::of(number()),
        some((-62_135_596_800_000_000_i64..253_402_300_799_999_999).boxed()),
        prop::option::of(words()),
        prop::option::of(words()),
        prop::option::of(prop::collection::vec(some(any::<i64>().boxed()), 0..5)),
        prop::option::of(number()),
    )
        .prop_map(|(city, id, price, at, tags, liked, counts, weight)| Raw {
            city,
            id,
            price,
            at,
            tags,
            liked,
            counts,
            weight,
        })
}

fn batch(rows: &[Raw]) -> RecordBatch {
    let mut tags = LargeListBuilder::new(StringViewBuilder::new());
    let mut liked = ListBuilder::new(LargeStringBuilder::new());
    for row in rows {
        match &row.tags {
            Some(words) => tags.append_value(words.clone()),
            None => tags.append_null(),
        }
        match &row.liked {
            Some(words) => liked.append_value(words.clone()),
            None => liked.append_null(),
        }
    }
    let counts = LargeListArray::from_iter_primitive::<Int64Type, _, _>(
        rows.iter().map(|row| row.counts.clone()),
    );
    let columns: Vec<(&str, ArrayRef)> = vec![
        (
            "city",
            Arc::new(StringViewArray::from_iter(
                rows.iter().map(|row| row.city.clone()),
            )),
        ),
        (
            "id",
            Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.id))),
        ),
        (
            "price",
            Arc::new(PrimitiveArray::<Float64Type>::from_iter(
                rows.iter().map(|row| row.price),
            )),
        ),
        (
            "at",
            Arc::new(TimestampMicrosecondArray::from_iter(
                rows.iter().map(|row| row.at),
            )),
        ),
        ("tags", Arc::new(tags.finish())),
        ("liked", Arc::new(liked.finish())),
        ("counts", Arc::new(counts)),
        (
            "weight",
            Arc::new(PrimitiveArray::<Float64Type>::from_iter(
                rows.iter().map(|row| row.weight),
            )),
        ),
    ];
    RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, array)| (name, array, true)),
    )
    .unwrap()
}

fn one_by_one(plan: &Plan, rows: &[Raw]) -> Vec<MappedRow> {
    let mut scratch = Scratch::default();
    let text =
        |words: &Option<Vec<Option<String>>>| -> Option<Vec<Option<String>>> { words.clone() };
    rows.iter()
        .map(|row| {
            let (tags, liked) = (text(&row.tags), text(&row.liked));
            let list = |words: &'_ Option<Vec<Option<String>>>| {
                words.as_ref().map(|words| {
                    words
                        .iter()
                        .map(|w| w.as_deref().map(str::to_owned))
                        .collect::<Vec<_>>()
                })
            };
            let (tags, liked) = (list(&tags), list(&liked));
            let tags: Option<Vec<Value<'_>>> = tags
                .as_ref()
                .map(|words| words.iter().map(value_of_text).collect());
            let liked: Option<Vec<Value<'_>>> = liked
                .as_ref()
                .map(|words| words.iter().map(value_of_text).collect());
            let counts: Option<Vec<Value<'_>>> = row.counts.as_ref().map(|counts| {
                counts
                    .iter()
                    .map(|v| v.map_or(Value::Null, Value::Int))
                    .collect()
            });
            let values: Vec<Value<'_>> = plan
                .columns()
                .iter()
                .map(|column| match column.as_str() {
                    "city" => row.city.as_deref().map_or(Value::Null, Value::Text),
                    "id" => row.id.map_or(Value::Null, Value::Int),
                    "price" => row.price.map_or(Value::Null, Value::Float),
                    "at" => row.at.map_or(Value::Null, Value::Time),
                    "tags" => tags.as_deref().map_or(Value::Null, Value::List),
                    "liked" => liked.as_deref().map_or(Value::Null, Value::List),
                    "counts" => counts.as_deref().map_or(Value::Null, Value::List),
                    _ => row.weight.map_or(Value::Null, Value::Float),
                })
                .collect();
            plan.apply_row(&values, &mut scratch).unwrap().clone()
        })
        .collect()
}

fn value_of_text(word: &Option<String>) -> Value<'_> {
    word.as_deref().map_or(Value::Null, Value::Text)
}

fn apply(plan: &Plan, batch: &RecordBatch, threads: usize) -> RecordBatch {
    let options = Options {
        threads,
        ..Options::default()
    };
    plan.apply(batch, &options).unwrap().0
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_batch_is_its_rows_one_by_one(rows in prop::collection::vec(raw(), 0..40)) {
        let plan = every_function();
        prop_assert_eq!(mapped_rows(&plan, &apply(&plan, &batch(&rows), 1)), one_by_one(&plan, &rows));
    }

    #[test]
    fn where_a_batch_is_cut_changes_nothing(rows in prop::collection::vec(raw(), 1..40), at in any::<prop::sample::Index>()) {
        let plan = every_function();
        let whole = batch(&rows);
        let at = at.index(rows.len());
        let mut parts = mapped_rows(&plan, &apply(&plan, &whole.slice(0, at), 1));
        parts.extend(mapped_rows(&plan, &apply(&plan, &whole.slice(at, rows.len() - at), 2)));
        prop_assert_eq!(parts, mapped_rows(&plan, &apply(&plan, &whole, 1)));
    }

    #[test]
    fn random_bytes_are_no_plan_and_no_crash(text in "\\PC{0,200}") {
        prop_assert!(Plan::compile(&text, &Default::default()).is_err());
    }
}

#[test]
fn many_chunks_and_threads_give_what_one_thread_gives() {
    let plan = every_function();
    let rows: Vec<Raw> = (0..9_000_i64)
        .map(|i| Raw {
            city: (i % 5 != 0).then(|| format!("city {}", i % 97)),
            id: (i % 7 != 0 || i < 3_000).then_some(i * 31),
            price: Some(i as f64 / 3.0),
            at: Some(i * 3_600_000_000),
            tags: (i % 3 != 0).then(|| (0..i % 4).map(|j| Some(format!("t{j}"))).collect()),
            liked: Some(vec![Some("t1".into()), None, Some("t2".into())]),
            counts: Some(vec![Some(i), None]),
            weight: Some(0.5),
        })
        .collect();
    let batch = batch(&rows);
    let one = apply(&plan, &batch, 1);
    for threads in [2, 3, 16, 0] {
        assert_eq!(apply(&plan, &batch, threads), one, "{threads} threads");
    }
    assert_eq!(mapped_rows(&plan, &one), one_by_one(&plan, &rows));
}

#[test]
fn the_first_bad_row_is_named_whatever_the_threads_and_dropped_rows_are_listed() {
    let json = r#"{"penstock":"plan/1","name":"t","seed":"0","items":[
        {"as":"slot","name":"index","id":1,"fn":"identity","from":[{"column":"id"}]}]}"#;
    let plan = Plan::compile(json, &Default::default()).unwrap();
    let ids = Int64Array::from_iter(
        (0..10_000_i64).map(|i| Some(if i % 3_000 == 2_999 { -i } else { i })),
    );
    let batch = RecordBatch::try_from_iter([("id", Arc::new(ids) as ArrayRef)]).unwrap();
    for threads in [1, 4] {
        let failed = plan
            .apply(
                &batch,
                &Options {
                    threads,
                    ..Options::default()
                },
            )
            .unwrap_err()
            .to_string();
        assert!(failed.starts_with("row 2999: 'index' is -2999"), "{failed}");
        let drop = Options {
            threads,
            on_error: OnError::Drop,
            keep: vec!["id".into()],
            form: Form::Flat,
        };
        let (kept, errors) = plan.apply(&batch, &drop).unwrap();
        assert_eq!(kept.num_rows(), 9_997);
        assert_eq!(
            errors.iter().map(|error| error.row).collect::<Vec<_>>(),
            [2_999, 5_999, 8_999]
        );
    }
}
