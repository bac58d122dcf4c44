//! The system calls of `xenchannel`: it reads and writes descriptors that it has, is sent or accepts,
//! waits, and manages its own memory.

use crate::jail::{Call, SINGLE};

/// The calls.
pub fn calls() -> Vec<Call> {
    // On the sockets that configurations name; it has no other one that listens.
    let accept = Call::any(libc::SYS_accept4);
    SINGLE.map(Call::any).into_iter().chain([accept]).collect()
}
