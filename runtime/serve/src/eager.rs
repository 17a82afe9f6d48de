//! A future that is polled again at once when it was woken while it was polled.
//!
//! hyper's HTTP/1.1 passes a body from the connection to the handler by a channel inside one
//! task, which wakes itself for each piece. tokio takes that for a task that yields: it wakes
//! another thread to help, which finds nothing to do or takes the connection along. For a
//! small request that is a good part of what it costs.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures::task::AtomicWaker;

/// Polls in a row before others have their turn: a request needs three, and what tokio lets
/// a task do at once ends the rest.
const MAX_POLLS: usize = 8;

/// Nobody polls it: a wake is passed on.
const IDLE: u8 = 0;
/// It is polled, and was not woken.
const POLLED: u8 = 1;
/// It was woken while it was polled.
const WOKEN: u8 = 2;

/// See the module.
pub(crate) struct Eager<F> {
    future: Pin<Box<F>>,
    shared: Arc<Shared>,
    waker: Waker,
}

struct Shared {
    state: AtomicU8,
    task: AtomicWaker,
}

// === impl Eager ===

impl<F: Future> Eager<F> {
    pub(crate) fn new(future: F) -> Self {
        let shared = Arc::new(Shared { state: AtomicU8::new(IDLE), task: AtomicWaker::new() });
        let waker = Waker::from(Arc::clone(&shared));
        Self { future: Box::pin(future), shared, waker }
    }
}

impl<F: Future> Future for Eager<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        let state = &this.shared.state;
        // Before the state says that wakes are passed on.
        this.shared.task.register(cx.waker());
        for _ in 0..MAX_POLLS {
            // Not a mere store: whoever has just noted a wake must be seen by the poll.
            state.swap(POLLED, Ordering::AcqRel);
            let polled = this.future.as_mut().poll(&mut Context::from_waker(&this.waker));
            if polled.is_ready() {
                return polled;
            }
            let idle =
                state.compare_exchange(POLLED, IDLE, Ordering::AcqRel, Ordering::Acquire).is_ok();
            if idle {
                return Poll::Pending;
            }
        }
        state.store(IDLE, Ordering::Release);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

// === impl Wake ===

impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let note = |state| (state != IDLE).then_some(WOKEN);
        let noted = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, note);
        if noted.is_err() {
            self.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    use super::*;

    /// Counts how often its task is woken.
    #[derive(Default)]
    struct Counted(AtomicUsize);

    impl Wake for Counted {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Polls of a future that wakes itself so often before it is ready, and wakes of its
    /// task, when its task polls it once.
    fn poll_once(self_wakes: usize) -> (usize, usize, bool) {
        let (count, polls) = (Arc::new(Counted::default()), AtomicUsize::new(0));
        let mut future = Eager::new(poll_fn(|cx| {
            if polls.fetch_add(1, Ordering::SeqCst) == self_wakes {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        }));
        let waker = Waker::from(Arc::clone(&count));
        let ready = Pin::new(&mut future).poll(&mut Context::from_waker(&waker)).is_ready();
        drop(future);
        (polls.into_inner(), count.0.load(Ordering::SeqCst), ready)
    }

    #[test]
    fn a_future_that_wakes_itself_goes_on_at_once_and_gives_way_in_the_end() {
        assert_eq!(poll_once(0), (1, 0, true));
        assert_eq!(poll_once(3), (4, 0, true));
        assert_eq!(poll_once(MAX_POLLS), (MAX_POLLS, 1, false));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_of_another_thread_is_lost() {
        for _ in 0..2000 {
            let (sender, receiver) = tokio::sync::oneshot::channel();
            let task = tokio::spawn(Eager::new(receiver));
            let sending = thread::spawn(move || sender.send(7));
            assert_eq!(task.await.unwrap(), Ok(7));
            sending.join().unwrap().unwrap();
        }
    }
}
