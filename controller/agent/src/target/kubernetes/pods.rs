//! How requests went in a cluster: pods of the site's Models have counted it, and say so by their metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use parking_lot::Mutex;
use wick_package::error_text;
use wick_serve::Traffic;

/// The operator's label on the pods of a Model.
const MODEL: &str = "wick.dev/model";

/// Where a package answers, by the operator's template.
const PORT: u16 = 8080;

/// Most pods that are asked. Of more, these stand for all.
const MOST: u32 = 256;

/// Pods that are asked at the same time.
const AT_ONCE: usize = 8;

/// Longest answer, and the longest wait for it.
const ANSWER: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks pods, and remembers what they said the last time.
pub(super) struct Pods {
    api: Api<Pod>,
    asker: Option<reqwest::Client>,
    said: Mutex<Said>,
}

/// What pods have said, by their unique name.
#[derive(Default)]
struct Said {
    last: Option<BTreeMap<String, Traffic>>,
    sum: Traffic,
}

// === impl Pods ===

impl Pods {
    pub(super) fn new(api: Api<Pod>) -> Self {
        // Pods are asked without TLS and by no proxy.
        let asker = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([])
            .timeout(PATIENCE)
            .redirect(reqwest::redirect::Policy::none())
            .build();
        let asker = asker.inspect_err(|error| {
            tracing::warn!(error = error_text(error), "requests are not counted");
        });
        Self { api, asker: asker.ok(), said: Mutex::default() }
    }

    /// How requests to these Models went since it was asked first. A pod that comes and goes between two
    /// questions is not heard. None if pods can't be listed.
    pub(super) async fn traffic(&self, models: &[String]) -> Option<Traffic> {
        let asker = self.asker.as_ref()?;
        if models.is_empty() {
            return Some(self.said.lock().sum.clone());
        }
        let selector = format!("{MODEL} in ({})", models.join(","));
        let params = ListParams::default().labels(&selector).limit(MOST);
        let pods = self.api.list(&params).await;
        let pods = pods.inspect_err(|error| {
            tracing::debug!(error = error_text(error), "pods can't be listed");
        });
        let pods = pods.ok()?;
        let now = stream::iter(pods)
            .map(|pod| async move {
                let ip = pod.status?.pod_ip?;
                let traffic = ask(asker, &ip).await?;
                Some((pod.metadata.uid?, traffic))
            })
            .buffer_unordered(AT_ONCE)
            .filter_map(std::future::ready)
            .collect()
            .await;
        let mut said = self.said.lock();
        said.hear(now);
        Some(said.sum.clone())
    }
}

async fn ask(asker: &reqwest::Client, ip: &str) -> Option<Traffic> {
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    let url = format!("http://{host}:{PORT}/metrics");
    let mut answer = asker.get(url).send().await.ok()?.error_for_status().ok()?;
    let mut bytes = Vec::new();
    while let Some(chunk) = answer.chunk().await.ok()? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > ANSWER {
            return None;
        }
    }
    Some(Traffic::parse(&String::from_utf8_lossy(&bytes)))
}

// === impl Said ===

impl Said {
    /// What pods had counted before it was asked first is nobody's news; a pod that is new since then has
    /// counted from zero, and so has one whose worker is new.
    fn hear(&mut self, now: BTreeMap<String, Traffic>) {
        let Some(last) = &mut self.last else {
            self.last = Some(now);
            return;
        };
        for (pod, traffic) in &now {
            let fresh = match last.get(pod) {
                Some(before) if before.requests <= traffic.requests => traffic.since(before),
                _ => traffic.clone(),
            };
            self.sum.add(&fresh);
        }
        // One that did not answer this time is there still, or gone: its counts are kept for a while at no cost.
        last.extend(now);
        while last.len() > MOST as usize {
            last.pop_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(pods: &[(&str, u64)]) -> BTreeMap<String, Traffic> {
        let traffic = |faults: &u64| Traffic::parse(&format!("wick_request_faults {faults}\n"));
        pods.iter().map(|(pod, faults)| ((*pod).to_owned(), traffic(faults))).collect()
    }

    #[test]
    fn only_what_is_new_counts_once() {
        let mut said = Said::default();
        let mut sum = |pods: &[(&str, u64)]| {
            said.hear(counted(pods));
            said.sum.errors
        };
        assert_eq!(sum(&[("a", 100)]), 0, "before the agent was there");
        assert_eq!(sum(&[("a", 103), ("b", 2)]), 5);
        assert_eq!(sum(&[("b", 2)]), 5);
        assert_eq!(sum(&[("a", 104), ("b", 2)]), 6, "a was only silent");
        assert_eq!(sum(&[("a", 1), ("b", 3)]), 8, "the worker of a is new");
    }
}
