//! A client that asks again as soon as it has its answer is waited for awake.
//!
//! A thread that sleeps until the next request lets its processor go idle, and to wake an idle
//! processor takes longer, on a virtual machine several times longer, than a small request does.
//! So a connection whose client has come back at once several times keeps its thread polling
//! for as long as such a client takes, and no longer. Others are polled with it, and have
//! their turn first. Where others come in between nobody need wait awake: they leave no
//! processor the time to go idle.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe;

/// How long a thread stays awake for a client: what one takes that must be woken itself.
const AWAKE: Duration = Duration::from_micros(120);

/// A client that is back within this is prompt: the time above, and what it took to wake us.
const PROMPT: Duration = Duration::from_micros(250);

/// A client is waited for from so many prompt requests on. A late one counts against as many,
/// so that a pause of the machine does not undo a habit, and a client of bursts gets none.
const HABIT: u8 = 4;
const FIRM_HABIT: u8 = 3 * HABIT;

/// The place of the one connection of a server that waits awake: its thread polls for all others as well.
///
/// Its task runs again by an event that it sends itself, together with whoever else has one by then. `yield_now` would
/// have tokio wake another worker at each turn, to look for what more there is to do.
#[derive(Debug)]
pub struct Place {
    /// None while it is taken.
    event: Mutex<Option<pipe::Receiver>>,
    sender: OwnedFd,
    /// How often something has come, on any connection.
    arrivals: AtomicUsize,
}

/// A stream of requests and answers.
#[derive(Debug)]
pub struct Awake<S> {
    stream: S,
    habit: Habit,
    /// The last thing that happened is that something was sent.
    answered: bool,
    /// Since when nothing has come after that, and what had come by then on all connections.
    since: Option<(Instant, usize)>,
    /// None if there was no descriptor left for it.
    place: Option<Arc<Place>>,
    turn: Option<Turn>,
}

/// How prompt a client is.
#[derive(Debug, Default, Clone, Copy)]
struct Habit {
    /// Prompt requests less late ones, up to [`FIRM_HABIT`].
    prompt: u8,
}

/// The right to wait awake, until it is dropped.
#[derive(Debug)]
struct Turn {
    place: Arc<Place>,
    /// Given back with the turn.
    event: Option<pipe::Receiver>,
}

// === impl Habit ===

impl Habit {
    /// The client came back after this time, the next of all of them or not.
    fn came(&mut self, after: Duration, next: bool) {
        self.prompt = match next && after <= PROMPT {
            true => (self.prompt + 1).min(FIRM_HABIT),
            false => self.prompt.saturating_sub(HABIT),
        };
    }

    /// Whether to stay awake when it has been away for this time.
    fn is_worth_it(self, away: Duration) -> bool {
        self.prompt >= HABIT && away < AWAKE
    }
}

// === impl Place ===

impl Place {
    /// # Errors
    /// The process has no descriptors left.
    pub fn new() -> io::Result<Self> {
        let (event, sender) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let event = Mutex::new(Some(pipe::Receiver::from_owned_fd(event)?));
        Ok(Self { event, sender, arrivals: AtomicUsize::new(0) })
    }

    fn take(this: &Arc<Self>) -> Option<Turn> {
        let event = this.event.lock().take()?;
        Some(Turn { place: Arc::clone(this), event: Some(event) })
    }
}

// === impl Turn ===

impl Turn {
    /// Run the task again, after tokio has let the others run and looked for events.
    fn again(&mut self, cx: &mut Context<'_>) {
        let Some(event) = &mut self.event else { return };
        let mut bytes = [0; 8];
        // What is still there from the last time.
        while let Poll::Ready(Ok(())) =
            Pin::new(&mut *event).poll_read(cx, &mut ReadBuf::new(&mut bytes))
        {}
        // A pipe that is full has an event.
        let _ = rustix::io::write(&self.place.sender, &[0]);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *self.place.event.lock() = self.event.take();
    }
}

// === impl Awake ===

impl<S> Awake<S> {
    pub fn new(stream: S, place: Option<Arc<Place>>) -> Self {
        let habit = Habit::default();
        Self { stream, habit, answered: false, since: None, place, turn: None }
    }

    fn came(&mut self) {
        let place = self.place.as_ref();
        let before = place.map_or(0, |place| place.arrivals.fetch_add(1, Ordering::Relaxed));
        if let Some((since, arrivals)) = self.since.take() {
            self.habit.came(since.elapsed(), before == arrivals);
        }
        self.turn = None;
        self.answered = false;
    }

    /// Nothing has come. Returns the turn of a connection that looks again at once.
    fn stays_awake(&mut self) -> Option<&mut Turn> {
        if !self.answered {
            return None;
        }
        let arrivals =
            || self.place.as_ref().map_or(0, |place| place.arrivals.load(Ordering::Relaxed));
        let (since, _) = *self.since.get_or_insert_with(|| (Instant::now(), arrivals()));
        let away = since.elapsed();
        if !self.habit.is_worth_it(away) {
            self.turn = None;
        } else if self.turn.is_none() {
            self.turn = self.place.as_ref().and_then(Place::take);
        }
        self.turn.as_mut()
    }

