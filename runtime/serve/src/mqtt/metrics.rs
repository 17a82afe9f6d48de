//! What Prometheus sees of the MQTT front.

use prometheus::core::Collector;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::requests::Unanswerable;

/// Metrics of the front. They exist only where a broker is set.
#[derive(Debug)]
pub struct MqttMetrics {
    pub connected: IntGauge,
    pub connections: IntCounter,
    pub received: IntCounter,
    pub answered: IntCounter,
    pub failed: IntCounterVec,
    pub unanswerable: IntCounterVec,
    pub refused_answers: IntCounter,
    pub duplicates: IntCounter,
    pub in_flight: IntGauge,
    pub waiting: IntGauge,
}

// === impl MqttMetrics ===

impl MqttMetrics {
    /// # Errors
    /// The registry holds one of these names already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name, help| add(registry, IntCounter::new(name, help)?);
        let gauge = |name, help| add(registry, IntGauge::new(name, help)?);
        let labelled =
            |name, label, help| add(registry, IntCounterVec::new(Opts::new(name, help), &[label])?);
        let metrics = Self {
            connected: gauge("wick_mqtt_connected", "1 while the broker has accepted this node")?,
            connections: counter("wick_mqtt_connections", "Connections that a broker accepted")?,
            received: counter("wick_mqtt_received", "Messages that came from the broker")?,
            answered: counter("wick_mqtt_answered", "Requests that were answered well")?,
            failed: labelled("wick_mqtt_failed", "code", "Requests answered with an error")?,
            unanswerable: labelled(
                "wick_mqtt_unanswerable",
                "reason",
                "Messages without a place for an answer",
            )?,
            refused_answers: counter(
                "wick_mqtt_refused_answers",
                "Answers that the broker did not take",
            )?,
            duplicates: counter("wick_mqtt_duplicates", "Repeated requests not computed again")?,
            waiting: gauge("wick_mqtt_waiting", "Requests that wait for a place in flight")?,
            in_flight: gauge("wick_mqtt_in_flight", "Requests whose answer is not delivered yet")?,
        };
        for why in Unanswerable::ALL {
            // Seen as 0 from the start, so that a first one is a change.
            metrics.unanswerable.with_label_values(&[why.as_str()]).inc_by(0);
        }
        Ok(metrics)
    }
}

fn add<M: Collector + Clone + 'static>(registry: &Registry, metric: M) -> prometheus::Result<M> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}
