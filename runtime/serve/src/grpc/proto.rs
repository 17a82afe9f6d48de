//! The messages and the service of `proto/inference.proto`, compiled by the build script.

#![allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::too_many_lines,
    clippy::allow_attributes_without_reason,
    reason = "the code is generated; the proto file says what things are"
)]

/// All messages of the protocol, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/inference.bin"));

/// A client, for tests and benchmarks.
pub mod client {
    include!(concat!(env!("OUT_DIR"), "/client/inference.rs"));
    pub use grpc_inference_service_client::GrpcInferenceServiceClient;
}

include!(concat!(env!("OUT_DIR"), "/inference.rs"));
