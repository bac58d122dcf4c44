//! The monitor: what runs inside a space.
//!
//! A space is one jailed process that holds one guest address space (or none
//! yet) and the guest kernel's half. All spaces of a domain share the arena, in
//! which the [`state::Monitor`] lives; whichever space runs the vCPU is the
//! only one that touches it.
#![no_std]
#![no_main]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

extern crate alloc;

mod code;
mod cpuid;
mod crash;
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
mod mem;
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

#[global_allocator]
static HEAP: heap::Arena = heap::Arena;

#[panic_handler]
fn on_panic(info: &core::panic::PanicInfo) -> ! {
    crash::panicked(info)
}

/// What an unwinder would call; nothing unwinds here, but unoptimised builds refer to it.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// See [`rust_eh_personality`].
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    sys::exit(99)
}
