//! containerd's configuration with the shim's runtime in it. Pure: text in, text out.
//!
//! What wick adds is one block between two comments at the end of the file, so that nothing
//! else of it changes, not even its comments, and so that it can be taken out again. The result
//! is parsed before anybody writes it.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

/// First and last line of the block.
const BEGIN: &str = "# wick: begin. Written by `wick shim register`.";
const END: &str = "# wick: end.";

/// The shim's runtime, which containerd resolves to `containerd-shim-wick-v1`.
const RUNTIME_TYPE: &str = "io.containerd.wick.v1";

/// Annotations of a pod that reach the shim.
const ANNOTATIONS: &str = "wick.dev/*";

/// The plugin whose table lists runtimes: since version 3 of the configuration it is one of
/// two that the older one was split into.
const CRI_V2: &str = "io.containerd.grpc.v1.cri";
const CRI_V3: &str = "io.containerd.cri.v1.runtime";

/// What a file without anything means to containerd, written as the version that each
/// containerd from 1.5 on reads.
const EMPTY: &str = "version = 2\n";

/// What the first line of a file says that is written anew at each start, by k3s and RKE2.
const GENERATED: &str = "DO NOT EDIT";

/// The drop-in's name, in the folder that a generated configuration imports.
const DROP_IN: &str = "10-wick.toml";

/// A template that has all of the generated configuration in it.
const BASE: &str = "{{ template \"base\" . }}\n";

/// A runtime as containerd knows it.
#[derive(Debug, Clone, Copy)]
pub struct Runtime<'a> {
    /// The `handler` of the RuntimeClass.
    pub handler: &'a str,
    /// The shim's executable; none leaves it to containerd's PATH.
    pub shim: Option<&'a Path>,
}

/// A changed configuration.
#[derive(Debug, PartialEq, Eq)]
pub struct Edited {
    pub text: String,
    /// The `version` of the file.
    pub version: i64,
    /// What its owner should know.
    pub warnings: Vec<String>,
}

/// Where the runtime goes if the configuration itself is written anew at each start.
#[derive(Debug, PartialEq, Eq)]
pub struct Beside {
    pub path: PathBuf,
    /// What the file begins with if it is not there.
    pub base: String,
    version: i64,
}

/// Why a configuration can't be changed. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("the configuration is no TOML: {0}")]
    NotToml(#[from] toml::de::Error),
    #[error(
        "the configuration has version {0}, and versions 2, 3 and 4 are known: \
         `containerd config migrate` writes a newer one"
    )]
    Version(i64),
    #[error(
        "the configuration has a runtime `{0}` of its own: remove its table, or register under \
         another name with --handler"
    )]
    Taken(String),
    #[error(
        "a table can't be added to this configuration ({0}): write `plugins` as [plugins.\"...\"] \
         tables, as `containerd config default` does"
    )]
    Closed(toml::de::Error),
    #[error("the comment `{BEGIN}` has no `{END}` after it: remove what is left of the block")]
    HalfBlock,
}

/// The configuration with the runtime in it. Registering twice changes nothing.
///
/// # Errors
/// See [`ConfigError`].
pub fn register(old: &str, runtime: Runtime<'_>) -> Result<Edited, ConfigError> {
    let rest = without_block(old)?;
    let rest = if rest.trim().is_empty() { EMPTY.to_owned() } else { rest };
    let parsed: Table = rest.parse()?;
    let version = version(&parsed)?;
    let plugin = plugin(version);
    if runtimes(&parsed, plugin).is_some_and(|all| all.contains_key(runtime.handler)) {
        return Err(ConfigError::Taken(runtime.handler.to_owned()));
    }
    let text = with_block(rest, plugin, runtime);
    text.parse::<Table>().map_err(ConfigError::Closed)?;
    Ok(Edited { text, version, warnings: warnings(&parsed) })
}

/// The file beside a generated configuration `text` in `folder` that its generator merges in:
/// a drop-in where it imports some, a template otherwise. containerd 1.x replaces a plugin's
/// whole section by that of an import, so with version 2 it is always the template.
///
/// # Errors
/// See [`ConfigError`].
pub fn beside_generated(text: &str, folder: &Path) -> Result<Option<Beside>, ConfigError> {
    if !text.lines().next().is_some_and(|line| line.contains(GENERATED)) {
        return Ok(None);
    }
    let parsed: Table = text.parse()?;
    let version = version(&parsed)?;
    let imports = parsed.get("imports").and_then(Value::as_array).into_iter().flatten();
    let mut folders = imports.filter_map(|path| path.as_str()?.strip_suffix("/*.toml"));
    let drop_ins = folders.next().filter(|_| version > 2);
    Ok(Some(match drop_ins {
        Some(drop_ins) => Beside {
            path: Path::new(drop_ins).join(DROP_IN),
            base: format!("version = {version}\n"),
            version,
        },
        None => {
            let name = if version > 2 { "config-v3.toml.tmpl" } else { "config.toml.tmpl" };
            Beside { path: folder.join(name), base: BASE.to_owned(), version }
        }
    }))
}

