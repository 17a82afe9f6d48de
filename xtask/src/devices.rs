//! `cargo xtask test devices`: graphs on real providers, compared with the CPU. What a machine
//! without an accelerator can run honestly runs everywhere: WebGPU on Mesa's software Vulkan,
//! and Qualcomm's NPU in its emulator. Hardware is tried where there is some.

mod silicon;

use std::env::{self, consts::ARCH};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::debian;
use crate::house::House;
use crate::report::Counts;
use crate::tools::{self, Scratch};

/// Debian's Vulkan drivers that WebGPU accepts; those of the release itself are too old.
const VULKAN: [&str; 4] = ["mesa-vulkan-drivers", "libdrm2", "libdrm-amdgpu1", "libvulkan1"];

/// Where they are.
const BACKPORTS: &str = "bookworm-backports";

/// Example models, with the part of each that WebGPU must run, and sizes of inputs.
const MODELS: [Model; 4] = [
    Model { name: "cls", file: "ppocr/cls.onnx", share: "1.0", shape: None },
    Model { name: "det", file: "ppocr/det.onnx", share: "0.9", shape: Some("x=1,3,64,64") },
    Model { name: "rec", file: "ppocr/rec.onnx", share: "0.7", shape: Some("x=1,3,48,64") },
    Model { name: "magika", file: "magika/model.onnx", share: "0.5", shape: None },
];

/// A product of matrices between quantisations, made for this.
pub const QUANTISED: &str = "e2e/devices/qdq.onnx";

struct Model {
    name: &'static str,
    file: &'static str,
    share: &'static str,
    shape: Option<&'static str>,
}

/// Run all checks.
pub fn run(house: &House) -> anyhow::Result<Counts> {
    let scratch = Scratch::new("devices")?;
    let checks = Checks { house, folder: scratch.path(), vulkan: prepare(house)? };
    let mut passed = 0;
    for model in &MODELS {
        checks.same_answers(model)?;
        passed += 1;
    }
    checks.emulated_npu()?;
    checks.kept_engines()?;
    checks.refused_share()?;
    checks.missing_device()?;
    checks.told_options()?;
    checks.virtual_device()?;
    checks.insisted()?;
    passed += 7;
    if has_nvidia() {
        passed += checks.nvidia()?;
    } else {
        println!("cuda: no such device: this machine has no driver of NVIDIA's");
    }
    passed += checks.silicon()?;
    Ok(Counts { passed, ..Counts::default() })
}

/// The software driver, with the providers that run on this machine installed.
pub fn prepare(house: &House) -> anyhow::Result<PathBuf> {
    for provider in ["webgpu", "qnn"] {
        install(house, provider)?;
    }
    vulkan(house)
}

/// Flags for `cluster up` by which the shims of a node know the software driver, and NVIDIA's where there is one: its
/// libraries are where this program's own loader looks, too.
pub fn of_a_node(house: &House) -> anyhow::Result<Vec<String>> {
    let root = prepare(house)?;
    let mut libraries = vec![root.join("usr/lib").join(format!("{ARCH}-linux-gnu"))];
    let mut drivers = vec![root.join("lvp.json")];
    if has_nvidia() {
        install(house, "cuda")?;
        let told = |variable| env::var_os(variable).unwrap_or_default();
        libraries.extend(env::split_paths(&told("LD_LIBRARY_PATH")));
        drivers.extend(env::split_paths(&told("VK_DRIVER_FILES")));
    }
    let flag = |name: &str, paths: Vec<PathBuf>| {
        let paths = env::join_paths(paths.iter().filter(|path| path.is_absolute()))?;
        anyhow::Ok(["--env".to_owned(), format!("{name}={}", paths.to_string_lossy())])
    };
    Ok([flag("WICK_LIBRARIES", libraries)?, flag("VK_DRIVER_FILES", drivers)?].concat())
}

fn install(house: &House, provider: &str) -> anyhow::Result<()> {
    let mut wick = Command::new(house.wick());
    wick.env("WICK_BACKENDS", house.backends()).args(["backend", "install", provider]);
    let said = tools::output(&mut wick).with_context(|| format!("install {provider}"))?;
    eprintln!("devices: {}", said.trim());
    Ok(())
}

/// Whether NVIDIA's driver runs here.
fn has_nvidia() -> bool {
    Path::new("/proc/driver/nvidia/version").exists()
}

