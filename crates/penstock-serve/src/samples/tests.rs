use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::service::Trace;
use crate::tensor::{Data, Tensor, Texts};

fn request() -> Arc<Request> {
    let mut cities = Texts::default();
    ["Zürich", "a\"b"]
        .iter()
        .for_each(|city| cities.push(city.as_bytes()));
    let mut price = Tensor::new("price", vec![2, 1], Data::F64(vec![1.5, 0.0]));
    price.nulls = Some(vec![false, true]);
    let tensors = vec![
        Tensor::new("user", vec![1], Data::I64(vec![i64::MIN])),
        Tensor::new("city", vec![2], Data::Bytes(cities)),
        price,
        Tensor::new("age", vec![2], Data::I32(vec![30, 0])),
        Tensor::new("age.null", vec![2], Data::Bool(vec![false, true])),
        Tensor::new("phone", vec![2], Data::I64(vec![1, 2])),
    ];
    Arc::new(Request {
        model: "ctr".into(),
        version: None,
        id: None,
        tensors,
        broadcast: vec!["user".into()],
        wanted: vec![],
        deadline: None,
        trace: Trace {
            request: "r-1".into(),
            ..Trace::default()
        },
        arrived: Instant::now(),
        decoded_in: Duration::ZERO,
        fetched: None,
    })
}

fn sample(shadow: bool) -> Sample {
    Sample {
        request: request(),
        rows: 2,
        version: "3".into(),
        bundle: "abc".into(),
        shadow,
        scores: vec![0.25, f32::NAN],
    }
}

fn spec(path: &Path) -> SamplesSpec {
    SamplesSpec {
        path: path.to_owned(),
        rows_per_s: 1e6,
        deny: vec!["phone".into()],
    }
}

fn lines(path: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn a_row_is_a_line_with_its_own_values_and_nothing_that_is_denied() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("samples.jsonl");
    let samples = Samples::open(&spec(&path)).unwrap();
    samples.offer(sample(false));
    samples.offer(sample(true));
    drop(samples);
    let lines = lines(&path);
    assert_eq!(lines.len(), 4);
    let features = |at: usize| &lines[at]["features"];
    let expected = serde_json::json!({"user": i64::MIN, "city": "Zürich", "price": 1.5, "age": 30});
    assert_eq!(*features(0), expected);
    let expected =
        serde_json::json!({"user": i64::MIN, "city": "a\"b", "price": null, "age": null});
    assert_eq!(*features(1), expected);
    assert_eq!(
        (&lines[0]["score"], &lines[1]["score"]),
        (&0.25.into(), &serde_json::Value::Null)
    );
    assert_eq!(lines[2]["shadow"], true);
    for (key, value) in [
        ("model", "ctr"),
        ("version", "3"),
        ("bundle", "abc"),
        ("request", "r-1"),
    ] {
        assert_eq!(lines[0][key], value);
    }
}

#[test]
fn only_its_owner_may_read_it_and_a_link_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("samples.jsonl");
    std::fs::write(&path, "").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    drop(Samples::open(&spec(&path)).unwrap());
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(Samples::open(&spec(&link)).is_err());
}

#[test]
fn a_file_moved_away_is_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("samples.jsonl");
    let samples = Samples::open(&spec(&path)).unwrap();
    samples.offer(sample(false));
    while samples.counts().0 < 2 {
        std::thread::sleep(Duration::from_millis(5));
    }
    std::fs::rename(&path, folder.path().join("old")).unwrap();
    samples.offer(sample(false));
    drop(samples);
    assert_eq!(
        (lines(&path).len(), lines(&folder.path().join("old")).len()),
        (2, 2)
    );
}

#[test]
fn a_full_disk_loses_samples_and_counts_them() {
    let full = spec(Path::new("/dev/full"));
    let Ok(file) = OpenOptions::new().append(true).open(&full.path) else {
        return; // no such device here
    };
    let counts = Arc::new(Counts::default());
    let mut writer = Writer {
        spec: full,
        file,
        buffer: vec![],
        rows: 0,
        counts: counts.clone(),
    };
    write_lines(&mut writer.buffer, &sample(false), &[]);
    writer.rows = 2;
    writer.flush();
    assert_eq!(
        (counts.written.load(Relaxed), counts.lost.load(Relaxed)),
        (0, 2)
    );
}
