//! The store's process: one for all domains of a run-time directory.
//!
//! [`Server`] owns the [`store::Store`], listens on two sockets (see [`control::xenstore`]), and
//! writes what changes into a journal before anybody is told of it. So the process may die at any
//! point: the next one goes on where it was, and domains, which connect anew, do not notice.
//!
//! One thread does everything, so nothing is locked. Each domain has a share of its time
//! ([`Budget`]); a domain that has used its share waits, and the others do not.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod budget;
mod client;
mod domains;
mod doors;
mod jail;
mod journal;
mod server;

pub use budget::Budget;
pub use jail::confine;
pub use journal::{Journal, JournalError};
pub use server::{ServeError, Server};
