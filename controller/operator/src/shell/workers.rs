//! What workers say of themselves: how many requests they have, and what they compute on. Read
//! from their metrics, since that is what they have anyway.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use futures::future::join_all;
use parking_lot::Mutex;

use crate::shell::http::Asker;
use crate::time::Moment;

/// The port of every package.
const PORT: u16 = 8080;

/// Workers that are asked at the same time for one Model. With more, some are asked the next time.
const MAX_ASKED: usize = 64;

/// When a worker that was not asked is forgotten: it is gone.
const FORGET: Duration = Duration::from_secs(60);

/// What one worker has counted, and when.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Counted {
    /// Requests that it has now.
    pub in_flight: f64,
    /// Seconds of all requests that it has finished.
    pub busy: f64,
    /// Requests that it has finished.
    pub finished: f64,
    pub device: Option<String>,
}

/// What the workers of a Model say.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Said {
    /// Requests in work and waiting, on average since they were last asked.
    pub requests: f64,
    pub device: Option<String>,
}

/// Asks workers and remembers what they have said.
#[derive(Debug)]
pub struct Workers {
    asker: Asker,
    last: Mutex<BTreeMap<IpAddr, (Moment, Counted)>>,
}

// === impl Workers ===

impl Workers {
    pub fn new(asker: Asker) -> Self {
        Self { asker, last: Mutex::default() }
    }

    /// Asks these. None if there are some, and not one has answered.
    pub async fn ask(&self, pods: &[IpAddr], now: Moment) -> Option<Said> {
        let asked = pods.iter().take(MAX_ASKED).map(|pod| async {
            let text = self.asker.text(*pod, PORT, "/metrics").await?;
            Some((*pod, read(&text)))
        });
        let answers: Vec<(IpAddr, Counted)> = join_all(asked).await.into_iter().flatten().collect();
        if answers.is_empty() && !pods.is_empty() {
            return None;
        }
        let mut said = Said::default();
        let mut last = self.last.lock();
        last.retain(|_, (when, _)| now.since(*when) < FORGET);
        for (pod, counted) in answers {
            let before = last.insert(pod, (now, counted.clone()));
            said.requests += requests(before.as_ref(), &counted, now);
            said.device = said.device.or(counted.device);
        }
        Some(said)
    }
}

/// How many requests a worker had on average since it was last asked. By Little's law the time
/// of what it has finished says it exactly, also of requests that were too short to be seen.
fn requests(before: Option<&(Moment, Counted)>, now: &Counted, at: Moment) -> f64 {
    let Some((then, before)) = before else { return now.in_flight };
    let seconds = at.since(*then).as_secs_f64();
    // A worker that starts anew counts from zero.
    if seconds <= 0.0 || now.finished < before.finished {
        return now.in_flight;
    }
    let average = (now.busy - before.busy).max(0.0) / seconds;
    // Something was answered, however little time it took.
    let least = if now.finished > before.finished { f64::MIN_POSITIVE } else { 0.0 };
    now.in_flight.max(average).max(least)
}

/// What the metrics of a worker say, in Prometheus' text format.
fn read(text: &str) -> Counted {
    let mut counted = Counted::default();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((name, value)) = line.rsplit_once(' ') else { continue };
        let Ok(value) = value.parse::<f64>() else { continue };
        let (name, labels) = name.split_once('{').unwrap_or((name, ""));
        match name {
            "wick_requests_in_flight" => counted.in_flight += value,
            "nv_inference_request_duration_us" => counted.busy += value / 1e6,
            "nv_inference_request_success" | "nv_inference_request_failure" => {
                counted.finished += value;
            }
            "wick_device_in_use" if value > 0.0 => {
                let device = label(labels, "device");
                let backend = label(labels, "backend");
                if let (Some(device), Some(backend)) = (device, backend) {
                    counted.device = Some(format!("{device} ({backend})"));
                }
            }
            _ => {}
        }
    }
    counted
}

fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let start = labels.find(&format!("{name}=\""))? + name.len() + 2;
    let rest = &labels[start..];
    rest.find('"').map(|end| &rest[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# HELP nv_inference_request_success Successful requests
nv_inference_request_success{model=\"m\",version=\"1\"} 10
nv_inference_request_failure{model=\"m\",version=\"1\",reason=\"OTHER\"} 2
nv_inference_request_duration_us{model=\"m\",version=\"1\"} 3000000
wick_requests_in_flight{model=\"m\",version=\"1\"} 1
wick_device_in_use{backend=\"onnxruntime\",device=\"cpu\",graph=\"g\",model=\"m\"} 1
broken line
";

    #[test]
    fn metrics_are_read_as_workers_write_them() {
        let counted = read(TEXT);
        let expected = Counted {
            in_flight: 1.0,
            busy: 3.0,
            finished: 12.0,
            device: Some("cpu (onnxruntime)".to_owned()),
        };
        assert_eq!(counted, expected);
        assert_eq!(read(""), Counted::default());
    }

    #[test]
    fn requests_that_are_too_short_to_be_seen_count() {
        let at = |second: u64| Moment::from_millis(second * 1000);
        let counted = |busy, finished| Counted { busy, finished, ..Counted::default() };
        let before = (at(0), counted(1.0, 10.0));
        assert_eq!(requests(Some(&before), &counted(5.0, 400.0), at(2)), 2.0);
        assert!(requests(Some(&before), &counted(1.0, 11.0), at(2)) > 0.0);
        assert_eq!(requests(Some(&before), &counted(1.0, 10.0), at(2)), 0.0);
        // It has started anew.
        assert_eq!(requests(Some(&before), &counted(0.0, 1.0), at(2)), 0.0);
    }
}