/// The drop-in or template with the runtime in it. A template is no TOML and is not parsed.
///
/// # Errors
/// See [`ConfigError`].
pub fn register_beside(
    old: &str,
    beside: &Beside,
    runtime: Runtime<'_>,
) -> Result<Edited, ConfigError> {
    let text = with_block(without_block(old)?, plugin(beside.version), runtime);
    Ok(Edited { text, version: beside.version, warnings: Vec::new() })
}

/// The configuration as it was before.
///
/// # Errors
/// See [`ConfigError`].
pub fn unregister(old: &str) -> Result<Edited, ConfigError> {
    let text = without_block(old)?;
    let version = version(&text.parse()?)?;
    Ok(Edited { text, version, warnings: Vec::new() })
}

/// The drop-in or template as it was before.
///
/// # Errors
/// See [`ConfigError`].
pub fn unregister_beside(old: &str, beside: &Beside) -> Result<Edited, ConfigError> {
    let text = without_block(old)?;
    Ok(Edited { text, version: beside.version, warnings: Vec::new() })
}

fn version(config: &Table) -> Result<i64, ConfigError> {
    // No version is version 1, which no supported containerd reads.
    match config.get("version").and_then(Value::as_integer).unwrap_or(1) {
        known @ 2..=4 => Ok(known),
        other => Err(ConfigError::Version(other)),
    }
}

fn runtimes<'a>(config: &'a Table, plugin: &str) -> Option<&'a Table> {
    let mut table = config.get("plugins")?.as_table()?;
    for key in [plugin, "containerd", "runtimes"] {
        table = table.get(key)?.as_table()?;
    }
    Some(table)
}

fn block(plugin: &str, runtime: Runtime<'_>) -> String {
    let handler = Value::from(runtime.handler);
    let mut block = format!(
        "{BEGIN}\n[plugins.\"{plugin}\".containerd.runtimes.{handler}]\n\
         \x20 runtime_type = \"{RUNTIME_TYPE}\"\n"
    );
    if let Some(shim) = runtime.shim {
        let shim = Value::from(shim.to_string_lossy().as_ref());
        block.push_str(&format!("  runtime_path = {shim}\n"));
    }
    block.push_str(&format!("  pod_annotations = [\"{ANNOTATIONS}\"]\n{END}\n"));
    block
}

/// The plugin that lists runtimes in a configuration of this version.
fn plugin(version: i64) -> &'static str {
    if version == 2 { CRI_V2 } else { CRI_V3 }
}

fn with_block(mut text: String, plugin: &str, runtime: Runtime<'_>) -> String {
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(&block(plugin, runtime));
    text
}

fn warnings(config: &Table) -> Vec<String> {
    let disabled = config.get("disabled_plugins").and_then(Value::as_array);
    let cri = |value: &Value| value.as_str().is_some_and(|name| name.ends_with("cri"));
    let mut warnings = Vec::new();
    if disabled.is_some_and(|all| all.iter().any(cri)) {
        warnings.push(
            "`disabled_plugins` has \"cri\", as Docker's packages write it: a kubelet can't use \
             this containerd until it is removed"
                .to_owned(),
        );
    }
    warnings
}

