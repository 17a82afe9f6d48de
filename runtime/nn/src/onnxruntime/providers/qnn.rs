//! QNN: Qualcomm's NPUs. On `x86_64` its library emulates one, which answers as the NPU
//! would, slowly.

use wick_package::DeviceKind;

use super::options::{flag, number, one_of};
use super::{PYTHON_3_11, Provider, Wheel};

pub(super) const PROVIDER: Provider = Provider {
    name: "qnn",
    registered: "QNNExecutionProvider",
    library: "libonnxruntime_providers_qnn.so",
    kinds: &[DeviceKind::Npu],
    serves: "Qualcomm NPUs",
    only_with: None,
    on_cpu: Some("WICK_QNN_EMULATOR"),
    options: &[("backend_type", "htp")],
    takes: &[
        one_of(
            "htp_performance_mode",
            &[
                "default",
                "burst",
                "balanced",
                "high_performance",
                "high_power_saver",
                "low_balanced",
                "low_power_saver",
                "power_saver",
                "extreme_power_saver",
                "sustained_high_performance",
            ],
        ),
        one_of("htp_graph_finalization_optimization_mode", &["0", "1", "2", "3"]),
        one_of("qnn_context_priority", &["low", "normal", "normal_high", "high"]),
        number("vtcm_mb", 64),
        flag("enable_htp_fp16_precision"),
        flag("offload_graph_io_quantization"),
    ],
    before: &[],
    later: &["libcdsprpc.so", "libatomic.so.1"],
    vulkan: false,
    nodes: &["/dev/fastrpc"],
    environment: &[],
    compiles: true,
    package: "onnxruntime-qnn",
    version: "2.7.0",
    wheels: &[
        Wheel {
            arch: "x86_64",
            platform: "manylinux_2_35_x86_64",
            python: PYTHON_3_11,
            sha256: "c56c01562b8534fe8980cfea4601408d950c065f8251fb862ce82101c52c9849",
        },
        Wheel {
            arch: "aarch64",
            platform: "manylinux_2_34_aarch64",
            python: PYTHON_3_11,
            sha256: "ad08bbfebd7c07ffe83995418303215f46cb25a89e12676f47ee20c32002eaad",
        },
    ],
    files: &[
        "libonnxruntime_providers_qnn.so",
        "libQnn",
        "libHtpPrepare.so",
        "libc++",
        "libunwind",
    ],
};
