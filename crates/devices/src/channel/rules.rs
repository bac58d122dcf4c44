//! The system calls of `xenchannel`: it reads and writes descriptors that it has or is sent, waits, and
//! manages its own memory.

use crate::jail::{Call, SINGLE};

/// The calls.
pub fn calls() -> Vec<Call> {
    SINGLE.map(Call::any).to_vec()
}
