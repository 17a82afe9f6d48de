//! Who may depend on whom, and what every manifest has. The reasons are in ARCHITECTURE.md;
//! this is the one table that enforces them.

use std::fs;

use anyhow::Context as _;

use super::Problem;
use crate::guests;
use crate::house::{Dependency, House, Package};

/// A crate's place in the house.
struct Rule {
    name: &'static str,
    /// Crates of the tree that it may use.
    uses: &'static [&'static str],
    /// Crates that its own tests may use in addition.
    tests: &'static [&'static str],
    /// Crates from elsewhere that it must not know, and why.
    bans: &'static [&'static str],
    why: &'static str,
}

/// package <- nn <- engine <- serve <- cli, and beside them what guests are made of.
const RULES: &[Rule] = &[
    Rule {
        name: "wick-package",
        uses: &[],
        tests: &[],
        bans: &["tokio", "hyper", "axum", "http", "wasmtime", "ort", "tract-onnx", "anyhow"],
        why: "what a package is: no async, no network, no inference",
    },
    Rule {
        name: "wick-registry",
        uses: &["wick-package"],
        tests: &["wick-testing"],
        bans: &["wasmtime", "ort", "tract-onnx", "axum", "kube", "rumqttc", "anyhow"],
        why: "moves and keeps images: knows no cluster, no broker and no inference",
    },
    Rule {
        name: "wick-nn",
        uses: &["wick-package"],
        tests: &["wick-testing"],
        bans: &["hyper", "axum", "http", "wasmtime", "wasmtime-wasi", "anyhow"],
        why: "inference: knows no HTTP and no guests",
    },
    Rule {
        name: "wick-engine",
        uses: &["wick-package", "wick-nn"],
        tests: &["wick-testing"],
        bans: &["axum", "hyper-util", "ort", "tract-onnx", "anyhow"],
        why: "WebAssembly: types of HTTP, but no server; backends only by wick-nn",
    },
    Rule {
        name: "wick-serve",
        uses: &["wick-package", "wick-nn", "wick-engine"],
        tests: &["wick-testing"],
        bans: &["wasmtime", "wasmtime-wasi", "ort", "tract-onnx", "anyhow"],
        why: "the protocol: knows no WebAssembly and no backend",
    },
    Rule {
        name: "wick-import",
        uses: &["wick-package"],
        tests: &["wick-testing"],
        bans: &["axum", "wasmtime", "ort", "tract-onnx", "oci-client", "anyhow"],
        why: "models from elsewhere into packages: no backend, no registry, no server",
    },
    Rule {
        name: "wick-api",
        uses: &[],
        tests: &[],
        bans: &["tokio", "hyper", "kube-client", "kube-runtime", "anyhow"],
        why: "what users of a cluster write: no I/O and no decisions",
    },
    Rule {
        name: "wick-operator",
        uses: &["wick-api", "wick-package", "wick-registry"],
        tests: &[],
        bans: &["wasmtime", "ort", "tract-onnx", "rumqttc", "anyhow"],
        why: "decides what a Model needs: no broker, and nothing of inference",
    },
    Rule {
        name: "wick-fleet",
        uses: &["wick-package"],
        tests: &[],
        bans: &["tokio", "hyper", "kube", "rumqttc", "wasmtime", "ort", "fastrand", "anyhow"],
        why: "decides what a fleet needs: no clock, no chance, no file, no broker",
    },
    Rule {
        name: "wick-agent",
        uses: &[
            "wick-api",
            "wick-fleet",
            "wick-package",
            "wick-registry",
            "wick-engine",
            "wick-serve",
        ],
        tests: &["wick-nn", "wick-testing"],
        bans: &["wasmtime", "ort", "tract-onnx", "gix", "redb", "anyhow"],
        why: "performs what one site decides: no git, no plan, and nothing of the hub",
    },
    Rule {
        name: "wick-hub",
        uses: &["wick-fleet", "wick-api", "wick-package"],
        tests: &[],
        bans: &["wasmtime", "ort", "tract-onnx", "git2", "openssl", "anyhow"],
        why: "what a fleet is to have: nothing of inference, and no decision of its own",
    },
    Rule {
        name: "wick-sim",
        uses: &["wick-fleet", "wick-package"],
        tests: &[],
        bans: &["tokio", "rand", "getrandom", "rumqttc", "wasmtime"],
        why: "one thread, one seed: nothing that another run would not repeat",
    },
    Rule {
        name: "wick-fuzz",
        uses: &["wick-package", "wick-nn", "wick-engine", "wick-serve"],
        tests: &[],
        bans: &["tokio", "hyper", "axum", "wasmtime"],
        why: "gives bytes to parsers, which are pure",
    },
    Rule {
        name: "wick-cli",
        uses: &[
            "wick-package",
            "wick-registry",
            "wick-nn",
            "wick-engine",
            "wick-serve",
            "wick-sandbox",
            "wick-import",
            "wick-api",
            "wick-operator",
            "wick-fleet",
            "wick-agent",
            "wick-hub",
        ],
        tests: &["wick-testing"],
        bans: &["wasmtime", "ort", "tract-onnx", "containerd-shim"],
        why: "flags in, text out; the work is in the crates below",
    },
    Rule {
        name: "containerd-shim-wick-v1",
        uses: &["wick-package", "wick-sandbox"],
        tests: &[],
        bans: &["wasmtime", "ort", "tract-onnx", "hyper", "axum", "kube"],
        why: "small and static: containerd's tasks, and nothing of engine or serve",
    },
    Rule {
        name: "wick-sandbox",
        uses: &[],
        tests: &[],
        bans: &["tokio", "wasmtime", "ort", "containerd-shim", "anyhow"],
        why: "runs with one thread before anything of a package is opened",
    },
    Rule {
        name: "wick-e2e",
        uses: &[],
        tests: &[],
        bans: &["tokio", "wasmtime", "containerd-shim"],
        why: "a user's view: kubectl, images and requests",
    },
    Rule {
        name: "wick-testing",
        uses: &["wick-package"],
        tests: &[],
        bans: &["wasmtime", "hyper", "axum"],
        why: "models for tests, usable by every crate's tests",
    },
    Rule {
        name: "wick-guest-macros",
        uses: &[],
        tests: &["wick-guest"],
        bans: &["tokio", "wasmtime"],
        why: "runs inside the compiler",
    },
    Rule {
        name: "wick-guest",
        uses: &["wick-guest-macros", "wick-nn", "wick-package"],
        tests: &["wick-testing"],
        bans: &["wasmtime", "hyper", "axum", "anyhow"],
        why: "compiled into guests; the runtime only behind `real`, for native tests",
    },
    Rule {
        name: "wick-benches",
        uses: &[
            "wick-package",
            "wick-fleet",
            "wick-agent",
            "wick-sim",
            "wick-registry",
            "wick-nn",
            "wick-engine",
            "wick-serve",
            "wick-testing",
            "wick-e2e",
        ],
        tests: &[],
        bans: &[],
        why: "compares the runtime with what is below and beside it",
    },
    Rule {
        name: "xtask",
        uses: &["wick-e2e"],
        tests: &[],
        bans: &["tokio", "hyper", "clap"],
        why: "builds everything else, so it must compile in seconds",
    },
    Rule {
        name: "orientation",
        uses: &[],
        tests: &[],
        bans: &["wit-bindgen", "wasi-nn"],
        why: "the pictures' arithmetic, shared by guests that know nothing of wick",
    },
    Rule {
        name: "magika",
        uses: &[],
        tests: &[],
        bans: &["wit-bindgen", "wasi-nn"],
        why: "what Magika does round its model, shared by guests that ask it differently",
    },
    Rule {
        name: "magika",
        uses: &[],
        tests: &[],
        bans: &["wit-bindgen", "wasi-nn"],
        why: "what Magika reads and says, shared by guests of different worlds",
    },
];

