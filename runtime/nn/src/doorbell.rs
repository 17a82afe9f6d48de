//! How an answer of a compute thread gets back to the task that waits for it.
//!
//! A task that is woken from outside of its runtime is put where any worker may take it: a worker is woken, and it wakes
//! another before it runs the task, lest there be more to do. On an otherwise idle machine that is one thread too many,
//! and it comes between a request and its answer, reads the next request, and does so on another processor.
//!
//! So when all workers sleep, the wake comes in as an event, by a pipe. One of them waits for events, for all others. It
//! runs what an event has woken itself, and goes back to wait for the next request.

use std::future::Future;
use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::runtime::{Handle, RuntimeMetrics};

/// Rings that are heard at once. There is hardly ever more than one.
const MOST_RINGS: usize = 16;

/// Where compute threads ring. Made in the runtime of the first who waits.
#[derive(Default)]
pub(crate) struct Doorbell {
    /// None if there are no descriptors left: then everybody is woken as ever.
    bell: OnceLock<Option<Arc<Bell>>>,
}

struct Bell {
    rope: OwnedFd,
    workers: RuntimeMetrics,
    /// Who is to be woken: at most one waker of each who waits. None once nobody answers.
    callers: Mutex<Option<Vec<Waker>>>,
}

/// A future that is woken by the bell.
pub(crate) struct Heard<F> {
    future: F,
    bell: Option<Arc<Bell>>,
    /// The task's own waker, and the one that rings for it.
    waker: Option<(Waker, Waker)>,
}

/// Rings for a task.
struct Ringer {
    bell: Arc<Bell>,
    task: Waker,
}

/// Answers the bell as long as the runtime runs.
struct Porter(Arc<Bell>);

// === impl Doorbell ===

impl Doorbell {
    /// Wait for a future whose wakes come from other threads than the runtime's.
    pub(crate) fn hear<F: Future + Unpin>(&self, future: F) -> Heard<F> {
        let bell = self.bell.get_or_init(|| match Bell::hang() {
            Ok(bell) => Some(bell),
            Err(error) => {
                tracing::debug!(%error, "no pipe: answers wake any worker");
                None
            }
        });
        Heard { future, bell: bell.clone(), waker: None }
    }
}

// === impl Bell ===

impl Bell {
    /// A bell in the current runtime, and who answers it.
    fn hang() -> io::Result<Arc<Self>> {
        let runtime = Handle::try_current().map_err(io::Error::other)?;
        let (event, rope) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let event = pipe::Receiver::from_owned_fd(event)?;
        let (workers, callers) = (runtime.metrics(), Mutex::new(Some(Vec::new())));
        let bell = Arc::new(Self { rope, workers, callers });
        runtime.spawn(Porter(Arc::clone(&bell)).answer(event));
        Ok(bell)
    }

    /// Wake a task, by the bell if that is the better way.
    fn wake(&self, task: Waker) {
        // On a worker's own thread the task is put where it goes on next.
        if Handle::try_current().is_ok() || !self.is_quiet() {
            return task.wake();
        }
        let mut callers = self.callers.lock();
        let Some(waiting) = callers.as_mut() else {
            drop(callers);
            return task.wake();
        };
        waiting.push(task);
        let is_first = waiting.len() == 1;
        drop(callers);
        // Whoever is not the first comes with the first. A pipe that is full has rung.
        if is_first {
            let _ = rustix::io::write(&self.rope, &[0]);
        }
    }

    /// Whether all workers sleep, so that one of them waits for events.
    fn is_quiet(&self) -> bool {
        (0..self.workers.num_workers())
            .all(|worker| self.workers.worker_park_unpark_count(worker) % 2 == 1)
    }
}

// === impl Heard ===

impl<F: Future + Unpin> Future for Heard<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let Self { future, bell, waker } = &mut *self;
        let future = Pin::new(future);
        let Some(bell) = bell else { return future.poll(cx) };
        let rings = waker.take().filter(|(task, _)| task.will_wake(cx.waker()));
        let (_, ringer) = waker.insert(rings.unwrap_or_else(|| {
            let (bell, task) = (Arc::clone(bell), cx.waker().clone());
            (task.clone(), Waker::from(Arc::new(Ringer { bell, task })))
        }));
        future.poll(&mut Context::from_waker(ringer))
    }
}

// === impl Ringer ===

impl Wake for Ringer {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.bell.wake(self.task.clone());
    }
}

// === impl Porter ===

impl Porter {
    async fn answer(self, mut event: pipe::Receiver) {
        // Fails when the runtime ends.
        while event.read(&mut [0; MOST_RINGS]).await.is_ok_and(|rings| rings > 0) {
            let callers = self.0.callers.lock().as_mut().map(mem::take);
            callers.into_iter().flatten().for_each(Waker::wake);
        }
    }
}

impl Drop for Porter {
    fn drop(&mut self) {
        let callers = self.0.callers.lock().take();
        callers.into_iter().flatten().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::*;

    /// Answers of many threads to many tasks of a runtime, all through one bell.
    async fn exchange(bell: Arc<Doorbell>, pause: Duration) {
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..8_u32 {
            let bell = Arc::clone(&bell);
            tasks.spawn(async move {
                for turn in 0..200 {
                    let (answer, answered) = oneshot::channel();
                    thread::spawn(move || {
                        thread::sleep(pause);
                        answer.send((task, turn)).unwrap();
                    });
                    assert_eq!(bell.hear(answered).await, Ok((task, turn)));
                }
            });
        }
        tasks.join_all().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
    async fn every_answer_reaches_its_task() {
        let bell = Arc::new(Doorbell::default());
        exchange(Arc::clone(&bell), Duration::ZERO).await;
        // Long enough for all workers to sleep.
        exchange(bell, Duration::from_micros(300)).await;
    }

    #[tokio::test]
    async fn one_thread_for_all_hears_the_bell_too() {
        exchange(Arc::default(), Duration::from_micros(50)).await;
    }

    #[test]
    fn a_bell_whose_runtime_has_ended_or_stands_still_keeps_nobody_waiting() {
        let bell = Arc::new(Doorbell::default());
        let first = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        first.block_on(exchange(Arc::clone(&bell), Duration::ZERO));
        let second = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        second.block_on(exchange(Arc::clone(&bell), Duration::from_micros(50)));
        drop(first);
        second.block_on(exchange(bell, Duration::from_micros(50)));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_wake_comes_by_the_bell_while_all_workers_sleep() {
        let bell = Doorbell::default();
        let (answer, answered) = oneshot::channel();
        let heard = bell.hear(answered);
        let rung = Arc::clone(bell.bell.get().unwrap().as_ref().unwrap());
        let ringing = thread::spawn(move || {
            // A worker that was told of the porter and has not woken yet still counts as asleep.
            thread::sleep(Duration::from_millis(100));
            while !rung.is_quiet() {
                thread::sleep(Duration::from_millis(5));
            }
            let mut callers = rung.callers.lock();
            *callers = Some(vec![Waker::noop().clone()]);
            drop(callers);
            // It is not the first, so it is in the list and nobody has been told.
            answer.send(7).unwrap();
            assert_eq!(rung.callers.lock().as_ref().unwrap().len(), 2);
            rustix::io::write(&rung.rope, &[0]).unwrap();
        });
        assert_eq!(heard.await, Ok(7));
        ringing.join().unwrap();
    }
}