fn without_block(text: &str) -> Result<String, ConfigError> {
    let Some(start) = text.find(BEGIN) else { return Ok(text.to_owned()) };
    let after = &text[start..];
    let end = after.find(END).ok_or(ConfigError::HalfBlock)? + END.len();
    let rest = after[end..].strip_prefix('\n').unwrap_or_else(|| &after[end..]);
    Ok(format!("{}{rest}", &text[..start]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WICK: Runtime<'_> = Runtime { handler: "wick", shim: None };

    /// What `containerd config default` prints, cut down to the tables round the runtimes.
    const V2: &str = include_str!("../tests/containerd/config-v2.toml");
    const V3: &str = include_str!("../tests/containerd/config-v3.toml");
    const V4: &str = include_str!("../tests/containerd/config-v4.toml");

    fn registered(text: &str, plugin: &str) -> Table {
        let config: Table = text.parse().unwrap();
        runtimes(&config, plugin).unwrap()["wick"].as_table().unwrap().clone()
    }

    #[test]
    fn each_version_gets_its_own_table() {
        for (config, version, plugin) in [(V2, 2, CRI_V2), (V3, 3, CRI_V3), (V4, 4, CRI_V3)] {
            let edited = register(config, WICK).unwrap();
            assert_eq!(edited.version, version);
            let wick = registered(&edited.text, plugin);
            assert_eq!(wick["runtime_type"].as_str(), Some(RUNTIME_TYPE));
            assert_eq!(wick["pod_annotations"].as_array().unwrap()[0].as_str(), Some(ANNOTATIONS));
            let others: Table = edited.text.parse().unwrap();
            assert!(runtimes(&others, plugin).unwrap().contains_key("runc"));
        }
    }

    #[test]
    fn registering_twice_is_registering_once_and_can_be_undone() {
        for config in [V2, V3, V4] {
            let once = register(config, WICK).unwrap().text;
            assert_eq!(register(&once, WICK).unwrap().text, once);
            assert_eq!(unregister(&once).unwrap().text, config);
        }
    }

    #[test]
    fn a_new_place_of_the_shim_replaces_the_old_one() {
        let at = |path| Runtime { handler: "wick", shim: Some(Path::new(path)) };
        let first = register(V3, at("/opt/a")).unwrap().text;
        let second = register(&first, at("/opt/b")).unwrap().text;
        assert_eq!(registered(&second, CRI_V3)["runtime_path"].as_str(), Some("/opt/b"));
        assert!(!second.contains("/opt/a"));
    }

    #[test]
    fn an_empty_file_becomes_one_that_every_containerd_reads() {
        let edited = register("", WICK).unwrap();
        assert_eq!(edited.version, 2);
        registered(&edited.text, CRI_V2);
    }

    #[test]
    fn what_cannot_be_edited_safely_is_refused() {
        let closed = "version = 2\nplugins = { a = { b = 1 } }\n";
        assert!(matches!(register(closed, WICK), Err(ConfigError::Closed(_))));
        assert!(matches!(register("version = 1", WICK), Err(ConfigError::Version(1))));
        assert!(matches!(register("root = '/x'", WICK), Err(ConfigError::Version(1))));
        assert!(matches!(register("version = 5", WICK), Err(ConfigError::Version(5))));
        assert!(matches!(register("version =", WICK), Err(ConfigError::NotToml(_))));
        let taken = format!("version = 3\n[plugins.\"{CRI_V3}\".containerd.runtimes.wick]\n");
        assert!(matches!(register(&taken, WICK), Err(ConfigError::Taken(_))));
        assert!(matches!(register(BEGIN, WICK), Err(ConfigError::HalfBlock)));
    }

    /// What k3s writes: since 1.35 with an import, before that without, and for containerd 1.7.
    const K3S: &str = include_str!("../tests/containerd/k3s-v3-imports.toml");
    const K3S_PLAIN: &str = include_str!("../tests/containerd/k3s-v3.toml");
    const K3S_V2: &str = include_str!("../tests/containerd/k3s-v2.toml");

    #[test]
    fn a_generated_configuration_is_left_alone() {
        let folder = Path::new("/var/lib/rancher/k3s/agent/etc/containerd");
        let beside = |text| beside_generated(text, folder).unwrap();
        let drop_in = beside(K3S).unwrap();
        assert_eq!(drop_in.path, folder.join("config-v3.toml.d/10-wick.toml"));
        let text = register_beside(&drop_in.base, &drop_in, WICK).unwrap().text;
        registered(&text, CRI_V3);
        assert_eq!(register_beside(&text, &drop_in, WICK).unwrap().text, text);
        let template = beside(K3S_PLAIN).unwrap();
        assert_eq!(template.path, folder.join("config-v3.toml.tmpl"));
        let text = register_beside(&template.base, &template, WICK).unwrap().text;
        assert!(text.starts_with(BASE) && text.contains(CRI_V3), "{text}");
        let old = beside(K3S_V2).unwrap();
        assert_eq!(old.path, folder.join("config.toml.tmpl"));
        assert!(register_beside(&old.base, &old, WICK).unwrap().text.contains(CRI_V2));
        assert_eq!(beside(V3), None);
    }

    #[test]
    fn a_containerd_without_cri_is_warned_of() {
        let docker = "version = 2\ndisabled_plugins = [\"cri\"]\n";
        assert_eq!(register(docker, WICK).unwrap().warnings.len(), 1);
        assert!(register(V2, WICK).unwrap().warnings.is_empty());
    }
}
