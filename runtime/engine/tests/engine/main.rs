//! The engine driven through its public seam: packages on disk, compiled guests,
//! small ONNX models on tract.

mod aot;
mod command;
mod handler;
mod hostile;
mod http;
mod load;
mod module;
mod passthrough;
mod support;
