//! The parts of a packet that lie in the guest's pages.
//!
//! The guest may change them at any time. Headers are copied once, checked, and sent from the copy;
//! the rest is only ever passed on.

use super::headers::LOOKED_AT;
use super::netif::MOST_SLOTS;
use crate::guest::Grant;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Bytes of a granted page.
#[derive(Debug)]
struct Part {
    grant: Grant,
    offset: usize,
    length: usize,
}

/// A packet of the guest's: the start of it copied, the rest in the guest's pages.
#[derive(Debug)]
pub struct Packet {
    head: [u8; LOOKED_AT],
    copied: usize,
    parts: Vec<Part>,
}

impl Default for Packet {
    fn default() -> Self {
        Self { head: [0; LOOKED_AT], copied: 0, parts: Vec::with_capacity(MOST_SLOTS) }
    }
}

impl Packet {
    /// Forgets the packet, and lets the guest have its pages back.
    pub fn clear(&mut self) {
        self.parts.clear();
        self.copied = 0;
    }

    /// Adds bytes of a page; `None` if they do not lie in it.
    pub fn push(&mut self, grant: Grant, offset: usize, length: usize) -> Option<()> {
        grant.at(offset, length)?;
        let room = self.head.get_mut(self.copied..).unwrap_or_default();
        let count = length.min(room.len());
        grant.read(offset, room.get_mut(..count)?)?;
        self.copied += count;
        self.parts.push(Part { grant, offset: offset + count, length: length - count });
        Some(())
    }

    /// The copied start.
    pub fn head(&self) -> &[u8] {
        self.head.get(..self.copied).unwrap_or_default()
    }

    /// The copied start, to be changed.
    pub fn head_mut(&mut self) -> &mut [u8] {
        self.head.get_mut(..self.copied).unwrap_or_default()
    }

    /// Appends the whole packet to `to`.
    pub fn copy_to(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(self.head());
        for part in &self.parts {
            let start = to.len();
            to.resize(start + part.length, 0);
            if let Some(place) = to.get_mut(start..) {
                let _lies_in_the_page = part.grant.read(part.offset, place);
            }
        }
    }

    /// Writes `before` and the packet as one message (writev(2)), without copying it here.
    ///
    /// # Errors
    /// As the system says.
    pub fn write_to(&self, before: &[u8], fd: impl AsFd) -> io::Result<()> {
        let none = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        let mut list = [none; MOST_SLOTS + 2];
        let own = [before, self.head()].map(|bytes| libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        });
        let parts = self.parts.iter().filter(|part| part.length > 0).filter_map(|part| {
            let at = part.grant.at(part.offset, part.length)?;
            Some(libc::iovec { iov_base: at.as_ptr().cast(), iov_len: part.length })
        });
        let mut count = 0;
        for (place, piece) in list.iter_mut().zip(own.into_iter().chain(parts)) {
            *place = piece;
            count += 1;
        }
        let fd = fd.as_fd().as_raw_fd();
        // SAFETY: the first `count` pieces are ours, borrowed for this call, or lie in the mapped
        // memory of the guest (`Grant::at`); the kernel only reads them.
        let written = unsafe { libc::writev(fd, list.as_ptr(), count) };
        if written < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}
