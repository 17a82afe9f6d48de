//! Messages as they are on the wire: golden files for each version, and what is refused.

use std::path::PathBuf;

use proptest::prelude::*;
use wick_fleet::wire::{
    Body, Channel, Desired, KeyRing, MAX_MESSAGE, Observed, Presence, Refusal, Refused, Served,
    State, Telemetry, Topic, open, seal,
};
use wick_fleet::{Generation, Model, Moment};
use wick_package::Digest;
use wick_package::signature::PrivateKey;

fn key(seed: u8) -> PrivateKey {
    PrivateKey::from_seed(&[seed; 32])
}

fn ring(serial: u64, seeds: &[u8]) -> KeyRing {
    KeyRing::new(serial, seeds.iter().map(|seed| key(*seed).public()).collect()).unwrap()
}

fn topic(channel: Channel) -> Topic {
    Topic::new("plant-3".parse().unwrap(), channel)
}

fn model() -> Model {
    Model {
        name: "filetype".parse().unwrap(),
        image: "registry.example/vision/filetype".to_owned(),
        digest: Digest::of(b"filetype"),
        bytes: 4 << 20,
        memory: 64 << 20,
    }
}

fn desired() -> Desired {
    Desired { models: vec![model()], rollout: Some("filetype-2".parse().unwrap()) }
}

fn observed() -> Observed {
    Observed {
        sequence: (3 << 32) | 7,
        wanted: Generation(5),
        state: State::Waiting,
        reason: Some("not-ready".to_owned()),
        attempts: 2,
        since: Moment::from_millis(1_700_000_000_000),
        models: vec![Served::new(&model().name, model().digest, true)],
        refused: Some(Refused {
            code: "older".to_owned(),
            text: Refusal::Older { got: Generation(3), have: Generation(5) }.to_string(),
            count: 1,
        }),
        keys: 1,
    }
}

/// Compare with the golden file; `WICK_GOLDEN=write` writes a new one.
fn golden(name: &str, bytes: &[u8]) {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let file = root.join("golden/v1").join(name).with_extension("json");
    if std::env::var("WICK_GOLDEN").is_ok_and(|value| value == "write") {
        std::fs::write(&file, [bytes, b"\n"].concat()).unwrap();
    }
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(String::from_utf8_lossy(bytes), text.trim_end(), "{}", file.display());
}

fn check<B: Body + PartialEq + std::fmt::Debug>(body: &B) {
    let topic = topic(B::CHANNEL);
    let bytes = seal(&topic, Generation(5), body, &key(1), &[]).unwrap();
    golden(B::CHANNEL.as_str(), &bytes);
    let opened = open::<B>(&topic, &bytes, &ring(1, &[1])).unwrap();
    assert_eq!((&opened.body, opened.generation), (body, Generation(5)));
}

#[test]
fn messages_of_version_1_stay_as_they_are() {
    check(&desired());
    check(&observed());
    check(&Presence { online: true, session: 12 });
    check(&Telemetry { sequence: 9, seconds: 60, requests: 1200, errors: 3, p99_us: 41_000 });
}

#[test]
fn a_change_of_keys_stays_as_it_is_and_leads_to_the_new_key() {
    let (one, topic) = (ring(1, &[1]), topic(Channel::Desired));
    let first = one.change(vec![key(1).public(), key(2).public()], &key(1)).unwrap();
    let two = one.after(std::slice::from_ref(&first)).unwrap();
    let second = two.change(vec![key(2).public()], &key(2)).unwrap();
    let bytes = seal(&topic, Generation(6), &desired(), &key(2), &[first, second.clone()]).unwrap();
    golden("desired-with-keys", &bytes);
    // A site that has the first list, the second or both comes to the same.
    for from in [&one, &two] {
        let opened = open::<Desired>(&topic, &bytes, from).unwrap();
        assert_eq!(opened.ring, ring(3, &[2]));
    }
    // One that misses the change between is told so.
    let gap = seal(&topic, Generation(6), &desired(), &key(2), &[second]).unwrap();
    assert_eq!(open::<Desired>(&topic, &gap, &one).unwrap_err().code(), "keys");
    // The key that was taken out is not believed any more.
    let old = seal(&topic, Generation(7), &desired(), &key(1), &[]).unwrap();
    let refusal = open::<Desired>(&topic, &old, &ring(3, &[2])).unwrap_err();
    assert_eq!(refusal.code(), "key");
    // Nobody outside of the list changes it.
    assert!(one.change(vec![key(9).public()], &key(9)).is_err());
    let forged = ring(1, &[9]).change(vec![key(9).public()], &key(9)).unwrap();
    assert_eq!(one.after(&[forged]).unwrap_err().code(), "keys");
}

