//! The `delete` action: what a shim that is gone left behind. containerd calls it when a shim
//! does not answer, and after each ordinary end, when there is nothing left to do.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use containerd_shim::Flags;
use containerd_shim::protos::api::DeleteResponse;
use containerd_shim::protos::protobuf::Message as _;
use oci_spec::runtime::Spec;

use crate::bootstrap::SANDBOX_ID;
use crate::cgroup::{Cgroup, Layout};
use crate::container::Exit;
use crate::plan::{self, Kind};
use crate::{ordinary, rootfs};

/// The code of a process that was killed: nobody saw how it really ended.
const KILLED: i32 = 128 + 9;

/// # Errors
/// The answer can't be encoded. What can't be cleaned up is told on stderr, which containerd
/// logs, and does not keep the rest from being cleaned up.
pub fn delete(flags: &Flags) -> anyhow::Result<Vec<u8>> {
    let bundle = match flags.bundle.as_str() {
        "" => std::env::current_dir().context("find the bundle")?,
        named => PathBuf::from(named),
    };
    // containerd asks for the first container of a shim alone, and only takes note of the end of
    // the others that the same shim served.
    for (id, member) in members(&bundle, &flags.id) {
        if is_dead(&member) {
            clean(&member, &flags.namespace, &id);
        }
    }
    clean(&bundle, &flags.namespace, &flags.id);
    remove_dead_socket(&bundle);
    let exit = Exit::now(KILLED);
    let response = DeleteResponse {
        exit_status: exit.code,
        exited_at: Some(exit.timestamp()).into(),
        ..Default::default()
    };
    Ok(response.write_to_bytes()?)
}

fn clean(bundle: &Path, namespace: &str, id: &str) {
    match Spec::load(bundle.join("config.json")) {
        Ok(spec) => clean_container(bundle, &spec, namespace, id),
        // A bundle without one was never more than a folder.
        Err(error) => complain(&format!("read config.json: {error}")),
    }
    rootfs::unmount_all(&bundle.join("rootfs"));
}

fn clean_container(bundle: &Path, spec: &Spec, namespace: &str, id: &str) {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let path = plan::cgroup_path(spec, namespace, id);
    let group = Layout::parse(&mountinfo).zip(path.ok());
    let group = group.map(|(layout, path)| Cgroup::new(Arc::new(layout), path));
    if let Some(group) = &group {
        group.kill();
    }
    if Kind::of(spec) == Kind::Ordinary
        && let Err(error) = ordinary::Settings::delete_forced(bundle, id)
    {
        complain(&format!("{error:#}"));
    }
    if let Some(Err(error)) = group.map(|group| group.remove()) {
        complain(&error.to_string());
    }
}

/// The containers of a pod beside its sandbox, by the bundles beside its own.
fn members(sandbox: &Path, id: &str) -> Vec<(String, PathBuf)> {
    let bundles = sandbox.parent().and_then(|folder| fs::read_dir(folder).ok());
    let named = bundles.into_iter().flatten().flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        (name != id).then(|| (name, entry.path()))
    });
    let is_member = |bundle: &Path| {
        // One that is being made or removed has none.
        let spec = Spec::load(bundle.join("config.json")).ok();
        let annotations = spec.as_ref().and_then(|spec| spec.annotations().as_ref());
        annotations.and_then(|all| all.get(SANDBOX_ID)).is_some_and(|sandbox| sandbox == id)
    };
    named.filter(|(_, bundle)| is_member(bundle)).collect()
}

/// Whether a shim is known to have served a container, and does not listen any more. The sandbox's
/// own bundle may be gone already, so the container's is asked.
fn is_dead(bundle: &Path) -> bool {
    let socket = socket(bundle);
    socket.is_some_and(|socket| UnixStream::connect(socket).is_err())
}

/// A shim that was killed left its socket; a living one serves the rest of its pod.
fn remove_dead_socket(bundle: &Path) {
    if is_dead(bundle)
        && let Some(socket) = socket(bundle)
    {
        let _ = fs::remove_file(socket);
    }
}

/// Where the shim of a bundle's container listens: containerd before 2.0 has the shim write it
/// down, later ones do it themselves.
fn socket(bundle: &Path) -> Option<PathBuf> {
    let address = fs::read_to_string(bundle.join("address")).ok().or_else(|| {
        let text = fs::read_to_string(bundle.join("bootstrap.json")).ok()?;
        let params: serde_json::Value = serde_json::from_str(&text).ok()?;
        Some(params["address"].as_str()?.to_owned())
    })?;
    let address = address.trim();
    Some(address.strip_prefix("unix://").unwrap_or(address).into())
}

fn complain(what: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "delete: {what}");
}
