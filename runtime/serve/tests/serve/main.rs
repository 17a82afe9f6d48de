//! The server from outside: real packages, called in process and over sockets.

mod auth;
mod compression;
mod connections;
mod cost;
mod devices;
mod extensions;
mod floods;
mod grpc;
mod guests;
mod lifecycle;
mod page;
mod protocol;
mod queues;
mod reload;
mod slow;
mod smuggling;
mod support;
mod tls;
