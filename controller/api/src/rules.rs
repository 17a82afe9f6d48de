//! What the schema can't say about one field alone. Each rule is here twice: in CEL, for the
//! API server, and as a function, for those who have none. A test in a real cluster
//! checks that both refuse the same.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::ModelSpec;
use crate::text::{Quantity, Span};

/// A rule about the object at a path.
pub struct Rule {
    /// Where its CEL stands, such as `spec.env[]` for each variable.
    pub at: &'static str,
    /// The field below that is wrong if the rule is broken; the object itself if empty.
    pub field: &'static str,
    pub cel: &'static str,
    pub message: &'static str,
    /// Where it is broken: the values of the indices in `at`, outermost first.
    pub broken: fn(&ModelSpec) -> Vec<usize>,
}

const HOUR: u64 = 3600;

pub const RULES: [Rule; 19] = [
    Rule {
        at: "spec",
        field: ".scale.horizontalPodAutoscaler",
        cel: "!has(self.scale.horizontalPodAutoscaler) || (has(self.resources) && \
              ((has(self.resources.requests) && 'cpu' in self.resources.requests) || \
              (has(self.resources.limits) && 'cpu' in self.resources.limits)))",
        message: "needs a CPU to be a part of: give `spec.resources.requests.cpu`",
        broken: |spec| {
            let has = |amounts: &BTreeMap<String, Quantity>| amounts.contains_key("cpu");
            let cpu = has(&spec.resources.requests) || has(&spec.resources.limits);
            once(spec.scale.horizontal_pod_autoscaler.is_some() && !cpu)
        },
    },
    Rule {
        at: "spec.package",
        field: ".image",
        cel: r"self.image.matches('(:[A-Za-z0-9_][A-Za-z0-9_.-]*|@sha256:[0-9a-f]{64})$')",
        message: "must have a tag or a digest, such as `registry.example/vision/filetype:1.2.0`",
        broken: |spec| once(!is_exact(&spec.package.image)),
    },
    Rule {
        at: "spec.env[]",
        field: "",
        cel: "has(self.value) != has(self.valueFrom)",
        message: "must have either `value` or `valueFrom`",
        broken: |spec| each(&spec.env, |env| env.value.is_some() == env.value_from.is_some()),
    },
    Rule {
        at: "spec.env[].valueFrom",
        field: "",
        cel: "has(self.secretKeyRef) != has(self.configMapKeyRef)",
        message: "must have either `secretKeyRef` or `configMapKeyRef`",
        broken: |spec| {
            each(&spec.env, |env| {
                let from = env.value_from.as_ref();
                from.is_some_and(|f| f.secret_key_ref.is_some() == f.config_map_key_ref.is_some())
            })
        },
    },
    Rule {
        at: "spec.network[]",
        field: "",
        cel: "int(self.substring(self.lastIndexOf(':') + 1)) > 0 && \
              int(self.substring(self.lastIndexOf(':') + 1)) < 65536",
        message: "must end with a port from 1 to 65535",
        broken: |spec| {
            each(&spec.network, |text| {
                let port = text.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
                port.is_none_or(|port| port == 0)
            })
        },
    },
    Rule {
        at: "spec.devices[]",
        field: "",
        cel: "has(self.resourceClaimName) != has(self.resourceClaimTemplateName)",
        message: "must have either `resourceClaimName` or `resourceClaimTemplateName`",
        broken: |spec| {
            each(&spec.devices, |device| {
                device.resource_claim_name.is_some()
                    == device.resource_claim_template_name.is_some()
            })
        },
    },
    Rule {
        at: "spec.scheduling.tolerations[]",
        field: ".key",
        cel: "has(self.key) || self.operator == 'Exists'",
        message: "may only be left out with `operator: Exists`",
        broken: |spec| {
            each(&spec.scheduling.tolerations, |one| {
                one.key.is_none() && one.operator.as_str() == "Equal"
            })
        },
    },
    Rule {
        at: "spec.scheduling.tolerations[]",
        field: ".value",
        cel: "!has(self.value) || self.operator == 'Equal'",
        message: "must be left out with `operator: Exists`",
        broken: |spec| {
            each(&spec.scheduling.tolerations, |one| {
                one.value.is_some() && one.operator.as_str() == "Exists"
            })
        },
    },
    Rule {
        at: "spec.scheduling.tolerations[]",
        field: ".tolerationSeconds",
        cel: "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
        message: "is only for `effect: NoExecute`",
        broken: |spec| {
            each(&spec.scheduling.tolerations, |one| {
                one.toleration_seconds.is_some() && one.effect.as_deref() != Some("NoExecute")
            })
        },
    },
    Rule {
        at: "spec.scale",
        field: ".maxReplicas",
        cel: "self.maxReplicas >= self.minReplicas",
        message: "must not be less than `minReplicas`",
        broken: |spec| once(spec.scale.max_replicas < spec.scale.min_replicas),
    },
    Rule {
        at: "spec.scale",
        field: ".idleTimeout",
        cel: "duration(self.idleTimeout) >= duration('1s') && \
              duration(self.idleTimeout) <= duration('24h')",
        message: "must be from 1s to 24h",
        broken: |spec| once(outside(spec.scale.idle_timeout, 1, 24 * HOUR)),
    },
    Rule {
        at: "spec.scale",
        field: ".stableWindow",
        cel: "duration(self.stableWindow) >= duration('6s') && \
              duration(self.stableWindow) <= duration('1h')",
        message: "must be from 6s to 1h",
        broken: |spec| once(outside(spec.scale.stable_window, 6, HOUR)),
    },
    Rule {
        at: "spec.scale",
        field: ".panicWindow",
        cel: "duration(self.panicWindow) >= duration('1s') && \
              duration(self.panicWindow) <= duration(self.stableWindow)",
        message: "must be at least 1s, and no longer than `stableWindow`",
        broken: |spec| {
            let scale = &spec.scale;
            once(scale.panic_window < Span::seconds(1) || scale.panic_window > scale.stable_window)
        },
    },
    Rule {
        at: "spec.scale",
        field: ".scaleDownDelay",
        cel: "duration(self.scaleDownDelay) <= duration('1h')",
        message: "must be at most 1h",
        broken: |spec| once(outside(spec.scale.scale_down_delay, 0, HOUR)),
    },
    Rule {
        at: "spec.scale.hold",
        field: ".timeout",
        cel: "duration(self.timeout) >= duration('1s') && duration(self.timeout) <= duration('10m')",
        message: "must be from 1s to 10m",
        broken: |spec| once(outside(spec.scale.hold.timeout, 1, 600)),
    },
    Rule {
        at: "spec.rollout",
        field: ".steps",
        cel: "self.steps.map(step, step.weight).isSorted() && \
              self.steps.all(a, self.steps.exists_one(b, a.weight == b.weight))",
        message: "must each have a greater weight than the one before",
        broken: |spec| {
            let steps = &spec.rollout.steps;
            once(!steps.is_sorted_by(|a, b| a.weight < b.weight))
        },
    },
    Rule {
        at: "spec.rollout.steps[]",
        field: ".hold",
        cel: "duration(self.hold) <= duration('24h')",
        message: "must be at most 24h",
        broken: |spec| each(&spec.rollout.steps, |step| outside(step.hold, 0, 24 * HOUR)),
    },
    Rule {
        at: "spec.rollout.gates",
        field: ".window",
        cel: "duration(self.window) >= duration('1s') && duration(self.window) <= duration('1h')",
        message: "must be from 1s to 1h",
        broken: |spec| once(outside(spec.rollout.gates.window, 1, HOUR)),
    },
    Rule {
        at: "spec.rollout",
        field: ".progressDeadline",
        cel: "duration(self.progressDeadline) >= duration('10s') && \
              duration(self.progressDeadline) <= duration('24h')",
        message: "must be from 10s to 24h",
        broken: |spec| once(outside(spec.rollout.progress_deadline, 10, 24 * HOUR)),
    },
];

/// The path of a place where a rule is broken, with its index filled in.
pub fn path(rule: &Rule, index: usize) -> String {
    format!("{}{}", rule.at.replacen("[]", &format!("[{index}]"), 1), rule.field)
}

/// A rule about one object: at index 0, which its path has no place for.
fn once(broken: bool) -> Vec<usize> {
    if broken { vec![0] } else { Vec::new() }
}

fn each<T>(list: &[T], broken: impl Fn(&T) -> bool) -> Vec<usize> {
    let all = list.iter().enumerate();
    all.filter(|(_, one)| broken(one)).map(|(index, _)| index).collect()
}

fn outside(span: Span, min: u64, max: u64) -> bool {
    !(Duration::from_secs(min)..=Duration::from_secs(max)).contains(&span.get())
}

/// Whether an image's name ends with a tag or a digest.
fn is_exact(image: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    image.contains('@')
        || image.rsplit_once(':').is_some_and(|(_, tag)| {
            !tag.is_empty() && tag.chars().all(plain) && !tag.starts_with(['.', '-'])
        })
}
