//! The floor: ONNX Runtime called straight from Rust, with nothing between.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, anyhow};
use ort::environment::Environment;
use ort::memory::DeviceType;
use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::{DynTensor, Tensor};

use crate::stats::median;

/// Runs of which the median tells how long an inference takes, after as many that tell nothing.
const TYPICAL_RUNS: usize = 15;

/// The environment that all sessions of a process share.
pub struct Floor {
    environment: Environment,
}

/// A model and the input that it is run on.
pub struct Direct {
    session: Session,
    inputs: Vec<(String, DynTensor)>,
}

/// Shape and values of an input.
#[derive(Clone)]
pub enum Input {
    F32(Vec<i64>, Vec<f32>),
    I32(Vec<i64>, Vec<i32>),
}

impl Floor {
    pub fn new(library: &Path) -> anyhow::Result<Self> {
        let environment = ort::init_from(library).map_err(|e| anyhow!("{e}"))?.build()?;
        Ok(Self { environment })
    }

    /// Load a model with `threads` threads for one inference.
    pub fn load(&self, model: &Path, threads: usize, input: &Input) -> anyhow::Result<Direct> {
        let fail = |error: ort::Error<_>| anyhow!("{error}");
        let is_cpu = |device: &ort::device::Device<'_>| {
            device.hardware_device().ty() == DeviceType::CPU
                && device.ep().is_ok_and(|ep| ep == "CPUExecutionProvider")
        };
        let cpu: Vec<_> = self.environment.devices().filter(is_cpu).collect();
        let session = Session::builder(&self.environment)?
            .with_devices(cpu, None)
            .map_err(fail)?
            .with_optimization_level(GraphOptimizationLevel::All)
            .map_err(fail)?
            .with_intra_threads(threads)
            .map_err(fail)?
            .commit_from_file(model)
            .with_context(|| format!("load {}", model.display()))?;
        let name = session.inputs().first().context("the model has no input")?.name().to_owned();
        Ok(Direct { session, inputs: vec![(name, input.tensor()?)] })
    }
}

impl Direct {
    /// One inference; returns the bytes of its first output.
    pub fn run(&mut self) -> anyhow::Result<Vec<f32>> {
        let inputs: Vec<_> = self.inputs.iter().map(|(name, t)| (name.as_str(), t)).collect();
        let outputs = self.session.run(inputs)?;
        let (_, values) = outputs[0].try_extract_tensor::<f32>()?;
        Ok(values.to_vec())
    }

    /// How long an inference takes, in milliseconds.
    pub fn typical_ms(&mut self) -> anyhow::Result<f64> {
        let mut times = Vec::with_capacity(2 * TYPICAL_RUNS);
        for _ in 0..2 * TYPICAL_RUNS {
            let start = Instant::now();
            self.run()?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        Ok(median(&times[TYPICAL_RUNS..]))
    }
}

impl Input {
    fn tensor(&self) -> anyhow::Result<DynTensor> {
        Ok(match self {
            Self::F32(shape, values) => {
                Tensor::from_array((shape.clone(), values.clone()))?.upcast()
            }
            Self::I32(shape, values) => {
                Tensor::from_array((shape.clone(), values.clone()))?.upcast()
            }
        })
    }

    /// Little-endian bytes, as the binary extension carries them.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::F32(_, values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::I32(_, values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        }
    }

    pub fn shape(&self) -> &[i64] {
        match self {
            Self::F32(shape, _) | Self::I32(shape, _) => shape,
        }
    }

    pub fn datatype(&self) -> &'static str {
        match self {
            Self::F32(..) => "FP32",
            Self::I32(..) => "INT32",
        }
    }
}
