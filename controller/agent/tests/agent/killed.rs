//! Agents that are killed: in a process of their own, which is this test's executable again.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::rig::{self, PATIENCE, PLENTY, Rig};

/// The folder of the site whose agent a child is.
const CHILD: &str = "WICK_TEST_AGENT";

/// Where a child writes its port.
const PORT: &str = "port";

struct Killable(Child);

impl Killable {
    fn start(home: &Path) -> Self {
        drop(std::fs::remove_file(home.join(PORT)));
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--ignored", "--exact", "killed::the_agent_of_a_child"]).env(CHILD, home);
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the other half of the test below"]
async fn the_agent_of_a_child() {
    let Some(home) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    drop(rustls::crypto::ring::default_provider().install_default());
    let running = rig::start(home.clone(), rig::converge(PLENTY, PLENTY)).await;
    let port = home.join("port.new");
    std::fs::write(&port, running.http.to_string()).unwrap();
    std::fs::rename(port, home.join(PORT)).unwrap();
    std::future::pending::<()>().await;
}

async fn until_serves(home: &Path, want: &[f64]) {
    let begun = Instant::now();
    loop {
        let addr = std::fs::read_to_string(home.join(PORT)).ok();
        if let Some(addr) = addr.and_then(|text| text.parse().ok())
            && let Ok(value) = rig::value(addr).await
        {
            assert!(want.contains(&value), "{value} is neither of {want:?}");
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "it does not serve");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs mosquitto and docker-registry; cargo xtask fleet"]
async fn an_agent_that_is_killed_at_any_instant_serves_what_it_had_or_what_is_new() {
    let rig = Rig::new();
    let home = rig.enrol("plant-1").root().to_owned();
    let models = [rig.model(1.0).await, rig.model(2.0).await];
    let mut agent = Killable::start(&home);
    rig.hub.tell("plant-1", 1, &models[..1]).await;
    rig.hub.until_converged("plant-1", 1).await;
    let mut generation = 1;
    // From before it has heard to after it has converged.
    for millis in [0, 5, 20, 40, 60, 90, 130, 180, 250, 400] {
        generation += 1;
        let model = &models[(generation as usize + 1) % 2];
        rig.hub.tell("plant-1", generation, std::slice::from_ref(model)).await;
        tokio::time::sleep(Duration::from_millis(millis)).await;
        agent.kill();
        agent = Killable::start(&home);
        until_serves(&home, &[1.0, 2.0]).await;
        rig.hub.until_converged("plant-1", generation).await;
        let want = if generation % 2 == 1 { 1.0 } else { 2.0 };
        until_serves(&home, &[want]).await;
    }
    agent.kill();
    let begun = Instant::now();
    while rig.hub.presence("plant-1").is_none_or(|presence| presence.online) {
        assert!(begun.elapsed() < PATIENCE, "its last will was not told");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
