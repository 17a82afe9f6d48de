//! libFuzzer over the target that `WICK_FUZZ_TARGET` names. `cargo xtask fuzz` builds it, with
//! coverage, and starts it.

#![no_main]

use std::sync::LazyLock;

use wick_fuzz::{Target, VARIABLE, target};

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var(VARIABLE).unwrap_or_default();
    target(&name).unwrap_or_else(|| panic!("{VARIABLE}=`{name}` is no target"))
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| (TARGET.check)(data));
