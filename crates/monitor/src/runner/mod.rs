//! Guest programs in processes of their own, for hosts without protection keys.
//!
//! A *runner* holds the user half of one guest address space and nothing else:
//! no kernel page, no arena. The space, which then holds only the kernel half,
//! fills the runner's *mailbox* with registers and mapping commands, gives it
//! the turn, and gets it back when the program makes a system call, faults or
//! is interrupted. User memory that the guest kernel touches is reached by
//! frame (`reach`), so user pages are mapped in runners alone, and no host
//! address has two owners.
//!
//! - `mailbox` is what both sides share.
//! - `process` is the runner's side, `gates` its way to the program and back, `filter` what of the
//!   host a program can still ask for there.
//! - `turn` is the space's side; `commands` changes a runner's mappings.
//! - `vector` says where the vector state is.
//! - `pool` finds, makes and recycles runners; `gone` replaces those that died or do not answer.

mod commands;
mod filter;
mod gates;
mod gone;
pub(crate) mod mailbox;
mod pool;
mod process;
mod reach;
mod turn;
mod vector;

pub use filter::LONGEST;
pub use gates::syscall as syscall_gate;
pub use pool::Pool;
pub use process::{become_nursery, on_signal};
pub use reach::init_places;
pub use turn::ticks;
