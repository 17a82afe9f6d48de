//! QNN: Qualcomm's NPUs. On `x86_64` its library emulates one, which answers as the NPU
//! would, slowly.

use wick_package::DeviceKind;

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
    package: "onnxruntime-qnn",
    version: "2.7.0",
    wheels: &[Wheel {
        arch: "x86_64",
        platform: "manylinux_2_35_x86_64",
        python: PYTHON_3_11,
        sha256: "c56c01562b8534fe8980cfea4601408d950c065f8251fb862ce82101c52c9849",
    }],
    files: &[
        "libonnxruntime_providers_qnn.so",
        "libQnn",
        "libHtpPrepare.so",
        "libc++",
        "libunwind",
    ],
};
