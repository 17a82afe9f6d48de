//! What Argo CD and Flux define in a cluster, from their own releases: the examples in `deploy/fleet` are
//! held against it.

use std::env;
use std::ffi::OsString;

use anyhow::Context as _;

use crate::go;

/// Tells tests in a cluster where the definitions are.
pub const VARIABLE: &str = "WICK_E2E_GITOPS";

/// Module, version, and the definition in it.
const DEFINITIONS: [(&str, &str, &str); 3] = [
    ("github.com/argoproj/argo-cd/v3", "v3.1.0", "manifests/crds/application-crd.yaml"),
    (
        "github.com/fluxcd/source-controller",
        "v1.7.0",
        "config/crd/bases/source.toolkit.fluxcd.io_gitrepositories.yaml",
    ),
    (
        "github.com/fluxcd/kustomize-controller",
        "v1.7.2",
        "config/crd/bases/kustomize.toolkit.fluxcd.io_kustomizations.yaml",
    ),
];

/// The definitions' files, as a list like that of `PATH`.
pub fn definitions() -> anyhow::Result<OsString> {
    let mut files = Vec::new();
    for (module, version, file) in DEFINITIONS {
        let folder = go::module(module, version)?.context("there is no `go` to get them with")?;
        files.push(folder.join(file));
    }
    env::join_paths(files).context("a path with a colon")
}
