use serde_json::{Value, json};
use wick_package::Digest;

use super::*;

fn model(spec: Value) -> Model {
    let mut spec = spec;
    spec["package"] = json!({"image": "registry.example/vision/filetype:1.2.0"});
    let value = json!({
        "apiVersion": "wick.dev/v1alpha1",
        "kind": "Model",
        "metadata": {"name": "filetype", "namespace": "vision", "uid": "1-2-3"},
        "spec": spec,
    });
    wick_api::parse(value).unwrap()
}

fn revision(model: &Model) -> Revision {
    let digest: Digest = format!("sha256:{}", "a".repeat(64)).parse().unwrap();
    Revision::new(model.metadata.name.as_deref().unwrap(), &model.spec, digest).unwrap()
}

fn all(spec: Value, target: &Target) -> Vec<Value> {
    let model = model(spec);
    let revision = revision(&model);
    let current = [revision.name.clone()];
    let wanted = Wanted { model: &model, revisions: &[revision], current: &current, target };
    objects(&wanted).iter().map(Object::to_value).collect()
}

fn kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

fn pods(addresses: &[&str]) -> Target {
    let pod = |address: &&str| PodEndpoint {
        address: address.parse().unwrap(),
        name: format!("pod-{address}"),
        uid: "4-5-6".to_owned(),
        node: Some("edge-1".to_owned()),
        zone: None,
    };
    Target::Pods(addresses.iter().map(pod).collect())
}

#[test]
fn a_model_that_says_little_needs_four_objects() {
    let yaml: Vec<String> = all(json!({}), &pods(&["10.0.0.7"]))
        .iter()
        .map(|object| serde_saphyr::to_string(object).unwrap())
        .collect();
    let text = yaml.join("---\n");
    assert_eq!(text, include_str!("golden.yaml"), "\n{text}");
}

#[test]
fn what_a_model_says_about_its_pods_is_in_them() {
    let spec = json!({
        "env": [
            {"name": "LINE", "value": "4"},
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "api", "key": "token"}}},
            {"name": "MODE", "valueFrom": {"configMapKeyRef": {"name": "cfg", "key": "mode"}}},
        ],
        "network": ["a.example:1", "b.example:2"],
        "resources": {
            "requests": {"cpu": "1"},
            "limits": {"nvidia.com/gpu": 1, "wick.dev/device-memory": "2Gi"},
        },
        "devices": [{"name": "npu", "resourceClaimTemplateName": "small", "request": "any"}],
        "scheduling": {
            "nodeSelector": {"kubernetes.io/arch": "arm64"},
            "tolerations": [{"key": "npu", "operator": "Exists", "effect": "NoSchedule"}],
            "topologySpreadConstraints": [{"topologyKey": "kubernetes.io/hostname"}],
            "priorityClassName": "high",
        },
        "serviceAccountName": "models",
        "imagePullSecrets": [{"name": "registry"}],
    });
    let objects = all(spec.clone(), &pods(&[]));
    let template = &kind(&objects, "Deployment")[0]["spec"]["template"];
    let pod = &template["spec"];
    let container = &pod["containers"][0];
    assert_eq!(
        template["metadata"]["annotations"],
        json!({
            "wick.dev/network": "a.example:1, b.example:2",
            "wick.dev/device-memory": "2147483648",
        })
    );
    assert_eq!(container["env"], spec["env"]);
    assert_eq!(
        container["resources"],
        json!({
            "requests": {"cpu": "1"},
            "limits": {"nvidia.com/gpu": "1", "wick.dev/device-memory": "2Gi"},
            "claims": [{"name": "npu", "request": "any"}],
        })
    );
    assert_eq!(
        pod["resourceClaims"],
        json!([{"name": "npu", "resourceClaimTemplateName": "small"}])
    );
    assert_eq!(pod["nodeSelector"], spec["scheduling"]["nodeSelector"]);
    assert_eq!(pod["tolerations"], spec["scheduling"]["tolerations"]);
    let spread = &pod["topologySpreadConstraints"][0];
    assert_eq!(spread["whenUnsatisfiable"], "ScheduleAnyway");
    assert_eq!(spread["labelSelector"], kind(&objects, "Deployment")[0]["spec"]["selector"]);
    assert_eq!(pod["priorityClassName"], "high");
    assert_eq!(pod["serviceAccountName"], "models");
    assert_eq!(pod["imagePullSecrets"], spec["imagePullSecrets"]);
}

