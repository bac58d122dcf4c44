//! The only unsafe code of this crate: mapped memory, protection keys, fork and
//! exec, signals, the TSC and XCR0.

#[allow(unsafe_code)]
mod cpuid;
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

pub use self::cpuid::{ThisHost, can_fault_on_cpuid};
pub use fork::{JailedProgram, SpawnError, Step, Wall, Walls, spawn};
pub use keys::has_protection_keys;
pub use tsc::read_tsc;
