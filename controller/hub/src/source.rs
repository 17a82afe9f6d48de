//! Where policies come from. Of a repository: looked at every so often, and at once when somebody says that there
//! is a new commit. Of a cluster: [`crate::cluster`].

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use wick_package::error_text;

use crate::cluster::ClusterSettings;
use crate::git::{GitError, GitSettings};
use crate::hub::Input;
use crate::policy::{File, Mistake};

/// Shortest time between two fetches, however often somebody asks: the repository is somebody else's server.
const PACE: Duration = Duration::from_secs(2);

/// Longest fetch. One that takes longer is told, and waited for.
const DEADLINE: Duration = Duration::from_secs(120);

/// Where policies come from.
#[derive(Clone)]
pub enum Source {
    /// A repository, and how often it is looked at.
    Git(GitSettings, Duration),
    /// `Site` and `Rollout` of a namespace, which are heard as they change.
    Cluster(ClusterSettings),
}

/// Files that are to be the policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    pub origin: Origin,
    /// Which they are: the same files have the same one.
    pub commit: String,
    pub files: Vec<File>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Git,
    Cluster,
}

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
            Some(Err(error)) => Input::NoPolicy(error_text(&error)),
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

// === impl Source ===

impl Source {
    /// Where, and which part of it, for people. Without a password that somebody wrote into an address.
    pub fn shown(&self) -> (String, String) {
        match self {
            Self::Git(git, _) => (without_password(&git.url), git.reference.clone()),
            Self::Cluster(cluster) => ("kubernetes".to_owned(), cluster.namespace.clone()),
        }
    }
}

fn without_password(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) if scheme != "ssh" => format!("{scheme}://…@{host}"),
        _ => url.to_owned(),
    }
}

// === impl Origin ===

impl Origin {
    /// Whose change it is, in the audit.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Git => "git",
            Self::Cluster => "kubernetes",
        }
    }

    /// What is wrong with a policy, in the words of where it is from. Objects have no lines.
    pub fn mistaken(self, commit: &str, mistakes: &mut [Mistake]) -> String {
        if self == Self::Cluster {
            mistakes.iter_mut().for_each(|mistake| mistake.line = None);
        }
        let first = mistakes.first().map(ToString::to_string).unwrap_or_default();
        self.refused(commit, format!("{} mistakes, the first: {first}", mistakes.len()))
    }

    /// Why a policy is not taken.
    pub fn refused(self, commit: &str, why: String) -> String {
        match self {
            Self::Git => format!("commit {commit}: {why}"),
            Self::Cluster => why,
        }
    }
}
