//! Who may run, who waits, who is turned away: one model's admission, decided
//! without a clock, a lock or a socket.
//!
//! ```text
//!  arrive ──▶ Run ─────────────────────────────▶ finish ──▶ the first waiter runs
//!         ├─▶ Wait(ticket) ──▶ granted by finish ──┘
//!         │               └─▶ leave (gave up)
//!         └─▶ Refuse(QueueFull | Draining)
//! ```
//!
//! The most important waiters run first, those of one priority in the order of their
//! arrival. [`Gate`](crate::gate::Gate) is the thin part that makes tasks sleep and wake.

use std::collections::VecDeque;
use std::time::Duration;

/// Priorities that are told apart. People use two or three; each is a queue of its own.
const LEVELS: u8 = 8;

/// Whoever says nothing is in the middle, so that others can be more and less important.
const DEFAULT_LEVEL: u8 = 4;

/// Bounds of the time after which a client that was turned away is asked to come back.
/// Less would make it knock all the time; after more, nobody knows what the queue is like.
const RETRY_SECONDS: std::ops::RangeInclusive<u64> = 1..=30;

/// The state of one model's door.
//
// Invariants: `running` <= `concurrency`; nobody waits while there is room; each level of
// `waiting` is in ascending order; `len` is the number of all its tickets.
#[derive(Debug)]
pub struct Admission {
    concurrency: usize,
    queue: usize,
    running: usize,
    waiting: [VecDeque<Ticket>; LEVELS as usize],
    len: usize,
    next: u64,
    finished: u64,
    draining: bool,
}

/// How important a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(u8);

/// A place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket {
    priority: Priority,
    number: u64,
}

/// What happens to a request that arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Run,
    Wait(Ticket),
    Refuse(Refusal),
}

/// Why a request is turned away at the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// As many wait as may wait.
    QueueFull,
    /// The server or the model is going away.
    Draining,
}

// === impl Priority ===

impl Priority {
    /// What a request has that asks for none.
    pub const DEFAULT: Self = Self(DEFAULT_LEVEL - 1);

    /// The request parameter `priority` as Triton means it: 1 is the most important, and
    /// 0, or a number past the last level, is the default.
    pub fn asked(number: u64) -> Self {
        match u8::try_from(number) {
            Ok(level @ 1..=LEVELS) => Self(level - 1),
            _ => Self::DEFAULT,
        }
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self::DEFAULT
    }
}

// === impl Admission ===

impl Admission {
    /// A door for `concurrency` requests at once (at least one) and `queue` waiters.
    pub fn new(concurrency: usize, queue: usize) -> Self {
        Self {
            concurrency: concurrency.max(1),
            queue,
            running: 0,
            waiting: Default::default(),
            len: 0,
            next: 0,
            finished: 0,
            draining: false,
        }
    }

    /// A request is here.
    pub fn arrive(&mut self, priority: Priority) -> Decision {
        if self.draining {
            return Decision::Refuse(Refusal::Draining);
        }
        if self.running < self.concurrency {
            self.running += 1;
            return Decision::Run;
        }
        if self.len >= self.queue {
            return Decision::Refuse(Refusal::QueueFull);
        }
        let ticket = Ticket { priority, number: self.next };
        self.next += 1;
        self.len += 1;
        self.level(priority).push_back(ticket);
        Decision::Wait(ticket)
    }

    /// A running request is done. The waiter that runs in its place, if any.
    pub fn finish(&mut self) -> Option<Ticket> {
        debug_assert!(self.running > 0, "more requests finish than run");
        self.finished += 1;
        if self.len == 0 {
            self.running = self.running.saturating_sub(1);
            return None;
        }
        self.len -= 1;
        self.waiting.iter_mut().find_map(VecDeque::pop_front)
    }

    /// A waiter gives up. False if it was granted a place meanwhile: then it runs,
    /// and must finish.
    pub fn leave(&mut self, ticket: Ticket) -> bool {
        let level = self.level(ticket.priority);
        let Ok(at) = level.binary_search(&ticket) else { return false };
        level.remove(at);
        self.len -= 1;
        true
    }

    /// Turn new requests away. Those that run or wait go on.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Requests in work.
    pub fn running(&self) -> usize {
        self.running
    }

    /// Requests in the queue.
    pub fn waiting(&self) -> usize {
        self.len
    }

    /// Requests that are done, ever.
    pub fn finished(&self) -> u64 {
        self.finished
    }

    /// The next request would be refused, since no place is left.
    pub fn is_full(&self) -> bool {
        self.running >= self.concurrency && self.len >= self.queue
    }

    /// Nobody runs and nobody waits.
    pub fn is_idle(&self) -> bool {
        self.running == 0 && self.len == 0
    }

    fn level(&mut self, priority: Priority) -> &mut VecDeque<Ticket> {
        &mut self.waiting[usize::from(priority.0)]
    }
}

