//! Random bytes, from the system.

use std::fs::File;
use std::io::Read as _;

use crate::exit::Exit;
use crate::failure::{Failure, Outcome};

/// Where the system gives random bytes.
const RANDOM: &str = "/dev/urandom";

/// # Errors
/// The system gives none.
pub fn bytes<const N: usize>() -> Outcome<[u8; N]> {
    let mut bytes = [0; N];
    let read = File::open(RANDOM).and_then(|mut source| source.read_exact(&mut bytes));
    read.map_err(|error| {
        Failure::new(Exit::Failure, "no-random", format!("cannot read {RANDOM}"))
            .caused_by(Some(&error))
    })?;
    Ok(bytes)
}
