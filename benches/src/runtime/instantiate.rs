//! Time of a fresh guest instance, ready to call: what each request pays so that
//! nothing of one request can be seen by the next.

use std::time::Instant;

use serde_json::json;
use wick_engine::{Engine, EngineSettings, Grants};
use wick_nn::{Nn, NnSettings};
use wick_package::Package;

use crate::bar;
use crate::packages;
use crate::setup::Setup;
use crate::stats::{quantile, round};

const INSTANCES: usize = 2000;

pub fn run(setup: &Setup) -> anyhow::Result<()> {
    let package = packages::filetype(setup, 1)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let times = runtime.block_on(async {
        let settings =
            NnSettings { onnxruntime: Some(setup.onnxruntime.clone()), ..NnSettings::detect() };
        let engine = Engine::new(EngineSettings::default(), Nn::new(settings)?)?;
        let model = engine.load(Package::open(&package)?, Grants::default()).await?;
        let mut times = Vec::with_capacity(INSTANCES);
        for index in 0..INSTANCES + INSTANCES / 10 {
            let start = Instant::now();
            model.instantiate_once().await?;
            // The first tenth warms the allocator's slots.
            if index >= INSTANCES / 10 {
                times.push(start.elapsed().as_secs_f64() * 1e6);
            }
        }
        anyhow::Ok(times)
    })?;
    let detail = json!({
        "instances": INSTANCES,
        "p90_us": round(quantile(&times, 0.9)),
        "p99_us": round(quantile(&times, 0.99)),
        "component": "examples/filetype",
    });
    bar::report("instantiate-us", quantile(&times, 0.5), "us", detail);
    Ok(())
}
