//! What was heard of sites. Pure: messages and time in, observations out. A message is believed if the key
//! that its site enrolled with has sealed it, and counts if it is newer than the last.

use std::collections::BTreeMap;

use wick_fleet::plan::{Observations, Seen, Traffic};
use wick_fleet::wire::{self, Channel, KeyRing, Observed, Presence, Refusal, Telemetry, Topic};
use wick_fleet::{Generation, Moment, SiteName};
use wick_package::signature::PublicKey;

/// The serial of a ring that has a site's one key.
const FIRST: u64 = 1;

/// Everything that was heard.
#[derive(Default)]
pub struct Heard {
    voices: BTreeMap<SiteName, Voice>,
    seen: Observations,
    /// Messages that were refused, by code.
    refused: BTreeMap<&'static str, u64>,
}

/// A site's own words.
pub struct Voice {
    ring: KeyRing,
    session: u64,
    telemetry: u64,
    /// The last report, and the generation that it says has the traffic.
    pub report: Option<(Generation, Observed)>,
    /// The last message in its name that was refused, and how many were.
    pub refused: Option<(String, u64)>,
}

// === impl Heard ===

impl Heard {
    pub fn seen(&self) -> &Observations {
        &self.seen
    }

    pub fn voice(&self, site: &SiteName) -> Option<&Voice> {
        self.voices.get(site)
    }

    pub fn refused(&self) -> &BTreeMap<&'static str, u64> {
        &self.refused
    }

    /// Believe this key of a site. What another key said is forgotten.
    pub fn know(&mut self, site: &SiteName, key: &PublicKey) {
        if self.voices.get(site).is_some_and(|voice| voice.ring.find(key.id()).is_some()) {
            return;
        }
        let Ok(ring) = KeyRing::new(FIRST, vec![key.clone()]) else { return };
        let voice = Voice { ring, session: 0, telemetry: 0, report: None, refused: None };
        self.voices.insert(site.clone(), voice);
        self.seen.remove(site);
    }

    pub fn forget(&mut self, site: &SiteName) {
        self.voices.remove(site);
        self.seen.remove(site);
    }

    /// The hub was away from the broker: what happened meanwhile is not known, so times begin again.
    pub fn reconnected(&mut self, now: Moment) {
        for seen in self.seen.values_mut() {
            seen.since = now;
        }
    }

    /// Whether something is known now that was not before.
    ///
    /// # Errors
    /// Why the message is not believed.
    pub fn hear(&mut self, topic: &str, bytes: &[u8], now: Moment) -> Result<bool, Refusal> {
        let topic: Topic = topic.parse().inspect_err(|refusal: &Refusal| self.count(refusal))?;
        let Some(voice) = self.voices.get_mut(&topic.site) else { return Ok(false) };
        let fresh = || Seen { since: now, ..Seen::default() };
        let heard = match topic.channel {
            // Its own words, which it hears if it subscribes too widely.
            Channel::Desired => Ok(false),
            Channel::Observed => wire::open::<Observed>(&topic, bytes, &voice.ring).map(|opened| {
                let last = voice.report.as_ref().map_or(0, |(_, report)| report.sequence);
                if opened.body.sequence <= last {
                    return false;
                }
                let seen = self.seen.entry(topic.site.clone()).or_insert_with(fresh);
                seen.hear(opened.generation, &opened.body);
                voice.report = Some((opened.generation, opened.body));
                true
            }),
            Channel::Presence => wire::open::<Presence>(&topic, bytes, &voice.ring).map(|opened| {
                // The end of an old connection says nothing about a new one.
                if opened.body.session < voice.session {
                    return false;
                }
                voice.session = opened.body.session;
                let seen = self.seen.entry(topic.site.clone()).or_insert_with(fresh);
                let changed = seen.online != opened.body.online;
                if changed {
                    (seen.online, seen.since) = (opened.body.online, now);
                }
                changed
            }),
            Channel::Telemetry => {
                wire::open::<Telemetry>(&topic, bytes, &voice.ring).map(|opened| {
                    let seen = self.seen.get_mut(&topic.site);
                    let Some(seen) = seen.filter(|seen| seen.generation == opened.generation)
                    else {
                        return false;
                    };
                    if opened.body.sequence <= voice.telemetry {
                        return false;
                    }
                    voice.telemetry = opened.body.sequence;
                    add(&mut seen.traffic, &opened.body);
                    true
                })
            }
        };
        if let Err(refusal) = &heard {
            let count = voice.refused.as_ref().map_or(0, |(_, count)| *count);
            voice.refused = Some((refusal.to_string(), count + 1));
            self.count(refusal);
        }
        heard
    }

    fn count(&mut self, refusal: &Refusal) {
        *self.refused.entry(refusal.code()).or_default() += 1;
    }
}