struct Checks<'h> {
    house: &'h House,
    /// For packages.
    folder: &'h Path,
    /// The software driver, unpacked.
    vulkan: PathBuf,
}

// === impl Checks ===

impl Checks<'_> {
    /// WebGPU on software Vulkan answers as the CPU does.
    fn same_answers(&self, model: &Model) -> anyhow::Result<()> {
        let package = self.package(model, "gpu", model.share)?;
        let mut wick = self.software();
        wick.args(["verify-device", "--device", "gpu", "--output", "json"]).arg(&package);
        wick.args(model.shape.iter().flat_map(|shape| ["--shape", shape]));
        let text = tools::output(&mut wick);
        let text = text.with_context(|| format!("{} on software Vulkan", model.name))?;
        ensure!(text.contains("WebGpuExecutionProvider"), "another provider has run: {text}");
        println!("webgpu: {}", text.trim());
        Ok(())
    }

    /// A quantised graph is placed on the emulator of Qualcomm's NPU, all of it. Its answers are
    /// not compared here: after inferences the emulator crashes when the process ends.
    fn emulated_npu(&self) -> anyhow::Result<()> {
        let package = self.write("qdq", &self.house.root.join(QUANTISED), "npu", "1.0")?;
        let mut wick = self.wick();
        wick.env("WICK_QNN_EMULATOR", "1").args(["run", "--explain"]).arg(&package);
        let text = tools::output(&mut wick).context("a quantised graph on the emulated NPU")?;
        ensure!(text.contains("runs on npu by QNNExecutionProvider"), "it runs elsewhere: {text}");
        println!("qnn: {}", text.trim());
        Ok(())
    }

    /// What the emulator's compiler has made is the next start's; a damaged engine is made anew, and other options
    /// make another one.
    fn kept_engines(&self) -> anyhow::Result<()> {
        let package = self.write("kept", &self.house.root.join(QUANTISED), "npu", "1.0")?;
        let cache = self.folder.join("engines");
        let start = || -> anyhow::Result<Vec<PathBuf>> {
            let mut wick = self.wick();
            wick.env("WICK_QNN_EMULATOR", "1").env("XDG_CACHE_HOME", &cache);
            let text = tools::output(wick.args(["run", "--explain"]).arg(&package))?;
            ensure!(text.contains("runs on npu by QNNExecutionProvider"), "elsewhere: {text}");
            let entries =
                fs::read_dir(cache.join("wick/graphs"))?.collect::<Result<Vec<_>, _>>()?;
            let engine = |entry: fs::DirEntry| entry.path().join("engine.onnx");
            Ok(entries.into_iter().map(engine).filter(|engine| engine.is_file()).collect())
        };
        let made = start()?;
        let [engine] = &made[..] else { anyhow::bail!("{} engines of one graph", made.len()) };
        let written = fs::metadata(engine)?.modified()?;
        ensure!(start()? == made && fs::metadata(engine)?.modified()? == written, "made again");
        fs::write(engine, "damaged")?;
        ensure!(start()? == made && fs::read(engine)? != b"damaged", "a damaged engine is used");
        let manifest = package.join("wick.toml");
        let text = fs::read_to_string(&manifest)?;
        let more = "\n[[graph.variant]]\ndevice = \"npu\"\noptions = { qnn = { vtcm_mb = 4 } }\n";
        tools::write_whole(&manifest, (text + more).as_bytes())?;
        ensure!(start()?.len() == 2, "an engine that was made with other options is used");
        println!(
            "qnn: an engine is kept, made anew when damaged, and another one for other options"
        );
        Ok(())
    }

    /// A GPU that is listed and can't run anything is refused with its reason, and the next kind is taken where the
    /// package permits one.
    fn virtual_device(&self) -> anyhow::Result<()> {
        let [model, ..] = &MODELS;
        let only = self.write("only", &self.model(model), "gpu", "1.0")?;
        let either = self.write("or-cpu", &self.model(model), "gpu\", \"cpu", "1.0")?;
        let explain = |package: &Path| {
            let mut wick = self.wick();
            wick.env("WICK_VIRTUAL_DEVICES", "webgpu");
            wick.args(["run", "--explain"]).arg(package).output()
        };
        let refused = explain(&only)?;
        let text = String::from_utf8_lossy(&refused.stdout);
        ensure!(refused.status.code() == Some(69), "{}: {text}", refused.status);
        let why = "cannot be loaded on gpu by WebGpuExecutionProvider";
        ensure!(text.contains(why), "nothing says why: {text}");
        let text = String::from_utf8_lossy(&explain(&either)?.stdout).into_owned();
        ensure!(text.contains("runs on cpu") && text.contains(why), "{text}");
        println!("webgpu: a GPU that is not there is listed, chosen and refused: {}", text.trim());
        Ok(())
    }

    /// Options that a provider doesn't know are refused by their names, before anything is packed and when a graph
    /// is loaded; one that it knows reaches it.
    fn told_options(&self) -> anyhow::Result<()> {
        let [model, ..] = &MODELS;
        let package = self.write("told", &self.model(model), "gpu", "1.0")?;
        let manifest = package.join("wick.toml");
        let text = fs::read_to_string(&manifest)?;
        let tell = |option: &str| {
            let more = format!(
                "\n[[graph.variant]]\ndevice = \"gpu\"\noptions = {{ webgpu = {{ {option} }} }}\n"
            );
            tools::write_whole(&manifest, (text.clone() + &more).as_bytes())
        };
        tell("preferredLayout = \"NCHW\"")?;
        let said = tools::output(self.software().args(["run", "--explain"]).arg(&package))?;
        ensure!(said.contains("runs on gpu by WebGpu"), "it runs elsewhere: {said}");
        tell("layout = \"NCHW\"")?;
        for words in [["run", "--explain"], ["pack", "--dry-run"]] {
            let output = self.software().args(words).arg(&package).output()?;
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            ensure!(!output.status.success(), "{words:?} takes it: {said}");
            ensure!(said.contains("webgpu has no option `layout`"), "{words:?}: {said}");
        }
        Ok(())
    }

    /// A graph that insists on a provider gets that one or none, where others could run it, the CPU included.
    fn insisted(&self) -> anyhow::Result<()> {
        let [model, ..] = &MODELS;
        let model = self.model(model);
        let explain = |provider: &str, devices: &str| {
            let name = format!("insists-on-{provider}");
            let package = self.write(&name, &model, devices, "1.0")?;
            self.insist(&package, provider)?;
            Ok::<_, anyhow::Error>(
                self.software().args(["run", "--explain"]).arg(&package).output()?,
            )
        };
        let runs = explain("webgpu", "gpu\", \"cpu")?;
        let text = String::from_utf8_lossy(&runs.stdout);
        ensure!(runs.status.success(), "{}: {text}", runs.status);
        ensure!(text.contains("runs on gpu by WebGpuExecutionProvider"), "elsewhere: {text}");
        let refused = explain("tensorrt-rtx", "gpu\", \"cpu")?;
        let text = String::from_utf8_lossy(&refused.stdout);
        ensure!(refused.status.code() == Some(69), "{}: {text}", refused.status);
        ensure!(text.contains("tensorrt-rtx: "), "nothing says why: {text}");
        ensure!(!text.contains("webgpu: "), "another provider was asked: {text}");
        println!("tensorrt-rtx: whoever insists on it has no other: {}", text.trim());
        Ok(())
    }

    /// A graph that needs the CPU for some nodes is refused where all must be on the device,
    /// and gets what its package permits next, with the reason.
    fn refused_share(&self) -> anyhow::Result<()> {
        let [.., magika] = &MODELS;
        let strict = self.package(magika, "gpu", "1.0")?;
        let refused = self.software().args(["run", "--explain"]).arg(&strict).output()?;
        let text = String::from_utf8_lossy(&refused.stdout);
        ensure!(!refused.status.success(), "it ran: {text}");
        ensure!(text.contains("demands 1.00"), "the share is not the reason: {text}");
        let either = self.write("either", &self.model(magika), "gpu\", \"cpu", "1.0")?;
        let text = tools::output(self.software().args(["run", "--explain"]).arg(&either))?;
        ensure!(text.contains("runs on cpu"), "it runs elsewhere: {text}");
        ensure!(text.contains("demands 1.00"), "nothing says why: {text}");
        Ok(())
    }

    /// Without a device there is an error that says what is missing, and no answer of the CPU's.
    fn missing_device(&self) -> anyhow::Result<()> {
        let [model, ..] = &MODELS;
        let package = self.package(model, "npu", "1.0")?;
        let output = self.wick().args(["run", "--explain"]).arg(&package).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.code() == Some(69), "{}: {text}", output.status);
        ensure!(text.contains("qnn: it finds no device here"), "nothing says why: {text}");
        Ok(())
    }

    /// CUDA with its own ONNX Runtime, and WebGPU over NVIDIA's driver.
    fn nvidia(&self) -> anyhow::Result<u64> {
        install(self.house, "cuda")?;
        let own = self.house.backends().join("cuda-1.31.1/libonnxruntime.so.1.31.1");
        for model in &MODELS {
            let package = self.package(model, "gpu", "0.5")?;
            for runtime in [self.house.onnxruntime(), own.clone()] {
                let mut wick = self.wick();
                wick.args(["verify-device", "--device", "gpu"]).arg(&package);
                wick.args(model.shape.iter().flat_map(|shape| ["--shape", shape]));
                tools::run(wick.arg("--onnxruntime").arg(runtime))?;
            }
        }
        Ok(2 * MODELS.len() as u64)
    }

    fn package(&self, model: &Model, devices: &str, share: &str) -> anyhow::Result<PathBuf> {
        self.write(model.name, &self.model(model), devices, share)
    }

    fn model(&self, model: &Model) -> PathBuf {
        self.house.models().join(model.file)
    }

    /// A package of one model, for these devices.
    fn write(
        &self,
        name: &str,
        model: &Path,
        devices: &str,
        share: &str,
    ) -> anyhow::Result<PathBuf> {
        let folder = self.folder.join(format!("{name}-{}", share.replace('.', "-")));
        fs::create_dir_all(&folder)?;
        fs::copy(model, folder.join("model.onnx"))
            .with_context(|| format!("copy {}: run `cargo xtask setup`", model.display()))?;
        let manifest = format!(
            "[package]\nname = \"{name}\"\nversion = \"1.0.0\"\n\n[[graph]]\nname = \"{name}\"\n\
             path = \"model.onnx\"\ndevices = [\"{devices}\"]\nmin_device_share = {share}\n"
        );
        tools::write_whole(&folder.join("wick.toml"), manifest.as_bytes())?;
        Ok(folder)
    }

    /// Let a package's graph insist on a provider.
    fn insist(&self, package: &Path, provider: &str) -> anyhow::Result<()> {
        let manifest = package.join("wick.toml");
        let text = fs::read_to_string(&manifest)?;
        tools::write_whole(&manifest, format!("{text}backend = \"{provider}\"\n").as_bytes())
    }

    /// `wick` with the backends of the tests.
    fn wick(&self) -> Command {
        let mut wick = Command::new(self.house.wick());
        wick.env("WICK_BACKENDS", self.house.backends());
        wick
    }

    /// `wick` that finds the software driver and takes it for a GPU.
    fn software(&self) -> Command {
        let libraries = self.vulkan.join("usr/lib").join(format!("{ARCH}-linux-gnu"));
        let driver = self.vulkan.join("lvp.json");
        let mut wick = self.wick();
        wick.env("ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER", "1")
            .env("VK_ICD_FILENAMES", &driver)
            .env("VK_DRIVER_FILES", &driver)
            .env("LD_LIBRARY_PATH", libraries)
            .env("XDG_RUNTIME_DIR", self.folder);
        wick
    }
}

/// The software driver, unpacked among the caches: nothing of the machine is changed.
fn vulkan(house: &House) -> anyhow::Result<PathBuf> {
    let root = house.cache.join("vulkan");
    if root.join("lvp.json").is_file() {
        return Ok(root);
    }
    eprintln!("devices: Mesa's software Vulkan from Debian into {}", root.display());
    debian::unpack(&VULKAN, BACKPORTS, &root)?;
    let library = format!("usr/lib/{ARCH}-linux-gnu/libvulkan_lvp.so");
    let library = root.join(library);
    ensure!(library.is_file(), "Debian's package has no {}", library.display());
    let driver = serde_json::json!({
        "file_format_version": "1.0.0",
        "ICD": { "library_path": library, "api_version": "1.4.305" },
    });
    tools::write_whole(&root.join("lvp.json"), driver.to_string().as_bytes())?;
    Ok(root)
}
