//! Where a request's time goes inside a model: `cargo run --release -p penstock-serve --example score_speed -- BUNDLE
//! LIBONNXRUNTIME`. Prints microseconds a call by stage, raw columns and mapped tensors, 1 to 100 rows, with rows mapped and in memory.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use penstock_serve::model::{Call, Lane, Model, Options, load_runtime};
use penstock_serve::{Data, Datatype, Tensor, TensorSpec, Texts, Timings};
use penstock_table::Nearing;

const CALLS: u32 = 2_000;
/// Requests that take turns: their keys are not all in the cache when they come again.
const REQUESTS: u64 = 512;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("which bundle?")?;
    if let Some(library) = arguments.next() {
        load_runtime(Path::new(&library))?;
    }
    let model = Arc::new(Model::open(Path::new(&folder), &Options::default())?);
    let mut lane = model.lane()?;
    println!("rows where they are mapped:");
    reports(&model, &mut lane)?;
    if let Some(rows) = model.snapshot() {
        rows.verify()?;
        let mut nearing = Nearing::begin(&rows, None);
        while let Some(under_way) = nearing {
            nearing = under_way.step();
        }
        println!("rows in memory, on huge pages:");
        reports(&model, &mut lane)?;
    }
    Ok(())
}

fn reports(model: &Model, lane: &mut Lane) -> Result<(), Box<dyn std::error::Error>> {
    for rows in [1, 4, 8, 16, 100] {
        for (form, specs) in [
            ("raw", &model.signature().inputs),
            ("mapped", &model.signature().mapped),
        ] {
            let request = |number| specs.iter().map(|spec| made(spec, rows, number)).collect();
            let requests: Vec<Vec<Tensor>> = (0..REQUESTS).map(request).collect();
            if !specs.is_empty() {
                report(form, rows, lane, &requests)?;
            }
        }
    }
    Ok(())
}

fn report(
    form: &str,
    rows: usize,
    lane: &mut Lane,
    requests: &[Vec<Tensor>],
) -> Result<(), Box<dyn std::error::Error>> {
    let (mut best, mut at_best) = (f64::INFINITY, Timings::default());
    for _ in 0..5 {
        let began = Instant::now();
        let mut sum = Timings::default();
        for tensors in requests.iter().cycle().take(CALLS as usize) {
            let call = Call {
                tensors,
                broadcast: &[],
            };
            let (mut answers, timings) = lane.run(&[call]);
            answers.pop().ok_or("no answer")??;
            sum.features += timings.features;
            sum.lookup += timings.lookup;
            sum.run += timings.run;
        }
        let each = began.elapsed().as_secs_f64() * 1e6 / f64::from(CALLS);
        if each < best {
            (best, at_best) = (each, sum);
        }
    }
    let us = |time: std::time::Duration| time.as_secs_f64() * 1e6 / f64::from(CALLS);
    println!(
        "{rows:4} rows {form:7} {best:8.1} us: features {:7.1}, lookup {:7.1}, run {:7.1}",
        us(at_best.features),
        us(at_best.lookup),
        us(at_best.run)
    );
    Ok(())
}

fn made(spec: &TensorSpec, rows: usize, number: u64) -> Tensor {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ number;
    let mut draw = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        state >> 33
    };
    let mut shape: Vec<usize> = spec.shape.iter().map(|&n| n.max(1) as usize).collect();
    shape[0] = rows;
    let count = shape.iter().product();
    let data = match spec.datatype {
        Datatype::F32 => Data::F32((0..count).map(|_| draw() as f32 / 1e9).collect()),
        Datatype::F64 => Data::F64((0..count).map(|_| (draw() % 1000) as f64).collect()),
        Datatype::I64 => Data::I64((0..count).map(|_| (draw() % 1000) as i64).collect()),
        Datatype::U64 => Data::U64((0..count).map(|_| draw()).collect()),
        Datatype::Bool => Data::Bool((0..count).map(|_| draw() % 2 == 0).collect()),
        _ => {
            let mut texts = Texts::default();
            for _ in 0..count {
                // As `make bench NAME=serving` writes its ids.
                let id = (draw() % 100_000) as u32;
                texts.push(format!("{:08x}", id.wrapping_mul(2_654_435_761)).as_bytes());
            }
            Data::Bytes(texts)
        }
    };
    Tensor::new(spec.name.clone(), shape, data)
}
