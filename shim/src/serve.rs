//! A living shim: one thread serves the task API, a few more block where something must.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use containerd_shim::Flags;
use containerd_shim::protos::shim_async::create_task;
use containerd_shim::protos::ttrpc::asynchronous::Server;
use containerd_shim::protos::ttrpc::asynchronous::transport::Listener;
use containerd_shim::publisher::RemotePublisher;
use tokio::signal::unix::{SignalKind, signal};

use crate::bootstrap::ROSTER;
use crate::cgroup::Layout;
use crate::clone::Cloner;
use crate::events::Events;
use crate::host::Host;
use crate::journal;
use crate::pod::{Pod, Tools};
use crate::reaper::Reaper;
use crate::roster::Book;
use crate::task::Service;

/// Threads that may block: a pod's containers are created a few at a time.
const BLOCKING_THREADS: usize = 8;

/// A blocking thread's stack is memory of the pod; between two pods' events it is given back.
const BLOCKING_IDLE: Duration = Duration::from_secs(2);

/// Answers that are still being written when the shim ends.
const DRAIN: Duration = Duration::from_secs(2);

/// The service's name in containerd 1.6 and 1.7; its messages are those of version 3.
const TASK_API_2: &str = "containerd.task.v2.Task";

/// Serve until the pod is gone.
///
/// # Errors
/// The shim can't start. containerd sees that its socket closes.
pub fn serve(flags: &Flags) -> anyhow::Result<()> {
    journal::start(flags.debug);
    let served = build_and_run(flags);
    if let Err(error) = &served {
        // stderr goes nowhere.
        tracing::error!("the shim could not start: {error:#}");
    }
    served
}

fn build_and_run(flags: &Flags) -> anyhow::Result<()> {
    let listener = take_listener().context("take the socket that `start` made")?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    raise_oom_score();
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").context("read mountinfo")?;
    let layout = Layout::parse(&mountinfo).context("no control groups are mounted")?;
    let cloner = Cloner::start().context("start the cloner")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(BLOCKING_IDLE)
        .build()?;
    runtime.block_on(async {
        let address = std::env::var("TTRPC_ADDRESS").context("read TTRPC_ADDRESS")?;
        let publisher = RemotePublisher::new(&address).await.context("connect to containerd")?;
        let roster = std::env::var_os(ROSTER).context("read the list's name")?;
        let reaper = Reaper::default();
        let tools = Tools {
            cloner,
            reaper: reaper.clone(),
            events: Events::new(publisher, flags.namespace.clone()),
            layout: Arc::new(layout),
            host: Host::from_env(),
            roster: Book::new(roster.into(), flags.socket.clone().into()),
            namespace: flags.namespace.clone(),
        };
        run(listener, Pod::new(tools), reaper).await
    })?;
    runtime.shutdown_timeout(DRAIN);
    let _ = std::fs::remove_file(&flags.socket);
    Ok(())
}

async fn run(listener: UnixListener, pod: Arc<Pod>, reaper: Reaper) -> anyhow::Result<()> {
    let mut children = signal(SignalKind::child())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let task = Arc::new(Service::new(Arc::clone(&pod)));
    let mut services = create_task(Arc::clone(&task) as _);
    let again: Vec<_> = create_task(task as _).into_values().collect();
    services.extend(again.into_iter().map(|service| (TASK_API_2.to_owned(), service)));
    let mut server =
        Server::new().add_listener(Listener::try_from(listener)?).register_service(services);
    server.start().await.context("serve the task API")?;
    loop {
        // Each arm is cancel-safe: a signal that came is still there at the next turn, and
        // the end of the pod is a state and not an event.
        tokio::select! {
            _ = children.recv() => reaper.reap().await,
            // containerd ends a shim by its API. Whoever signals it wants to see a log line.
            _ = terminate.recv() => tracing::info!("SIGTERM is ignored: delete the pod"),
            _ = interrupt.recv() => tracing::info!("SIGINT is ignored: delete the pod"),
            () = pod.ended() => break,
        }
    }
    pod.tools().events.drain().await;
    // The answer to Shutdown is on its way.
    let _ = tokio::time::timeout(DRAIN, server.shutdown()).await;
    Ok(())
}

/// The listener that `start` left on descriptor 0. No child inherits that: all get streams of
/// their own.
fn take_listener() -> io::Result<UnixListener> {
    let listener = UnixListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    listener.set_nonblocking(true)?;
    // Not a socket: somebody called the shim by hand.
    listener.local_addr()?;
    Ok(listener)
}

/// Rather a shim than containerd, and rather a container than a shim.
fn raise_oom_score() {
    const FILE: &str = "/proc/self/oom_score_adj";
    let score = std::fs::read_to_string(FILE).ok().and_then(|t| t.trim().parse::<i32>().ok());
    if let Some(score) = score.filter(|&s| s < 1000)
        && let Err(error) = std::fs::write(FILE, (score + 1).to_string())
    {
        tracing::warn!("the shim keeps containerd's OOM score: {error}");
    }
}
