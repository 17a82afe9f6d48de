use std::fs;
use std::path::Path;

use super::*;

const DIGEST: &str = "sha256:0101010101010101010101010101010101010101010101010101010101010101";

fn file(path: &str, text: impl Into<String>) -> File {
    File { path: path.to_owned(), text: text.into() }
}

fn rollout(spec: &str) -> String {
    format!("apiVersion: wick.dev/v1alpha1\nkind: Rollout\nmetadata:\n  name: ocr-7\nspec:\n{spec}")
}

fn models() -> String {
    format!(
        "  models:\n  - name: ocr\n    image: registry/a/ocr:7@{DIGEST}\n    disk: 30Mi\n    memory: 64Mi\n"
    )
}

fn mistakes(files: &[File]) -> Vec<String> {
    read(files).err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

#[test]
fn a_rollout_is_read_with_everything() {
    let spec = models()
        + "  select: {region: north}\n  waves:\n  - take: 1\n    gate: {bake: 10m, approval: true}\n  \
           - take: 10%\n    gate: {success: 95%, errors: 0.5%, p99: 20ms}\n  \
           - label: {key: tier, value: b}\n  - {}\n  maxUnavailable: 5%\n  \
           window: {days: [Monday], from: \"22:00\", until: \"04:00\"}\n  settle: 5m\n  \
           offline: 2h\n  onFailure: Pause\n";
    let documents = read(&[file("rollouts/a.yaml", rollout(&spec))]).unwrap();
    let [one] = &documents.policy.rollouts[..] else { panic!("not one") };
    assert_eq!(one.models[0].image, "docker.io/registry/a/ocr");
    assert_eq!((one.models[0].bytes, one.models[0].memory), (30 << 20, 64 << 20));
    assert_eq!(one.waves.len(), 4);
    assert_eq!(one.waves[1].gate.errors, Some(50));
    assert_eq!((one.waves[1].gate.success, one.waves[1].gate.p99_us), (95, Some(20_000)));
    assert!(one.window.is_some());
    assert_eq!(one.settle.as_secs(), 300);
}

#[test]
fn a_mistake_has_a_file_a_line_and_a_field() {
    let check = |spec: &str, expected: &str| {
        let found = mistakes(&[file("rollouts/a.yaml", rollout(spec))]);
        assert!(found.iter().any(|line| line.contains(expected)), "{spec}: {found:#?}");
    };
    let good = models();
    check(&good.replace("memory: 64Mi", "memory: many"), "rollouts/a.yaml:10");
    check(
        &good.replace("memory: 64Mi", "memory: 0.5Mi"),
        "rollouts/a.yaml:10: spec.models[0].memory: ",
    );
    check(
        &good.replace(&format!("@{DIGEST}"), ""),
        "rollouts/a.yaml:8: spec.models[0].image: it has no digest",
    );
    check(&format!("{good}  sellect: {{a: b}}\n"), "rollouts/a.yaml:11");
    check(
        &format!("{good}  waves:\n  - {{}}\n  - take: 1\n"),
        "rollouts/a.yaml:12: spec.waves[0]: it takes all",
    );
    check(&format!("{good}  waves:\n  - take: 200%\n"), "rollouts/a.yaml:12");
    check(
        &format!("{good}  window: {{days: [Monday], from: \"25:00\", until: \"04:00\"}}\n"),
        "spec.window.from",
    );
    check("  remove: []\n", "rollouts/a.yaml:6: spec: it changes nothing");
    check("  models: [\n", "rollouts/a.yaml:");
}

#[test]
fn an_object_is_of_its_folders_kind_and_has_its_own_name() {
    let good = rollout(&models());
    let twice = [file("rollouts/a.yaml", good.clone()), file("rollouts/b.yaml", good.clone())];
    assert_eq!(
        mistakes(&twice),
        ["rollouts/b.yaml:4: metadata.name: another Rollout has this name"]
    );
    let other = good.replace("kind: Rollout", "kind: Site");
    assert!(
        mistakes(&[file("rollouts/a.yaml", other)])[0]
            .starts_with("rollouts/a.yaml:2: kind: must be")
    );
    let second = format!("{good}---\n{}", good.replace("ocr-7", "OCR"));
    let found = mistakes(&[file("rollouts/a.yaml", second)]);
    assert!(found[0].starts_with("rollouts/a.yaml:15: metadata.name: "), "{found:?}");
    // What is elsewhere is no policy.
    assert_eq!(mistakes(&[file("README.md", "# hello")]), Vec::<String>::new());
}

#[test]
fn what_is_written_of_a_site_wins() {
    let text = "apiVersion: wick.dev/v1alpha1\nkind: Site\nmetadata: {name: plant-3}\nspec:\n  \
                labels: {region: north}\n  zone: CET-1CEST,M3.5.0,M10.5.0/3\n  memory: 2Gi\n";
    let documents = read(&[file("sites/plant-3.yaml", text)]).unwrap();
    let site = &documents.sites[&"plant-3".parse().unwrap()];
    let labels = [("region", "south"), ("tier", "a")];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let mut place = Place { labels: labels.into(), zone: Zone::utc(), memory: 1, disk: 7 };
    site.apply(&mut place);
    assert_eq!((place.labels["region"].as_str(), place.labels["tier"].as_str()), ("north", "a"));
    assert_eq!((place.memory, place.disk), (2 << 30, 7));
    assert_ne!(place.zone, Zone::utc());
    let wrong = text.replace("CET-1CEST,M3.5.0,M10.5.0/3", "Europe/Berlin");
    assert!(mistakes(&[file("sites/a.yaml", wrong)])[0].starts_with("sites/a.yaml:6: spec.zone: "));
}

#[test]
fn what_a_rollout_changes_does_not_change() {
    let policy = |text: &str| read(&[file("rollouts/a.yaml", rollout(text))]).unwrap().policy;
    let before = policy(&models());
    assert_eq!(changed(&before, &before), None);
    assert_eq!(changed(&before, &policy(&(models() + "  settle: 1m\n"))), None);
    let after = policy(&models().replace("sha256:01", "sha256:02"));
    assert_eq!(changed(&before, &after).map(|name| name.to_string()), Some("ocr-7".to_owned()));
    assert_eq!(changed(&Policy::default(), &after), None);
}

#[test]
fn the_example_of_a_repository_is_a_policy() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/fleet/repository");
    let read_file = |path: &str| file(path, fs::read_to_string(folder.join(path)).unwrap());
    let documents =
        read(&[read_file("sites/plant-3.yaml"), read_file("rollouts/filetype-1.yaml")]).unwrap();
    assert_eq!((documents.sites.len(), documents.policy.rollouts.len()), (1, 1));
    assert_eq!(documents.policy.rollouts[0].wave_count(), 3);
}
