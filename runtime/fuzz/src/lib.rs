//! What coverage-guided tests do with bytes: each target gives them to one parser of what comes
//! from outside and checks what must hold for every input. A target is one file, and one line of [`TARGETS`].
//!
//! `cargo xtask fuzz` searches for inputs; the tests of this crate replay the seeds and the
//! crashes that were found, as ordinary tests.

mod envelope;
mod grpc;
mod policy;
mod rest_binary;
mod rest_json;
mod round_trip;

/// One parser, and what must hold of it.
pub struct Target {
    /// Its name, and that of its folder of seeds.
    pub name: &'static str,
    /// Panics if an input breaks a rule.
    pub check: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "envelope", check: envelope::check },
    Target { name: "grpc", check: grpc::check },
    Target { name: "policy", check: policy::check },
    Target { name: "rest-json", check: rest_json::check },
    Target { name: "rest-binary", check: rest_binary::check },
];

/// Which target the environment of the fuzzer names.
pub const VARIABLE: &str = "WICK_FUZZ_TARGET";

/// The target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
