//! Programs of the node that a spec wants to be run around a container, CDI's among them, and
//! other short programs. Children are reaped by the reaper, so they are waited for there.

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use oci_spec::runtime::Hook;
use serde_json::json;

use crate::reaper::Reaper;

/// A hook that names no limit of its own. NVIDIA's take some hundred milliseconds.
const HOOK_LIMIT: Duration = Duration::from_secs(30);

/// How much of a failed program's words is shown.
const MAX_WORDS: usize = 1024;

/// What a hook is told on its stdin.
#[derive(Debug, Clone)]
pub struct Told {
    pub id: String,
    pub bundle: String,
    pub status: &'static str,
    pub pid: u32,
}

/// Run hooks one after another.
///
/// # Errors
/// The first that can't be started, fails or takes too long.
pub async fn run(reaper: &Reaper, hooks: &[Hook], told: &Told) -> anyhow::Result<()> {
    for hook in hooks {
        let path = hook.path();
        one(reaper, hook, told).await.with_context(|| format!("the hook {}", path.display()))?;
    }
    Ok(())
}

async fn one(reaper: &Reaper, hook: &Hook, told: &Told) -> anyhow::Result<()> {
    let state = json!({
        "ociVersion": "1.2.0",
        "id": told.id,
        "status": told.status,
        "pid": told.pid,
        "bundle": told.bundle,
    });
    let mut command = Command::new(hook.path());
    let args = hook.args().as_deref().unwrap_or_default();
    if let [name, rest @ ..] = args {
        std::os::unix::process::CommandExt::arg0(&mut command, name).args(rest);
    }
    command.env_clear().current_dir(Path::new(&told.bundle));
    for variable in hook.env().iter().flatten() {
        if let Some((name, value)) = variable.split_once('=') {
            command.env(name, value);
        }
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let limit = hook.timeout().and_then(|s| u64::try_from(s).ok()).filter(|&s| s > 0);
    let limit = limit.map_or(HOOK_LIMIT, Duration::from_secs);
    let mark = reaper.mark().await;
    let mut child = command.spawn().context("can't be started")?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook need not read it.
        let _ = stdin.write_all(state.to_string().as_bytes());
    }
    let exit = reaper.watch(child.id(), mark).await;
    let stderr = child.stderr.take();
    let words = tokio::task::spawn_blocking(move || stderr.map(read_words).unwrap_or_default());
    let Ok(code) = tokio::time::timeout(limit, exit).await else {
        kill(&child);
        anyhow::bail!("took longer than {limit:?}");
    };
    let code = code.context("was not reaped")?;
    anyhow::ensure!(code == 0, "ended with {code}: {}", words.await.unwrap_or_default());
    Ok(())
}

fn read_words(mut stream: impl std::io::Read) -> String {
    let mut words = vec![0; MAX_WORDS];
    let mut length = 0;
    while let Some(room) = words.get_mut(length..).filter(|room| !room.is_empty()) {
        match stream.read(room) {
            Ok(0) | Err(_) => break,
            Ok(read) => length += read,
        }
    }
    words.truncate(length);
    String::from_utf8_lossy(&words).trim().to_owned()
}

fn kill(child: &Child) {
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        // It is not reaped yet: its exit has not arrived.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// The status that a code of the reaper stands for.
pub fn status_of(code: i32) -> ExitStatus {
    if code > 128 { ExitStatus::from_raw(code - 128) } else { ExitStatus::from_raw(code << 8) }
}
