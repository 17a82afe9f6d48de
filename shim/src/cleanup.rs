//! The `delete` action: what a shim that is gone left behind. containerd calls it when a shim
//! does not answer, and after each ordinary end, when there is nothing left to do.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use containerd_shim::Flags;
use containerd_shim::protos::api::DeleteResponse;
use containerd_shim::protos::protobuf::Message as _;

use crate::bootstrap::{Annotated, CONFIG};
use crate::cgroup::{Cgroup, CgroupPath, Layout};
use crate::container::Exit;
use crate::rootfs;
use crate::roster::{self, Member, Roster};

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
    let config = fs::read(bundle.join(CONFIG)).ok();
    let config = config.and_then(|text| serde_json::from_slice::<Annotated>(&text).ok());
    let group = config.as_ref().and_then(Annotated::pod).unwrap_or(&flags.id);
    let file = roster::file(&flags.address, &flags.namespace, group);
    match Roster::read(&file) {
        // containerd asks for the first container of a shim alone, and only takes note of the end
        // of the others that the same shim served.
        Some(roster) if roster.is_orphaned() => bury(&file, &roster),
        // A living shim serves the rest of its pod, and has not let go of this one.
        Some(roster) => {
            roster.members.iter().filter(|member| member.id == flags.id).for_each(clean);
        }
        None => {}
    }
    rootfs::unmount_all(&bundle.join("rootfs"));
    let exit = Exit::now(KILLED);
    let response = DeleteResponse {
        exit_status: exit.code,
        exited_at: Some(exit.timestamp()).into(),
        ..Default::default()
    };
    Ok(response.write_to_bytes()?)
}

/// Clean up behind a dead shim, if there was one, before another takes its place.
pub fn bury_dead(file: &Path) {
    if let Some(roster) = Roster::read(file).filter(Roster::is_orphaned) {
        bury(file, &roster);
    }
}

fn bury(file: &Path, roster: &Roster) {
    roster.members.iter().for_each(clean);
    // The list goes last: a cleanup that is killed can be made again.
    for left in [&roster.socket, file] {
        let _ = fs::remove_file(left);
    }
}

fn clean(member: &Member) {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let path = CgroupPath::parse(&Path::new("/").join(&member.cgroup).display().to_string());
    let group = Layout::parse(&mountinfo).zip(path.ok());
    let group = group.map(|(layout, path)| Cgroup::new(Arc::new(layout), path));
    if let Some(group) = &group {
        group.kill();
    }
    if let Some(Err(error)) = member.runc.as_ref().map(|runc| runc.delete_forced(&member.id)) {
        complain(&format!("{error:#}"));
    }
    if let Some(Err(error)) = group.map(|group| group.remove()) {
        complain(&error.to_string());
    }
    rootfs::unmount_all(&member.bundle.join("rootfs"));
}

fn complain(what: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "delete: {what}");
}
