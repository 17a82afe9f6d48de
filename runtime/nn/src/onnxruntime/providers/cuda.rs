//! CUDA: NVIDIA's GPUs.
//!
//! The library is a plugin, but built together with its ONNX Runtime: with another version
//! it is registered, lists the GPU, and ends the process when a session is made. So it
//! comes with the libonnxruntime of its wheel, and is refused beside any other.

use wick_package::DeviceKind;

use super::options::{flag, number, one_of};
use super::{PYTHON_3_11, Provider, Wheel};

pub(super) const PROVIDER: Provider = Provider {
    name: "cuda",
    registered: "CUDAExecutionProvider",
    library: "libonnxruntime_providers_cuda.so",
    kinds: &[DeviceKind::Gpu],
    serves: "NVIDIA GPUs",
    only_with: Some("1.31.1"),
    on_cpu: None,
    // With TF32, which it takes by itself, a text recogniser's answers were 0.014 of the largest
    // value away from the CPU's on an H100; without, 0.000024.
    options: &[("use_tf32", "0")],
    // As ONNX Runtime 1.31 reads them.
    takes: &[
        flag("use_tf32"),
        flag("prefer_nhwc"),
        flag("cudnn_conv_use_max_workspace"),
        flag("enable_skip_layer_norm_strict_mode"),
        number("gpu_mem_limit", u64::MAX),
        one_of("arena_extend_strategy", &["kNextPowerOfTwo", "kSameAsRequested"]),
        one_of("cudnn_conv_algo_search", &["EXHAUSTIVE", "HEURISTIC", "DEFAULT"]),
    ],
    before: &[],
    later: &[
        "libcudart.so.13",
        "libcublasLt.so.13",
        "libcublas.so.13",
        "libcurand.so.10",
        "libcufft.so.12",
        "libcudnn.so.9",
        "libcuda.so.1",
        "libnvidia-ptxjitcompiler.so.1",
        "libnvrtc.so.13",
        "libcudnn_graph.so.9",
        "libcudnn_ops.so.9",
        "libcudnn_cnn.so.9",
        "libcudnn_adv.so.9",
        "libcudnn_heuristic.so.9",
        "libcudnn_engines_precompiled.so.9",
        "libcudnn_engines_runtime_compiled.so.9",
    ],
    vulkan: false,
    nodes: &["/dev/nvidia"],
    environment: &["CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"],
    compiles: false,
    package: "onnxruntime-gpu",
    version: "1.31.1",
    wheels: &[
        Wheel {
            arch: "x86_64",
            platform: "manylinux_2_28_x86_64",
            python: PYTHON_3_11,
            sha256: "e26c475fe361b2015f45b4b824bd13f0bb20204e59b62814e6f0acd5f3d491a6",
        },
        Wheel {
            arch: "aarch64",
            platform: "manylinux_2_34_aarch64",
            python: PYTHON_3_11,
            sha256: "dc878916611b8a816000ffedacc5f5988f77bb93bf9655ad20144ee3acb08e55",
        },
    ],
    files: &[
        "libonnxruntime.so.",
        "libonnxruntime_providers_cuda.so",
        "libonnxruntime_providers_shared.so",
    ],
};