/// What a guest may use: the SDK, and code that is shared between guests.
const GUEST: Rule = Rule {
    name: "a guest",
    uses: &["wick-guest", "orientation", "magika"],
    tests: &["wick-guest", "wick-testing"],
    bans: &["tokio", "wasmtime", "hyper"],
    why: "runs in the sandbox, and sees the runtime only through its interfaces",
};

/// Crates of the runtime that `wick-guest` may use only natively and only when asked.
const NATIVE_ONLY: &[&str] = &["wick-nn", "wick-package"];

/// Turns on features of dependencies, so that testing one crate rebuilds no dependency. It
/// may be a development dependency of every crate, and of no product.
const FEATURES: &str = "wick-features";

/// Check every member of the workspace.
pub fn check(house: &House, problems: &mut Vec<Problem>) -> anyhow::Result<()> {
    for member in house.members.iter().filter(|member| member.name != FEATURES) {
        let rule = RULES.iter().find(|rule| rule.name == member.name);
        let rule = rule.or_else(|| guests::target(member).map(|_| &GUEST));
        match rule {
            Some(rule) => check_rule(house, member, rule, problems),
            None => problems.push(Problem::new(
                house.shown(&member.manifest_path).to_string(),
                "is not in the table of xtask/src/tidy/crates.rs",
            )),
        }
        check_manifest(house, member, problems)?;
    }
    for rule in RULES {
        if !house.members.iter().any(|member| member.name == rule.name) {
            let what = format!("has a rule for {}, which is no crate", rule.name);
            problems.push(Problem::new("xtask/src/tidy/crates.rs", what));
        }
    }
    Ok(())
}

