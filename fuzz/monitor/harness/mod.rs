//! The monitor in a fuzzer's process: one space without guest code.
//!
//! Everything lies at the addresses where a space has it, so the process is linked as a space is
//! (`fuzz/build.rs`). The monitor's system calls come to [`host`], which keeps a record of what would
//! be mapped instead of mapping it, plays the other spaces and the runners, and refuses what the jail
//! would refuse. An input is a first byte of settings and then steps ([`steps`]): guest memory is
//! written, hypercalls are made, pages touched, instructions emulated.
//!
//! What must hold after each step, besides that nothing panics or faults: see [`check`].
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a fuzz target says what it found"
)]

mod check;
mod guest;
mod host;
mod input;
mod steps;

pub use host::call6;
pub use steps::{EMULATE, HYPERCALLS, TABLES};

use alloc::boxed::Box;
use boundary::{at, setup_flag};

use crate::{code::Code, gate, layout, runner, space, start, state};
use input::Input;
use steps::Steps;

/// Most steps of one input.
const MOST: usize = 80;

/// Maps everything; once, before the first input. Starts the program again without random places if
/// the heap lies where the monitor's things do.
pub fn init() {
    host::free_the_places();
    // Without keys: there need be none, and both ways have the same places.
    host::make_files(guest::setup(setup_flag::SEPARATE));
    start::prepare();
    host::arm();
}

/// What the monitor says when translated code would run.
///
/// # Safety
/// None is needed; the gate it stands for has the same signature.
pub unsafe fn enter_kernel() {
    let c = gate::context();
    let (reason, target) = host::host().leaving;
    (c.reason, c.target, c.rip) = (reason, target, target);
}

/// Runs one input.
pub fn run(data: &[u8], kinds: &[steps::Kind]) {
    let mut input = Input::new(data);
    let settings = input.byte();
    let flags = if settings & 1 != 0 { setup_flag::SEPARATE } else { 0 }
        | if settings & 3 == 2 { setup_flag::TRANSLATE_USER } else { 0 };
    reset(flags);
    let m = start::build(take_code());
    let host = host::host();
    host.fresh.get_or_insert((m.code.next_code, m.code.next_stub));
    host.begin(settings);
    if settings & 4 != 0 {
        // Time goes on; else it stands still.
        m.setup.tsc_mul = 1 << 31;
    }
    let mut steps = Steps::new(kinds);
    for _ in 0..MOST {
        if input.is_empty() || m.ended {
            break;
        }
        steps.step(m, &mut input);
        check::after_step(m);
    }
    check::untouched(m);
    // SAFETY: `build` leaked this box; nothing refers to it any more.
    let m = unsafe { Box::from_raw(core::ptr::from_mut(m)) };
    keep_code(m.code);
}

/// An empty code cache: a new one fills 2 MiB of tables, which nothing here adds to.
fn take_code() -> Code {
    host::host().code.take().unwrap_or_else(Code::new)
}

fn keep_code(mut code: Code) {
    let fresh = host::host().fresh;
    (code.next_code, code.next_stub) = fresh.unwrap_or((code.next_code, code.next_stub));
    (code.generation, code.recent, code.recent_next) = (0, [0; boundary::LAST_BLOCKS], 0);
    code.blocks.clear();
    code.links.clear();
    code.entries.clear();
    code.index.clear();
    code.by_frame.clear();
    code.alone.clear();
    code.user_access.clear();
    host::host().code = Some(code);
}

/// Everything as it is when a domain starts.
fn reset(flags: u32) {
    host::host().end();
    guest::fill();
    let zero = |at: u64, len: u64| {
        // SAFETY: places of the monitor's, mapped by `prepare`, which nothing uses now.
        unsafe { core::ptr::write_bytes(at as *mut u8, 0, len as usize) };
    };
    zero(at::ARENA, size_of::<boundary::DomainPage>() as u64);
    host::write_setup(guest::setup(flags));
    zero(at::ARENA + layout::ARENA_CONTEXT, 0x8000);
    zero(layout::PRIVATE, 0x2000);
    zero(layout::CONTINUE, layout::CONTINUE_ENTRIES as u64 * 16);
    zero(layout::LOCAL, 0x1000);
    for runner in 0..host::host().take_runners() {
        let part = at::ARENA + runner::mailbox::part_of(runner);
        zero(part, size_of::<runner::mailbox::Mailbox>() as u64);
        zero(part + layout::RUNNER_ORDERS, size_of::<runner::mailbox::Orders>() as u64);
    }
    if flags & setup_flag::SEPARATE == 0 {
        host::clear_aliases();
    }
    crate::direct::init_tables();
    runner::init_places();
    debug_assert!(state::page().setup.flags == flags && space::local().index == 0);
}
