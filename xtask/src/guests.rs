//! Builds the members of the workspace that are WebAssembly guests. A member is one if it
//! is a `cdylib`, or if its manifest says so:
//!
//! ```toml
//! [package.metadata.wick]
//! guest = "wasm32-wasip1"
//! ```

use anyhow::Context as _;

use crate::house::{House, Package};
use crate::tools;

/// Target of components, and of core modules with the older ABI.
pub const COMPONENT: &str = "wasm32-wasip2";
pub const MODULE: &str = "wasm32-wasip1";

/// Cargo profile of guests.
const PROFILE: &str = "guest";

/// Build all guests, each for its target.
pub fn build(house: &House) -> anyhow::Result<()> {
    for target in [COMPONENT, MODULE] {
        let guests = house.members.iter().filter(|member| self::target(member) == Some(target));
        let names: Vec<&str> = guests.map(|guest| guest.name.as_str()).collect();
        if names.is_empty() {
            continue;
        }
        eprintln!("setup: guests for {target}: {}", names.join(", "));
        let mut cargo = house.cargo();
        cargo.args(["build", "--target", target, "--profile", PROFILE]);
        for name in &names {
            cargo.args(["--package", name]);
        }
        // Flags for the machine's own code, such as a linker, don't fit WebAssembly.
        cargo.env_remove("RUSTFLAGS");
        tools::run(&mut cargo).with_context(|| format!("build the guests for {target}"))?;
    }
    Ok(())
}

/// The WebAssembly target of a member; none if it is no guest.
pub fn target(member: &Package) -> Option<&str> {
    if let Some(target) = member.metadata["wick"]["guest"].as_str() {
        return Some(target);
    }
    let library = |ty: &String| ty == "cdylib";
    let guest = member.targets.iter().any(|target| target.crate_types.iter().any(library));
    guest.then_some(COMPONENT)
}
