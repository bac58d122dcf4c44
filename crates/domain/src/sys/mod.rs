//! The only unsafe code of this crate: mapped memory, protection keys, fork and
//! exec, signals, CPU time, the TSC and XCR0. And what belongs to these.

#[allow(unsafe_code)]
pub mod cpu_time;
#[allow(unsafe_code)]
mod cpuid;
#[allow(unsafe_code)]
mod fork;
#[allow(unsafe_code)]
mod jail;
#[allow(unsafe_code)]
mod keys;
#[allow(unsafe_code)]
pub mod memory;
#[allow(unsafe_code)]
pub mod signals;
#[allow(unsafe_code)]
mod tsc;

mod pids;
mod walls;

pub use self::cpuid::{ThisHost, can_fault_on_cpuid};
pub use fork::{JailedProgram, Keeper, Kind, SpawnError, Spawned, Step, spawn};
pub use keys::{has_dispatch, has_io_uring, has_protection_keys, landlock_version};
pub use pids::{blocks as blocks_signal, find as find_by_number_inside};
pub use tsc::read_tsc;
pub use walls::{Wall, Walls};
