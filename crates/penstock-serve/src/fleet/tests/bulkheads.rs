//! One model's trouble is nobody else's.

use super::*;
use crate::error::Kind;
use crate::fleet::line::Line;
use std::sync::atomic::Ordering;

const SHUT: Toy = Toy {
    scale: 1.0,
    takes_us: 0,
    gated: true,
    fails_every: 0,
    broken: false,
    rotten: false,
    size_bytes: 1,
};

fn line(host: &Host, model: &str) -> std::sync::Arc<Line<ToyModel>> {
    host.fleet.entry(model).unwrap().versions["1"].line.clone()
}

/// Until something is so.
async fn until(so: impl Fn() -> bool) {
    let started = Instant::now();
    while !so() {
        assert!(started.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_stuck_model_holds_up_nobody_even_on_one_thread() {
    let mut host = Host::new();
    host.set("stuck", &[("1", SHUT)], &[("1", 100.0)]);
    host.set("quick", &[("1", of(2.0))], &[("1", 100.0)]);
    assert!(host.apply().ready);
    let fleet = host.fleet.clone();
    let stuck = tokio::spawn(async move { fleet.infer(request("stuck", None, &[1.0])).await });
    for _ in 0..200 {
        assert_eq!(score(&host.ask("quick", 3.0).await.unwrap()), 6.0);
    }
    assert!(!stuck.is_finished());
    line(&host, "stuck")
        .engine
        .open
        .store(true, Ordering::SeqCst);
    assert!(stuck.await.unwrap().is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_that_waits_is_forgotten_where_doors_and_the_versions_own_thread_race_for_its_lane()
{
    let mut host = Host::new();
    host.set("ctr", &[("1", of(1.0))], &[("1", 100.0)]);
    host.apply();
    let asks = |rows: usize| {
        let fleet = host.fleet.clone();
        tokio::spawn(async move {
            // Large requests go to the version's thread, small ones are led: both want the one lane.
            let x = vec![1.0; rows];
            for _ in 0..3_000 {
                let asked = fleet.infer(request("ctr", None, &x));
                let answer = tokio::time::timeout(Duration::from_secs(20), asked).await;
                answer.expect("an answer").unwrap();
            }
        })
    };
    let all: Vec<_> = [1, 1, 1, 50_000, 3, 7, 50_000, 1].map(asks).into();
    for one in all {
        one.await.unwrap();
    }
}

#[tokio::test]
async fn a_run_that_is_longer_than_expected_gives_the_doors_thread_back() {
    let mut host = Host::new();
    host.set("ctr", &[("1", of(1.0))], &[("1", 100.0)]);
    host.apply();
    let line = line(&host, "ctr");
    let mut asked = 0;
    while line.costs.short_rows() == 0 {
        host.ask("ctr", 1.0).await.unwrap();
        asked += 1;
        assert!(asked < 100_000, "runs that are short are known to be short");
    }
    let fleet = host.fleet.clone();
    let slow = tokio::spawn(async move { fleet.infer(request("ctr", None, &[-3.0])).await });
    let started = Instant::now();
    while started.elapsed() < Duration::from_millis(200) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(
        !slow.is_finished(),
        "this thread is free while the run of 300 ms goes on elsewhere"
    );
    assert_eq!(score(&slow.await.unwrap().unwrap()), -3.0);
}

#[tokio::test]
async fn a_panic_fails_its_request_alone_and_the_lane_is_made_anew() {
    let mut host = Host::new();
    host.set("ctr", &[("1", of(1.0))], &[("1", 100.0)]);
    host.apply();
    for _ in 0..3 {
        let fault = host.ask("ctr", -1.0).await.unwrap_err();
        assert_eq!(fault.kind, Kind::Internal);
        assert!(
            fault.message.contains("panicked: minus one"),
            "{}",
            fault.message
        );
        assert_eq!(score(&host.ask("ctr", 5.0).await.unwrap()), 5.0);
    }
    assert_eq!(
        events(&host)
            .iter()
            .filter(|event| event["event"] == "panic")
            .count(),
        3
    );
}

#[tokio::test]
async fn a_full_queue_refuses_and_says_when_to_come_back() {
    let mut host = Host::new();
    host.set("stuck", &[("1", SHUT)], &[("1", 100.0)])
        .limits
        .queue = 2;
    host.apply();
    let (line, mut asked) = (line(&host, "stuck"), vec![]);
    let ask = || {
        let fleet = host.fleet.clone();
        tokio::spawn(async move { fleet.infer(request("stuck", None, &[1.0])).await })
    };
    asked.push(ask());
    until(|| !line.idle() && line.depth() == 0).await;
    asked.extend([ask(), ask()]);
    until(|| line.depth() == 2).await;
    for _ in 0..3 {
        let fault = ask().await.unwrap().unwrap_err();
        assert!(
            fault.kind == Kind::Busy && fault.retry_after_s.is_some(),
            "{fault:?}"
        );
    }
    line.engine.open.store(true, Ordering::SeqCst);
    for answer in asked {
        assert!(answer.await.unwrap().is_ok());
    }
}

#[tokio::test]
async fn what_waits_together_is_scored_in_one_run() {
    let mut host = Host::new();
    host.set("stuck", &[("1", SHUT)], &[("1", 100.0)])
        .limits
        .max_batch_rows = 4;
    host.apply();
    let (line, mut asked) = (line(&host, "stuck"), vec![]);
    let ask = |x: usize| {
        let fleet = host.fleet.clone();
        tokio::spawn(async move { fleet.infer(request("stuck", None, &[x as f32])).await })
    };
    asked.push(ask(0));
    until(|| !line.idle() && line.depth() == 0).await;
    asked.extend((1..=6).map(ask));
    until(|| line.depth() == 6).await;
    line.engine.open.store(true, Ordering::SeqCst);
    for (x, answer) in asked.into_iter().enumerate() {
        assert_eq!(score(&answer.await.unwrap().unwrap()), x as f32);
    }
    let runs = host
        .fleet
        .statistics(Some("stuck"), None)
        .unwrap()
        .remove(0);
    let told: Vec<(u64, u64)> = runs
        .batches
        .iter()
        .map(|(rows, (n, _))| (*rows, *n))
        .collect();
    assert_eq!(told, [(1, 1), (2, 1), (4, 1)]);
    assert_eq!((runs.rows, runs.succeeded.0), (7, 7));
}

#[tokio::test]
async fn a_deadline_ends_a_run_and_a_request_that_waits() {
    let mut host = Host::new();
    host.set("stuck", &[("1", SHUT)], &[("1", 100.0)]);
    host.apply();
    let ask = |ms: u64| {
        let fleet = host.fleet.clone();
        let mut request = request("stuck", None, &[1.0]);
        request.deadline = Some(Instant::now() + Duration::from_millis(ms));
        tokio::spawn(async move { fleet.infer(request).await })
    };
    for answer in [ask(200), ask(300)] {
        assert_eq!(answer.await.unwrap().unwrap_err().kind, Kind::Late);
    }
    let line = line(&host, "stuck");
    until(|| line.idle()).await;
    assert!(host.fleet.metrics().contains(r#"end="late"} 2"#));
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_run_along() {
    let mut host = Host::new();
    host.set("stuck", &[("1", SHUT)], &[("1", 100.0)]);
    host.apply();
    let (fleet, line) = (host.fleet.clone(), line(&host, "stuck"));
    let asked = tokio::spawn(async move { fleet.infer(request("stuck", None, &[1.0])).await });
    until(|| !line.idle() && line.depth() == 0).await;
    asked.abort();
    until(|| line.idle()).await;
    assert!(host.fleet.metrics().contains(r#"end="gone"} 1"#));
}
