//! OpenVINO: Intel's GPUs and NPUs, and its CPUs.

use wick_package::DeviceKind;

use super::options::{flag, number, one_of};
use super::{ANY_PYTHON, Provider, Wheel};

pub(super) const PROVIDER: Provider = Provider {
    name: "openvino",
    registered: "OpenVINOExecutionProvider",
    library: "libonnxruntime_providers_openvino_plugin.so",
    kinds: &[DeviceKind::Npu, DeviceKind::Gpu, DeviceKind::Cpu],
    serves: "Intel NPUs, GPUs and CPUs",
    only_with: None,
    on_cpu: None,
    options: &[],
    takes: &[
        one_of("precision", &["FP32", "FP16", "ACCURACY"]),
        one_of("model_priority", &["LOW", "MEDIUM", "HIGH", "DEFAULT"]),
        number("num_of_threads", 1024),
        number("num_streams", 8),
        flag("enable_opencl_throttling"),
        flag("disable_dynamic_shapes"),
    ],
    before: &[],
    later: &["libze_loader.so.1", "libze_intel_gpu.so.1", "libze_intel_npu.so.1", "libOpenCL.so.1"],
    vulkan: false,
    nodes: &["/dev/dri/", "/dev/accel/"],
    environment: &["ZE_AFFINITY_MASK"],
    compiles: true,
    package: "onnxruntime-ep-openvino",
    version: "1.8.1",
    wheels: &[Wheel {
        arch: "x86_64",
        platform: "manylinux_2_28_x86_64",
        python: ANY_PYTHON,
        sha256: "3832643158c8c187fcab6db661cde2a8c06a2b3559d95d0f2411ac0e51c5e924",
    }],
    files: &[
        "libonnxruntime_providers_openvino",
        "libopenvino",
        "libtbb",
        "libhwloc",
        "cache.json",
    ],
};
