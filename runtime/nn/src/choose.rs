//! Decides where a graph may run: pure, over what the backends have told.

use wick_package::{DeviceKind, GraphSpec, RelPath};

use crate::backend::Device;

/// A backend as far as the choice needs to know it.
#[derive(Debug)]
pub(crate) struct Offer {
    pub backend: &'static str,
    pub devices: Vec<Device>,
}

/// One way to run a graph.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Candidate {
    pub backend: &'static str,
    pub device: Device,
    /// The model file for this device.
    pub path: RelPath,
}

/// The ways in which `spec` may run on what is offered, best first: devices in the
/// package's order, for each the backends in the order of `offers`.
pub(crate) fn candidates(spec: &GraphSpec, offers: &[Offer]) -> Vec<Candidate> {
    let mut found = Vec::new();
    for &kind in &spec.devices {
        for offer in offers.iter().filter(|offer| permitted(spec, offer.backend)) {
            let fitting = offer.devices.iter().filter(|device| device.kind == kind);
            found.extend(fitting.map(|device| Candidate {
                backend: offer.backend,
                device: device.clone(),
                path: path_for(spec, device).clone(),
            }));
        }
    }
    found
}

/// Whether the package lets `backend` run the graph.
pub(crate) fn permitted(spec: &GraphSpec, backend: &str) -> bool {
    spec.backend.as_ref().is_none_or(|wanted| wanted.as_str() == backend)
}

/// The bytes for a device: a variant for its vendor, one for its kind, the graph.
fn path_for<'a>(spec: &'a GraphSpec, device: &Device) -> &'a RelPath {
    let of_kind = || spec.variants.iter().filter(|variant| variant.device == device.kind);
    let exact = of_kind().find(|v| v.vendor.is_some() && v.vendor == device.vendor);
    let variant = exact.or_else(|| of_kind().find(|variant| variant.vendor.is_none()));
    variant.map_or(&spec.path, |variant| &variant.path)
}

/// `npu or gpu`, for an error.
pub(crate) fn wanted(kinds: &[DeviceKind]) -> String {
    kinds.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(" or ")
}

/// `cpu (onnxruntime, tract)`, for an error.
pub(crate) fn have(offers: &[Offer]) -> String {
    let kinds = [DeviceKind::Cpu, DeviceKind::Gpu, DeviceKind::Npu];
    let texts = kinds.into_iter().filter_map(|kind| {
        let has = |offer: &&Offer| offer.devices.iter().any(|device| device.kind == kind);
        let backends: Vec<_> = offers.iter().filter(has).map(|offer| offer.backend).collect();
        (!backends.is_empty()).then(|| format!("{kind} ({})", backends.join(", ")))
    });
    let texts: Vec<_> = texts.collect();
    if texts.is_empty() { "none".to_owned() } else { texts.join(" and ") }
}

#[cfg(test)]
mod tests {
    use wick_package::Variant;

    use super::*;

    fn device(kind: DeviceKind, vendor: Option<&str>) -> Device {
        Device { kind, provider: "p".to_owned(), vendor: vendor.map(str::to_owned) }
    }

    fn spec(devices: &[DeviceKind], backend: Option<&str>) -> GraphSpec {
        let variant = |vendor: Option<&str>, path: &str| Variant {
            device: DeviceKind::Npu,
            vendor: vendor.map(str::to_owned),
            path: path.parse().unwrap(),
        };
        GraphSpec {
            name: "g".parse().unwrap(),
            path: "plain".parse().unwrap(),
            devices: devices.to_vec(),
            min_device_share: 1.0,
            batch: None,
            threads: None,
            backend: backend.map(|name| name.parse().unwrap()),
            variants: vec![variant(None, "any-npu"), variant(Some("qualcomm"), "qualcomm")],
        }
    }

    fn offers() -> Vec<Offer> {
        use DeviceKind::{Cpu, Npu};
        let ort = vec![device(Cpu, None), device(Npu, Some("qualcomm")), device(Npu, Some("x"))];
        vec![
            Offer { backend: "onnxruntime", devices: ort },
            Offer { backend: "tract", devices: vec![device(Cpu, None)] },
        ]
    }

    fn check(devices: &[DeviceKind], backend: Option<&str>, want: &[(&str, &str)]) {
        let found = candidates(&spec(devices, backend), &offers());
        let found: Vec<_> = found.iter().map(|c| (c.backend, c.path.as_str())).collect();
        assert_eq!(found, want);
    }

    #[test]
    fn devices_come_in_the_order_of_the_package_and_backends_in_theirs() {
        use DeviceKind::{Cpu, Gpu, Npu};
        let cpu = [("onnxruntime", "plain"), ("tract", "plain")];
        check(&[Cpu], None, &cpu);
        check(&[Gpu, Cpu], None, &cpu);
        let npu = [("onnxruntime", "qualcomm"), ("onnxruntime", "any-npu")];
        check(&[Npu, Cpu], None, &[npu, cpu].concat());
        check(&[Gpu], None, &[]);
    }

    #[test]
    fn a_package_may_insist_on_a_backend() {
        check(&[DeviceKind::Cpu], Some("tract"), &[("tract", "plain")]);
        check(&[DeviceKind::Npu], Some("tract"), &[]);
    }

    #[test]
    fn errors_say_what_is_there() {
        assert_eq!(have(&offers()), "cpu (onnxruntime, tract) and npu (onnxruntime)");
        assert_eq!(have(&[]), "none");
        assert_eq!(wanted(&[DeviceKind::Npu, DeviceKind::Gpu]), "npu or gpu");
    }
}
