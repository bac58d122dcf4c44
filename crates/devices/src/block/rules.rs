//! The system calls of `xenblock`.

use super::image::ioctl;
use crate::jail::{Call, THREADED};

/// The calls. (What io_uring does is not among them: the ring has rules of its own.)
pub fn calls() -> Vec<Call> {
    let mut calls = THREADED.map(Call::any).to_vec();
    calls.extend([
        Call::any(libc::SYS_io_uring_enter),
        Call::any(libc::SYS_preadv),
        Call::any(libc::SYS_pwritev),
        Call::any(libc::SYS_preadv2),
        Call::any(libc::SYS_pwritev2),
        Call::any(libc::SYS_fdatasync),
        Call::any(libc::SYS_fallocate),
        // Image files grow.
        Call::any(libc::SYS_ftruncate),
    ]);
    let requests = [ioctl::SECTOR_SIZE, ioctl::PHYSICAL_SECTOR_SIZE, ioctl::SIZE, ioctl::DISCARD];
    calls.extend(requests.map(|request| Call::with(libc::SYS_ioctl, 1, request)));
    calls
}
