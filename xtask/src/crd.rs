//! `cargo xtask crd`: write the definitions in `deploy/crds` from the types of `controller/api`.
//! The same test that writes them fails in every other run when they differ.

use crate::house::House;
use crate::tools;

/// Tells the test to write.
const WRITE: &str = "WICK_WRITE_CRD";

pub fn run(house: &House) -> anyhow::Result<()> {
    let mut cargo = house.cargo();
    cargo.args(["test", "--quiet", "-p", "wick-api", "-p", "wick-features", "--test", "crd"]);
    cargo.args(["--", "the_files_in_deploy"]).env(WRITE, "1");
    tools::run(&mut cargo)
}
