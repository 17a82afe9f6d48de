//! What a machine does of what its site asks for, and what comes of it. A version that was ready and
//! has traffic must not be stopped; traffic must only go to what is ready, and never back.

use wick_fleet::converge::{Effect, Event, Fault};

use crate::machine::{Machine, Runs, is_bad};

/// What comes back, and after how long. None where nothing ever does.
pub(crate) type Reply = Option<(u64, Event)>;

/// How likely something goes wrong; nothing once faults have stopped.
#[derive(Clone, Copy)]
pub(crate) struct Luck {
    pub(crate) bad: bool,
}

/// An effect in one short line.
pub(crate) fn shown(effect: &Effect) -> String {
    match effect {
        Effect::Keep(kept) => {
            let generation =
                |spec: &Option<wick_fleet::converge::Spec>| spec.as_ref().map(|s| s.generation.0);
            let (serving, wanted) = (generation(&kept.serving), generation(&kept.wanted));
            format!("keep serving {serving:?}, wanted {wanted:?}")
        }
        Effect::Report { generation, observed } => {
            let (state, reason) = (observed.state, observed.reason.as_deref().unwrap_or("-"));
            let (wanted, sequence) = (observed.wanted, observed.sequence);
            format!("report {sequence}: has {generation}, wants {wanted}, {state:?} {reason}")
        }
        Effect::Fetch(model) => format!("fetch {}@{}", model.name, model.digest.short()),
        Effect::Start(model) => format!("start {}@{}", model.name, model.digest.short()),
        other => format!("{other:?}"),
    }
}

// === impl Luck ===

impl Luck {
    /// Once in so many times, while there are faults.
    pub(crate) fn once_in(self, rng: &mut fastrand::Rng, many: u32) -> bool {
        let hit = rng.u32(0..many) == 0;
        self.bad && hit
    }
}

// === impl Machine ===

impl Machine {
    pub(crate) fn perform(
        &mut self,
        effect: Effect,
        luck: Luck,
        rng: &mut fastrand::Rng,
    ) -> Result<Reply, String> {
        let soon = rng.u64(10..3000);
        Ok(match effect {
            Effect::Keep(kept) => {
                self.kept = serde_json::to_vec(&kept).map_err(|error| error.to_string())?;
                None
            }
            Effect::Report { generation, observed } => {
                self.report = Some((generation, observed));
                None
            }
            Effect::Fetch(model) => {
                self.flights.insert(model.digest, model.bytes);
                let digest = model.digest;
                let faults = [Fault::Unreachable, Fault::WrongBytes, Fault::DiskFull];
                let fault = faults[rng.usize(0..faults.len())];
                let slow = if luck.once_in(rng, 8) { 400_000 } else { 20_000 };
                let event = match luck.once_in(rng, 3) {
                    true => Event::FetchFailed { digest, fault },
                    false => Event::Fetched { digest },
                };
                Some((rng.u64(500..slow), event))
            }
            Effect::Cancel(digest) => {
                Some((soon, Event::FetchFailed { digest, fault: Fault::Cancelled }))
            }
            Effect::Evict(digest) => Some((soon, Event::Evicted { digest })),
            Effect::Start(model) => self.start(model, luck, rng)?,
            Effect::Stop(version) => {
                let ready = self.running.get(&version).is_some_and(|runs| runs.ready);
                if ready && self.routed.contains(&version) {
                    return Err(format!("{version} is stopped, and has traffic"));
                }
                Some((soon, Event::Stopped { version }))
            }
            Effect::Drain(version) => {
                if self.routed.contains(&version) {
                    return Err(format!("{version} is drained, and has traffic"));
                }
                (!luck.once_in(rng, 6)).then_some((soon, Event::Drained { version }))
            }
            Effect::Activate { generation, versions } => {
                if let Some(cold) = versions
                    .iter()
                    .find(|version| !self.running.get(*version).is_some_and(|runs| runs.ready))
                {
                    return Err(format!("{cold} gets traffic, and is not ready"));
                }
                if generation < self.routed_generation {
                    let was = self.routed_generation;
                    return Err(format!("traffic goes back from {was} to {generation}"));
                }
                if luck.once_in(rng, 6) {
                    return Ok(None);
                }
                self.routed = versions.into_iter().collect();
                self.routed_generation = generation;
                (!luck.once_in(rng, 6)).then_some((soon, Event::Activated { generation }))
            }
        })
    }

    fn start(
        &mut self,
        model: wick_fleet::Model,
        luck: Luck,
        rng: &mut fastrand::Rng,
    ) -> Result<Reply, String> {
        let version = wick_fleet::converge::Version::from(&model);
        if !self.stored.contains_key(&model.digest) {
            return Err(format!("{version} is started without its bytes"));
        }
        if self.running.contains_key(&version) {
            return Err(format!("{version} is started twice"));
        }
        let never = is_bad(&model) || luck.once_in(rng, 10);
        self.running.insert(version.clone(), Runs { model, ready: false });
        Ok((!never).then(|| (rng.u64(100..10_000), Event::Ready { version })))
    }

    /// What is true on the machine by now. False where the site is not told of it, since it never
    /// came to be.
    pub(crate) fn happens(&mut self, event: &Event) -> bool {
        match event {
            Event::Fetched { digest } => match self.flights.remove(digest) {
                Some(bytes) => self.stored.insert(*digest, bytes).is_none(),
                None => false,
            },
            Event::FetchFailed { digest, .. } => self.flights.remove(digest).is_some(),
            Event::Evicted { digest } => {
                self.stored.remove(digest);
                true
            }
            Event::Ready { version } => match self.running.get_mut(version) {
                Some(runs) => {
                    runs.ready = true;
                    true
                }
                None => false,
            },
            Event::Stopped { version } => {
                self.running.remove(version);
                true
            }
            Event::Died { version } => self.running.remove(version).is_some(),
            _ => true,
        }
    }
}