fn check_rule(house: &House, member: &Package, rule: &Rule, problems: &mut Vec<Problem>) {
    let place = house.shown(&member.manifest_path).to_string();
    let ours = |name: &str| house.members.iter().any(|member| member.name == name);
    for dependency in &member.dependencies {
        let name = dependency.name.as_str();
        let test = dependency.kind.as_deref() == Some("dev");
        let used = rule.uses.contains(&name)
            || (test && rule.tests.contains(&name))
            || (test && name == FEATURES);
        if ours(name) && !used {
            let what = format!("must not depend on {name}: {}", rule.why);
            problems.push(Problem::new(&place, what));
        }
        // Tests may use anything from elsewhere.
        if rule.bans.contains(&name) && !test {
            problems.push(Problem::new(&place, format!("must not know {name}: {}", rule.why)));
        }
        if member.name == "wick-guest" && NATIVE_ONLY.contains(&name) && !is_native(dependency) {
            let what = format!("{name} must be optional and not for wasm: {}", rule.why);
            problems.push(Problem::new(&place, what));
        }
    }
}

fn is_native(dependency: &Dependency) -> bool {
    let target = dependency.target.as_deref().unwrap_or_default();
    dependency.kind.as_deref() == Some("dev") || (dependency.optional && target.contains("not("))
}

fn check_manifest(
    house: &House,
    member: &Package,
    problems: &mut Vec<Problem>,
) -> anyhow::Result<()> {
    let place = house.shown(&member.manifest_path).to_string();
    let text = fs::read_to_string(&member.manifest_path).with_context(|| place.clone())?;
    let manifest: toml::Table = text.parse().with_context(|| place.clone())?;
    let inherits = |table: Option<&toml::Value>| {
        let value = table.and_then(|value| value.get("workspace"));
        value.and_then(toml::Value::as_bool) == Some(true)
    };
    if !inherits(manifest.get("lints")) {
        problems.push(Problem::new(&place, "has no `[lints] workspace = true`"));
    }
    let package = manifest.get("package");
    for key in ["version", "edition", "rust-version", "license", "publish"] {
        if !inherits(package.and_then(|package| package.get(key))) {
            let what = format!("has no `{key}.workspace = true` in [package]");
            problems.push(Problem::new(&place, what));
        }
    }
    Ok(())
}
