//! What is checked of the chart. Each check is one function; none needs a cluster.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::{Chart, of_kind, parse};
use crate::image;
use crate::tools::{self, Scratch};

type Check = fn(&Chart<'_>) -> anyhow::Result<()>;

pub const ALL: &[(&str, Check)] = &[
    ("helm lint", lint),
    ("the version is the tree's", version),
    ("wrong values are refused", wrong_values),
    ("an archive is rendered as the folder is", archive),
    ("the definitions are those of deploy/crds, and stay", definitions),
    ("class and policy are those of deploy/shim", shim),
    ("the kustomize base is the chart with its defaults", base),
    ("roles permit what is needed and no more", roles),
    ("hub and agent have rights in one namespace each", fleet),
    ("an operator for one namespace has no rights in others", one_namespace),
    ("pods keep to the restricted level", pods),
];

/// Values that `values.schema.json` refuses, and what Helm says of them.
const WRONG: &[(&str, &str)] = &[
    ("activator.replica=3", "replica"),
    ("activator.replicas=-1", "/activator/replicas"),
    ("operator.replicas=two", "/operator/replicas"),
    ("image.repository=", "/image/repository"),
    ("image.digest=sha256:12", "/image/digest"),
    ("image.pullPolicy=Sometimes", "/image/pullPolicy"),
    ("crds=true", "/crds"),
    ("rbac.pullSecrets.namespaces=vision", "/rbac/pullSecrets/namespaces"),
    ("serviceMonitor.interval=often", "/serviceMonitor/interval"),
    ("podSecurityContext.runAsUser=0", "podSecurityContext"),
    ("hub.enabled=true", "/hub/names"),
    ("hub.git.url=ssh://git.example/fleet.git", "/hub/git/url"),
    ("hub.replicas=2", "replicas"),
    ("agent.enabled=true", "/agent/site"),
    ("agent.site=Plant_3", "/agent/site"),
    ("agent.memory=4G", "/agent/memory"),
];

/// What turns on hub and agent, beside the defaults.
const FLEET: [&str; 7] = [
    "--set=hub.enabled=true",
    "--set=hub.names={hub.example}",
    "--set=hub.mosquitto.image=mosquitto:2",
    "--set=agent.enabled=true",
    "--set=agent.site=plant-3",
    "--set=agent.hub=https://hub.example:8443",
    "--set=agent.namespace=vision",
];

/// Who may do what beside [`ROLES`] where hub and agent are on.
const FLEET_ROLES: &str = "\
Role wick-agent
  wick.dev models: get list watch create patch delete
   pods: list
Role wick-hub
  wick.dev sites,rollouts: get list watch
  wick.dev sites/status,rollouts/status: patch
";

/// Who may do what in every namespace, line by line. A change here is a change of what a cluster's
/// administrator grants.
const ROLES: &str = "\
ClusterRole wick-operator
  wick.dev models: get list watch
  wick.dev models/status: patch
  wick.dev models/finalizers: update
   services: get list watch create patch delete
  apps deployments,controllerrevisions,daemonsets: get list watch create patch delete
  apps deployments/scale: get patch
  discovery.k8s.io endpointslices: get list watch create patch delete
  autoscaling horizontalpodautoscalers: get list watch create patch delete
  policy poddisruptionbudgets: get list watch create patch delete
   pods: get list watch
  events.k8s.io events: create patch
ClusterRole wick-operator-pull-secrets
   secrets: get
ClusterRole wick-activator
  wick.dev models: get list watch
   pods: get list watch
Role wick-operator
  coordination.k8s.io leases: create
  coordination.k8s.io leases: get update of wick-operator
";

fn lint(chart: &Chart<'_>) -> anyhow::Result<()> {
    let folder = chart.folder();
    tools::output(chart.helm(&["lint", "--strict", "--quiet"]).arg(&folder))?;
    for values in chart.values()? {
        let mut helm = chart.helm(&["lint", "--strict", "--quiet"]);
        tools::output(helm.arg("--values").arg(&values).arg(&folder))?;
    }
    Ok(())
}

fn version(chart: &Chart<'_>) -> anyhow::Result<()> {
    let file = read(&chart.folder().join("Chart.yaml"))?;
    let about = file.first().context("Chart.yaml is empty")?;
    let expected = wick_e2e::distribution::VERSION;
    for field in ["version", "appVersion"] {
        ensure!(about[field] == expected, "{field} is {}, not {expected}", about[field]);
    }
    let defaults = read(&chart.folder().join("values.yaml"))?;
    let repository = &defaults.first().context("values.yaml is empty")?["image"]["repository"];
    ensure!(*repository == image::REPOSITORY, "`cargo xtask image` makes {}", image::REPOSITORY);
    Ok(())
}

fn wrong_values(chart: &Chart<'_>) -> anyhow::Result<()> {
    for (value, word) in WRONG {
        let said = match chart.text(&chart.folder(), &["--set", value]) {
            Ok(_) => anyhow::bail!("{value} is taken"),
            Err(error) => format!("{error:#}"),
        };
        ensure!(said.contains("schema") && said.contains(word), "{value}: {said}");
    }
    Ok(())
}

/// The chart links to files outside of its folder; an archive has to have their texts.
fn archive(chart: &Chart<'_>) -> anyhow::Result<()> {
    let scratch = Scratch::new("chart")?;
    // Not by `Chart::helm`: this one knows no flag for Kubernetes' version.
    let mut helm = Command::new(&chart.helm);
    helm.arg("package").arg(chart.folder()).arg("--destination").arg(scratch.path());
    tools::output(&mut helm)?;
    let name = format!("wick-{}.tgz", wick_e2e::distribution::VERSION);
    let from_archive = chart.text(&scratch.path().join(name), &[])?;
    ensure!(from_archive == chart.text(&chart.folder(), &[])?, "they differ");
    Ok(())
}

fn definitions(chart: &Chart<'_>) -> anyhow::Result<()> {
    let found = |flags: &[&str]| -> anyhow::Result<Vec<Value>> {
        let objects = chart.objects(flags)?;
        let mut found: Vec<Value> =
            of_kind(&objects, "CustomResourceDefinition").cloned().collect();
        for object in &mut found {
            let metadata = object["metadata"].as_object_mut();
            let annotations = metadata.and_then(|it| it.remove("annotations"));
            let kept = Some(json!({"helm.sh/resource-policy": "keep"}));
            ensure!(annotations == kept, "{annotations:?}");
        }
        Ok(found)
    };
    let there = |kinds: &[&str]| -> anyhow::Result<Vec<Value>> {
        let mut all = Vec::new();
        for kind in kinds {
            all.extend(read(&chart.deploy(&format!("crds/wick.dev_{kind}.yaml")))?);
        }
        Ok(all)
    };
    ensure!(found(&[])? == there(&["models"])?, "Model's differs from deploy/crds");
    let fleet = there(&["models", "rollouts", "sites"])?;
    ensure!(found(&FLEET)? == fleet, "the fleet's differ from deploy/crds");
    Ok(())
}

fn shim(chart: &Chart<'_>) -> anyhow::Result<()> {
    let objects = chart.objects(&[])?;
    let class = read(&chart.deploy("shim/runtimeclass.yaml"))?;
    ensure!(class == [one(&objects, "RuntimeClass")?.clone()], "the runtime class differs");
    for object in read(&chart.deploy("shim/admission.yaml"))? {
        ensure!(objects.contains(&object), "the chart lacks {}", named(&object));
    }
    Ok(())
}

fn base(chart: &Chart<'_>) -> anyhow::Result<()> {
    let file = chart.deploy("kustomize/base/wick.yaml");
    let there = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
    ensure!(there == chart.base()?, "wick.yaml is old: `cargo xtask chart --write`");
    if tools::find_on_path("kubectl").is_none() {
        eprintln!("chart: there is no kubectl: the kustomize base is not built");
        return Ok(());
    }
    let mut kubectl = Command::new("kubectl");
    let built = tools::output(kubectl.arg("kustomize").arg(chart.deploy("kustomize/base")))?;
    let names = |objects: &[Value]| objects.iter().map(named).collect::<BTreeSet<_>>();
    let mut expected = names(&chart.objects(&[])?);
    expected.insert("Namespace wick-system".to_owned());
    let built = names(&parse(&built)?);
    ensure!(built == expected, "it has {built:?}, not {expected:?}");
    Ok(())
}

/// Roles as lines, as [`ROLES`] has them.
fn roles_of(objects: &[Value]) -> String {
    let mut text = String::new();
    for role in of_kind(objects, "ClusterRole").chain(of_kind(objects, "Role")) {
        text += &named(role);
        for rule in role["rules"].as_array().into_iter().flatten() {
            let list = |field: &str, by: &str| {
                let words = rule[field].as_array().into_iter().flatten();
                words.filter_map(Value::as_str).collect::<Vec<_>>().join(by)
            };
            let (group, resources) = (list("apiGroups", ","), list("resources", ","));
            text += &format!("\n  {group} {resources}: {}", list("verbs", " "));
            if !rule["resourceNames"].is_null() {
                text += &format!(" of {}", list("resourceNames", ","));
            }
        }
        text += "\n";
    }
    text
}

fn fleet(chart: &Chart<'_>) -> anyhow::Result<()> {
    let objects = chart.objects(&FLEET)?;
    let ours = |object: &&Value| {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        name.starts_with("wick-hub") || name.starts_with("wick-agent")
    };
    let own: Vec<Value> = objects.iter().filter(ours).cloned().collect();
    let text = roles_of(&own);
    ensure!(text == FLEET_ROLES, "they are\n{text}");
    ensure!(of_kind(&own, "ClusterRoleBinding").next().is_none(), "they are bound everywhere");
    let places: Vec<_> =
        of_kind(&own, "RoleBinding").map(|it| &it["metadata"]["namespace"]).collect();
    ensure!(places == ["vision", "wick-system"], "they are bound in {places:?}");
    // From a repository the hub asks the cluster for nothing.
    let git = [&FLEET[..], &["--set=hub.git.url=https://git.example/fleet.git"]].concat();
    let objects = chart.objects(&git)?;
    let mut roles = of_kind(&objects, "Role").map(named);
    ensure!(!roles.any(|name| name == "Role wick-hub"), "a hub of a repository has a role");
    Ok(())
}

fn roles(chart: &Chart<'_>) -> anyhow::Result<()> {
    let text = roles_of(&chart.objects(&[])?);
    ensure!(text == ROLES, "they are\n{text}");
    // Bound where the values say, and nowhere else.
    let bound = |flags: &[&str]| -> anyhow::Result<BTreeSet<String>> {
        let objects = chart.objects(flags)?;
        let bindings = objects
            .iter()
            .filter(|object| object["roleRef"]["name"] == "wick-operator-pull-secrets");
        Ok(bindings.map(|it| format!("{} {}", it["kind"], it["metadata"]["namespace"])).collect())
    };
    let everywhere = BTreeSet::from(["\"ClusterRoleBinding\" null".to_owned()]);
    ensure!(bound(&[])? == everywhere, "secrets by default: {:?}", bound(&[])?);
    let some = bound(&["--set=rbac.pullSecrets.namespaces={a,b}"])?;
    let expected = ["a", "b"].map(|name| format!("\"RoleBinding\" \"{name}\""));
    ensure!(some == BTreeSet::from(expected), "secrets in two namespaces: {some:?}");
    let none = bound(&["--set=rbac.pullSecrets.read=false"])?;
    ensure!(none.is_empty(), "secrets in none: {none:?}");
    Ok(())
}

fn one_namespace(chart: &Chart<'_>) -> anyhow::Result<()> {
    let objects = chart.objects(&["--set=operator.only=vision"])?;
    let everywhere: Vec<String> = of_kind(&objects, "ClusterRoleBinding").map(named).collect();
    ensure!(everywhere.is_empty(), "{everywhere:?}");
    let here =
        of_kind(&objects, "RoleBinding").filter(|it| it["metadata"]["namespace"] == "vision");
    let here: Vec<String> = here.map(named).collect();
    let expected = [
        "RoleBinding wick-operator-models",
        "RoleBinding wick-operator-pull-secrets",
        "RoleBinding wick-activator-models",
    ];
    ensure!(here == expected, "{here:?}");
    for deployment in of_kind(&objects, "Deployment") {
        let args = &deployment["spec"]["template"]["spec"]["containers"][0]["args"];
        let mut args = args.as_array().into_iter().flatten();
        ensure!(args.any(|arg| arg == "--only=vision"), "{} acts elsewhere", named(deployment));
    }
    Ok(())
}

fn pods(chart: &Chart<'_>) -> anyhow::Result<()> {
    for (values, objects) in chart.renderings()? {
        let mut seen = 0;
        for workload in of_kind(&objects, "Deployment") {
            seen += 1;
            let pod = &workload["spec"]["template"]["spec"];
            let what = format!("{values}: {}", named(workload));
            ensure!(pod["volumes"].is_null(), "{what} has volumes");
            restricted(workload, &what, &Value::Null)?;
        }
        ensure!(seen == 2, "{values}: {seen} Deployments");
        // They keep something, in a volume that is theirs.
        for workload in of_kind(&objects, "StatefulSet") {
            let what = format!("{values}: {}", named(workload));
            restricted(workload, &what, &json!(65532))?;
            ensure!(workload["spec"]["replicas"] == 1, "{what}: it is not alone");
        }
    }
    Ok(())
}

/// Whether a workload's pods run as nobody, confined, with the labels that it selects by.
fn restricted(workload: &Value, what: &str, group: &Value) -> anyhow::Result<()> {
    let pod = &workload["spec"]["template"]["spec"];
    let mut user = json!({
        "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    if !group.is_null() {
        user["fsGroup"] = group.clone();
    }
    let confined = json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]},
    });
    ensure!(pod["securityContext"] == user, "{what}: {}", pod["securityContext"]);
    ensure!(pod["hostNetwork"].is_null(), "{what} is in the host's network");
    let volumes = pod["volumes"].as_array().into_iter().flatten();
    ensure!(volumes.clone().all(|one| one["hostPath"].is_null()), "{what} sees the host's files");
    let lists = [&pod["initContainers"], &pod["containers"]];
    for container in lists.into_iter().filter_map(Value::as_array).flatten() {
        ensure!(container["securityContext"] == confined, "{what}: {}", container["name"]);
    }
    let selector = workload["spec"]["selector"]["matchLabels"].as_object();
    let labels = &workload["spec"]["template"]["metadata"]["labels"];
    let mut selected = selector.with_context(|| format!("{what} selects nothing"))?.iter();
    ensure!(selected.all(|(key, value)| labels[key] == *value), "{what}: labels");
    Ok(())
}

/// The objects of a file.
fn read(path: &Path) -> anyhow::Result<Vec<Value>> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    parse(&text).with_context(|| format!("{}", path.display()))
}

/// The only object of its kind.
fn one<'a>(objects: &'a [Value], kind: &'a str) -> anyhow::Result<&'a Value> {
    let mut found = of_kind(objects, kind);
    let first = found.next().with_context(|| format!("there is no {kind}"))?;
    ensure!(found.next().is_none(), "there is more than one {kind}");
    Ok(first)
}

/// Kind and name.
fn named(object: &Value) -> String {
    let word = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    format!("{} {}", word(&object["kind"]), word(&object["metadata"]["name"]))
}
