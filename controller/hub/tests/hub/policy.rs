//! From a commit to sites.

use serde_json::json;

use crate::bench::{Bench, DIGEST, eventually, rollout};
use crate::broker::Broker;
use crate::site::Site;

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_reaches_sites_wave_by_wave() {
    let bench = Bench::new();
    let broker = Broker::start(&bench.dir());
    let more = "  waves:\n  - take: 1\n    gate: {approval: true}\n  - {}\n";
    bench.commit("rollouts/a.yaml", &rollout("ocr-1", 1, more));
    let (_hub, caller) = bench.hub(broker.url("mqtts")).await;
    let mut lives = Vec::new();
    for (seed, name) in [(1, "plant-1"), (2, "plant-2"), (3, "plant-3")] {
        lives.push(Site::enrol(&caller, name, seed).await.live(broker.port));
    }
    eventually("the first wave serves", || async {
        caller.get("/v1/rollouts").await["rollouts"][0]["sites"]["done"] == 1
    })
    .await;
    assert_eq!(
        lives[0].last().map(|(generation, digest)| (generation.0, digest)),
        Some((1, DIGEST.to_owned()))
    );
    assert!(lives[1].last().is_none() && lives[2].last().is_none());
    let shown = &caller.get("/v1/rollouts").await["rollouts"][0];
    assert_eq!(
        (&shown["wants_approval"], &shown["wave"], &shown["waves"]),
        (&json!(true), &json!(1), &json!(2))
    );
    let (code, done) = caller.post("/v1/rollouts/ocr-1/approve", &json!({"wave": 1})).await;
    assert_eq!(code, 200, "{done}");
    eventually("it is finished", || async { caller.phase("ocr-1").await == "finished" }).await;
    assert!(lives.iter().all(|live| live.last().is_some()));
    let status = caller.get("/v1/status").await;
    assert_eq!(
        status["sites"],
        json!({"enrolled": 3, "online": 3, "converged": 3, "failed": 0, "revoked": 0})
    );
    assert_eq!(status["source"]["error"], json!(null));
    // What became of it, and who asked for what.
    let history = caller.get("/v1/history?rollout=ocr-1").await;
    let phases: Vec<_> =
        history["history"].as_array().unwrap().iter().map(|event| &event["phase"]).collect();
    assert_eq!(phases, ["finished", "running", "running"]);
    let audit = caller.get("/v1/audit").await.to_string();
    assert!(audit.contains("\"approve\"") && audit.contains("ocr-1, wave 1"), "{audit}");
    let told = caller.get("/v1/sites/plant-2/generations").await;
    assert_eq!(told["generations"][0]["models"][0]["digest"], DIGEST);
    assert!(caller.text("/metrics").await.contains("wick_hub_sites{state=\"converged\"} 3"));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_mistake_in_it_a_commit_changes_nothing_and_its_line_is_told() {
    let bench = Bench::new();
    let broker = Broker::start(&bench.dir());
    bench.commit("rollouts/a.yaml", &rollout("ocr-1", 1, ""));
    let (_hub, caller) = bench.hub(broker.url("mqtts")).await;
    let live = Site::enrol(&caller, "plant-1", 1).await.live(broker.port);
    eventually("the first is there", || async { caller.phase("ocr-1").await == "finished" }).await;
    let good = caller.get("/v1/status").await["source"]["commit"].clone();

    bench.commit(
        "rollouts/b.yaml",
        &rollout("ocr-2", 2, "  window: {days: [Someday], from: \"1:00\", until: \"2:00\"}\n"),
    );
    assert_eq!(caller.post("/v1/pull", &json!({})).await.0, 202);
    eventually("the mistake is told", || async {
        let source = caller.get("/v1/status").await["source"].clone();
        source["mistakes"][0]["file"] == "rollouts/b.yaml" && source["mistakes"][0]["line"] == 11
    })
    .await;
    let status = caller.get("/v1/status").await;
    assert_eq!(status["source"]["commit"], good);
    assert!(status["source"]["error"].as_str().unwrap().contains("rollouts/b.yaml:11"));
    assert_eq!(caller.phase("ocr-1").await, "finished");
    assert_eq!(live.last().unwrap().0.0, 1);
    assert!(caller.text("/metrics").await.contains("wick_hub_policy_good 0"));

    // A rollout that has begun stays what it is.
    bench.git(&["rm", "--quiet", "rollouts/b.yaml"]);
    bench.commit("rollouts/a.yaml", &rollout("ocr-1", 3, ""));
    eventually("the change is refused", || async {
        let error = caller.get("/v1/status").await["source"]["error"].clone();
        error.as_str().is_some_and(|error| error.contains("ocr-1 has begun"))
    })
    .await;

    bench.write("rollouts/a.yaml", &rollout("ocr-1", 1, ""));
    bench.commit("rollouts/b.yaml", &rollout("ocr-2", 2, ""));
    eventually("the correction is in force", || async {
        caller.phase("ocr-2").await == "finished"
    })
    .await;
    assert_eq!(caller.get("/v1/status").await["source"]["mistakes"], json!([]));
    assert_eq!(live.last().unwrap().0.0, 2);
    live.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_that_was_rewritten_is_followed() {
    let bench = Bench::new();
    let broker = Broker::start(&bench.dir());
    bench.commit("README.md", "a fleet");
    bench.commit("rollouts/a.yaml", &rollout("ocr-1", 1, ""));
    let (_hub, caller) = bench.hub(broker.url("mqtts")).await;
    let live = Site::enrol(&caller, "plant-1", 1).await.live(broker.port);
    eventually("the first is there", || async { caller.phase("ocr-1").await == "finished" }).await;
    // Another root, which follows nothing that the hub has.
    bench.git(&["checkout", "--quiet", "--orphan", "other"]);
    bench.git(&["rm", "--quiet", "-r", "--force", "."]);
    bench.commit("rollouts/b.yaml", &rollout("ocr-2", 2, ""));
    bench.git(&["branch", "--quiet", "--force", "main", "other"]);
    bench.git(&["reflog", "expire", "--expire=now", "--all"]);
    bench.git(&["gc", "--quiet", "--prune=now"]);
    eventually("the second is there", || async { caller.phase("ocr-2").await == "finished" }).await;
    assert_eq!(live.last().unwrap().0.0, 2);
    // The first has left the policy, and what it brought was replaced.
    assert_eq!(caller.phase("ocr-1").await, "");
    live.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_is_followed_and_a_dry_run_keeps_nothing() {
    let bench = Bench::new();
    let broker = Broker::open(&bench.dir());
    bench.commit("rollouts/a.yaml", &rollout("ocr-1", 1, ""));
    bench.git(&["tag", "--annotate", "--message", "now", "production"]);
    bench.commit("rollouts/b.yaml", &rollout("ocr-2", 2, ""));
    let mut settings = bench.settings(broker.url("mqtt"));
    if let wick_hub::Source::Git(git, _) = &mut settings.source {
        "tags/production".clone_into(&mut git.reference);
    }
    let hub = wick_hub::Hub::start(settings).await.unwrap();
    let caller = crate::bench::Caller::new(hub.api, &bench.token);
    let site = Site::enrol(&caller, "plant-1", 1).await;
    let _live = site.live_plain(broker.port);
    eventually("the tag's is there", || async { caller.phase("ocr-1").await == "finished" }).await;
    assert_eq!(caller.phase("ocr-2").await, "");

    let files = json!({"files": [
        {"path": "rollouts/a.yaml", "text": rollout("ocr-1", 1, "")},
        {"path": "rollouts/c.yaml", "text": rollout("ocr-3", 3, "")},
    ]});
    let (code, dry) = caller.post("/v1/plan", &files).await;
    assert_eq!(code, 200);
    assert_eq!(dry["changes"], json!([{"site": "plant-1", "generation": 2, "rollout": "ocr-3"}]));
    assert!(dry["text"].as_str().unwrap().contains("rollout ocr-3: running, wave 1"), "{dry}");
    assert_eq!(caller.phase("ocr-3").await, "");
    let files = json!({"files": [{"path": "rollouts/a.yaml", "text": "kind: ["}]});
    assert_eq!(caller.post("/v1/plan", &files).await.1["mistakes"][0]["file"], "rollouts/a.yaml");
}
