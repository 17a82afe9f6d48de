//! Decides where a graph may run: pure, over what the backends have told.

use wick_package::{DeviceKind, GraphSpec, RelPath, Variant};

use crate::backend::{Device, Found, Refusal};
use crate::inventory::Inventory;
use crate::onnxruntime::NAME;
use crate::onnxruntime::providers::{
    insisted, of_registered,
    options::{Told, told},
};

/// A backend as far as the choice needs to know it.
#[derive(Debug)]
pub(crate) struct Offer {
    pub backend: &'static str,
    pub found: Found,
}

/// What may run a graph, and what may not, with the reason.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Decision {
    /// Best first.
    pub candidates: Vec<Candidate>,
    pub refused: Vec<Refusal>,
}

/// One way to run a graph.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Candidate {
    pub backend: &'static str,
    pub device: Device,
    /// The model file for this device.
    pub path: RelPath,
    /// What the device's provider is told.
    pub options: Told,
}

/// The ways in which `spec` may run on what is offered, best first: devices in the
/// package's order, for each the backends in the order of `offers`. A device that the
/// inventory knows and that was not granted is refused.
pub(crate) fn decide(spec: &GraphSpec, offers: &[Offer], inventory: &Inventory) -> Decision {
    let mut decision = Decision::default();
    for offer in offers {
        if permitted(spec, offer.backend) {
            decision.refused.extend(offer.found.refused.iter().cloned());
        } else {
            let why = "the package insists on another backend".to_owned();
            decision.refused.push(Refusal { what: offer.backend.to_owned(), why });
        }
    }
    for &kind in &spec.devices {
        for offer in offers.iter().filter(|offer| permitted(spec, offer.backend)) {
            let may = |device: &&Device| device.kind == kind && may_run(spec, device);
            for device in offer.found.devices.iter().filter(may) {
                if let Some(why) = not_granted(inventory, device) {
                    decision.refused.push(Refusal { what: device.to_string(), why });
                    continue;
                }
                let variant = variant_for(spec, device);
                let options = variant.map_or(Ok(Told::new()), |v| told(v, &device.provider));
                match options {
                    Ok(options) => decision.candidates.push(Candidate {
                        backend: offer.backend,
                        device: device.clone(),
                        path: variant.map_or(&spec.path, |variant| &variant.path).clone(),
                        options,
                    }),
                    Err(why) => decision.refused.push(Refusal { what: device.to_string(), why }),
                }
            }
        }
    }
    decision
}

/// Why this process may not use a device that is in the machine.
fn not_granted(inventory: &Inventory, device: &Device) -> Option<String> {
    let hardware = inventory.of(device).filter(|hardware| !hardware.granted)?;
    Some(if hardware.nodes.is_empty() {
        "it has no driver".to_owned()
    } else {
        let nodes = hardware.nodes.join(", ");
        format!("it was not granted: this process may not use all of {nodes}")
    })
}

/// `; webgpu: it finds no device here`, for an error.
pub(crate) fn reasons(refused: &[Refusal]) -> String {
    refused.iter().map(|refusal| format!("; {}: {}", refusal.what, refusal.why)).collect()
}

/// Whether the package lets `backend` run the graph. Providers are ONNX Runtime's.
pub(crate) fn permitted(spec: &GraphSpec, backend: &str) -> bool {
    let by_provider = backend == NAME && insisted(spec).is_some();
    by_provider || spec.backend.as_ref().is_none_or(|wanted| wanted.as_str() == backend)
}

/// Whether the package lets a device's provider run the graph: the one that it insists on, or any. On a CPU a provider
/// must be insisted on, since there ONNX Runtime itself does what it may do otherwise.
fn may_run(spec: &GraphSpec, device: &Device) -> bool {
    match insisted(spec) {
        Some(provider) => device.provider == provider.registered,
        None => device.kind != DeviceKind::Cpu || of_registered(&device.provider).is_none(),
    }
}

