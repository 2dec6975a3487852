//! One model's trouble is nobody else's.

use super::*;
use crate::error::Kind;

const SLOW: Toy = Toy {
    scale: 1.0,
    takes_us: 100_000,
    slow_from: u64::MAX,
    fails_every: 0,
    broken: false,
    size_bytes: 1,
};

#[tokio::test]
async fn a_slow_model_holds_up_nobody_even_on_one_thread() {
    let mut host = Host::new();
    host.set("slow", &[("1", SLOW)], &[("1", 100.0)]);
    host.set("quick", &[("1", of(2.0))], &[("1", 100.0)]);
    assert!(host.apply().ready);
    let fleet = host.fleet.clone();
    let busy = tokio::spawn(async move {
        for _ in 0..5 {
            fleet.infer(request("slow", None, &[1.0])).await.unwrap();
        }
    });
    let (started, mut answered) = (Instant::now(), 0);
    while !busy.is_finished() && answered < 200 {
        assert_eq!(score(&host.ask("quick", 3.0).await.unwrap()), 6.0);
        answered += 1;
        tokio::task::yield_now().await;
    }
    // All of it beside the slow ones' 500 ms, although runtime and test share one thread.
    assert_eq!(answered, 200, "after {:?}", started.elapsed());
    assert!(!busy.is_finished());
    busy.await.unwrap();
}

#[tokio::test]
async fn a_model_that_turns_slow_gives_the_doors_thread_back() {
    let mut host = Host::new();
    let turning = Toy {
        slow_from: 30,
        ..Toy::default()
    };
    host.set("turning", &[("1", turning)], &[("1", 100.0)]);
    host.apply();
    for _ in 0..30 {
        host.ask("turning", 1.0).await.unwrap();
    }
    let line = host.fleet.entry("turning").unwrap().versions["1"]
        .line
        .clone();
    assert!(
        line.costs.short_rows() > 0,
        "until now it runs in the doors' threads"
    );
    let fleet = host.fleet.clone();
    let asked = tokio::spawn(async move { fleet.infer(request("turning", None, &[1.0])).await });
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
    let held = Instant::now();
    while !asked.is_finished() && held.elapsed() < Duration::from_millis(200) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(
        !asked.is_finished(),
        "this thread is free while the run goes on elsewhere"
    );
    assert_eq!(score(&asked.await.unwrap().unwrap()), 1.0);
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
    host.set("slow", &[("1", SLOW)], &[("1", 100.0)])
        .limits
        .queue = 2;
    host.apply();
    let ask = || {
        let fleet = host.fleet.clone();
        tokio::spawn(async move { fleet.infer(request("slow", None, &[1.0])).await })
    };
    let first = ask();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let rest: Vec<_> = (0..5).map(|_| ask()).collect();
    let mut refused = vec![];
    for answer in rest {
        refused.extend(answer.await.unwrap().err());
    }
    assert!(first.await.unwrap().is_ok());
    assert_eq!(refused.len(), 3);
    assert!(
        refused
            .iter()
            .all(|fault| fault.kind == Kind::Busy && fault.retry_after_s.is_some())
    );
}

#[tokio::test]
async fn what_waits_together_is_scored_in_one_run() {
    let mut host = Host::new();
    host.set("slow", &[("1", SLOW)], &[("1", 100.0)])
        .limits
        .max_batch_rows = 4;
    host.apply();
    let ask = |x: f32| {
        let fleet = host.fleet.clone();
        tokio::spawn(async move { fleet.infer(request("slow", None, &[x])).await })
    };
    let first = ask(0.0);
    tokio::time::sleep(Duration::from_millis(20)).await;
    let rest: Vec<_> = (1..=6).map(|x| ask(x as f32)).collect();
    for (x, answer) in rest.into_iter().enumerate() {
        assert_eq!(score(&answer.await.unwrap().unwrap()), x as f32 + 1.0);
    }
    first.await.unwrap().unwrap();
    let runs = host.fleet.statistics(Some("slow"), None).unwrap().remove(0);
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
    let endless = Toy {
        takes_us: 60_000_000,
        ..Toy::default()
    };
    host.set("slow", &[("1", endless)], &[("1", 100.0)]);
    host.apply();
    let ask = |ms: u64| {
        let fleet = host.fleet.clone();
        let mut request = request("slow", None, &[1.0]);
        request.deadline = Some(Instant::now() + Duration::from_millis(ms));
        tokio::spawn(async move { fleet.infer(request).await })
    };
    let started = Instant::now();
    let running = ask(80);
    tokio::time::sleep(Duration::from_millis(20)).await;
    let waiting = ask(20);
    for answer in [running, waiting] {
        assert_eq!(answer.await.unwrap().unwrap_err().kind, Kind::Late);
    }
    let line = host.fleet.entry("slow").unwrap().versions["1"].line.clone();
    while !line.idle() {
        assert!(
            started.elapsed() < Duration::from_secs(10),
            "the run goes on for nobody"
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_run_along() {
    let mut host = Host::new();
    let endless = Toy {
        takes_us: 60_000_000,
        ..Toy::default()
    };
    host.set("slow", &[("1", endless)], &[("1", 100.0)]);
    host.apply();
    let fleet = host.fleet.clone();
    let asked = tokio::spawn(async move { fleet.infer(request("slow", None, &[1.0])).await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    asked.abort();
    let (line, started) = (
        host.fleet.entry("slow").unwrap().versions["1"].line.clone(),
        Instant::now(),
    );
    while !line.idle() {
        assert!(
            started.elapsed() < Duration::from_secs(10),
            "the run goes on for nobody"
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(host.fleet.metrics().contains(r#"end="gone"} 1"#));
}
