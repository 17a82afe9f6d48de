//! Host memory that a guest holds through its tensors: counted, bounded, and given
//! back when the last handle to the bytes goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What one instance holds.
#[derive(Debug)]
pub(crate) struct Account {
    held: AtomicU64,
    limit: u64,
}

/// Some bytes of an account. Shared by all handles to the same bytes.
#[derive(Debug)]
pub(crate) struct Charge {
    account: Arc<Account>,
    bytes: u64,
}

/// More bytes than an instance may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the handler would hold more than {limit} bytes of tensors in the host at once; \
     drop tensors that are no longer needed, or raise `[limits] memory`"
)]
pub(crate) struct AccountError {
    limit: u64,
}

// === impl Account ===

impl Account {
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { held: AtomicU64::new(0), limit })
    }

    /// Take `bytes` until the answer is dropped.
    ///
    /// # Errors
    /// The account would be over its limit.
    pub(crate) fn charge(self: &Arc<Self>, bytes: u64) -> Result<Arc<Charge>, AccountError> {
        let add = |held: u64| held.checked_add(bytes).filter(|&sum| sum <= self.limit);
        match self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add) {
            Ok(_) => Ok(Arc::new(Charge { account: Arc::clone(self), bytes })),
            Err(_) => Err(AccountError { limit: self.limit }),
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_free_again_when_the_last_handle_goes() {
        let account = Account::new(10);
        let first = account.charge(6).unwrap();
        let second = Arc::clone(&first);
        assert_eq!(account.charge(5).unwrap_err(), AccountError { limit: 10 });
        drop(first);
        assert!(account.charge(5).is_err());
        drop(second);
        assert!(account.charge(10).is_ok());
        assert!(account.charge(u64::MAX).is_err());
    }
}
