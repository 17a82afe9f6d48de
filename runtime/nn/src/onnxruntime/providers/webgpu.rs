//! WebGPU: any GPU with a Vulkan driver.

use wick_package::DeviceKind;

use super::options::{flag, one_of};
use super::{ANY_PYTHON, Provider, Wheel};

pub(super) const PROVIDER: Provider = Provider {
    name: "webgpu",
    registered: "WebGpuExecutionProvider",
    library: "libonnxruntime_providers_webgpu.so",
    kinds: &[DeviceKind::Gpu],
    serves: "any GPU with Vulkan",
    only_with: None,
    on_cpu: Some("ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER"),
    options: &[],
    takes: &[
        one_of("preferredLayout", &["NCHW", "NHWC"]),
        flag("enableGraphCapture"),
        one_of("storageBufferCacheMode", &["disabled", "lazyRelease", "simple", "bucket"]),
        one_of("validationMode", &["disabled", "wgpuOnly", "basic", "full"]),
    ],
    before: &[],
    later: &["libvulkan.so.1"],
    vulkan: true,
    nodes: &["/dev/dri/", "/dev/nvidia"],
    environment: &[],
    compiles: false,
    package: "onnxruntime-ep-webgpu",
    version: "0.4.0",
    wheels: &[
        Wheel {
            arch: "x86_64",
            platform: "manylinux_2_28_x86_64",
            python: ANY_PYTHON,
            sha256: "5d8c961eda91a88961cad1fb7621f389f006b18497d6ea9ecf96f729f066cbfb",
        },
        Wheel {
            arch: "aarch64",
            platform: "manylinux_2_28_aarch64",
            python: ANY_PYTHON,
            sha256: "17f660db53b1a509c63e721ac6784a2daa1c4e91a968523ee9986505ee5b0a55",
        },
    ],
    files: &["libonnxruntime_providers_webgpu.so"],
};
