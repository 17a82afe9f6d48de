//! `cargo xtask fleet`: agents over a real mosquitto and a real registry, both Debian's, unpacked among
//! the caches; nothing is installed or left running.

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::house::House;
use crate::report::Counts;
use crate::{counted, mqtt, registry};

/// Connections of a thousand agents, their control ports, and what each has open beside these.
const FILES: u64 = 16_384;

/// Tells tests where the broker is.
const MOSQUITTO: &str = "WICK_TEST_MOSQUITTO";

/// Brokers, registries and engines of so many tests at once.
const AT_ONCE: &str = "--test-threads=2";

/// Run the tests, or those whose name contains `name`.
pub fn run(house: &House, name: Option<&str>) -> anyhow::Result<Counts> {
    more_files()?;
    let (mosquitto, registry) = (mqtt::mosquitto(house)?, registry::executable(house)?);
    let mut cargo = house.cargo();
    cargo.args(["test", "-p", "wick-agent", "-p", "wick-features", "--test", "agent", "--"]);
    cargo.args(["--ignored", AT_ONCE]).args(name);
    cargo.env(MOSQUITTO, mosquitto).env(registry::VARIABLE, registry);
    let mut failures = Vec::new();
    let counts = counted::run(&mut cargo, &mut failures)?;
    for failure in failures {
        println!("FAILED: {failure}");
    }
    Ok(Counts { ignored: 0, ..counts })
}

/// Let what is started from here on have files for a thousand agents.
pub fn more_files() -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(FILES);
    let wanted = Rlimit { current: Some(FILES.min(most)), maximum: limit.maximum };
    setrlimit(Resource::Nofile, wanted).context("ask for more open files")
}
