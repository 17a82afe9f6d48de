//! What a package may tell a provider. An option that a provider doesn't know it often ignores, and one that names
//! a file would be a file of whoever runs the package: both are refused here.

use std::collections::BTreeMap;

use wick_package::{GraphSpec, Variant};

use super::{PROVIDERS, Provider, insisted};
use crate::{onnxruntime, tract};

/// An option that packages may set.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    pub name: &'static str,
    pub takes: Takes,
}

/// What an option may be.
#[derive(Debug, Clone, Copy)]
pub enum Takes {
    /// `0` or `1`; `true` and `false` in `wick.toml`.
    Flag,
    /// A whole number up to this one.
    Number(u64),
    OneOf(&'static [&'static str]),
    /// Sizes of inputs, such as `x:1x3x48x320`.
    Shapes,
}

/// What a provider is told: the names of options with their values.
pub type Told = Vec<(String, String)>;

pub(super) const fn flag(name: &'static str) -> Known {
    Known { name, takes: Takes::Flag }
}

pub(super) const fn number(name: &'static str, most: u64) -> Known {
    Known { name, takes: Takes::Number(most) }
}

pub(super) const fn one_of(name: &'static str, values: &'static [&'static str]) -> Known {
    Known { name, takes: Takes::OneOf(values) }
}

pub(super) const fn shapes(name: &'static str) -> Known {
    Known { name, takes: Takes::Shapes }
}

/// Check the backend that a graph insists on, and the options of all of its variants.
///
/// # Errors
/// What is wrong and what there is, for people.
pub fn check(graph: &GraphSpec) -> Result<(), String> {
    backend(graph).map_err(|why| format!("graph `{}`: {why}", graph.name))?;
    for variant in &graph.variants {
        for (provider, options) in &variant.options {
            of_provider(provider, options).map_err(|why| {
                format!("graph `{}`, variant for {}: {why}", graph.name, variant.device)
            })?;
        }
    }
    Ok(())
}

/// Whether there is such a backend or provider, and it may run the graph on some kind of device.
fn backend(graph: &GraphSpec) -> Result<(), String> {
    let Some(wanted) = &graph.backend else { return Ok(()) };
    let Some(provider) = insisted(graph) else {
        let is_known = [onnxruntime::NAME, tract::NAME].contains(&wanted.as_str());
        let unknown = || Err(format!("there is no backend `{wanted}`: {}", known_backends()));
        return if is_known { Ok(()) } else { unknown() };
    };
    if provider.serves_one_of(&graph.devices) {
        return Ok(());
    }
    let kinds: Vec<_> = graph.devices.iter().map(|kind| kind.as_str()).collect();
    let (kinds, serves) = (kinds.join(" nor "), provider.serves);
    Err(format!("`{wanted}` has no {kinds}: it is for {serves}; change `backend` or `devices`"))
}

/// What a package may write as `backend`, for people.
pub(crate) fn known_backends() -> String {
    let names = PROVIDERS.map(|provider| provider.name).join(", ");
    let (onnxruntime, tract) = (onnxruntime::NAME, tract::NAME);
    format!("wick knows {onnxruntime} and {tract}, and the providers {names}")
}

/// What a variant tells the provider that ONNX Runtime calls `registered`.
///
/// # Errors
/// As for [`check`]: also where what is wrong is meant for another provider, since its name may be.
pub(crate) fn told(variant: &Variant, registered: &str) -> Result<Told, String> {
    let mut told = Told::new();
    for (name, options) in &variant.options {
        let provider = of_provider(name, options)?;
        if provider.registered == registered {
            told.extend(options.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
    }
    Ok(told)
}

fn of_provider(
    name: &str,
    options: &BTreeMap<String, String>,
) -> Result<&'static Provider, String> {
    let provider = super::named(name).ok_or_else(|| {
        let names: Vec<_> = PROVIDERS.iter().map(|provider| provider.name).collect();
        format!("there is no provider `{name}`: use {}", names.join(", "))
    })?;
    for (option, value) in options {
        let known = provider.takes.iter().find(|known| known.name == option).ok_or_else(|| {
            let names: Vec<_> = provider.takes.iter().map(|known| known.name).collect();
            format!("{name} has no option `{option}` for packages: use {}", names.join(", "))
        })?;
        known
            .takes
            .check(value)
            .map_err(|want| format!("option `{option}` of {name} is `{value}`: write {want}"))?;
    }
    Ok(provider)
}

// === impl Takes ===

impl Takes {
    /// Whether a value will do; otherwise what will.
    fn check(self, value: &str) -> Result<(), String> {
        let (will_do, want) = match self {
            Self::Flag => (matches!(value, "0" | "1"), "true or false".to_owned()),
            Self::Number(most) => {
                let number = value.parse::<u64>();
                (number.is_ok_and(|n| n <= most), format!("a whole number up to {most}"))
            }
            Self::OneOf(values) => (values.contains(&value), values.join(" or ")),
            Self::Shapes => {
                (value.split(',').all(is_shape), "for instance `x:1x3x48x320,y:1x8`".to_owned())
            }
        };
        if will_do { Ok(()) } else { Err(want) }
    }
}

fn is_shape(text: &str) -> bool {
    let Some((name, sizes)) = text.rsplit_once(':') else { return false };
    !name.is_empty() && sizes.split('x').all(|size| size.parse::<u32>().is_ok())
}

#[cfg(test)]
mod tests {
    use wick_package::DeviceKind;

    use super::*;

    fn variant(provider: &str, option: &str, value: &str) -> Variant {
        let options = BTreeMap::from([(option.to_owned(), value.to_owned())]);
        Variant {
            device: DeviceKind::Gpu,
            vendor: None,
            path: "m".parse().unwrap(),
            options: BTreeMap::from([(provider.to_owned(), options)]),
        }
    }

    #[test]
    fn a_provider_gets_its_own_options_and_no_others() {
        let variant = variant("webgpu", "preferredLayout", "NHWC");
        let want = [("preferredLayout".to_owned(), "NHWC".to_owned())];
        assert_eq!(told(&variant, "WebGpuExecutionProvider").unwrap(), want);
        assert_eq!(told(&variant, "CUDAExecutionProvider").unwrap(), []);
    }

    #[test]
    fn a_backend_that_can_t_run_the_graph_is_refused_before_it_is_packed() {
        let check = |name: &str, devices: &[DeviceKind]| {
            check(&GraphSpec {
                name: "g".parse().unwrap(),
                path: "m".parse().unwrap(),
                devices: devices.to_vec(),
                min_device_share: 1.0,
                batch: None,
                threads: None,
                backend: Some(name.parse().unwrap()),
                variants: Vec::new(),
            })
        };
        let (cpu, both) = ([DeviceKind::Cpu], [DeviceKind::Npu, DeviceKind::Cpu]);
        for name in ["onnxruntime", "tract", "openvino"] {
            check(name, &cpu).unwrap();
        }
        check("qnn", &both).unwrap();
        let unknown = check("openvin", &cpu).unwrap_err();
        assert!(
            unknown.contains("graph `g`: there is no backend `openvin`: wick knows"),
            "{unknown}"
        );
        let idle = check("cuda", &both).unwrap_err();
        assert!(idle.contains("`cuda` has no npu nor cpu: it is for NVIDIA GPUs"), "{idle}");
    }

    #[test]
    fn what_nobody_knows_is_refused_with_what_there_is() {
        let cases = [
            ("webgu", "preferredLayout", "NHWC", "there is no provider `webgu`: use cuda, "),
            ("webgpu", "layout", "NHWC", "webgpu has no option `layout` for packages: use "),
            ("webgpu", "preferredLayout", "CHWN", "is `CHWN`: write NCHW or NHWC"),
            ("cuda", "use_tf32", "yes", "write true or false"),
            ("cuda", "gpu_mem_limit", "-1", "write a whole number up to "),
            // It would be a file of whoever runs the package.
            ("openvino", "cache_dir", "/etc", "no option `cache_dir`"),
            ("tensorrt-rtx", "nv_profile_min_shapes", "x=1", "write for instance `x:1x3x48x320"),
        ];
        for (provider, option, value, want) in cases {
            let error = told(&variant(provider, option, value), "any").unwrap_err();
            assert!(error.contains(want), "{error}");
        }
    }

    #[test]
    fn every_option_has_a_value_that_will_do() {
        for provider in PROVIDERS {
            for known in provider.takes {
                let value = match known.takes {
                    Takes::Flag => "1",
                    Takes::Number(_) => "0",
                    Takes::OneOf(values) => values[0],
                    Takes::Shapes => "x:1x3,a:b:2",
                };
                let variant = variant(provider.name, known.name, value);
                assert!(told(&variant, provider.registered).is_ok(), "{known:?}");
            }
        }
    }
}
