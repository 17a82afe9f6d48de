//! What Models and Pods of the API server become.

use serde_json::json;

use super::*;

fn model(name: &str, status: serde_json::Value) -> Model {
    serde_json::from_value(json!({
        "apiVersion": "wick.dev/v1alpha1",
        "kind": "Model",
        "metadata": {"namespace": "a", "name": name},
        "spec": {
            "package": {"image": "r.example/m:1"},
            "scale": {"hold": {"maxRequests": 7, "timeout": "5s"}},
        },
        "status": status,
    }))
    .unwrap()
}

fn revision(name: &str, weight: i32) -> serde_json::Value {
    json!({"name": name, "image": "i", "weight": weight, "replicas": 0, "readyReplicas": 0})
}

fn pod(name: &str, revision: &str, status: serde_json::Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {
            "namespace": "a",
            "name": name,
            "labels": {"wick.dev/model": "m", "wick.dev/revision": revision},
        },
        "status": status,
    }))
    .unwrap()
}

fn seen() -> Seen {
    let mut seen = Seen::default();
    seen.models.apply(Event::<Model>::InitDone, name_of, model_seen);
    assert_eq!(seen.table(), None, "pods are not known yet");
    seen.pods.apply(Event::<Pod>::InitDone, name_of, pod_seen);
    seen
}

fn shares(seen: &Seen) -> Vec<(String, u8, Vec<String>)> {
    let table = seen.table().unwrap();
    let Some((_, route)) = table.models.first_key_value() else { return Vec::new() };
    let pods = |share: &Share| {
        share.pods.iter().map(|pod| format!("{} {}", pod.address, pod.ready)).collect()
    };
    route.revisions.iter().map(|one| (one.name.clone(), one.weight, pods(one))).collect()
}

#[test]
fn a_model_with_a_port_is_called_and_others_are_not() {
    let mut seen = seen();
    let status = json!({"active": revision("m-1", 95), "candidate": revision("m-2", 5)});
    seen.models.apply(Event::Apply(model("m", status.clone())), name_of, model_seen);
    assert!(seen.table().unwrap().models.is_empty());
    let mut status = status;
    status["activator"] = json!({"port": 20001, "hold": true, "close": false});
    seen.models.apply(Event::Apply(model("m", status)), name_of, model_seen);
    let table = seen.table().unwrap();
    let route = &table.models.first_key_value().unwrap().1;
    assert_eq!((route.port, route.hold, route.max_held), (20001, true, 7));
    assert_eq!(route.hold_timeout, Duration::from_secs(5));
    let weights: Vec<(&str, u8)> =
        route.revisions.iter().map(|one| (one.name.as_str(), one.weight)).collect();
    assert_eq!(weights, [("m-1", 95), ("m-2", 5)]);
}

#[test]
fn pods_count_from_their_address_to_their_end() {
    let mut seen = seen();
    let status = json!({
        "active": revision("m-1", 0),
        "activator": {"port": 20001, "hold": true, "close": false},
    });
    seen.models.apply(Event::Apply(model("m", status)), name_of, model_seen);
    let mut apply = |pod| {
        seen.pods.apply(Event::Apply(pod), name_of, pod_seen);
        let mut shares = shares(&seen);
        assert_eq!((shares.len(), shares[0].1), (1, 100), "all of nothing is the active one's");
        shares.remove(0).2
    };
    assert_eq!(apply(pod("p", "m-1", json!({"phase": "Pending"}))), [""; 0]);
    assert_eq!(apply(pod("p", "m-1", json!({"podIP": "10.0.0.9"}))), ["10.0.0.9:8080 false"]);
    let ready = json!({"podIP": "fd00::9", "conditions": [{"type": "Ready", "status": "True"}]});
    assert_eq!(apply(pod("p", "m-1", ready.clone())), ["[fd00::9]:8080 true"]);
    assert_eq!(apply(pod("q", "m-0", ready.clone())), ["[fd00::9]:8080 true"]);
    let mut ending = pod("p", "m-1", ready);
    ending.metadata.deletion_timestamp =
        Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
    assert_eq!(apply(ending), [""; 0]);
}

#[test]
fn a_new_list_replaces_what_was_known_only_when_it_is_whole() {
    let mut seen = seen();
    let status = json!({"activator": {"port": 20001, "hold": true, "close": false}});
    let mut apply = |event| seen.models.apply(event, name_of, model_seen);
    apply(Event::Apply(model("m", status.clone())));
    apply(Event::Init);
    apply(Event::InitApply(model("n", status)));
    assert_eq!(seen.table().unwrap().models.len(), 1);
    seen.models.apply(Event::<Model>::InitDone, name_of, model_seen);
    assert_eq!(seen.table().unwrap().models.first_key_value().unwrap().0.name, "n");
}

#[test]
fn a_pod_is_known_before_it_has_an_address() {
    let mut seen = seen();
    let mut status = json!({"active": revision("m-1", 100)});
    status["activator"] = json!({"port": 20000, "hold": true, "close": false});
    seen.models.apply(Event::Apply(model("m", status)), name_of, model_seen);
    let first = |seen: &Seen| {
        let table = seen.table().unwrap();
        table.models.first_key_value().unwrap().1.revisions[0].first
    };
    assert_eq!(first(&seen), First::None);
    let mut made = pod("p", "m-1", json!({}));
    seen.pods.apply(Event::Apply(made.clone()), name_of, pod_seen);
    assert_eq!(first(&seen), First::Made);
    made.spec = serde_json::from_value(json!({"nodeName": "n", "containers": []})).unwrap();
    seen.pods.apply(Event::Apply(made.clone()), name_of, pod_seen);
    assert_eq!(first(&seen), First::Placed);
    assert_eq!(shares(&seen)[0].2, Vec::<String>::new());
    seen.pods.apply(Event::Delete(made), name_of, pod_seen);
    assert_eq!(first(&seen), First::None);
}
