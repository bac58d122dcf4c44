//! The monitor: what runs inside a space.
//!
//! A space is one jailed process that holds one guest address space (or none
//! yet) and the guest kernel's half. All spaces of a domain share the arena, in
//! which the [`state::Monitor`] lives; whichever space runs the vCPU is the
//! only one that touches it.
//!
//! With `cfg(fuzzing)` it is a library that runs in a fuzzer's process: see
//! `fuzz/monitor`.
#![no_std]
#![cfg_attr(not(fuzzing), no_main)]
#![cfg_attr(fuzzing, allow(dead_code, unused_imports))]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

extern crate alloc;
#[cfg(fuzzing)]
extern crate std;

mod backends;
mod code;
mod cpuid;
mod crash;
#[allow(clippy::indexing_slicing, reason = "to be reworked with the scanning of user code")]
mod direct;
mod emulate;
mod event;
mod gate;
mod guest;
mod heap;
mod hypercall;
mod immediate;
mod layout;
mod log;
#[cfg(not(fuzzing))]
mod mem;
mod moves;
mod proven;
mod restore;
mod run;
mod runner;
mod scan;
mod segment;
mod signal;
mod space;
mod start;
mod state;
mod string;
mod sys;
mod time;
mod tlb;
mod trap;
mod user_signal;
mod watch;

#[cfg(fuzzing)]
#[path = "../../../fuzz/monitor/harness/mod.rs"]
pub mod harness;

#[cfg(not(fuzzing))]
#[global_allocator]
static HEAP: heap::Arena = heap::Arena;

#[cfg(not(fuzzing))]
#[panic_handler]
fn on_panic(info: &core::panic::PanicInfo) -> ! {
    crash::panicked(info)
}

/// What an unwinder would call; nothing unwinds here, but unoptimised builds refer to it.
#[cfg(not(fuzzing))]
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// See [`rust_eh_personality`].
#[cfg(not(fuzzing))]
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    sys::exit(99)
}
