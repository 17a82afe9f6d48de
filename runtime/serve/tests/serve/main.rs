//! The server from outside: real packages, called in process and over sockets.

mod compression;
mod connections;
mod cost;
mod extensions;
mod guests;
mod page;
mod protocol;
mod reload;
mod support;