#[test]
fn unknown_fields_are_passed_over_and_unknown_versions_refused() {
    let topic = topic(Channel::Observed);
    let bytes = seal(&topic, Generation(5), &observed(), &key(1), &[]).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let more = text.replacen('{', "{\"later\":[1],", 1);
    assert!(open::<Observed>(&topic, more.as_bytes(), &ring(1, &[1])).is_ok());
    let two = r#"{"version":2,"body":"another shape"}"#;
    let refusal = open::<Observed>(&topic, two.as_bytes(), &ring(1, &[1])).unwrap_err();
    assert_eq!(refusal, Refusal::Version(2));
    assert_eq!("wick/v2/a/desired".parse::<Topic>().unwrap_err().code(), "version");
    // A body of this version with more in it, as a newer side would sign it.
    let body = r#"{"online":true,"session":1,"later":{}}"#;
    assert_eq!(
        serde_json::from_str::<Presence>(body).unwrap(),
        Presence { online: true, session: 1 }
    );
    let state: State = serde_json::from_str("\"levitating\"").unwrap();
    assert_eq!(state, State::Unknown);
}

#[test]
fn a_message_holds_for_its_topic_its_site_and_its_generation_only() {
    let (own, ring) = (topic(Channel::Desired), ring(1, &[1]));
    let bytes = seal(&own, Generation(5), &desired(), &key(1), &[]).unwrap();
    let other = Topic::new("plant-4".parse().unwrap(), Channel::Desired);
    let refused =
        |topic: &Topic, bytes: &[u8]| open::<Desired>(topic, bytes, &ring).unwrap_err().code();
    assert_eq!(refused(&other, &bytes), "other-topic");
    let text = String::from_utf8(bytes.clone()).unwrap();
    let moved = text.replace("\"site\":\"plant-3\"", "\"site\":\"plant-4\"");
    assert_eq!(refused(&other, moved.as_bytes()), "signature");
    let newer = text.replace("\"generation\":5", "\"generation\":6");
    assert_eq!(refused(&own, newer.as_bytes()), "signature");
    let bigger = text.replace("\"bytes\":4194304", "\"bytes\":4194305");
    assert_eq!(refused(&own, bigger.as_bytes()), "signature");
    assert_eq!(refused(&own, &bytes[..bytes.len() - 1]), "malformed");
    assert_eq!(refused(&own, &vec![b' '; MAX_MESSAGE + 1]), "long");
    // Spaces are not signed, the bytes of the body are.
    let spaced = text.replace("\"body\":{\"models\"", "\"body\":{ \"models\"");
    assert_eq!(refused(&own, spaced.as_bytes()), "signature");
}

#[test]
fn topics_have_one_grammar() {
    for channel in Channel::ALL {
        let text = topic(channel).to_string();
        assert_eq!(text, format!("wick/v1/plant-3/{}", channel.as_str()));
        assert_eq!(text.parse(), Ok(topic(channel)));
    }
    let bad = [
        "",
        "wick",
        "wick/v1",
        "wick/v1/a",
        "wick/v1//desired",
        "wick/v1/+/desired",
        "wick/v1/a/#",
        "wick/v1/a/desired/",
        "wick/v1/A/desired",
        "/wick/v1/a/desired",
        "wick/v1/-a/desired",
        "other/v1/a/desired",
        "wick/v1/a/wanted",
        "$share/g/wick/v1/a/desired",
    ];
    for text in bad {
        assert_eq!(text.parse::<Topic>().unwrap_err().code(), "topic", "{text}");
    }
}

proptest! {
    #[test]
    fn no_bytes_bring_a_reader_down(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = open::<Desired>(&topic(Channel::Desired), &bytes, &ring(1, &[1]));
        let _ = String::from_utf8_lossy(&bytes).parse::<Topic>();
    }

    #[test]
    fn no_change_of_a_byte_is_believed(at in 0usize..10_000, bit in 0u8..8) {
        let topic = topic(Channel::Desired);
        let mut bytes = seal(&topic, Generation(5), &desired(), &key(1), &[]).unwrap();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        // A change of a key's name makes a field that is not known; the rest is as it was signed.
        if let Ok(opened) = open::<Desired>(&topic, &bytes, &ring(1, &[1])) {
            prop_assert_eq!(opened.body, desired());
            prop_assert_eq!(opened.generation, Generation(5));
        }
    }
}