/// Percentiles can't be added: the sum has their mean by requests, so a quiet minute counts little.
fn add(traffic: &mut Traffic, new: &Telemetry) {
    let (before, after) = (u128::from(traffic.requests), u128::from(new.requests));
    let weighed = u128::from(traffic.p99_us) * before + u128::from(new.p99_us) * after;
    let mean = weighed.checked_div(before + after).unwrap_or_default();
    traffic.p99_us = u64::try_from(mean).unwrap_or(u64::MAX);
    traffic.requests = traffic.requests.saturating_add(new.requests);
    traffic.errors = traffic.errors.saturating_add(new.errors);
}

#[cfg(test)]
mod tests {
    use wick_fleet::wire::{Body, State, seal};
    use wick_package::signature::PrivateKey;

    use super::*;

    fn key(seed: u8) -> PrivateKey {
        PrivateKey::from_seed(&[seed; 32])
    }

    fn say<B: Body>(
        heard: &mut Heard,
        key: &PrivateKey,
        body: &B,
        now: u64,
    ) -> Result<bool, &'static str> {
        let topic = Topic::new("plant-3".parse().unwrap(), B::CHANNEL);
        let bytes = seal(&topic, Generation(2), body, key, &[]).unwrap();
        heard
            .hear(&topic.to_string(), &bytes, Moment::from_millis(now))
            .map_err(|refusal| refusal.code())
    }

    fn observed(sequence: u64) -> Observed {
        Observed {
            sequence,
            wanted: Generation(2),
            state: State::Converged,
            reason: None,
            attempts: 0,
            since: Moment::default(),
            models: Vec::new(),
            refused: None,
            keys: 1,
        }
    }

    fn heard() -> (Heard, SiteName) {
        let mut heard = Heard::default();
        let site: SiteName = "plant-3".parse().unwrap();
        heard.know(&site, &key(1).public());
        (heard, site)
    }

    #[test]
    fn a_report_counts_once_and_only_by_the_sites_own_key() {
        let (mut heard, site) = heard();
        assert_eq!(say(&mut heard, &key(1), &observed(5), 1), Ok(true));
        // The same again, and one that was overtaken.
        assert_eq!(say(&mut heard, &key(1), &observed(5), 2), Ok(false));
        assert_eq!(say(&mut heard, &key(1), &observed(4), 2), Ok(false));
        assert_eq!(say(&mut heard, &key(2), &observed(6), 3), Err("key"));
        assert!(heard.seen()[&site].settled);
        assert_eq!(heard.refused()["key"], 1);
        // A site that enrolled again with another key begins anew.
        heard.know(&site, &key(2).public());
        assert!(heard.seen().is_empty());
        assert_eq!(say(&mut heard, &key(2), &observed(1), 4), Ok(true));
    }

    #[test]
    fn the_end_of_an_old_connection_is_not_the_end_of_the_new() {
        let (mut heard, site) = heard();
        assert_eq!(say(&mut heard, &key(1), &Presence { online: true, session: 7 }, 1), Ok(true));
        assert_eq!(say(&mut heard, &key(1), &Presence { online: true, session: 8 }, 2), Ok(false));
        assert_eq!(say(&mut heard, &key(1), &Presence { online: false, session: 7 }, 3), Ok(false));
        assert!(heard.seen()[&site].online);
        assert_eq!(say(&mut heard, &key(1), &Presence { online: false, session: 8 }, 4), Ok(true));
        assert_eq!(heard.seen()[&site].since, Moment::from_millis(4));
    }

    #[test]
    fn traffic_is_of_the_generation_that_serves() {
        let (mut heard, site) = heard();
        let telemetry = |sequence, requests, p99_us| Telemetry {
            sequence,
            seconds: 60,
            requests,
            errors: 1,
            p99_us,
        };
        assert_eq!(say(&mut heard, &key(1), &telemetry(1, 10, 5), 1), Ok(false));
        assert_eq!(say(&mut heard, &key(1), &observed(1), 1), Ok(true));
        assert_eq!(say(&mut heard, &key(1), &telemetry(2, 90, 100), 1), Ok(true));
        assert_eq!(say(&mut heard, &key(1), &telemetry(2, 90, 100), 1), Ok(false));
        assert_eq!(say(&mut heard, &key(1), &telemetry(3, 10, 1000), 1), Ok(true));
        let traffic = Traffic { requests: 100, errors: 2, p99_us: 190 };
        assert_eq!(heard.seen()[&site].traffic, traffic);
    }

    #[test]
    fn garbage_is_refused_with_its_reason() {
        let (mut heard, _) = heard();
        let mut codes = Vec::new();
        let long = vec![b' '; wire::MAX_MESSAGE + 1];
        let topics = ["wick/v1/plant-3/observed", "wick/v9/plant-3/observed", "else"];
        for topic in topics {
            for bytes in [&b"{"[..], br#"{"version":9}"#, &long] {
                codes.push(heard.hear(topic, bytes, Moment::default()).unwrap_err().code());
            }
        }
        assert_eq!(codes[..3], ["malformed", "version", "long"]);
        assert_eq!(codes[3..], ["version", "version", "version", "topic", "topic", "topic"]);
        let unknown = heard.hear("wick/v1/plant-4/observed", b"{", Moment::default());
        assert_eq!(unknown, Ok(false));
    }
}
