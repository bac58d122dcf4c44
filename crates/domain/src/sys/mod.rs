//! The only unsafe code of this crate: mapped memory, fork and exec, signals, the TSC.

#[allow(unsafe_code)]
mod fork;
#[allow(unsafe_code)]
pub mod memory;
#[allow(unsafe_code)]
pub mod signals;
#[allow(unsafe_code)]
mod tsc;

pub use fork::{JailedProgram, SpawnError, Step, Wall, Walls, spawn};
pub use tsc::read_tsc;
