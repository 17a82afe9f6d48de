//! The chart in a real cluster, by the real Helm: installed, changed, rolled back and removed;
//! what its accounts may do; whether restricted pod security admits its pods; and the image that
//! they run.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use wick_e2e::chart::{self, DEPLOYMENTS, NAMESPACE, Release};
use wick_e2e::cluster::Cluster;
use wick_e2e::kubectl::Kubectl;
use wick_e2e::wait::wait;

/// Longest until the controllers have made the pods of a Deployment.
const CONTROL: Duration = Duration::from_secs(30);

/// A Model that must outlive the release.
const MODEL: &str = "
apiVersion: wick.dev/v1alpha1
kind: Model
metadata: {name: filetype}
spec:
  package: {image: 'registry.example/vision/filetype:1.2.0'}
";

/// A pod as the chart's, which prints and ends.
const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: definition}
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
  containers:
    - name: wick
      image: IMAGE
      imagePullPolicy: Never
      args: [operator, crd]
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
";

/// What the accounts are asked for: account, verb, `RESOURCE[/SUBRESOURCE].GROUP`, name, namespace,
/// and whether they may. An empty namespace is all of them.
type Question = (&'static str, &'static str, &'static str, &'static str, &'static str, bool);

/// What each account needs, and beside it what it must not have.
const QUESTIONS: &[Question] = &[
    ("wick-operator", "watch", "models.wick.dev", "", "", true),
    ("wick-operator", "patch", "models/status.wick.dev", "", "", true),
    ("wick-operator", "update", "models/finalizers.wick.dev", "", "", true),
    ("wick-operator", "create", "models.wick.dev", "", "", false),
    ("wick-operator", "delete", "models.wick.dev", "", "", false),
    ("wick-operator", "patch", "deployments.apps", "", "vision", true),
    ("wick-operator", "patch", "deployments/scale.apps", "", "vision", true),
    ("wick-operator", "delete", "controllerrevisions.apps", "", "vision", true),
    ("wick-operator", "create", "daemonsets.apps", "", "vision", true),
    ("wick-operator", "create", "statefulsets.apps", "", "vision", false),
    ("wick-operator", "create", "services.", "", "vision", true),
    ("wick-operator", "patch", "endpointslices.discovery.k8s.io", "", "vision", true),
    ("wick-operator", "patch", "horizontalpodautoscalers.autoscaling", "", "vision", true),
    ("wick-operator", "patch", "poddisruptionbudgets.policy", "", "vision", true),
    ("wick-operator", "list", "pods.", "", "", true),
    ("wick-operator", "create", "pods.", "", "vision", false),
    ("wick-operator", "create", "pods/exec.", "", "vision", false),
    ("wick-operator", "create", "events.events.k8s.io", "", "vision", true),
    ("wick-operator", "get", "secrets.", "registry", "vision", true),
    ("wick-operator", "list", "secrets.", "", "vision", false),
    ("wick-operator", "create", "leases.coordination.k8s.io", "", NAMESPACE, true),
    ("wick-operator", "update", "leases.coordination.k8s.io", "wick-operator", NAMESPACE, true),
    ("wick-operator", "update", "leases.coordination.k8s.io", "another", NAMESPACE, false),
    ("wick-operator", "create", "leases.coordination.k8s.io", "", "kube-system", false),
    ("wick-operator", "create", "clusterroles.rbac.authorization.k8s.io", "", "", false),
    ("wick-operator", "create", "serviceaccounts/token.", "", NAMESPACE, false),
    ("wick-activator", "watch", "models.wick.dev", "", "", true),
    ("wick-activator", "patch", "models/status.wick.dev", "", "", false),
    ("wick-activator", "watch", "pods.", "", "", true),
    ("wick-activator", "patch", "deployments/scale.apps", "", "vision", false),
    ("wick-activator", "get", "secrets.", "registry", "vision", false),
    ("wick-activator", "get", "leases.coordination.k8s.io", "", NAMESPACE, false),
];

/// The answer to one question, as `kubectl auth can-i --as` asks it.
fn may(kubectl: &Kubectl, question: &Question) -> anyhow::Result<bool> {
    let (account, verb, what, name, namespace, _) = question;
    let (resource, group) = what.split_once('.').context("a resource without a group")?;
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let user = format!("system:serviceaccount:{NAMESPACE}:{account}");
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": user,
            "groups": ["system:serviceaccounts", "system:authenticated"],
            "resourceAttributes": {
                "verb": verb, "group": group, "resource": resource, "subresource": subresource,
                "name": name, "namespace": namespace,
            },
        },
    });
    let args = ["create", "-o", "json", "-f", "-"];
    let answer: Value = serde_json::from_str(&kubectl.run_with(&args, &review.to_string())?)?;
    Ok(answer["status"]["allowed"] == true)
}

/// The questions that were not answered as they should be.
fn wrong_answers(kubectl: &Kubectl) -> anyhow::Result<Vec<String>> {
    let mut wrong = Vec::new();
    for question in QUESTIONS {
        let allowed = may(kubectl, question)?;
        if allowed != question.5 {
            wrong.push(format!("{question:?}: {allowed}"));
        }
    }
    Ok(wrong)
}

