//! TensorRT for RTX: NVIDIA's GPUs for workstations and the edge.

use wick_package::DeviceKind;

use super::options::{flag, number, shapes};
use super::{ANY_PYTHON, Provider, Wheel};

pub(super) const PROVIDER: Provider = Provider {
    name: "tensorrt-rtx",
    registered: "NvTensorRTRTXExecutionProvider",
    library: "libonnxruntime_providers_nv_tensorrt_rtx.so",
    kinds: &[DeviceKind::Gpu],
    serves: "NVIDIA RTX GPUs",
    only_with: None,
    on_cpu: None,
    options: &[],
    takes: &[
        number("nv_max_workspace_size", u64::MAX),
        number("nv_max_shared_mem_size", u64::MAX),
        flag("enable_cuda_graph"),
        flag("nv_multi_profile_enable"),
        shapes("nv_profile_min_shapes"),
        shapes("nv_profile_max_shapes"),
        shapes("nv_profile_opt_shapes"),
    ],
    before: &["libcudart.so", "libtensorrt_rtx.so", "libtensorrt_onnxparser_rtx.so"],
    later: &["libcuda.so.1", "libnvidia-ml.so.1", "libnvidia-ptxjitcompiler.so.1", "libz.so.1"],
    vulkan: false,
    nodes: &["/dev/nvidia"],
    environment: &["CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"],
    compiles: true,
    package: "onnxruntime-ep-nv-tensorrt-rtx-cu13",
    version: "0.5.0",
    wheels: &[
        Wheel {
            arch: "x86_64",
            platform: "manylinux_2_28_x86_64",
            python: ANY_PYTHON,
            sha256: "32f575c633d171b4edf4b53d3bb22b72a6c9c0a850d2982ce9a788a5d40d3298",
        },
        Wheel {
            arch: "aarch64",
            platform: "manylinux_2_35_aarch64",
            python: ANY_PYTHON,
            sha256: "1f0bb2b89bb3dfd43096fccb8ec1f581c266c5852c4e6ba672b7bf790c8c96c2",
        },
    ],
    files: &["libonnxruntime_providers_nv_tensorrt_rtx.so", "libtensorrt", "libcudart.so"],
};