    fn sent(&mut self, bytes: &Poll<io::Result<usize>>) {
        if matches!(bytes, Poll::Ready(Ok(bytes)) if *bytes > 0) {
            (self.answered, self.since) = (true, None);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Awake<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        if read.is_ready() {
            this.came();
        } else if let Some(turn) = this.stays_awake() {
            turn.again(cx);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Awake<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let wrote = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.sent(&wrote);
        wrote
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let wrote = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.sent(&wrote);
        wrote
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(cx);
        // HTTP/2 looks for requests before it sends answers, and after that not again by itself.
        if flushed.is_ready()
            && this.since.is_none()
            && let Some(turn) = this.stays_awake()
        {
            turn.again(cx);
        }
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn only_a_client_that_is_mostly_prompt_is_waited_for_and_not_for_long() {
        let mut habit = Habit::default();
        for _ in 0..HABIT {
            assert!(!habit.is_worth_it(Duration::ZERO));
            habit.came(PROMPT, true);
        }
        assert!(habit.is_worth_it(Duration::ZERO));
        assert!(!habit.is_worth_it(AWAKE));
        let late = PROMPT + Duration::from_micros(1);
        habit.came(late, true);
        assert!(!habit.is_worth_it(Duration::ZERO));
        for _ in 0..100 {
            habit.came(PROMPT, true);
        }
        habit.came(late, true);
        habit.came(PROMPT, false);
        assert!(habit.is_worth_it(Duration::ZERO), "a pause is no change of habit");
        habit.came(PROMPT, false);
        assert!(!habit.is_worth_it(Duration::ZERO), "others come in between");
    }

    /// HTTP/2 reads until nothing is left, then answers, and is not asked again until something comes.
    #[tokio::test]
    async fn a_connection_that_has_sent_its_answer_need_not_read_to_stay_awake() {
        let place = Arc::new(Place::new().unwrap());
        let (_client, server) = tokio::io::duplex(64);
        let mut stream = Awake::new(server, Some(place));
        stream.habit.prompt = HABIT;
        stream.flush().await.unwrap();
        assert!(stream.turn.is_none(), "there was no answer");
        stream.write_all(b"answer").await.unwrap();
        stream.flush().await.unwrap();
        assert!(stream.turn.is_some());
    }

    #[tokio::test]
    async fn a_client_between_whose_requests_others_come_forms_no_habit() {
        let place = Arc::new(Place::new().unwrap());
        let pair = || {
            let (client, server) = tokio::io::duplex(64);
            (client, Awake::new(server, Some(Arc::clone(&place))))
        };
        let ((mut client, mut stream), (mut other, mut between)) = (pair(), pair());
        // As if no time had passed, however slow this machine is.
        let later = Instant::now() + Duration::from_secs(3600);
        for others in [false, true] {
            for _ in 0..HABIT {
                stream.write_all(b"a").await.unwrap();
                stream.since = Some((later, place.arrivals.load(Ordering::Relaxed)));
                if others {
                    other.write_all(b"q").await.unwrap();
                    between.read_exact(&mut [0]).await.unwrap();
                }
                client.write_all(b"q").await.unwrap();
                stream.read_exact(&mut [0]).await.unwrap();
            }
            assert_eq!(stream.habit.prompt >= HABIT, !others);
        }
    }

    #[tokio::test]
    async fn one_connection_at_a_time_stays_awake_and_only_after_an_answer() {
        let place = Arc::new(Place::new().unwrap());
        let pair = || {
            let (client, server) = tokio::io::duplex(64);
            let mut stream = Awake::new(server, Some(Arc::clone(&place)));
            stream.habit.prompt = HABIT;
            (client, stream)
        };
        let ((mut client, mut first), (_other, mut second)) = (pair(), pair());
        let pending = |stream: &mut Awake<_>| {
            let mut bytes = [0; 8];
            let mut cx = Context::from_waker(std::task::Waker::noop());
            let read = Pin::new(stream).poll_read(&mut cx, &mut ReadBuf::new(&mut bytes));
            assert!(read.is_pending());
        };
        pending(&mut first);
        assert!(first.turn.is_none(), "there was no answer");
        first.write_all(b"answer").await.unwrap();
        second.write_all(b"answer").await.unwrap();
        // As if no time had passed, however slow this machine is.
        let now = Some((Instant::now() + Duration::from_secs(3600), 0));
        (first.since, second.since) = (now, now);
        pending(&mut first);
        pending(&mut second);
        assert!(first.turn.is_some() && second.turn.is_none());
        client.write_all(b"next").await.unwrap();
        first.read_exact(&mut [0; 4]).await.unwrap();
        assert!(first.turn.is_none() && first.since.is_none());
        pending(&mut second);
        assert!(second.turn.is_some());
        second.since = Some((Instant::now().checked_sub(AWAKE).unwrap(), 1));
        pending(&mut second);
        assert!(second.turn.is_none(), "its time is over");
    }
}
