//! A hub with the real mosquitto, real repositories and sites that speak as agents do.

mod bench;
mod broker;
mod site;

mod enrol;
mod faults;
mod keys;
mod policy;
