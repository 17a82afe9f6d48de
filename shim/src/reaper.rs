//! The exits of children, each told to whoever waits for it, and once.
//!
//! The shim is the subreaper of its pod: every process whose parent ends becomes its child.
//! One loop reaps them all, because two that reap would take each other's. A process can end
//! before anybody waits for it, so exits that nobody asked for yet are kept for a while; a
//! [`Mark`] from before the process was made tells an old exit with the same number apart.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use rustix::process::{WaitOptions, wait};
use tokio::sync::{Mutex, oneshot};

/// Exits that are kept for somebody who asks late. Between the clone of a process and the
/// question for its exit only a few others can end.
const MAX_EARLY: usize = 256;

/// Where exits arrive.
#[derive(Debug, Clone, Default)]
pub struct Reaper {
    table: Arc<Mutex<Table>>,
}

/// A point in the order of exits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub struct Mark(u64);

#[derive(Debug, Default)]
struct Table {
    waiting: HashMap<u32, oneshot::Sender<i32>>,
    early: VecDeque<Early>,
    count: u64,
}

#[derive(Debug)]
struct Early {
    pid: u32,
    code: i32,
    order: u64,
}

// === impl Reaper ===

impl Reaper {
    /// Taken before a process is made.
    pub async fn mark(&self) -> Mark {
        Mark(self.table.lock().await.count)
    }

    /// The exit code of a process that was made after `mark`.
    pub async fn watch(&self, pid: u32, mark: Mark) -> oneshot::Receiver<i32> {
        let (sender, receiver) = oneshot::channel();
        let mut table = self.table.lock().await;
        let found = table.early.iter().position(|e| e.pid == pid && e.order >= mark.0);
        match found.and_then(|at| table.early.remove(at)) {
            Some(exit) => {
                // Nobody can have dropped the receiver yet.
                let _ = sender.send(exit.code);
            }
            None => {
                table.waiting.insert(pid, sender);
            }
        }
        receiver
    }

    /// Reap what has ended: called at each SIGCHLD.
    pub async fn reap(&self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let code = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => code,
                // As a shell tells a signal.
                (None, Some(signal)) => 128 + signal,
                (None, None) => continue,
            };
            self.ended(pid.as_raw_nonzero().get().unsigned_abs(), code).await;
        }
    }

    async fn ended(&self, pid: u32, code: i32) {
        let mut table = self.table.lock().await;
        let order = table.count;
        table.count += 1;
        if let Some(sender) = table.waiting.remove(&pid) {
            // Who waited may have given up.
            let _ = sender.send(code);
            return;
        }
        if table.early.len() == MAX_EARLY {
            table.early.pop_front();
        }
        table.early.push_back(Early { pid, code, order });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_exit_before_the_question_is_not_lost() {
        let reaper = Reaper::default();
        let mark = reaper.mark().await;
        reaper.ended(7, 3).await;
        assert_eq!(reaper.watch(7, mark).await.try_recv(), Ok(3));
    }

    #[tokio::test]
    async fn an_older_process_with_the_same_number_is_another() {
        let reaper = Reaper::default();
        reaper.ended(7, 3).await;
        let mark = reaper.mark().await;
        let mut exit = reaper.watch(7, mark).await;
        assert!(exit.try_recv().is_err());
        reaper.ended(7, 143).await;
        assert_eq!(exit.try_recv(), Ok(143));
    }

    #[tokio::test]
    async fn what_nobody_asks_for_is_bounded() {
        let reaper = Reaper::default();
        for pid in 0..1000 {
            reaper.ended(pid, 0).await;
        }
        assert_eq!(reaper.table.lock().await.early.len(), MAX_EARLY);
    }
}
