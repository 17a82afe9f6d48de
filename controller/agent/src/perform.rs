//! The loop: events in, the state machine, its effects performed in their order; and when nothing
//! happens, the time at which something is due.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use wick_fleet::Moment;
use wick_fleet::converge::{Effect, Event, Settings, Site};
use wick_fleet::wire::{Channel, Telemetry};
use wick_package::error_text;
use wick_serve::Traffic;

use crate::certificate::{self, Renewal};
use crate::control::{self, ControlError};
use crate::enrol::{self, EnrolError};
use crate::keep::{Home, KeepError, Lock, SiteFile};
use crate::link::{Link, Sealer};
use crate::outbox::Outbox;
use crate::state::Shared;
use crate::target::{Events, Target, TargetError};
use crate::tls::unix_now;

/// Events that wait. Whoever has more waits itself.
const EVENTS: usize = 256;

/// Pause after the disk did not take what must be kept before anything else is done.
const DISK: Duration = Duration::from_secs(1);

/// Longest sleep: a timer is set anew at least this often.
const LONGEST: Duration = Duration::from_secs(3600);

/// Time that the link has to say goodbye.
const GOODBYE: Duration = Duration::from_secs(5);

/// How an agent runs.
#[derive(Debug, Clone)]
pub struct AgentSettings {
    /// Deadlines and what the site has. None: what it was enrolled with.
    pub converge: Option<Settings>,
    /// Between two messages about requests.
    pub telemetry: Duration,
    /// Where it says how it is.
    pub control: SocketAddr,
}

/// An agent that is about to run.
pub struct Agent {
    pub home: Home,
    pub site: SiteFile,
    settings: AgentSettings,
    sealer: Arc<Sealer>,
    key: zeroize::Zeroizing<String>,
    events: (Events, mpsc::Receiver<Event>),
    _lock: Lock,
}

