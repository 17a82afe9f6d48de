//! How the hub's signing key changes, and who believes it then.

use serde_json::json;

use crate::bench::{Bench, eventually, rollout};
use crate::broker::Broker;
use crate::faults::Killable;
use crate::site::Site;

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_is_believed_by_sites_that_hear_of_it_and_by_those_that_were_away() {
    let bench = Bench::new();
    let broker = Broker::open(&bench.dir());
    bench.commit("rollouts/a.yaml", &rollout("ocr-1", 1, ""));
    let hub = Killable::start(&bench, &broker.url("mqtt"));
    let caller = hub.caller.clone();
    let (here, away) =
        (Site::enrol(&caller, "plant-1", 1).await, Site::enrol(&caller, "plant-2", 2).await);
    let live = here.live_plain(broker.port);
    eventually("it is told", || async { live.last().is_some() }).await;
    assert_eq!(caller.get("/v1/status").await["keys"]["serial"], 1);
    let viewer = caller.post("/v1/tokens", &json!({"name": "v", "role": "viewer"})).await.1;
    let viewer = caller.with(viewer["token"].as_str().unwrap());
    assert_eq!(viewer.post("/v1/keys/rotate", &json!({})).await.0, 403);
    for serial in 2..5 {
        let (code, made) = caller.post("/v1/keys/rotate", &json!({})).await;
        assert_eq!((code, &made["serial"]), (200, &json!(serial)), "{made}");
    }
    // Everything is said again by the last key. A site checks it against what it was enrolled with.
    let told = live.told.lock().len();
    eventually("it is told again", || async { live.told.lock().len() > told }).await;
    // Of the first key nothing is left, and a hub that starts anew goes on with the last.
    assert!(!bench.dir().join("signing.key").exists());
    let key = caller.get("/v1/status").await["keys"]["key"].clone();
    drop(hub);
    let hub = Killable::start(&bench, &broker.url("mqtt"));
    let caller = hub.caller.clone();
    assert_eq!(caller.get("/v1/status").await["keys"]["key"], key);
    let late = away.live_plain(broker.port);
    eventually("who was away is told", || async { late.last().is_some() }).await;
    let new = Site::enrol(&caller, "plant-3", 3).await;
    assert_eq!(new.enrolled.ring.serial(), 4);
    live.check();
}
