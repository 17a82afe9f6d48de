//! Messages that are not as they should be: each is refused by its reason, and none changes anything.

use wick_fleet::Generation;
use wick_fleet::wire::{Channel, Desired, Topic, seal};
use wick_package::signature::PrivateKey;

use crate::rig::Rig;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs mosquitto and docker-registry; cargo xtask fleet"]
async fn messages_that_are_not_the_hubs_change_nothing_and_are_reported() {
    let rig = Rig::new();
    rig.enrol("plant-1");
    let site = rig.start("plant-1").await;
    let (first, second) = (rig.model(1.0).await, rig.model(2.0).await);
    let old = rig.hub.desired("plant-1", 1, std::slice::from_ref(&first));
    rig.hub.say("plant-1", old.clone()).await;
    rig.hub.until_converged("plant-1", 1).await;
    rig.hub.tell("plant-1", 2, std::slice::from_ref(&second)).await;
    rig.hub.until_converged("plant-1", 2).await;
    let good = rig.hub.desired("plant-1", 3, std::slice::from_ref(&first));

    let thief = PrivateKey::from_seed(&[66; 32]);
    let topic = Topic::new("plant-1".parse().unwrap(), Channel::Desired);
    let desired = Desired { models: vec![first.clone()], rollout: None };
    let forged = seal(&topic, Generation(9), &desired, &thief, &[]).unwrap();
    let text = String::from_utf8(good.clone()).unwrap();
    let unsigned = text.replace("\"signature\":\"", "\"signature\":\"AAAA");
    let moved = rig.hub.desired("plant-2", 9, std::slice::from_ref(&first));
    let conflict = rig.hub.desired("plant-1", 2, std::slice::from_ref(&first));
    let newer = text.replacen("\"version\":1", "\"version\":7", 1);
    let cases = [
        old,
        good[..good.len() / 2].to_vec(),
        vec![b'x'; 100_000],
        unsigned.into_bytes(),
        forged,
        moved,
        conflict,
        newer.into_bytes(),
        Vec::from("\u{0}\u{ff}"),
    ];
    let refused = cases.len() as u64;
    for bytes in cases {
        rig.hub.say("plant-1", bytes).await;
    }
    // They are told together, at most every ten seconds.
    let told = |_, observed: &wick_fleet::wire::Observed| {
        observed.refused.as_ref().is_some_and(|last| last.count == refused)
    };
    let observed = rig.hub.until("plant-1", told).await;
    assert_eq!(observed.wanted, Generation(2));
    assert_eq!(observed.refused.map(|last| last.code), Some("malformed".to_owned()));
    assert_eq!(site.value().await, Ok(2.0));
    let metrics = crate::rig::text(site.control, "/metrics").await;
    assert!(metrics.contains("\nwick_agent_refused_messages 9\n"), "{metrics}");
    // A packet past what the agent takes is dropped by the broker, and the link goes on.
    rig.hub.say("plant-1", vec![b'x'; 600_000]).await;
    // The same twice, and then the next.
    rig.hub.say("plant-1", good.clone()).await;
    rig.hub.say("plant-1", good).await;
    rig.hub.until_converged("plant-1", 3).await;
    assert_eq!(site.value().await, Ok(1.0));
    site.stop().await;
}
