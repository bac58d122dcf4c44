//! Host mappings as the TLB: guest page-table entries become mappings of the
//! RAM memfd, one host page with one owner.
//!
//! - `mapped` remembers what is installed, by 2 MiB region.
//! - `user` and `kernel` install, each for its half; `around` adds neighbours.
//! - `flush` drops what the guest's tables no longer say.
//! - `huge` asks the host for huge pages.
//!
//! Invariants: a protected frame (translations or a shadow copy made from it)
//! is mapped writable nowhere in the running space; a user page at a host
//! address where the kernel half has addresses too bears the key
//! `SHARED_ADDRESS`, which kernel mode cannot touch; what is remembered of a
//! page is mapped, so that what is done to a run of pages is done to each.

mod alias;
mod around;
mod flush;
mod host;
mod huge;
mod kernel;
mod linear;
mod mapped;
mod user;

#[cfg(fuzzing)]
pub use alias::is_aliased;
pub use alias::{operand_size, writes_memory};
pub use host::Access as MapAccess;
pub use huge::HugePages;
pub use kernel::{Outcome, is_linear};
pub use linear::Linear;
pub use mapped::{Half, Installed};
pub use user::{END as HIGHEST, LOWEST, UserAccess, code, is_available, is_reserved, reserved};
