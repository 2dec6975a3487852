//! Canaries, shadows, guards, through the whole fleet.

use super::super::desired::SamplesSpec;
use super::*;

fn with_user(user: i64, x: f32) -> Request {
    let mut request = request("ctr", None, &[x]);
    request
        .tensors
        .push(Tensor::new("user_id", vec![1], Data::I64(vec![user])));
    request
}

#[tokio::test]
async fn a_canary_gets_its_share_and_keeps_its_users() {
    let mut host = Host::new();
    let spec = host.set(
        "ctr",
        &[("1", of(1.0)), ("2", of(2.0))],
        &[("1", 80.0), ("2", 20.0)],
    );
    spec.traffic.sticky = Some("user_id".into());
    spec.guards.score_shift = None;
    host.apply();
    let mut seconds = 0;
    for user in 0..2000 {
        let first = host.fleet.infer(with_user(user, 1.0)).await.unwrap();
        let again = host.fleet.infer(with_user(user, 1.0)).await.unwrap();
        assert_eq!(first.version, again.version);
        seconds += usize::from(&*first.version == "2");
    }
    assert!((340..460).contains(&seconds), "{seconds}");
}

#[tokio::test]
async fn a_failing_canary_is_taken_back_and_stays_back() {
    let mut host = Host::new();
    let failing = Toy {
        fails_every: 10,
        ..Toy::default()
    };
    host.set(
        "ctr",
        &[("1", of(1.0)), ("2", failing)],
        &[("1", 50.0), ("2", 50.0)],
    );
    host.apply();
    let route = || {
        host.fleet
            .entry("ctr")
            .unwrap()
            .route(&request("ctr", None, &[1.0]))
            .unwrap()
    };
    let mut asked = 0;
    while !host.fleet.entry("ctr").unwrap().watches[0].tripped() {
        let _ = host.ask("ctr", 1.0).await;
        asked += 1;
        assert!(asked < 2000);
    }
    let told = events(&host);
    let rollback = told
        .iter()
        .find(|event| event["event"] == "rollback")
        .unwrap();
    assert_eq!(
        (&rollback["model"], &rollback["version"]),
        (&"ctr".into(), &"2".into())
    );
    for _ in 0..50 {
        assert_eq!(&*host.ask("ctr", 1.0).await.unwrap().version, "1");
    }
    host.desired.models.get_mut("ctr").unwrap().limits.queue = 9;
    host.apply();
    assert_eq!(
        &**route().version.label(),
        "1",
        "another change does not bring it back"
    );
    let status = host.fleet.status();
    let canary = &status.models["ctr"].versions[1];
    assert_eq!(canary.traffic, 0.0);
    assert!(canary.rolled_back.as_ref().unwrap().contains("failed"));
    host.desired.models.get_mut("ctr").unwrap().traffic.salt = "next".into();
    host.apply();
    let versions: std::collections::BTreeSet<_> = (0..100)
        .map(|_| route().version.label().to_string())
        .collect();
    assert_eq!(versions.len(), 2, "another release begins anew");
}

#[tokio::test]
async fn requests_that_name_a_version_and_clients_faults_count_for_no_guard() {
    let mut host = Host::new();
    let failing = Toy {
        fails_every: 1,
        ..Toy::default()
    };
    host.set(
        "ctr",
        &[("1", of(1.0)), ("2", failing)],
        &[("1", 50.0), ("2", 50.0)],
    );
    host.apply();
    for _ in 0..1000 {
        assert!(
            host.fleet
                .infer(request("ctr", Some("2"), &[1.0]))
                .await
                .is_err()
        );
        let wrong = Request {
            tensors: vec![],
            ..request("ctr", None, &[1.0])
        };
        assert!(host.fleet.infer(wrong).await.is_err());
    }
    let watch = host.fleet.entry("ctr").unwrap().watches[0].clone();
    assert!(!watch.tripped());
    assert_eq!(watch.error_shares().map(|share| share.of), [0, 0]);
}

#[tokio::test]
async fn a_shadow_scores_what_live_answers_and_is_marked_in_the_samples() {
    let mut host = Host::new();
    let path = host.folder.path().join("samples.jsonl");
    let spec = host.set("ctr", &[("1", of(1.0)), ("2", of(2.0))], &[("1", 100.0)]);
    spec.shadow = vec!["2".into()];
    host.desired.samples = Some(SamplesSpec {
        path: path.clone(),
        rows_per_s: 1e6,
        deny: vec![],
    });
    assert!(host.apply().problems.is_empty());
    for _ in 0..20 {
        assert_eq!(score(&host.ask("ctr", 3.0).await.unwrap()), 3.0);
    }
    let (line, until) = (
        host.fleet.entry("ctr").unwrap().versions["2"].line.clone(),
        Instant::now(),
    );
    while line.shadowed.rows() < 20 {
        assert!(until.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(
        line.counters.rows(),
        0,
        "a shadow's requests are counted apart"
    );
    host.fleet.close(Duration::from_secs(1));
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let scores = |shadow: bool| {
        lines
            .iter()
            .filter(move |line| line["shadow"] == shadow)
            .map(|line| line["score"].as_f64())
    };
    assert!(scores(false).eq([Some(3.0); 20]) && scores(true).eq([Some(6.0); 20]));
}

#[tokio::test]
async fn a_stuck_shadow_is_dropped_and_delays_nobody() {
    let mut host = Host::new();
    let stuck = Toy {
        gated: true,
        ..Toy::default()
    };
    host.set("ctr", &[("1", of(1.0)), ("2", stuck)], &[("1", 100.0)])
        .shadow = vec!["2".into()];
    host.apply();
    for _ in 0..300 {
        assert_eq!(&*host.ask("ctr", 1.0).await.unwrap().version, "1");
    }
    let metrics = host.fleet.metrics();
    let dropped = metrics.lines().find_map(|line| {
        line.strip_prefix(r#"penstock_shadow_requests_total{model="ctr",version="2",end="busy"} "#)
    });
    assert!(dropped.unwrap().parse::<u64>().unwrap() > 100, "{metrics}");
    host.fleet.entry("ctr").unwrap().versions["2"]
        .line
        .engine
        .open
        .store(true, std::sync::atomic::Ordering::SeqCst);
}

#[tokio::test]
async fn a_quarantined_version_is_not_opened() {
    let mut host = Host::new();
    let spec = host.set(
        "ctr",
        &[("1", of(1.0)), ("2", of(2.0))],
        &[("1", 90.0), ("2", 10.0)],
    );
    spec.versions.get_mut("2").unwrap().quarantined = Some("it crashed the process 3 times".into());
    let report = host.apply();
    assert!(
        !report.ready
            && report.models["ctr"]["2"]
                .reason
                .contains("crashed the process 3 times")
    );
    for _ in 0..100 {
        assert_eq!(&*host.ask("ctr", 1.0).await.unwrap().version, "1");
    }
}
