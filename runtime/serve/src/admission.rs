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
//! Waiters run in the order of their arrival. [`Gate`](crate::gate::Gate) is the
//! thin part that makes tasks sleep and wake.

use std::collections::VecDeque;

/// The state of one model's door.
//
// Invariants: `running` <= `concurrency`; nobody waits while there is room;
// `waiting` is in ascending order.
#[derive(Debug)]
pub struct Admission {
    concurrency: usize,
    queue: usize,
    running: usize,
    waiting: VecDeque<Ticket>,
    next: u64,
    draining: bool,
}

/// A place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

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

// === impl Admission ===

impl Admission {
    /// A door for `concurrency` requests at once (at least one) and `queue` waiters.
    pub fn new(concurrency: usize, queue: usize) -> Self {
        let concurrency = concurrency.max(1);
        let waiting = VecDeque::new();
        Self { concurrency, queue, running: 0, waiting, next: 0, draining: false }
    }

    /// A request is here.
    pub fn arrive(&mut self) -> Decision {
        if self.draining {
            return Decision::Refuse(Refusal::Draining);
        }
        if self.running < self.concurrency {
            self.running += 1;
            return Decision::Run;
        }
        if self.waiting.len() >= self.queue {
            return Decision::Refuse(Refusal::QueueFull);
        }
        let ticket = Ticket(self.next);
        self.next += 1;
        self.waiting.push_back(ticket);
        Decision::Wait(ticket)
    }

    /// A running request is done. The waiter that runs in its place, if any.
    pub fn finish(&mut self) -> Option<Ticket> {
        debug_assert!(self.running > 0, "more requests finish than run");
        let next = self.waiting.pop_front();
        if next.is_none() {
            self.running = self.running.saturating_sub(1);
        }
        next
    }

    /// A waiter gives up. False if it was granted a place meanwhile: then it runs,
    /// and must finish.
    pub fn leave(&mut self, ticket: Ticket) -> bool {
        match self.waiting.binary_search(&ticket) {
            Ok(at) => self.waiting.remove(at).is_some(),
            Err(_) => false,
        }
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
        self.waiting.len()
    }

    /// Nobody runs and nobody waits.
    pub fn is_idle(&self) -> bool {
        self.running == 0 && self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Play a script (`a`rrive, `f`inish, `l`eave by the first waiter, `d`rain) and
    /// write down what was decided.
    fn check(concurrency: usize, queue: usize, script: &str, want: &str) {
        let mut door = Admission::new(concurrency, queue);
        let got: Vec<_> = script
            .chars()
            .map(|step| match step {
                'a' => match door.arrive() {
                    Decision::Run => "run".to_owned(),
                    Decision::Wait(Ticket(number)) => format!("wait{number}"),
                    Decision::Refuse(Refusal::QueueFull) => "full".to_owned(),
                    Decision::Refuse(Refusal::Draining) => "draining".to_owned(),
                },
                'f' => {
                    door.finish().map_or_else(|| "free".to_owned(), |Ticket(n)| format!("grant{n}"))
                }
                'l' => {
                    let first = door.waiting.front().copied().unwrap_or(Ticket(99));
                    if door.leave(first) { "left".to_owned() } else { "late".to_owned() }
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
    fn a_waiter_that_leaves_makes_room_and_one_that_was_granted_is_told_so() {
        check(1, 1, "aalaf", "run wait0 left wait1 grant1");
        check(1, 1, "aafl", "run wait0 grant0 late");
    }

    #[test]
    fn draining_refuses_new_requests_and_lets_waiters_run() {
        check(1, 2, "aadaff", "run wait0 ok draining grant0 free");
    }

    proptest! {
        #[test]
        fn the_bounds_hold_whatever_happens(
            concurrency in 1..5_usize,
            queue in 0..5_usize,
            steps in prop::collection::vec(0..4_u8, 0..200),
        ) {
            let mut door = Admission::new(concurrency, queue);
            let mut running = 0_usize;
            let mut waiting = Vec::new();
            for step in steps {
                match step {
                    0 | 1 => match door.arrive() {
                        Decision::Run => running += 1,
                        Decision::Wait(ticket) => waiting.push(ticket),
                        Decision::Refuse(_) => {
                            prop_assert_eq!((running, waiting.len()), (concurrency, queue));
                        }
                    },
                    2 if running > 0 => match door.finish() {
                        Some(ticket) => prop_assert_eq!(waiting.remove(0), ticket),
                        None => running -= 1,
                    },
                    3 if !waiting.is_empty() => {
                        let ticket = waiting.remove(waiting.len() / 2);
                        prop_assert!(door.leave(ticket));
                    }
                    _ => {}
                }
                prop_assert_eq!((door.running(), door.waiting()), (running, waiting.len()));
                prop_assert!(running <= concurrency && waiting.len() <= queue);
                prop_assert!(waiting.is_empty() || running == concurrency);
            }
        }
    }
}
