//! The servers that wick is compared with, each as its documentation lays it out for this
//! load: one thread for an inference, and as many inferences at once as there are cores.
//!
//! ```text
//!  MLServer   its own process, no workers: a worker costs more than it brings. Models of
//!             milliseconds run in a pool of threads, since ONNX Runtime frees Python's lock.
//!  KServe     one process, for the same reasons, and the same pool.
//!  Triton     the server itself with its Python backend, an instance for each core. PyTriton
//!             would add a proxy process and a hop over ZeroMQ to each request.
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use serde_json::json;

use crate::setup::{Setup, path};

use super::process::{self, Process};
use super::question::Question;

const MLSERVER_MODEL: &str = include_str!("../../peers/mlserver_ort.py");
const KSERVE_SERVER: &str = include_str!("../../peers/kserve_ort.py");
const TRITON_MODEL: &str = include_str!("../../peers/triton_model.py");

/// Whether models run beside the thread that reads requests, as in a server's code.
const THREADED: &str = ":threaded";

pub fn mlserver(setup: &Setup, questions: &[Question]) -> anyhow::Result<Process> {
    let python = path("WICK_PEER_MLSERVER")?;
    let folder = setup.folder("mlserver")?;
    let [http, grpc] = process::free_ports()?;
    let settings = json!({
        "parallel_workers": 0, "host": "127.0.0.1", "http_port": http, "grpc_port": grpc,
        "metrics_endpoint": null, "debug": false,
    });
    fs::write(folder.join("settings.json"), settings.to_string())?;
    fs::write(folder.join("mlserver_ort.py"), MLSERVER_MODEL)?;
    for question in questions {
        let model = folder.join(question.name);
        fs::create_dir_all(&model)?;
        let settings = json!({
            "name": question.name, "implementation": "mlserver_ort.OnnxModel",
            "parameters": {"uri": question.model, "extra": {"threaded": question.threaded}},
        });
        fs::write(model.join("model-settings.json"), settings.to_string())?;
    }
    let mut command = Command::new(python.with_file_name("mlserver"));
    command.arg("start").arg(&folder).env("PYTHONPATH", &folder).current_dir(&folder);
    Process::start("MLServer", &mut command, &log(setup, "mlserver")?, [http, grpc])
}

pub fn kserve(setup: &Setup, questions: &[Question]) -> anyhow::Result<Process> {
    let python = path("WICK_PEER_KSERVE")?;
    let script = setup.folder("kserve")?.join("kserve_ort.py");
    fs::write(&script, KSERVE_SERVER)?;
    let [http, grpc] = process::free_ports()?;
    let mut command = Command::new(python);
    command.arg(&script).args([http.to_string(), grpc.to_string()]);
    command.args(questions.iter().map(|question| {
        let threaded = if question.threaded { THREADED } else { "" };
        format!("{}={}{threaded}", question.name, question.model.display())
    }));
    Process::start("KServe", &mut command, &log(setup, "kserve")?, [http, grpc])
}

pub fn triton(setup: &Setup, questions: &[Question]) -> anyhow::Result<Process> {
    let python = path("WICK_PEER_TRITON")?;
    let [packages, libraries, version] = python_paths(&python)?;
    let packages = PathBuf::from(packages);
    let server = packages.join("pytriton/tritonserver");
    let backends = triton_backend(setup, &server, &version)?;
    let models = triton_models(setup, questions)?;
    let [http, grpc] = process::free_ports()?;
    let libraries = format!("{}:{libraries}", packages.join("nvidia_pytriton.libs").display());
    let mut command = Command::new(server.join("bin/tritonserver"));
    command.arg("--model-repository").arg(models).arg("--backend-directory").arg(backends);
    command.args(["--http-address=127.0.0.1", "--grpc-address=127.0.0.1"]);
    command.args(["--allow-metrics=false", "--log-verbose=0"]);
    command.arg(format!("--http-port={http}")).arg(format!("--grpc-port={grpc}"));
    command.env("LD_LIBRARY_PATH", libraries).env("PEER_PACKAGES", &packages);
    Process::start("Triton", &mut command, &log(setup, "triton")?, [http, grpc])
}

/// Where a Python keeps its packages and its library, and its version.
fn python_paths(python: &Path) -> anyhow::Result<[String; 3]> {
    let script = "import sysconfig as s; print(s.get_path('purelib')); \
                  print(s.get_config_var('LIBDIR')); print(s.get_python_version())";
    let output = Command::new(python).args(["-c", script]).output()?;
    let text = String::from_utf8(output.stdout)?;
    let mut lines = text.lines().map(str::to_owned);
    let mut next = || lines.next().context("python does not tell its paths");
    Ok([next()?, next()?, next()?])
}

/// The Python backend with the stub of this Python's version, which the wheel keeps apart.
fn triton_backend(setup: &Setup, server: &Path, version: &str) -> anyhow::Result<PathBuf> {
    let backends = setup.folder("triton-backends")?;
    let backend = backends.join("python");
    fs::create_dir_all(&backend)?;
    let stub = "triton_python_backend_stub";
    let from = server.join("backends/python");
    for file in ["libtriton_python.so", "triton_python_backend_utils.py"] {
        fs::copy(from.join(file), backend.join(file))?;
    }
    let from = server.join("python_backend_stubs").join(version).join(stub);
    fs::copy(&from, backend.join(stub))
        .with_context(|| format!("Triton's Python backend knows no Python {version}"))?;
    Ok(backends)
}

fn triton_models(setup: &Setup, questions: &[Question]) -> anyhow::Result<PathBuf> {
    let folder = setup.folder("triton-models")?;
    let cores = std::thread::available_parallelism()?.get();
    for question in questions {
        let version = folder.join(question.name).join("1");
        fs::create_dir_all(&version)?;
        fs::copy(&question.model, version.join("model.onnx"))?;
        fs::write(version.join("model.py"), TRITON_MODEL)?;
        let datatype =
            question.input.datatype().replace("FP", "TYPE_FP").replace("INT", "TYPE_INT");
        let [input, output] = question.dims;
        let config = format!(
            "backend: \"python\"\nmax_batch_size: 0\n\
             input [ {{ name: \"{}\" data_type: {datatype} dims: [ {input} ] }} ]\n\
             output [ {{ name: \"{}\" data_type: TYPE_FP32 dims: [ {output} ] }} ]\n\
             instance_group [ {{ count: {cores} kind: KIND_CPU }} ]\n",
            question.input_name, question.output_name,
        );
        fs::write(folder.join(question.name).join("config.pbtxt"), config)?;
    }
    Ok(folder)
}

fn log(setup: &Setup, name: &str) -> anyhow::Result<PathBuf> {
    Ok(setup.folder("logs")?.join(format!("{name}.log")))
}
