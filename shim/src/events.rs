//! What containerd is told without asking, in the order in which it happened.

use std::time::Duration;

use containerd_shim::Context;
use containerd_shim::event::Event;
use containerd_shim::protos::protobuf::MessageDyn;
use containerd_shim::publisher::RemotePublisher;

/// How long one event may take to be delivered before it is tried again.
const DELIVERY: Duration = Duration::from_secs(10);

/// The last events of a pod leave before the shim does.
const LAST_EVENTS: Duration = Duration::from_millis(100);

/// The way to containerd's event service.
pub struct Events {
    publisher: RemotePublisher,
    namespace: String,
}

// === impl Events ===

impl Events {
    pub fn new(publisher: RemotePublisher, namespace: String) -> Self {
        Self { publisher, namespace }
    }

    pub async fn send(&self, event: impl Event + 'static) {
        let topic = topic(&event);
        let nanos = i64::try_from(DELIVERY.as_nanos()).unwrap_or(i64::MAX);
        let context = containerd_shim::protos::ttrpc::context::with_timeout(nanos);
        let context: Context = context;
        let sent = self.publisher.publish(context, &topic, &self.namespace, Box::new(event)).await;
        if let Err(error) = sent {
            tracing::error!("containerd was not told {topic}: {error}");
        }
    }

    /// Give what is queued a moment to leave. The publisher does not say when it is done.
    pub async fn drain(&self) {
        tokio::time::sleep(LAST_EVENTS).await;
    }
}

fn topic(event: &impl Event) -> String {
    let dynamic: &dyn MessageDyn = event;
    // `TaskExecAdded` is `/tasks/exec-added`.
    let name = dynamic.descriptor_dyn().name().to_owned();
    match name.as_str() {
        "TaskOOM" => "/tasks/oom".to_owned(),
        "TaskExecAdded" => "/tasks/exec-added".to_owned(),
        "TaskExecStarted" => "/tasks/exec-started".to_owned(),
        other => format!("/tasks/{}", other.trim_start_matches("Task").to_lowercase()),
    }
}

#[cfg(test)]
mod tests {
    use containerd_shim::protos::events::task::{TaskCreate, TaskExecStarted, TaskExit, TaskOOM};

    use super::topic;

    #[test]
    fn an_event_goes_to_its_topic() {
        assert_eq!(topic(&TaskCreate::new()), "/tasks/create");
        assert_eq!(topic(&TaskExit::new()), "/tasks/exit");
        assert_eq!(topic(&TaskOOM::new()), "/tasks/oom");
        assert_eq!(topic(&TaskExecStarted::new()), "/tasks/exec-started");
    }
}
