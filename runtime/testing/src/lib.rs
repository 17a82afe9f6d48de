//! Material for tests and benchmarks: ONNX models built in memory.
//!
//! Every model is deterministic: the same call gives the same bytes on any machine.

pub mod onnx;
