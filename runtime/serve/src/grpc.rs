//! The Open Inference Protocol over gRPC, beside REST on the same port.
//!
//! ```text
//!  routes ─▶ meter ─▶ wire ─▶ service ─▶ infer, stream ─▶ convert ─▶ call
//!            bytes    counts      └─▶ extensions, metadata
//!                          health, reflection
//! ```
//!
//! tonic does the framing and the compression. What a request may be and how it is computed
//! is decided where REST decides it: only messages are turned into requests here, and
//! failures into statuses.

mod convert;
mod health;
mod infer;
mod meter;
pub mod proto;
mod service;
mod stream;
mod timeout;
pub mod wire;

use axum::Router;
use axum::response::{IntoResponse as _, Response};
use axum::routing::any;
use http::{HeaderMap, Request, header};
use tonic::Status;
use tonic::codec::CompressionEncoding;
use tonic_health::pb::health_server::HealthServer;
use tower::ServiceExt as _;

pub use convert::decode;

use crate::respond::Failure;
use crate::routes::App;
use meter::Metering;
use proto::grpc_inference_service_server::GrpcInferenceServiceServer;
use service::Inference;

/// The service's name, as health checks and paths have it.
const INFERENCE: &str = "inference.GRPCInferenceService";

/// Encodings of messages that are read, and written to whom writes them.
const ENCODINGS: [CompressionEncoding; 3] =
    [CompressionEncoding::Gzip, CompressionEncoding::Deflate, CompressionEncoding::Zstd];

/// Calls of Triton's that are not served, and why.
const NOT_SERVED: [(&[&str], &str); 2] = [
    (
        &[
            "SystemSharedMemoryStatus",
            "SystemSharedMemoryRegister",
            "SystemSharedMemoryUnregister",
            "CudaSharedMemoryStatus",
            "CudaSharedMemoryRegister",
            "CudaSharedMemoryUnregister",
        ],
        "shared memory is not supported: send tensors as raw contents",
    ),
    (
        &["TraceSetting", "LogSettings"],
        "traces and logs are set where the server is started, not by request",
    ),
];

/// Whether a path is one of the services' here.
pub(crate) fn is_own(path: &str) -> bool {
    let service = path.strip_prefix('/').unwrap_or(path);
    service.starts_with(INFERENCE) || service.starts_with("grpc.")
}

/// The paths of all gRPC services.
pub(crate) fn routes(app: &App) -> Router<App> {
    let mut server = GrpcInferenceServiceServer::new(Inference::new(app.clone()))
        .max_decoding_message_size(usize::try_from(app.max_body).unwrap_or(usize::MAX))
        // An answer is as large as the model's outputs, which the engine bounds.
        .max_encoding_message_size(usize::MAX);
    for encoding in ENCODINGS {
        server = server.accept_compressed(encoding).send_compressed(encoding);
    }
    let metering = Metering::new(app);
    let server = server.map_request(move |request| metering.meter(request));
    let health = HealthServer::new(health::Health::new(app.repository.clone()));
    let mut router = Router::new()
        .route_service(&format!("/{INFERENCE}/{{*call}}"), server)
        .route_service("/grpc.health.v1.Health/{*call}", health.map_request(plain));
    for (calls, reason) in NOT_SERVED {
        for call in calls {
            let answer = any(move || async move { answer(Status::unimplemented(reason)) });
            router = router.route(&format!("/{INFERENCE}/{call}"), answer);
        }
    }
    reflection(router)
}

/// Add reflection, under the name it has and under the one that older clients ask for.
fn reflection(router: Router<App>) -> Router<App> {
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let (Ok(v1), Ok(v1alpha)) = (builder().build_v1(), builder().build_v1alpha()) else {
        tracing::error!("gRPC reflection is off: the protocol's descriptors cannot be read");
        return router;
    };
    router
        .route_service("/grpc.reflection.v1.ServerReflection/{*call}", v1.map_request(plain))
        .route_service(
            "/grpc.reflection.v1alpha.ServerReflection/{*call}",
            v1alpha.map_request(plain),
        )
}

/// Whether a request expects an answer in gRPC's form.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(http::HeaderValue::as_bytes);
    kind.is_some_and(|kind| kind.starts_with(b"application/grpc"))
}

/// An answer that is only a status.
fn answer(status: Status) -> Response {
    status.into_http::<axum::body::Body>().into_response()
}

/// The answer for a call that is not let in.
pub(crate) fn refused(failure: &Failure) -> Response {
    answer(failure.to_status())
}

/// The answer for a call that nobody serves: clients take this status, and no other, for a
/// server that is older than they are.
pub(crate) fn unknown(failure: &Failure) -> Response {
    answer(Status::unimplemented(failure.to_string()))
}

fn plain(request: Request<axum::body::Body>) -> Request<tonic::body::Body> {
    request.map(tonic::body::Body::new)
}
