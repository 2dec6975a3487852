//! What serves changes under load, and no request notices.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;
use crate::error::Kind;
use crate::service::State;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_swaps_under_load_fail_no_request() {
    let mut host = Host::new();
    let toy = |n: usize| Toy {
        scale: n as f32,
        takes_us: 20 * (n as u64 % 2),
        ..Toy::default()
    };
    host.set("ctr", &[("1", toy(0))], &[("1", 100.0)])
        .limits
        .concurrency = 2;
    host.apply();
    let (over, answered) = (
        std::sync::Arc::new(AtomicBool::new(false)),
        std::sync::Arc::new(AtomicU64::new(0)),
    );
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (fleet, over, answered) = (host.fleet.clone(), over.clone(), answered.clone());
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    let reply = fleet.infer(request("ctr", None, &[1.0])).await.unwrap();
                    // The answer is of the bundle that it names.
                    assert!(
                        reply
                            .bundle
                            .contains(&format!("scale:{:?},", score(&reply))),
                        "{}",
                        reply.bundle
                    );
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for n in 1..=1000 {
        host.set("ctr", &[("1", toy(n % 4))], &[("1", 100.0)])
            .limits
            .concurrency = 2;
        let (fleet, desired) = (host.fleet.clone(), host.desired.clone());
        let report = tokio::task::spawn_blocking(move || fleet.apply(desired))
            .await
            .unwrap();
        assert_eq!(
            (report.ready, report.loaded, report.unloaded),
            (true, 1, 1),
            "swap {n}"
        );
    }
    over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    assert!(answered.load(Ordering::Relaxed) > 1000, "{answered:?}");
}

#[tokio::test]
async fn a_version_that_will_not_load_leaves_the_old_one_serving() {
    let mut host = Host::new();
    host.set("ctr", &[("1", of(1.0))], &[("1", 100.0)]);
    assert!(host.apply().ready);
    let broken = Toy {
        broken: true,
        ..Toy::default()
    };
    host.set("ctr", &[("2", broken.clone())], &[("2", 100.0)]);
    let report = host.apply();
    assert!(!report.ready && !host.fleet.ready());
    assert_eq!(report.models["ctr"]["2"].reason, "its graph is broken");
    let reply = host.ask("ctr", 4.0).await.unwrap();
    assert_eq!((score(&reply), &*reply.version), (4.0, "1"));
    // The same label with another bundle that is broken, too.
    host.set("ctr", &[("1", broken)], &[("1", 100.0)]);
    assert!(!host.apply().ready);
    assert_eq!(score(&host.ask("ctr", 4.0).await.unwrap()), 4.0);
    host.set("ctr", &[("1", of(3.0))], &[("1", 100.0)]);
    assert!(host.apply().ready && host.fleet.ready());
    assert_eq!(score(&host.ask("ctr", 4.0).await.unwrap()), 12.0);
}

#[tokio::test]
async fn the_others_serve_without_one_and_an_optional_one_is_not_waited_for() {
    let mut host = Host::new();
    let broken = Toy {
        broken: true,
        ..Toy::default()
    };
    host.set("bad", &[("1", broken)], &[("1", 100.0)]);
    host.set("good", &[("1", of(1.0))], &[("1", 100.0)]);
    assert!(!host.fleet.ready(), "nothing was applied yet");
    assert!(!host.apply().ready && !host.fleet.ready());
    assert!(host.ask("good", 1.0).await.is_ok());
    let fault = host.ask("bad", 1.0).await.unwrap_err();
    assert_eq!(fault.kind, Kind::Unavailable);
    assert!(fault.message.contains("broken") && fault.retry_after_s.is_some());
    assert_eq!(host.fleet.index()[0].state, State::Unavailable);
    host.desired.models.get_mut("bad").unwrap().optional = true;
    assert!(host.apply().ready && host.fleet.ready());
    host.fleet.drain();
    assert!(!host.fleet.ready() && host.ask("good", 1.0).await.is_ok());
}

