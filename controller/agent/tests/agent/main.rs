//! Agents over a real mosquitto and a real registry: run by `cargo xtask fleet`, which tells where they
//! are. The hub is a test's own here: a key, and what it says.

mod broken;
mod cable;
mod converge;
mod crowd;
mod killed;
mod load;
mod messages;
mod rig;
mod secure;
