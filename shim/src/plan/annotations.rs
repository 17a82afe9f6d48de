//! The annotations `wick.dev/...` of a pod: each checked, none ignored. One that ends in
//! `.NAME` is for the container of that name alone, and beats the one for all of them.

use std::net::SocketAddr;

use oci_spec::runtime::Spec;
use wick_package::signature::MAX_ENVELOPE;
use wick_sandbox::order::Settings;

use super::Refusal;

const PREFIX: &str = "wick.dev/";
const KNOWN: [&str; 10] = [
    "addr",
    "backends",
    "device-memory",
    "drain",
    "linger",
    "log",
    "network",
    "ordinary",
    "prefetch",
    "signature",
];

/// Longest text of one annotation, but for a signature's envelope.
const MAX_LENGTH: usize = 4096;

/// Most destinations in `wick.dev/network`.
const MAX_DESTINATIONS: usize = 64;

/// What a pod says about how its package is served.
#[derive(Debug, Default)]
pub struct Wishes {
    pub settings: Settings,
    pub wants_backends: bool,
    /// The image shall be there, and its package not be run.
    pub prefetch: bool,
    /// The envelope with the image's signatures, as it was written.
    pub signature: Option<String>,
}

pub fn settings(spec: &Spec, container: &str, refusals: &mut Vec<Refusal>) -> Wishes {
    let mut wishes = Wishes::default();
    // What another container is told is checked all the same, and goes here.
    let mut others = Wishes::default();
    let annotations = spec.annotations().iter().flatten();
    let mut ours: Vec<(&str, &str)> = annotations
        .filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?, value.as_str())))
        .collect();
    // `addr` comes before `addr.main`.
    ours.sort_unstable();
    for (name, value) in ours {
        let (setting, whose) = name.split_once('.').unwrap_or((name, container));
        let wishes = if whose == container { &mut wishes } else { &mut others };
        if let Err(why) = take(setting, value, wishes) {
            refusals.push(Refusal::new(format!("annotation {PREFIX}{name}"), why));
        }
    }
    wishes
}

fn take(name: &str, value: &str, wishes: &mut Wishes) -> Result<(), String> {
    let most = if name == "signature" { MAX_ENVELOPE } else { MAX_LENGTH };
    if value.len() > most {
        return Err(format!("is longer than {most} bytes"));
    }
    let settings = &mut wishes.settings;
    match name {
        "addr" => {
            let addr: SocketAddr = value.parse().map_err(|_| {
                format!("`{value}` is not an address and port, such as `0.0.0.0:8080`")
            })?;
            settings.addr = Some(addr.to_string());
        }
        "network" => settings.network = destinations(value)?,
        "log" => settings.log = Some(filter(value)?),
        "drain" => settings.drain_ms = Some(duration(value)?),
        "linger" => settings.linger_ms = Some(duration(value)?),
        "backends" => wishes.wants_backends = flag(value)?,
        "device-memory" => settings.device_memory = Some(bytes(value)?),
        "prefetch" => wishes.prefetch = flag(value)?,
        // Only a policy reads it.
        "signature" => wishes.signature = Some(value.to_owned()),
        // Names side-cars, for the admission policy alone.
        "ordinary" => {}
        _ => {
            let known = KNOWN.map(|k| format!("{PREFIX}{k}")).join(", ");
            return Err(format!("is not known; there are {known}"));
        }
    }
    Ok(())
}

fn flag(value: &str) -> Result<bool, String> {
    value.parse().map_err(|_| format!("`{value}` is neither `true` nor `false`"))
}

fn destinations(value: &str) -> Result<Vec<String>, String> {
    let parts: Vec<&str> = value.split([',', ' ']).filter(|p| !p.is_empty()).collect();
    if parts.len() > MAX_DESTINATIONS {
        return Err(format!("has more than {MAX_DESTINATIONS} destinations"));
    }
    let check = |part: &str| {
        let (host, port) = part.rsplit_once(':').unwrap_or((part, ""));
        let named = !host.is_empty() && !host.contains('/');
        if named && port.parse::<u16>().is_ok_and(|p| p != 0) {
            Ok(part.to_owned())
        } else {
            Err(format!("`{part}` is not `HOST:PORT`"))
        }
    };
    parts.into_iter().map(check).collect()
}

/// The worker parses it; here only what no filter has is refused.
fn filter(value: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || ",=:_-[]{}.\"/ ".contains(c);
    if !value.is_empty() && value.chars().all(plain) {
        Ok(value.to_owned())
    } else {
        Err(format!("`{value}` is not a log filter, such as `info,wick_serve=debug`"))
    }
}

/// Bytes as Kubernetes writes amounts: `512Mi`, `2G` or `1048576`.
fn bytes(value: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 7] = [
        ("", 1),
        ("k", 1000),
        ("M", 1_000_000),
        ("G", 1_000_000_000),
        ("Ki", 1 << 10),
        ("Mi", 1 << 20),
        ("Gi", 1 << 30),
    ];
    let wrong = || format!("`{value}` is not a number of bytes, such as `512Mi` or `2Gi`");
    scaled(value, &UNITS).ok_or_else(wrong)
}

/// `1500ms`, `20s` or `2m`, in milliseconds.
fn duration(value: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 3] = [("ms", 1), ("s", 1000), ("m", 60_000)];
    let wrong = || format!("`{value}` is not a duration, such as `20s` or `1500ms`");
    scaled(value, &UNITS).ok_or_else(wrong)
}

/// A whole number with one of these units; none if it is not one, or too large.
fn scaled(value: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let (_, scale) = units.iter().find(|(unit, _)| *unit == &value[digits.len()..])?;
    digits.parse::<u64>().ok()?.checked_mul(*scale)
}
