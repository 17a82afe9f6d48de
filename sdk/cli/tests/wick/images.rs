//! Images and registries, as far as no registry is needed. `real` has one.

use crate::support::{Sandbox, text};

#[test]
fn what_is_wrong_with_a_name_or_a_registry_is_said() {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.path("folder")).unwrap();
    let cases: &[(&[&str], i32, &str)] = &[
        (&["pull", "Not A Name"], 64, "is not a reference to an image"),
        (&["pull", "localhost:1/a/b:1"], 69, "--plain-http-for"),
        (&["list", "localhost:1/a/b", "--plain-http"], 69, "cannot reach localhost:1"),
        (&["push", "folder"], 64, "is pushed where?"),
        (&["push", "folder", "localhost:1/a:1"], 65, "is not a package"),
        (&["push", "localhost/a:1"], 66, "there is no image localhost/a:1"),
        (&["copy", "localhost/a:1", "localhost/a@sha256:00"], 64, "not a reference"),
        (&["rm", "localhost/a:1"], 66, "there is no image"),
        (&["run", "folder-with-a-slip"], 66, "is no path here, and no image"),
        (&["run", "localhost:1/a:1", "--pull", "never"], 66, "pull it: wick pull localhost:1/a:1"),
        (&["inspect", "folder-with-a-slip"], 66, "cannot read"),
        (&["pull", "localhost:1/a:1", "--mirror", "x"], 64, "docker.io=mirror"),
        (&["pull", "localhost:1/a:1", "--registry-ca", "none.pem"], 64, "none.pem"),
    ];
    for (args, code, words) in cases {
        let output = sandbox.run(args);
        assert_eq!(output.status.code(), Some(*code), "{args:?}: {}", text(&output));
        assert!(text(&output).contains(words), "{args:?}: {}", text(&output));
    }
}

#[test]
fn an_empty_store_is_made_where_it_is_wanted() {
    let sandbox = Sandbox::new();
    let json = sandbox.json(&["images", "--store", "here"]);
    assert_eq!(json["images"], serde_json::json!([]));
    assert!(sandbox.path("here/oci-layout").is_file());
    let json = sandbox.json(&["images"]);
    assert!(json["store"].as_str().unwrap().ends_with("home/.local/share/wick/store"), "{json}");
    let json = sandbox.json(&["gc"]);
    assert_eq!((&json["blobs"], &json["bytes"]), (&0.into(), &0.into()));
    assert_eq!(sandbox.json(&["images", "--check"])["faults"], serde_json::json!([]));
}
