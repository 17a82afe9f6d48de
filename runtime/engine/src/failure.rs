//! What went wrong in a guest, in words and as an error of the request.

use std::time::Duration;

use wasmtime::{PoolConcurrencyLimitError, Trap};
use wasmtime_wasi::I32Exit;

use crate::config::GUEST_STACK;
use crate::error::InferError;
use crate::output::Output;
use crate::state::Limits;

/// Longest reason in an error.
const MAX_DETAIL: usize = 600;

/// A guest that still ran at its deadline.
#[derive(Debug, thiserror::Error)]
#[error("the guest ran out of time")]
pub(crate) struct OutOfTime;

/// Turn a failed call into the request's error.
pub(crate) fn failed(
    model: &str,
    error: &wasmtime::Error,
    limits: &Limits,
    output: &Output,
    elapsed: Duration,
) -> InferError {
    if error.is::<OutOfTime>() {
        return InferError::Deadline(elapsed);
    }
    if error.is::<PoolConcurrencyLimitError>() {
        return InferError::Unavailable(format!(
            "all guest instances of this host are in use; model `{model}` could not start another"
        ));
    }
    output.finish();
    let mut detail = describe(error, limits);
    if let Some(panic) = output.panic() {
        detail = format!("{panic} ({detail})");
    }
    InferError::Guest { model: model.to_owned(), detail: clipped(detail) }
}

fn describe(error: &wasmtime::Error, limits: &Limits) -> String {
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        return format!("it exited with status {}", exit.0);
    }
    let trap = error.downcast_ref::<Trap>();
    // An allocator that gets no memory ends its guest like this; a guest that got
    // over it may fail for another reason later.
    if limits.exhausted && matches!(trap, None | Some(Trap::UnreachableCodeReached)) {
        return format!("out of memory: it may use {} bytes", limits.memory());
    }
    match trap {
        Some(Trap::StackOverflow) => {
            format!("stack overflow: it may use {GUEST_STACK} bytes of stack")
        }
        Some(Trap::UnreachableCodeReached) => "it ended itself (`unreachable`)".to_owned(),
        Some(trap) => trap.to_string(),
        None => error.root_cause().to_string(),
    }
}

fn clipped(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(MAX_DETAIL) {
        text.truncate(end);
        text.push('…');
    }
    text
}
