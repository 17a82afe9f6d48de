//! The device nodes of a spec, those of CDI and of device plugins among them.

use oci_spec::runtime::{LinuxDeviceType, Spec};
use wick_sandbox::order::Device;

use super::Refusal;

/// A node that the spec gives no mode.
const DEFAULT_MODE: u32 = 0o666;

pub fn all(spec: &Spec, refusals: &mut Vec<Refusal>) -> Vec<Device> {
    let devices = spec.linux().as_ref().and_then(|l| l.devices().as_ref());
    let mut found = Vec::new();
    for device in devices.into_iter().flatten() {
        let field = || format!("linux.devices {}", device.path().display());
        let kind = match device.typ() {
            LinuxDeviceType::B => 'b',
            LinuxDeviceType::C | LinuxDeviceType::U => 'c',
            LinuxDeviceType::P => 'p',
            LinuxDeviceType::A => {
                refusals.push(Refusal::new(field(), "has no type"));
                continue;
            }
        };
        let (major, minor) = (u32::try_from(device.major()), u32::try_from(device.minor()));
        let (Ok(major), Ok(minor)) = (major, minor) else {
            refusals.push(Refusal::new(field(), "has a negative number"));
            continue;
        };
        found.push(Device {
            path: device.path().clone(),
            kind,
            major,
            minor,
            mode: device.file_mode().unwrap_or(DEFAULT_MODE) & 0o7777,
            uid: device.uid().unwrap_or(0),
            gid: device.gid().unwrap_or(0),
        });
    }
    found
}
