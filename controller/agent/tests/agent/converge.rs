//! A site that gets what it is told, serves on when it is cut off, and says so.

use std::time::Duration;

use wick_fleet::Generation;
use wick_fleet::wire::State;
use wick_testing::onnx;

use crate::load::Load;
use crate::rig::{self, PLENTY, Rig};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs mosquitto and docker-registry; cargo xtask fleet"]
async fn a_site_goes_from_version_to_version_and_loses_no_request() {
    let rig = Rig::new();
    rig.enrol("plant-1");
    let site = rig.start("plant-1").await;
    let first = rig.model(1.0).await;
    rig.hub.tell("plant-1", 1, std::slice::from_ref(&first)).await;
    let observed = rig.hub.until_converged("plant-1", 1).await;
    assert!(observed.models.iter().all(|model| model.ready && model.digest == first.digest));
    assert_eq!(site.value().await, Ok(1.0));
    let load = Load::start(site.http);
    // Forward, and back to the first.
    let mut last = 1.0;
    for (generation, value) in [(2, 2.0), (3, 3.0), (4, 1.0)] {
        let model = rig.model(value).await;
        rig.hub.tell("plant-1", generation, &[model]).await;
        rig.hub.until_converged("plant-1", generation).await;
        last = f64::from(value);
        assert_eq!(site.value().await, Ok(last));
    }
    let (good, bad) = load.stop().await;
    assert!(good > 100 && bad.is_empty(), "{good} answered, {bad:?}");
    println!("{good} answered, {} lost", bad.len());
    let known = site.status().await;
    assert!(known.ready && known.link.connected && known.generation == Generation(4), "{known:?}");
    // One more model beside it, and none at the end.
    let other = rig.package("other", "1.0.0", &onnx::add_scalar(1.0, &[4])).await;
    rig.hub.tell("plant-1", 5, &[rig.model(1.0).await, other]).await;
    let observed = rig.hub.until_converged("plant-1", 5).await;
    assert_eq!((observed.models.len(), site.value().await), (2, Ok(last)));
    rig.hub.tell("plant-1", 6, &[]).await;
    rig.hub.until_converged("plant-1", 6).await;
    assert!(site.value().await.is_err_and(|error| error.starts_with("404")));
    site.stop().await;
    let begun = std::time::Instant::now();
    while rig.hub.presence("plant-1").is_none_or(|presence| presence.online) {
        assert!(begun.elapsed() < rig::PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs mosquitto and docker-registry; cargo xtask fleet"]
async fn a_site_that_is_cut_off_serves_on_after_a_restart_too() {
    let mut rig = Rig::new();
    rig.enrol("plant-1");
    let site = rig.start("plant-1").await;
    rig.hub.tell("plant-1", 1, &[rig.model(1.0).await]).await;
    rig.hub.until_converged("plant-1", 1).await;
    rig.broker.end();
    rig.end_registry();
    assert_eq!(site.value().await, Ok(1.0));
    site.stop().await;
    let site = rig.start("plant-1").await;
    site.until_value(1.0).await;
    let known = site.status().await;
    let error = known.link.error.unwrap_or_default();
    assert!(known.ready && !known.link.connected && !error.is_empty(), "{error}");
    // The broker is back, without anything that it knew.
    rig.hub.forget();
    rig.broker.again();
    let observed = rig.hub.until_converged("plant-1", 1).await;
    assert_eq!(observed.wanted, Generation(1));
    assert!(rig.hub.presence("plant-1").is_some_and(|presence| presence.online));
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs mosquitto and docker-registry; cargo xtask fleet"]
async fn a_broker_that_was_away_hears_the_newest_report_only() {
    let mut rig = Rig::new();
    rig.enrol("plant-1");
    let site = rig.start("plant-1").await;
    rig.hub.tell("plant-1", 1, &[rig.model(1.0).await]).await;
    let before = rig.hub.until_converged("plant-1", 1).await;
    for _ in 0..2 {
        rig.broker.end();
        rig.hub.forget();
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(site.value().await, Ok(1.0));
        rig.broker.again();
        let after = rig.hub.until_converged("plant-1", 1).await;
        assert_eq!(after.sequence, before.sequence);
    }
    rig.hub.tell("plant-1", 2, &[rig.model(2.0).await]).await;
    rig.hub.until_converged("plant-1", 2).await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs mosquitto and docker-registry; cargo xtask fleet"]
async fn what_does_not_load_is_tried_again_and_takes_nothing_away() {
    let rig = Rig::new();
    rig.enrol("plant-1");
    let site = rig.start("plant-1").await;
    rig.hub.tell("plant-1", 1, &[rig.model(1.0).await]).await;
    rig.hub.until_converged("plant-1", 1).await;
    let load = Load::start(site.http);
    let bad = rig.package("m", "2.0.0", &onnx::unknown_operator()).await;
    rig.hub.tell("plant-1", 2, &[bad]).await;
    let observed = rig
        .hub
        .until("plant-1", |_, observed| {
            observed.wanted == Generation(2) && observed.reason.as_deref() == Some("died")
        })
        .await;
    assert!(matches!(observed.state, State::Staging | State::Waiting), "{observed:?}");
    assert_eq!(site.value().await, Ok(1.0));
    rig.hub.tell("plant-1", 3, &[rig.model(3.0).await]).await;
    rig.hub.until_converged("plant-1", 3).await;
    let (good, bad) = load.stop().await;
    assert!(good > 10 && bad.is_empty(), "{bad:?}");
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs mosquitto and docker-registry; cargo xtask fleet"]
async fn what_does_not_fit_is_refused_and_old_images_make_room() {
    let rig = Rig::new();
    rig.enrol("plant-1");
    let mut models = Vec::new();
    for value in [1.0, 2.0, 3.0] {
        models.push(rig.model(value).await);
    }
    // Two versions at once, and not a byte more.
    let disk = models[0].bytes + models[1].bytes;
    let site = rig::start(rig.dir.path().join("plant-1"), rig::converge(PLENTY, disk)).await;
    for (generation, model) in (1..).zip(&models) {
        rig.hub.tell("plant-1", generation, std::slice::from_ref(model)).await;
        rig.hub.until_converged("plant-1", generation).await;
    }
    let store = wick_registry::Store::open(rig.dir.path().join("plant-1/store")).unwrap();
    let left: Vec<_> =
        store.images().unwrap().iter().map(wick_registry::StoredImage::digest).collect();
    assert!(left.len() == 2 && !left.contains(&models[0].digest), "{left:?}");
    let large = wick_fleet::Model { bytes: disk, ..rig.model(4.0).await };
    rig.hub.tell("plant-1", 4, &[large]).await;
    let refused = |_, observed: &wick_fleet::wire::Observed| {
        observed.state == State::Waiting && observed.reason.as_deref() == Some("no-disk")
    };
    rig.hub.until("plant-1", refused).await;
    // One that has more bytes than the hub says.
    let graph = onnx::add_scalar(5.0, &[4]);
    let mut padded = rig.package("m", "5.0.0", &[graph, vec![0; 3 << 20]].concat()).await;
    padded.bytes = 10;
    rig.hub.tell("plant-1", 5, &[padded]).await;
    let full = |_, observed: &wick_fleet::wire::Observed| {
        observed.wanted == Generation(5) && observed.reason.as_deref() == Some("disk-full")
    };
    rig.hub.until("plant-1", full).await;
    assert_eq!(site.value().await, Ok(3.0));
    site.stop().await;
}