/// Seconds after which those that wait now will have had their turn, when `finished`
/// requests were done in the last `elapsed`. A queue of which nothing was done yet is
/// thought to do one request in all that time.
pub fn retry_after(waiting: usize, finished: u64, elapsed: Duration) -> u64 {
    let each = elapsed.as_secs_f64() / finished.max(1) as f64;
    let seconds = (each * (waiting as f64 + 1.0)).ceil();
    // A float as large as that is past the end in any case.
    (seconds as u64).clamp(*RETRY_SECONDS.start(), *RETRY_SECONDS.end())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Play a script (`a`rrive, a digit: arrive with that priority, `f`inish, `l`eave by the
    /// first waiter, `d`rain) and write down what was decided.
    fn check(concurrency: usize, queue: usize, script: &str, want: &str) {
        let mut door = Admission::new(concurrency, queue);
        let got: Vec<_> = script
            .chars()
            .map(|step| match step {
                'a' | '0'..='9' => {
                    let priority = Priority::asked(step.to_digit(10).unwrap_or(0).into());
                    match door.arrive(priority) {
                        Decision::Run => "run".to_owned(),
                        Decision::Wait(ticket) => format!("wait{}", ticket.number),
                        Decision::Refuse(Refusal::QueueFull) => "full".to_owned(),
                        Decision::Refuse(Refusal::Draining) => "draining".to_owned(),
                    }
                }
                'f' => {
                    let granted = door.finish();
                    granted.map_or_else(|| "free".to_owned(), |t| format!("grant{}", t.number))
                }
                'l' => {
                    let gone = Ticket { priority: Priority(0), number: 99 };
                    let first = door.waiting.iter().find_map(|level| level.front().copied());
                    if door.leave(first.unwrap_or(gone)) {
                        "left".to_owned()
                    } else {
                        "late".to_owned()
                    }
                }
                'd' => {
                    door.drain();
                    "ok".to_owned()
                }
                _ => unreachable!("unknown step"),
            })
            .collect();
        assert_eq!(got.join(" "), want, "{script}");
    }

    #[test]
    fn requests_run_then_wait_then_are_refused() {
        check(2, 1, "aaaa", "run run wait0 full");
        check(1, 0, "aafa", "run full free run");
        check(0, 0, "a", "run");
    }

    #[test]
    fn a_finished_request_grants_its_place_to_the_first_waiter() {
        check(1, 2, "aaafffa", "run wait0 wait1 grant0 grant1 free run");
    }

    #[test]
    fn the_most_important_waiter_runs_first_and_equals_in_their_order() {
        check(1, 9, "a818aaffffff", {
            "run wait0 wait1 wait2 wait3 wait4 grant1 grant3 grant4 grant0 grant2 free"
        });
        // 0 and 9 are the default, which is more important than 5 and less than 3.
        check(1, 9, "a5903fffff", {
            "run wait0 wait1 wait2 wait3 grant3 grant1 grant2 grant0 free"
        });
        assert_eq!(Priority::asked(u64::MAX), Priority::default());
    }

    #[test]
    fn a_waiter_that_leaves_makes_room_and_one_that_was_granted_is_told_so() {
        check(1, 1, "aalaf", "run wait0 left wait1 grant1");
        check(1, 1, "aafl", "run wait0 grant0 late");
    }

    #[test]
    fn draining_refuses_new_requests_and_lets_waiters_run() {
        check(1, 2, "aadaff", "run wait0 ok draining grant0 free");
    }

    #[test]
    fn a_client_is_asked_to_come_back_when_the_queue_has_had_its_turn() {
        let after = |waiting, finished, millis| {
            retry_after(waiting, finished, Duration::from_millis(millis))
        };
        assert_eq!(after(64, 1000, 1000), 1, "a fast queue");
        assert_eq!(after(9, 10, 5000), 5, "half a second each");
        assert_eq!(after(64, 1, 10_000), 30, "no longer than the bound");
        assert_eq!(after(3, 0, 2000), 8, "nothing done yet");
        assert_eq!(after(0, 0, 0), 1);
        assert_eq!(after(usize::MAX, 1, u64::MAX), 30);
    }

    proptest! {
        #[test]
        fn bounds_and_order_hold_whatever_happens(
            concurrency in 1..5_usize,
            queue in 0..6_usize,
            steps in prop::collection::vec((0..4_u8, 0..10_u64), 0..200),
        ) {
            let mut door = Admission::new(concurrency, queue);
            let mut running = 0_usize;
            let mut waiting: Vec<Ticket> = Vec::new();
            for (step, asked) in steps {
                let before = (running, waiting.len());
                match step {
                    0 | 1 => match door.arrive(Priority::asked(asked)) {
                        Decision::Run => running += 1,
                        Decision::Wait(ticket) => waiting.push(ticket),
                        Decision::Refuse(_) => prop_assert_eq!(before, (concurrency, queue)),
                    },
                    2 if running > 0 => match door.finish() {
                        Some(ticket) => {
                            // Tickets are ordered by priority, then by arrival: the first of
                            // them is owed the place, so nobody of a level starves behind it.
                            prop_assert_eq!(waiting.iter().min(), Some(&ticket));
                            waiting.retain(|other| *other != ticket);
                        }
                        None => running -= 1,
                    },
                    3 if !waiting.is_empty() => {
                        let ticket = waiting.remove(waiting.len() / 2);
                        prop_assert!(door.leave(ticket));
                        prop_assert!(!door.leave(ticket), "nobody leaves twice");
                    }
                    _ => {}
                }
                prop_assert_eq!((door.running(), door.waiting()), (running, waiting.len()));
                prop_assert!(running <= concurrency && waiting.len() <= queue);
                prop_assert!(waiting.is_empty() || running == concurrency);
                prop_assert_eq!(door.is_full(), (running, waiting.len()) == (concurrency, queue));
            }
        }
    }
}