/// The shim refuses annotations `wick.dev/…` of a pod that it does not know.
#[test]
fn pods_have_only_annotations_that_the_shim_knows() {
    let model = model(json!({
        "network": ["a.example:1"], "prefetch": {"policy": "Always"},
        "resources": {"limits": {"wick.dev/device-memory": "1Gi"}},
    }));
    let mut revision = revision(&model);
    revision.found = Some("{}".to_owned());
    let target = pods(&[]);
    let current = [revision.name.clone()];
    let wanted =
        Wanted { model: &model, revisions: &[revision], current: &current, target: &target };
    let known = include_str!("../../../../docs/shim.md");
    for object in objects(&wanted) {
        let value = object.to_value();
        let annotations = value["spec"]["template"]["metadata"]["annotations"].as_object();
        for name in annotations.into_iter().flat_map(serde_json::Map::keys) {
            assert!(known.contains(&format!("| `{name}` |")), "{name}");
        }
        match object.kind() {
            "Deployment" => assert_eq!(annotations.map(serde_json::Map::len), Some(3)),
            "DaemonSet" => assert_eq!(annotations.map(serde_json::Map::len), Some(2)),
            _ => {}
        }
    }
}

#[test]
fn no_deployment_says_how_many_pods_it_has() {
    for spec in [json!({}), json!({"scale": {"minReplicas": 3}})] {
        for deployment in kind(&all(spec, &pods(&[])), "Deployment") {
            assert_eq!(deployment["spec"].get("replicas"), None);
        }
    }
}

#[test]
fn an_autoscaler_and_a_budget_are_there_when_they_make_sense() {
    let names = |spec: Value| {
        let objects = all(spec, &pods(&[]));
        let count = |name: &str| kind(&objects, name).len();
        (count("HorizontalPodAutoscaler"), count("PodDisruptionBudget"))
    };
    assert_eq!(names(json!({})), (0, 0));
    assert_eq!(names(json!({"scale": {"minReplicas": 2}})), (0, 1));
    let cpu = json!({"requests": {"cpu": "1"}});
    let spec = json!({"resources": cpu, "scale": {"horizontalPodAutoscaler": {}}});
    assert_eq!(names(spec.clone()), (1, 0));
    let objects = all(spec, &pods(&[]));
    let scaler = &kind(&objects, "HorizontalPodAutoscaler")[0]["spec"];
    assert_eq!(scaler["minReplicas"], 1, "an autoscaler can't ask for none");
    assert_eq!(
        scaler["scaleTargetRef"]["name"],
        kind(&objects, "Deployment")[0]["metadata"]["name"]
    );
}

#[test]
fn an_image_is_kept_where_its_pods_may_run_by_pods_that_take_next_to_nothing() {
    let spec = json!({
        "env": [{"name": "LINE", "value": "4"}],
        "network": ["a.example:1"],
        "resources": {"limits": {"nvidia.com/gpu": 1, "memory": "8Gi"}},
        "devices": [{"name": "npu", "resourceClaimName": "npu"}],
        "scheduling": {
            "nodeSelector": {"kubernetes.io/arch": "arm64"},
            "tolerations": [{"key": "npu", "operator": "Exists", "effect": "NoSchedule"}],
            "topologySpreadConstraints": [{"topologyKey": "kubernetes.io/hostname"}],
        },
        "serviceAccountName": "models",
        "imagePullSecrets": [{"name": "registry"}],
        "prefetch": {"policy": "Always"},
    });
    let objects = all(spec, &pods(&[]));
    let (keepers, answers) = (kind(&objects, "DaemonSet")[0], kind(&objects, "Deployment")[0]);
    assert_eq!(keepers["metadata"]["name"], answers["metadata"]["name"]);
    let of = |object: &Value| object["spec"]["template"].clone();
    let (keeper, answer) = (of(keepers), of(answers));
    for same in ["nodeSelector", "tolerations", "imagePullSecrets", "serviceAccountName"] {
        assert_eq!(keeper["spec"][same], answer["spec"][same], "{same}");
        assert_ne!(keeper["spec"][same], Value::Null, "{same}");
    }
    for same in ["runtimeClassName", "securityContext", "automountServiceAccountToken"] {
        assert_eq!(keeper["spec"][same], answer["spec"][same], "{same}");
    }
    assert_eq!(
        keeper["spec"]["containers"],
        json!([{
            "name": "model",
            "image": answer["spec"]["containers"][0]["image"],
            "imagePullPolicy": "IfNotPresent",
            "resources": {
                "requests": {"cpu": "1m", "memory": "4Mi"}, "limits": {"memory": "16Mi"},
            },
            "securityContext": answer["spec"]["containers"][0]["securityContext"],
        }])
    );
    assert_eq!(keeper["spec"].get("resourceClaims"), None, "it holds no device");
    assert_eq!(keeper["metadata"]["annotations"], json!({"wick.dev/prefetch": "true"}));
    // Nobody who looks for pods that answer finds it.
    let labels = keeper["metadata"]["labels"].as_object().unwrap();
    assert!(!labels.contains_key(MODEL_LABEL) && !labels.contains_key(REVISION_LABEL));
    let selector = keepers["spec"]["selector"]["matchLabels"].as_object().unwrap();
    assert!(selector.iter().all(|(name, value)| labels[name] == *value), "{selector:?}");
}

