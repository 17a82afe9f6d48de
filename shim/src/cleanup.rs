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
    match Spec::load(bundle.join("config.json")) {
        Ok(spec) => clean(&bundle, &spec, flags),
        // A bundle without one was never more than a folder.
        Err(error) => complain(&format!("read config.json: {error}")),
    }
    rootfs::unmount_all(&bundle.join("rootfs"));
    remove_dead_socket(&bundle);
    let exit = Exit::now(KILLED);
    let response = DeleteResponse {
        exit_status: exit.code,
        exited_at: Some(exit.timestamp()).into(),
        ..Default::default()
    };
    Ok(response.write_to_bytes()?)
}

fn clean(bundle: &Path, spec: &Spec, flags: &Flags) {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let path = plan::cgroup_path(spec, &flags.namespace, &flags.id);
    let group = Layout::parse(&mountinfo).zip(path.ok());
    let group = group.map(|(layout, path)| Cgroup::new(Arc::new(layout), path));
    if let Some(group) = &group {
        group.kill();
    }
    if Kind::of(spec) == Kind::Ordinary
        && let Err(error) = ordinary::Settings::delete_forced(bundle, &flags.id)
    {
        complain(&format!("{error:#}"));
    }
    if let Some(Err(error)) = group.map(|group| group.remove()) {
        complain(&error.to_string());
    }
}

/// A shim that was killed left its socket; a living one serves the rest of its pod.
fn remove_dead_socket(bundle: &Path) {
    let Ok(address) = fs::read_to_string(bundle.join("address")) else { return };
    let address = address.trim();
    let socket = address.strip_prefix("unix://").unwrap_or(address);
    if UnixStream::connect(socket).is_err() {
        let _ = fs::remove_file(socket);
    }
}

fn complain(what: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "delete: {what}");
}
