//! The server from outside: real packages, called in process and over sockets.

mod connections;
mod cost;
mod extensions;
mod guests;
mod lifecycle;
mod protocol;
mod queues;
mod reload;
mod support;
