//! The activator over real sockets: real clients before it, a small real server behind it.

mod cold;
mod control;
mod ending;
mod faults;
mod grpc;
mod pass;
mod stage;
mod upstream;
