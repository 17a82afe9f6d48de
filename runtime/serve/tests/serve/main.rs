//! The server from outside: real packages, called in process and over sockets.

mod connections;
mod cost;
mod extensions;
mod grpc;
mod guests;
mod protocol;
mod reload;
mod support;
