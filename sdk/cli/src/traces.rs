//! Spans to an OpenTelemetry collector by OTLP over gRPC. Off unless an endpoint is named.
//!
//! What OpenTelemetry's specification names by environment is taken from there:
//! `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER`,
//! `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_BSP_*`.

use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tokio::runtime::{Builder, Runtime};

use crate::failure::{Failure, Outcome};

/// Time for the last spans when the process ends: a collector that is gone must not keep
/// it.
const FLUSH: Duration = Duration::from_secs(3);

/// Time for one export, after which its spans are dropped.
const EXPORT: Duration = Duration::from_secs(10);

/// The export of spans. Dropping it sends what is left.
pub struct Traces {
    provider: SdkTracerProvider,
    /// The connection to the collector lives on a thread of its own, so that it takes
    /// nothing from requests.
    _runtime: Runtime,
}

// === impl Traces ===

impl Traces {
    /// Export to a collector, for example `http://localhost:4317`. A collector that can't be
    /// reached is tried again; spans wait in a bounded queue meanwhile, and the oldest go.
    ///
    /// # Errors
    /// It is no address, or the system has no thread left.
    pub fn start(endpoint: &str) -> Outcome<Self> {
        let plain = endpoint.strip_prefix("http://").is_some_and(|rest| !rest.is_empty());
        if !plain {
            let text = format_args!("`{endpoint}` is no OTLP endpoint");
            return Err(Failure::usage(text)
                .help("name a collector's gRPC port, such as http://localhost:4317"));
        }
        let failed = |error| Failure::from(anyhow::Error::new(error).context("start the export"));
        let mut runtime = Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).thread_name("wick-otlp").enable_all().build();
        let runtime = runtime.map_err(failed)?;
        // The exporter takes the runtime that it is made in.
        let exporter = {
            let _inside = runtime.enter();
            SpanExporter::builder()
                .with_tonic()
                .with_endpoint(endpoint)
                .with_timeout(EXPORT)
                .build()
        };
        let exporter = exporter.map_err(|error| {
            Failure::usage(format_args!("`{endpoint}` is no OTLP endpoint: {error}"))
        })?;
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource())
            .build();
        opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
        Ok(Self { provider, _runtime: runtime })
    }

    pub fn tracer(&self) -> SdkTracer {
        self.provider.tracer("wick")
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        if let Err(error) = self.provider.shutdown_with_timeout(FLUSH) {
            tracing::warn!(%error, "the last spans did not reach the collector");
        }
    }
}

/// Who sends the spans: `wick`, unless the environment says otherwise.
fn resource() -> Resource {
    let builder = Resource::builder();
    let named = std::env::var_os("OTEL_SERVICE_NAME").is_some_and(|name| !name.is_empty());
    if named { builder.build() } else { builder.with_service_name("wick").build() }
}
