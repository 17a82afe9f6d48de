//! Looks for new policies: every so often, and at once when somebody says that there is one.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use crate::git::{Fetched, GitError, GitSettings};
use crate::hub::Input;

/// Shortest time between two fetches, however often somebody asks: the repository is somebody else's server.
const PACE: Duration = Duration::from_secs(2);

/// Longest fetch. One that takes longer is told, and waited for.
const DEADLINE: Duration = Duration::from_secs(120);

/// Fetch for as long as there is a hub.
pub async fn follow(
    settings: GitSettings,
    folder: PathBuf,
    every: Duration,
    mut known: Option<String>,
    pull: Arc<Notify>,
    inputs: mpsc::Sender<Input>,
) {
    loop {
        let began = Instant::now();
        let said = match fetch(&settings, &folder, known.clone(), &inputs).await {
            Some(Ok(Some(fetched))) => {
                known = Some(fetched.commit.clone());
                Input::Policy(fetched)
            }
            Some(Ok(None)) => Input::Unchanged,
            Some(Err(error)) => Input::NoPolicy(causes(&error)),
            None => Input::NoPolicy("the fetch ended by itself".to_owned()),
        };
        if inputs.send(said).await.is_err() {
            return;
        }
        // A request that came meanwhile is kept.
        tokio::select! {
            () = tokio::time::sleep_until(began + every) => {}
            () = pull.notified() => tokio::time::sleep_until(began + PACE).await,
        }
    }
}

async fn fetch(
    settings: &GitSettings,
    folder: &std::path::Path,
    known: Option<String>,
    inputs: &mpsc::Sender<Input>,
) -> Option<Result<Option<Fetched>, GitError>> {
    let stop = Arc::new(AtomicBool::new(false));
    let (settings, folder, stopped) = (settings.clone(), folder.to_owned(), stop.clone());
    let work = move || settings.fetch(&folder, known.as_deref(), &stopped);
    let mut work = tokio::task::spawn_blocking(work);
    if let Ok(done) = tokio::time::timeout(DEADLINE, &mut work).await {
        return done.ok();
    }
    stop.store(true, Ordering::Relaxed);
    let late = format!("the repository has not answered for {} s", DEADLINE.as_secs());
    // The hub may be gone.
    let _ = inputs.send(Input::NoPolicy(late)).await;
    work.await.ok()
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}
