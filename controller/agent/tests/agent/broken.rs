//! A registry that cuts, lies or is not there.

use std::sync::atomic::Ordering;
use std::time::Duration;

use wick_fleet::wire::State;
use wick_fleet::{Generation, Model};
use wick_testing::onnx;

use crate::cable::Cable;
use crate::rig::{Rig, free_port};

/// Through a cable, an image of this size.
async fn large(rig: &Rig, cable: &Cable, version: &str, value: f32) -> Model {
    let mut noise: Vec<u8> =
        (0..4_u64 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    // Bytes that a model does not know of, as a field of its own.
    let mut graph = onnx::add_scalar(value, &[4]);
    noise.truncate(4 << 20);
    graph.extend(onnx::field(15, &noise));
    let model = rig.package("m", version, &graph).await;
    let image = model.image.replace(&rig.registry.to_string(), &cable.addr.to_string());
    Model { image, ..model }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs mosquitto and docker-registry; cargo xtask fleet"]
async fn a_registry_that_cuts_or_lies_costs_tries_and_nothing_else() {
    let rig = Rig::new();
    rig.enrol("plant-1");
    let site = rig.start("plant-1").await;
    rig.hub.tell("plant-1", 1, &[rig.model(1.0).await]).await;
    rig.hub.until_converged("plant-1", 1).await;
    let cable = Cable::to(rig.registry);
    for (generation, changes, reason) in [(2, false, "unreachable"), (3, true, "wrong-bytes")] {
        let value = generation as f32;
        cable.changes.store(changes, Ordering::Relaxed);
        cable.after.store(2 << 20, Ordering::Relaxed);
        cable.spoilt.store(0, Ordering::Relaxed);
        let model = large(&rig, &cable, &format!("{generation}.0.0"), value).await;
        rig.hub.tell("plant-1", generation, &[model]).await;
        if changes {
            let failed = |_, observed: &wick_fleet::wire::Observed| {
                observed.wanted == Generation(generation)
                    && observed.reason.as_deref() == Some(reason)
            };
            rig.hub.until("plant-1", failed).await;
        } else {
            while cable.spoilt.load(Ordering::Relaxed) == 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        assert_eq!(site.value().await, Ok(if generation == 2 { 1.0 } else { 2.0 }));
        cable.after.store(u64::MAX, Ordering::Relaxed);
        rig.hub.until_converged("plant-1", generation).await;
        assert_eq!(site.value().await, Ok(f64::from(value)));
    }
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs mosquitto and docker-registry; cargo xtask fleet"]
async fn a_registry_that_is_not_there_is_told_and_another_generation_goes_on() {
    let rig = Rig::new();
    rig.enrol("plant-1");
    let site = rig.start("plant-1").await;
    let model = rig.model(1.0).await;
    let nowhere = format!("127.0.0.1:{}/team/m:1.0.0", free_port());
    rig.hub.tell("plant-1", 1, &[Model { image: nowhere, ..model.clone() }]).await;
    let failed = |_, observed: &wick_fleet::wire::Observed| {
        observed.reason.as_deref() == Some("unreachable") && observed.state == State::Fetching
    };
    rig.hub.until("plant-1", failed).await;
    let ready = crate::rig::text(site.control, "/readyz").await;
    assert_eq!(ready, "ready\n", "nothing is to be served yet");
    rig.hub.tell("plant-1", 2, &[model]).await;
    rig.hub.until_converged("plant-1", 2).await;
    site.stop().await;
}
