//! grpcurl, as people use it: it knows nothing of the protocol but what the server's
//! reflection tells. Built by Go into the caches.

use std::process::Command;

use anyhow::Context as _;

use crate::go::{self, Program};
use crate::house::House;
use crate::report::Counts;

const GRPCURL: Program = Program {
    name: "grpcurl",
    package: "github.com/fullstorydev/grpcurl/cmd/grpcurl",
    version: "v1.9.3",
};

/// Arguments after the address, the request, and words of the answer.
const CHECKS: [(&[&str], Option<&str>, &[&str]); 5] = [
    (&["list"], None, &["grpc.health.v1.Health", "inference.GRPCInferenceService"]),
    (&["describe", "inference.ModelInferRequest"], None, &["raw_input_contents = 7"]),
    (&["grpc.health.v1.Health/Check"], None, &["SERVING"]),
    (&["grpc.health.v1.Health/Check"], Some(r#"{"service": "filetype"}"#), &["SERVING"]),
    (&["inference.GRPCInferenceService/ModelInfer"], Some(PYTHON), &["\"cHl0aG9u\""]),
];

/// A program whose language is to be told, which is `python` in Base64.
const PYTHON: &str = r#"{
    "modelName": "filetype",
    "parameters": {"binary_data_output": {"boolParam": false}},
    "outputs": [{"name": "label"}],
    "inputs": [{"name": "bytes", "datatype": "UINT8", "shape": [33], "contents": {"uintContents":
        [105, 109, 112, 111, 114, 116, 32, 111, 115, 10, 10, 112, 114, 105, 110, 116, 40, 111, 115,
         46, 112, 97, 116, 104, 46, 106, 111, 105, 110, 40, 41, 41, 10]}}]
}"#;

/// Call a server that serves examples/filetype. Where there is no Go, the checks are counted
/// as left out.
pub fn run(house: &House, addr: &str) -> anyhow::Result<Counts> {
    let Some(grpcurl) = go::installed(house, &GRPCURL)? else {
        eprintln!("clients: there is no `go` to build grpcurl with: its checks are left out");
        return Ok(Counts { ignored: CHECKS.len() as u64, ..Counts::default() });
    };
    let mut counts = Counts::default();
    for (call, request, words) in CHECKS {
        let mut command = Command::new(&grpcurl);
        command.arg("-plaintext");
        if let Some(request) = request {
            command.args(["-d", request]);
        }
        let output = command.arg(addr).args(call).output().context("run grpcurl")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let good = output.status.success() && words.iter().all(|word| text.contains(word));
        let name = call.join(" ");
        if good {
            counts.passed += 1;
            eprintln!("ok: grpcurl {name}");
        } else {
            counts.failed += 1;
            let error = String::from_utf8_lossy(&output.stderr);
            eprintln!("FAILED: grpcurl {name}: {text}{error}");
        }
    }
    Ok(counts)
}