/// Why an agent does not run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error(transparent)]
    Keep(#[from] KeepError),
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Control(#[from] ControlError),
}

/// What the loop needs to perform an effect.
struct Performer<T> {
    home: Home,
    target: Arc<T>,
    sealer: Arc<Sealer>,
    outbox: Arc<Outbox>,
    shared: Arc<Shared>,
}

/// A clock of the process: it shows the wall's time at the start, and never goes back.
struct Clock {
    wall: u64,
    begun: Instant,
}

// === impl Agent ===

impl Agent {
    /// Read what was kept. Whoever makes the target gets [`Agent::events`] for it.
    ///
    /// # Errors
    /// The site is not enrolled, or another agent runs with this folder.
    pub fn open(home: Home, settings: AgentSettings) -> Result<Self, AgentError> {
        let site = home.site()?;
        let lock = home.lock()?;
        let (key, pem) = home.key()?;
        let sealer = Arc::new(Sealer { site: site.site.clone(), key });
        let events = mpsc::channel(EVENTS);
        Ok(Self { home, site, settings, sealer, key: pem, events, _lock: lock })
    }

    /// Where a target tells what happened.
    pub fn events(&self) -> Events {
        self.events.0.clone()
    }

    /// Be the site, until `stop`. `listening` is told where the control port is.
    ///
    /// # Errors
    /// What was kept can't be read, or the control port is taken.
    pub async fn run<T: Target>(
        self,
        target: T,
        stop: CancellationToken,
        listening: impl FnOnce(SocketAddr),
    ) -> Result<(), AgentError> {
        let Self { home, site, settings, sealer, key, events: (sender, receiver), _lock } = self;
        let kept = home.kept()?;
        let converge = settings.converge.unwrap_or_else(|| Settings::new(site.memory, site.disk));
        let target = Arc::new(target);
        let link = Link::new(Arc::clone(&sealer), key, site.clone(), sender, kept.boots + 1);
        let (outbox, shared) = (Arc::clone(&link.outbox), Arc::clone(&link.shared));
        let control = control::bind(settings.control).await?;
        listening(control.addr());
        let mut tasks = JoinSet::new();
        let metrics = Arc::clone(&target);
        let answers = control.serve(Arc::clone(&shared), move || metrics.metrics(), stop.clone());
        tasks.spawn(answers);
        tasks.spawn(renewals(home.clone(), &link, stop.clone()));
        let telemetry = Reporter {
            target: Arc::clone(&target),
            sealer: Arc::clone(&sealer),
            outbox: Arc::clone(&outbox),
            shared: Arc::clone(&shared),
            every: settings.telemetry.max(Duration::from_secs(1)),
            boots: link.boots,
        };
        tasks.spawn(telemetry.run(stop.clone()));
        let found = target.look(&kept).await?;
        let performer = Performer { home, target, sealer, outbox, shared };
        let machine = Site::new(site.site, converge, kept);
        let booted = Event::Booted { running: found.running, stored: found.stored };
        let link = tokio::spawn(link.run(stop.clone()));
        performer.turns(machine, booted, receiver, &stop).await;
        drop(tokio::time::timeout(GOODBYE, link).await);
        tasks.shutdown().await;
        Ok(())
    }
}

// === impl Performer ===

impl<T: Target> Performer<T> {
    async fn turns(
        &self,
        mut site: Site,
        booted: Event,
        mut events: mpsc::Receiver<Event>,
        stop: &CancellationToken,
    ) {
        let clock = Clock::start();
        let mut event = booted;
        loop {
            for effect in site.handle(event, clock.now()) {
                // Whoever is told to stop in the middle goes on from what was kept.
                tokio::select! {
                    () = self.perform(effect) => {}
                    () = stop.cancelled() => return,
                }
            }
            let serving = site.kept().serving.as_ref().map(|serving| serving.generation);
            let ready = serving.is_none() || site.active() == serving;
            self.shared.change(|known| {
                known.ready = ready;
                known.generation = site.active().unwrap_or_default();
            });
            let due = site.due().map_or(LONGEST, |due| due.since(clock.now()).min(LONGEST));
            event = tokio::select! {
                next = events.recv() => match next {
                    Some(event) => event,
                    None => return,
                },
                () = tokio::time::sleep(due) => Event::Tick,
                () = stop.cancelled() => return,
            };
        }
    }

    async fn perform(&self, effect: Effect) {
        match effect {
            Effect::Keep(kept) => self.keep(&kept).await,
            Effect::Fetch(model) => self.target.fetch(model),
            Effect::Cancel(digest) => self.target.cancel(digest),
            Effect::Evict(digest) => self.target.evict(digest),
            Effect::Start(model) => self.target.start(model),
            Effect::Stop(version) => self.target.stop(version),
            Effect::Activate { generation, versions } => self.target.activate(generation, versions),
            Effect::Drain(version) => self.target.drain(version),
            Effect::Report { generation, observed } => {
                let (state, reason) = (observed.state, observed.reason.as_deref());
                tracing::info!(%generation, wanted = %observed.wanted, ?state, reason, "report");
                match self.sealer.seal(generation, &*observed) {
                    Ok(bytes) => self.outbox.put(Channel::Observed, bytes),
                    Err(error) => tracing::error!(%error, "a report can't be sealed"),
                }
                self.shared.change(|known| known.observed = Some(*observed));
            }
        }
    }

    /// Nothing that comes after it may be done before it is on the disk. What is served goes on
    /// meanwhile.
    async fn keep(&self, kept: &wick_fleet::converge::Kept) {
        loop {
            let (home, writing) = (self.home.clone(), kept.clone());
            let written = tokio::task::spawn_blocking(move || home.keep(&writing)).await;
            let error = match written {
                Ok(Ok(())) => break,
                Ok(Err(error)) => error_text(&error),
                Err(error) => error.to_string(),
            };
            tracing::error!(error, "what is to be kept can't be written: trying again");
            self.shared.change(|known| known.disk = Some(error));
            tokio::time::sleep(DISK).await;
        }
        self.shared.change(|known| known.disk = None);
    }
}

// === impl Clock ===

impl Clock {
    fn start() -> Self {
        Self { wall: unix_now() * 1000, begun: Instant::now() }
    }

    fn now(&self) -> Moment {
        let passed = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        Moment::from_millis(self.wall.saturating_add(passed))
    }
}

/// Says how requests went, where there were some.
struct Reporter<T> {
    target: Arc<T>,
    sealer: Arc<Sealer>,
    outbox: Arc<Outbox>,
    shared: Arc<Shared>,
    every: Duration,
    boots: u64,
}

impl<T: Target> Reporter<T> {
    async fn run(self, stop: CancellationToken) {
        let mut sequence = self.boots << 32;
        // What was told up to, and what was put into the outbox last.
        let (mut told, mut last) = ((Traffic::default(), Instant::now()), None);
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.every) => {}
                () = stop.cancelled() => return,
            }
            let Some(now) = self.target.traffic().await else { continue };
            // What still waits is replaced, and its requests are told with the next.
            if !self.outbox.waits(Channel::Telemetry) {
                told = last.take().unwrap_or(told);
            }
            let (before, since) = &told;
            let between = now.since(before);
            if between.requests == 0 {
                told.1 = Instant::now();
                continue;
            }
            sequence += 1;
            let telemetry = Telemetry {
                sequence,
                seconds: u32::try_from(since.elapsed().as_secs()).unwrap_or(u32::MAX),
                requests: between.requests,
                errors: between.errors,
                p99_us: between.p99_us(),
            };
            let generation = self.shared.read().generation;
            if let Ok(bytes) = self.sealer.seal(generation, &telemetry) {
                self.outbox.put(Channel::Telemetry, bytes);
            }
            last = Some((now, Instant::now()));
        }
    }
}

/// Renew the certificate when it is time.
fn renewals(home: Home, link: &Link, stop: CancellationToken) -> impl Future<Output = ()> + use<> {
    let (site, renewed) = (Arc::clone(&link.site), Arc::clone(&link.renewed));
    let shared = Arc::clone(&link.shared);
    async move {
        let mut failures = 0;
        loop {
            let now = unix_now();
            let due = Renewal::of(&site.lock(), now);
            let pause = match due {
                Renewal::At(due) => Duration::from_secs(due - now).min(certificate::LOOK),
                Renewal::Now => match enrol::renew(&home).await {
                    Ok(next) => {
                        failures = 0;
                        tracing::info!(
                            ends = crate::tls::date(next.not_after),
                            "certificate renewed"
                        );
                        shared.change(|known| {
                            known.certificate_ends = next.not_after;
                            known.renewal = None;
                        });
                        *site.lock() = next;
                        renewed.notify_one();
                        Duration::from_secs(1)
                    }
                    Err(error) => {
                        failures += 1;
                        let text = renewal_error(&error);
                        tracing::warn!(error = text, "the certificate is not renewed");
                        shared.change(|known| known.renewal = Some(text));
                        certificate::pause(failures, fastrand::f64())
                    }
                },
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
        }
    }
}

fn renewal_error(error: &EnrolError) -> String {
    let text = error_text(error);
    match error {
        EnrolError::Refused { code, .. } if code == "clock" => {
            let now = crate::tls::date(unix_now());
            format!("{text}; by this site's clock it is {now}: set the clock")
        }
        _ => text,
    }
}
