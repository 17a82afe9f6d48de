//! Packages on their way: a real registry (`real`, run by `cargo xtask registry`), and a scripted
//! one that fails and lies as no real one does when asked to.

mod bundles;
mod gc;
mod liar;
mod lies;
mod pulls;
mod real;
mod signatures;
mod store;
mod support;
mod uploads;