/// The variant for a device: one for its vendor, or one for its kind.
fn variant_for<'a>(spec: &'a GraphSpec, device: &Device) -> Option<&'a Variant> {
    let of_kind = || spec.variants.iter().filter(|variant| variant.device == device.kind);
    let exact = of_kind().find(|v| v.vendor.is_some() && v.vendor == device.vendor);
    exact.or_else(|| of_kind().find(|variant| variant.vendor.is_none()))
}

/// `npu or gpu`, or `npu by openvino`, for an error.
pub(crate) fn wanted(spec: &GraphSpec) -> String {
    let kinds: Vec<_> = spec.devices.iter().map(|kind| kind.as_str()).collect();
    let by = insisted(spec).map(|provider| format!(" by {}", provider.name));
    kinds.join(" or ") + &by.unwrap_or_default()
}

/// `cpu (onnxruntime, tract)`, for an error.
pub(crate) fn have(offers: &[Offer]) -> String {
    let kinds = [DeviceKind::Cpu, DeviceKind::Gpu, DeviceKind::Npu];
    let texts = kinds.into_iter().filter_map(|kind| {
        let has = |offer: &&Offer| offer.found.devices.iter().any(|device| device.kind == kind);
        let backends: Vec<_> = offers.iter().filter(has).map(|offer| offer.backend).collect();
        (!backends.is_empty()).then(|| format!("{kind} ({})", backends.join(", ")))
    });
    let texts: Vec<_> = texts.collect();
    if texts.is_empty() { "none".to_owned() } else { texts.join(" and ") }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::inventory::Hardware;

    fn device(kind: DeviceKind, vendor: Option<&str>) -> Device {
        Device { kind, vendor: vendor.map(str::to_owned), ..Device::cpu("p") }
    }

    fn spec(devices: &[DeviceKind], backend: Option<&str>) -> GraphSpec {
        let variant = |vendor: Option<&str>, path: &str| Variant {
            device: DeviceKind::Npu,
            vendor: vendor.map(str::to_owned),
            path: path.parse().unwrap(),
            options: BTreeMap::new(),
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
        let found = |devices| Found { devices, refused: Vec::new() };
        vec![
            Offer { backend: "onnxruntime", found: found(ort) },
            Offer { backend: "tract", found: found(vec![device(Cpu, None)]) },
        ]
    }

    fn check(devices: &[DeviceKind], backend: Option<&str>, want: &[(&str, &str)]) {
        let found = decide(&spec(devices, backend), &offers(), &Inventory::default());
        let found: Vec<_> = found.candidates.iter().map(|c| (c.backend, c.path.as_str())).collect();
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
    fn a_variant_tells_its_provider_what_that_knows() {
        let npu = Device {
            provider: "QNNExecutionProvider".to_owned(),
            ..device(DeviceKind::Npu, Some("qualcomm"))
        };
        let found = Found { devices: vec![npu], refused: Vec::new() };
        let offers = [Offer { backend: "onnxruntime", found }];
        let decide = |option: &str| {
            let mut spec = spec(&[DeviceKind::Npu], None);
            let told = BTreeMap::from([(option.to_owned(), "8".to_owned())]);
            spec.variants[1].options = BTreeMap::from([("qnn".to_owned(), told)]);
            decide(&spec, &offers, &Inventory::default())
        };
        let told = [("vtcm_mb".to_owned(), "8".to_owned())];
        assert_eq!(decide("vtcm_mb").candidates[0].options, told);
        let wrong = decide("vtcm");
        assert!(wrong.candidates.is_empty());
        assert!(wrong.refused[0].why.contains("qnn has no option `vtcm`"), "{wrong:?}");
    }

    #[test]
    fn a_package_may_insist_on_a_backend() {
        check(&[DeviceKind::Cpu], Some("tract"), &[("tract", "plain")]);
        check(&[DeviceKind::Npu], Some("tract"), &[]);
    }

    #[test]
    fn a_provider_runs_on_a_cpu_only_what_insists_on_it() {
        use DeviceKind::{Cpu, Npu};
        let by = |kind| Device { kind, ..Device::cpu("OpenVINOExecutionProvider") };
        let npu = Device { kind: Npu, ..Device::cpu("QNNExecutionProvider") };
        let devices = vec![npu, by(Npu), by(Cpu), device(Cpu, None)];
        let offers = [Offer { backend: NAME, found: Found { devices, refused: Vec::new() } }];
        let candidates = |backend| {
            let spec = spec(&[Npu, Cpu], backend);
            let candidates = decide(&spec, &offers, &Inventory::default()).candidates;
            let short = candidates.into_iter().map(|c| (c.device.kind, c.device.provider));
            short.collect::<Vec<_>>()
        };
        let of = |kind, provider: &str| (kind, provider.to_owned());
        let [qnn, openvino] = ["QNNExecutionProvider", "OpenVINOExecutionProvider"];
        assert_eq!(candidates(None), [of(Npu, qnn), of(Npu, openvino), of(Cpu, "p")]);
        assert_eq!(candidates(Some(NAME)), candidates(None));
        assert_eq!(candidates(Some("openvino")), [of(Npu, openvino), of(Cpu, openvino)]);
        assert_eq!(candidates(Some("webgpu")), []);
    }

    /// A GPU in the machine at this address.
    fn hardware(granted: bool, nodes: &[&str]) -> Inventory {
        let hardware = Hardware {
            kind: DeviceKind::Gpu,
            vendor: None,
            name: None,
            memory: None,
            driver: None,
            pci: Some("0000:01:00.0".to_owned()),
            nodes: nodes.iter().map(|&node| node.to_owned()).collect(),
            granted,
            cdi: Vec::new(),
            providers: Vec::new(),
        };
        Inventory { devices: vec![hardware] }
    }

    #[test]
    fn what_was_not_granted_is_refused_with_the_reason() {
        let gpu = Device { pci: Some("0000:01:00.0".to_owned()), ..device(DeviceKind::Gpu, None) };
        let found = Found { devices: vec![gpu], refused: Vec::new() };
        let offers = [Offer { backend: "onnxruntime", found }];
        let spec = spec(&[DeviceKind::Gpu], None);
        let decide = |inventory| decide(&spec, &offers, &inventory);
        // What the inventory does not know is the provider's word.
        assert_eq!(decide(Inventory::default()).candidates.len(), 1);
        assert_eq!(decide(hardware(true, &["/dev/x"])).candidates.len(), 1);
        for (nodes, want) in [(&["/dev/x"][..], "/dev/x"), (&[], "no driver")] {
            let decision = decide(hardware(false, nodes));
            assert!(decision.candidates.is_empty());
            let [refusal] = &decision.refused[..] else { panic!("{decision:?}") };
            assert_eq!(refusal.what, "gpu by p at 0000:01:00.0");
            assert!(refusal.why.contains(want), "{refusal:?}");
        }
    }

    #[test]
    fn reasons_of_backends_that_may_not_be_used_are_not_asked_for() {
        let why = "it finds no device here".to_owned();
        let refused = vec![Refusal { what: "webgpu".to_owned(), why }];
        let offers = || {
            let mut offers = offers();
            offers[0].found.refused = refused.clone();
            offers
        };
        let of = |backend| {
            decide(&spec(&[DeviceKind::Gpu], backend), &offers(), &Inventory::default()).refused
        };
        assert_eq!(reasons(&of(None)), "; webgpu: it finds no device here");
        assert_eq!(
            reasons(&of(Some("tract"))),
            "; onnxruntime: the package insists on another backend"
        );
    }

    #[test]
    fn errors_say_what_is_there() {
        assert_eq!(have(&offers()), "cpu (onnxruntime, tract) and npu (onnxruntime)");
        assert_eq!(have(&[]), "none");
        let devices = [DeviceKind::Npu, DeviceKind::Gpu];
        assert_eq!(wanted(&spec(&devices, None)), "npu or gpu");
        assert_eq!(wanted(&spec(&devices, Some("openvino"))), "npu or gpu by openvino");
    }
}