#[test]
fn only_images_that_are_wanted_now_or_next_are_kept() {
    let kept = |policy: &str, current: bool| {
        let model = model(json!({"prefetch": {"policy": policy}}));
        let (revision, target) = (revision(&model), pods(&[]));
        let current = if current { vec![revision.name.clone()] } else { Vec::new() };
        let revisions = &[revision];
        let wanted = Wanted { model: &model, revisions, current: &current, target: &target };
        objects(&wanted).iter().filter(|object| object.kind() == "DaemonSet").count()
    };
    assert_eq!((kept("Always", true), kept("Always", false), kept("Never", true)), (1, 0, 0));
}

#[test]
fn a_cold_model_sends_requests_to_the_activators_port() {
    let addresses = vec!["10.0.0.9".parse().unwrap(), "fd00::9".parse().unwrap()];
    let objects = all(json!({}), &Target::Activator { addresses, port: 31_001 });
    let slices = kind(&objects, "EndpointSlice");
    let shown: Vec<_> = slices
        .iter()
        .map(|slice| {
            (&slice["addressType"], &slice["endpoints"][0]["addresses"], &slice["ports"][0]["port"])
        })
        .collect();
    assert_eq!(
        json!(shown),
        json!([["IPv4", ["10.0.0.9"], 31_001], ["IPv6", ["fd00::9"], 31_001]])
    );
    assert_eq!(kind(&objects, "Service")[0]["spec"].get("selector"), None);
}

#[test]
fn slices_have_a_hundred_pods_each_and_do_not_depend_on_their_order() {
    let mut addresses: Vec<String> =
        (0..250).map(|n| format!("10.0.{}.{}", n / 100, n % 100)).collect();
    let slices = |addresses: &[String]| {
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let objects = all(json!({}), &pods(&addresses));
        kind(&objects, "EndpointSlice").into_iter().cloned().collect::<Vec<_>>()
    };
    let first = slices(&addresses);
    let counts: Vec<_> = first.iter().map(|s| s["endpoints"].as_array().unwrap().len()).collect();
    assert_eq!(counts, [100, 100, 50]);
    let names: Vec<_> = first.iter().map(|slice| &slice["metadata"]["name"]).collect();
    assert_eq!(json!(names), json!(["filetype-ipv4-0", "filetype-ipv4-1", "filetype-ipv4-2"]));
    addresses.reverse();
    // One that is told twice is one.
    addresses.push("10.0.0.1".to_owned());
    assert_eq!(slices(&addresses), first);
    assert_eq!(slices(&[])[0]["endpoints"], json!([]));
}

#[test]
fn the_longest_name_leaves_room_for_those_of_pods() {
    let mut model = model(json!({}));
    model.metadata.name = Some("m".repeat(35));
    let revision = revision(&model);
    // `-` and ten letters for the ReplicaSet, `-` and five for the pod.
    assert!(revision.name.as_str().len() + 11 + 6 <= 63);
}

#[test]
fn every_object_belongs_to_its_model_and_says_so() {
    let spec = json!({
        "resources": {"requests": {"cpu": "1"}},
        "scale": {"minReplicas": 2, "horizontalPodAutoscaler": {}},
        "prefetch": {"policy": "Always"},
    });
    let objects = all(spec, &pods(&["10.0.0.7"]));
    assert_eq!(objects.len(), 7);
    for object in objects {
        let metadata = &object["metadata"];
        assert_eq!(metadata["namespace"], "vision", "{object}");
        assert_eq!(metadata["ownerReferences"][0]["uid"], "1-2-3", "{object}");
        assert_eq!(metadata["ownerReferences"][0]["controller"], true, "{object}");
        assert_eq!(metadata["labels"]["app.kubernetes.io/managed-by"], "wick-operator", "{object}");
        assert_eq!(metadata["labels"]["app.kubernetes.io/instance"], "filetype", "{object}");
    }
}
