//! The system calls of `xennet`: it reads and writes descriptors that it has or is sent, waits, and
//! manages its own memory.

use super::ioctl::SET_OFFLOADS;
use crate::jail::{Call, SINGLE};

/// The calls.
pub fn calls() -> Vec<Call> {
    let mut calls = SINGLE.map(Call::any).to_vec();
    // Frames lie in several pages.
    calls.push(Call::any(libc::SYS_writev));
    let requests = [SET_OFFLOADS, libc::FIONBIO];
    calls.extend(requests.map(|request| Call::with(libc::SYS_ioctl, 1, request)));
    calls
}