/// Wait until the API server has admitted the pods of both Deployments.
fn wait_until_admitted(release: &Release) -> anyhow::Result<()> {
    for name in DEPLOYMENTS {
        wait(&format!("the pods of {name}"), CONTROL, || {
            let found = release.deployment(name)?;
            let conditions = found["status"]["conditions"].as_array().into_iter().flatten();
            let mut refused = conditions.filter(|one| one["type"] == "ReplicaFailure");
            let refused = refused.next();
            ensure!(refused.is_none(), "{name}: {refused:?}");
            Ok((found["status"]["updatedReplicas"] == found["spec"]["replicas"]).then_some(()))
        })?;
    }
    release.wait_until_available()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn the_image_runs_as_nobody_with_a_read_only_root() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    chart::import_image(&cluster)?;
    let space = cluster.kubectl.namespace("image")?;
    let enforce = "pod-security.kubernetes.io/enforce=restricted";
    cluster.kubectl.run(&["label", "namespace", &space.name, enforce])?;
    space.apply(&POD.replace("IMAGE", &chart::image()))?;
    let said = space.output_of("definition")?;
    assert!(said.contains("name: models.wick.dev"), "{said}");
    space.delete()
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn a_release_is_installed_changed_rolled_back_and_removed() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let kubectl = &cluster.kubectl;
    let release = Release::prepare(&cluster)?;
    release.apply(&json!({}))?;
    wait_until_admitted(&release)?;
    let space = kubectl.namespace("chart")?;
    space.apply(MODEL)?;
    assert_eq!(wrong_answers(kubectl)?, Vec::<String>::new());

    // Fewer secrets, and another number of pods.
    let narrow = json!({
        "activator": {"replicas": 1},
        "operator": {"replicas": 2},
        "rbac": {"pullSecrets": {"namespaces": [space.name]}},
        "networkPolicy": {"create": true},
    });
    release.apply(&narrow)?;
    wait_until_admitted(&release)?;
    assert_eq!(release.deployment("wick-activator")?["spec"]["replicas"], 1);
    let here = space.name.as_str();
    for (namespace, allowed) in [(here, true), ("vision", false)] {
        assert_eq!(may_read_secrets(kubectl, namespace)?, allowed, "{namespace}");
    }
    assert!(kubectl.get(&["-n", NAMESPACE, "networkpolicy/wick-activator"])?.is_some());

    release.run(&["rollback", "wick", "1"])?;
    wait_until_admitted(&release)?;
    assert_eq!(release.deployment("wick-activator")?["spec"]["replicas"], 2);
    assert!(may_read_secrets(kubectl, "vision")?);
    assert!(kubectl.get(&["-n", NAMESPACE, "networkpolicy/wick-activator"])?.is_none());

    release.uninstall()?;
    for gone in ["clusterrole/wick-operator", "clusterrolebinding/wick-activator"] {
        assert!(kubectl.get(&[gone])?.is_none(), "{gone}");
    }
    assert!(kubectl.get(&["runtimeclass/wick"])?.is_none());
    assert!(space.get("model/filetype")?.is_some(), "the Model went with the release");

    // The definition is there already, and becomes the new release's.
    release.apply(&json!({}))?;
    wait_until_admitted(&release)?;
    release.uninstall()?;
    // The cluster had a class of its own, for other tests.
    let class = include_str!("../../deploy/shim/runtimeclass.yaml");
    kubectl.run_with(&["apply", "-f", "-"], class)?;
    space.run(&["delete", "models", "--all"]).map(drop)
}

fn may_read_secrets(kubectl: &Kubectl, namespace: &str) -> anyhow::Result<bool> {
    let user = format!("system:serviceaccount:{NAMESPACE}:wick-operator");
    let asked = ["auth", "can-i", "get", "secrets/registry", "--as", &user, "-n", namespace];
    // It prints the answer, and for `no` it fails as well.
    match kubectl.run(&asked) {
        Ok(answer) => Ok(answer.trim() == "yes"),
        Err(error) if error.to_string().ends_with(": ") => Ok(false),
        Err(error) => Err(error),
    }
}

#[test]
#[ignore = "needs root and a cluster; cargo xtask e2e"]
fn the_kustomize_base_and_the_ingress_are_taken() -> anyhow::Result<()> {
    let cluster = Cluster::attach()?;
    let kubectl = &cluster.kubectl;
    let deploy = chart::folder()?.join("../..");
    let path = |path: &str| -> anyhow::Result<String> {
        let path = deploy.join(path);
        Ok(path.to_str().context("a path that is no text")?.to_owned())
    };
    let base = path("kustomize/base")?;
    kubectl.run(&["apply", "--server-side", "-k", &base])?;
    for name in DEPLOYMENTS {
        let deployment = kubectl.get(&["-n", NAMESPACE, &format!("deployment/{name}")])?;
        assert!(deployment.is_some(), "{name}");
    }
    assert_eq!(wrong_answers(kubectl)?, Vec::<String>::new());
    let ingress = path("ingress/filetype.yaml")?;
    kubectl.run(&["create", "namespace", "vision"])?;
    let taken = kubectl.run(&["create", "--dry-run=server", "-f", &ingress]);
    kubectl.run(&["delete", "namespace", "vision", "--wait=false"])?;
    taken?;
    // All but the definition and the class, which other tests may use.
    kubectl.run(&["delete", "-f", &path("kustomize/base/wick.yaml")?])?;
    kubectl.run(&["delete", "-f", &path("shim/admission.yaml")?]).map(drop)
}
