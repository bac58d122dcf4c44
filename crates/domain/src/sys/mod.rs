//! The only unsafe code of this crate: mapped memory, protection keys, fork and
//! exec, signals, the TSC.

#[allow(unsafe_code)]
mod fork;
#[allow(unsafe_code)]
mod keys;
#[allow(unsafe_code)]
pub mod memory;
#[allow(unsafe_code)]
pub mod signals;
#[allow(unsafe_code)]
mod tsc;

pub use fork::{JailedProgram, SpawnError, Step, Wall, Walls, spawn};
pub use keys::has_protection_keys;
pub use tsc::read_tsc;