#[tokio::test]
async fn unknown_names_are_told_from_known_ones_and_are_no_labels() {
    let mut host = Host::new();
    host.set("ctr", &[("1", of(1.0)), ("2", of(2.0))], &[("1", 100.0)]);
    host.apply();
    for (model, version) in [("other", None), ("ctr", Some("9"))] {
        let fault = host
            .fleet
            .infer(request(model, version, &[1.0]))
            .await
            .unwrap_err();
        assert_eq!(fault.kind, Kind::NotFound);
        assert!(!host.fleet.model_ready(model, version));
    }
    assert_eq!(
        score(
            &host
                .fleet
                .infer(request("ctr", Some("2"), &[1.0]))
                .await
                .unwrap()
        ),
        2.0
    );
    let fault = host
        .fleet
        .infer(Request {
            wanted: vec!["sc".into()],
            ..request("ctr", None, &[1.0])
        })
        .await;
    assert!(fault.unwrap_err().message.contains("no output 'sc'"));
    let metrics = host.fleet.metrics();
    assert!(
        metrics.contains(r#"penstock_requests_total{model="ctr",version="2",end="ok"} 1"#),
        "{metrics}"
    );
    assert!(metrics.contains(r#"end="client"} 1"#));
    assert!(!metrics.contains("other") && !metrics.contains("\"9\""));
    assert!(
        metrics.contains(r#"penstock_stage_seconds_count{model="ctr",version="2",stage="run"} 1"#)
    );
}

#[tokio::test]
async fn memory_is_counted_before_a_second_version_loads() {
    let mut host = Host::new();
    let large = |scale| Toy {
        scale,
        size_bytes: 60 << 20,
        ..Toy::default()
    };
    host.desired.memory_bytes = 100 << 20;
    host.set("ctr", &[("1", large(1.0))], &[("1", 100.0)]);
    assert!(host.apply().ready);
    host.set(
        "ctr",
        &[("1", large(1.0)), ("2", large(2.0))],
        &[("1", 100.0)],
    );
    let report = host.apply();
    let refused = &report.models["ctr"]["2"].reason;
    assert!(
        refused.contains("about 60 MB beside the 60 MB in use, and the budget is 100 MB"),
        "{refused}"
    );
    assert_eq!(score(&host.ask("ctr", 1.0).await.unwrap()), 1.0);
    // Other limits need no second engine.
    host.set("ctr", &[("1", large(1.0))], &[("1", 100.0)])
        .limits
        .concurrency = 4;
    assert!(host.apply().ready);
}

#[tokio::test]
async fn a_model_taken_out_by_hand_stays_out_until_it_is_taken_in() {
    let mut host = Host::new();
    host.set("ctr", &[("1", of(1.0))], &[("1", 100.0)]);
    host.apply();
    host.fleet.unload("ctr").await.unwrap();
    assert_eq!(
        host.ask("ctr", 1.0).await.unwrap_err().kind,
        Kind::Unavailable
    );
    assert_eq!(host.apply().models["ctr"]["1"].state, "unloaded");
    assert!(host.fleet.ready(), "somebody wanted it so");
    assert_eq!(host.fleet.index()[0].reason, "unloaded");
    host.fleet.load("ctr").await.unwrap();
    assert_eq!(score(&host.ask("ctr", 1.0).await.unwrap()), 1.0);
    assert_eq!(
        host.fleet.load("none").await.unwrap_err().kind,
        Kind::NotFound
    );
}

#[tokio::test]
async fn what_is_not_wanted_any_more_is_gone() {
    let mut host = Host::new();
    host.set("ctr", &[("1", of(1.0))], &[("1", 100.0)]);
    host.apply();
    host.desired.models.clear();
    assert_eq!(host.apply().unloaded, 1);
    assert_eq!(host.ask("ctr", 1.0).await.unwrap_err().kind, Kind::NotFound);
    assert!(host.fleet.index().is_empty());
}

#[tokio::test]
async fn damage_in_what_is_mapped_is_found_without_a_request_and_told_once() {
    let mut host = Host::new();
    let rotten = Toy {
        rotten: true,
        ..of(1.0)
    };
    host.set("ctr", &[("1", rotten), ("2", of(2.0))], &[("1", 100.0)]);
    host.apply();
    let mut told = vec![];
    let since = Instant::now();
    while told.is_empty() && since.elapsed() < Duration::from_secs(10) {
        tokio::time::sleep(Duration::from_millis(5)).await;
        told = host.fleet.events();
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    told.extend(host.fleet.events());
    assert_eq!(told.len(), 1, "{told:?}");
    let event: serde_json::Value = serde_json::from_str(&told[0]).unwrap();
    assert_eq!(
        (&event["event"], &event["version"]),
        (&"damaged".into(), &"1".into())
    );
    assert!(event["why"].as_str().unwrap().contains("row block 3"));
    // It answers until the control side has decided.
    assert!(host.fleet.infer(request("ctr", None, &[1.0])).await.is_ok());
}
