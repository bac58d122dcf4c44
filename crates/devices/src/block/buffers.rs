//! Guest memory that a request reads or writes, as the host's calls want it.

use crate::guest::Guest;
use std::fmt;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

/// Pieces of guest memory, one after another.
#[derive(Default)]
pub struct Buffers {
    pieces: Vec<libc::iovec>,
    bytes: usize,
    /// Keeps the memory mapped.
    _guest: Option<Arc<Guest>>,
}

// SAFETY: the pieces are addresses in a mapping that any thread may use, and that `_guest` keeps.
unsafe impl Send for Buffers {}

impl fmt::Debug for Buffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffers({} bytes in {} pieces)", self.bytes, self.pieces.len())
    }
}

impl Buffers {
    /// No memory yet, of this guest.
    pub fn new(guest: &Arc<Guest>, pieces: usize) -> Self {
        Self { pieces: Vec::with_capacity(pieces), bytes: 0, _guest: Some(guest.clone()) }
    }

    /// Adds `length` bytes of the guest's memory.
    pub fn push(&mut self, at: NonNull<u8>, length: usize) {
        self.bytes += length;
        match self.pieces.last_mut() {
            Some(last) if last.iov_base.wrapping_byte_add(last.iov_len) == at.as_ptr().cast() => {
                last.iov_len += length;
            }
            _ => {
                let piece = libc::iovec { iov_base: at.as_ptr().cast(), iov_len: length };
                self.pieces.push(piece);
            }
        }
    }

    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// The pieces.
    pub fn pieces(&self) -> &[libc::iovec] {
        &self.pieces
    }

    /// The pieces without the first `done` bytes.
    pub fn rest(&self, mut done: usize) -> Vec<libc::iovec> {
        let mut rest = Vec::with_capacity(self.pieces.len());
        for piece in &self.pieces {
            let skip = done.min(piece.iov_len);
            done -= skip;
            if skip < piece.iov_len {
                let iov_base = piece.iov_base.wrapping_byte_add(skip);
                rest.push(libc::iovec { iov_base, iov_len: piece.iov_len - skip });
            }
        }
        rest
    }

    /// Copies out of guest memory.
    pub fn copy_out(&self) -> Vec<u8> {
        let mut bytes = vec![0u8; self.bytes];
        let mut rest = bytes.as_mut_slice();
        for piece in &self.pieces {
            let Some((to, behind)) = rest.split_at_mut_checked(piece.iov_len) else { break };
            // SAFETY: the piece lies in guest memory, which stays mapped and is none of ours; that it
            // changes meanwhile makes the bytes arbitrary, as they are anyway.
            unsafe {
                std::ptr::copy_nonoverlapping(piece.iov_base.cast(), to.as_mut_ptr(), to.len());
            }
            rest = behind;
        }
        bytes
    }

    /// Copies into guest memory, as many bytes as there are.
    pub fn copy_in(&self, mut bytes: &[u8]) {
        for piece in &self.pieces {
            let (from, behind) = bytes.split_at(piece.iov_len.min(bytes.len()));
            // SAFETY: as above; whoever made the buffers may write to them if they are read into.
            unsafe {
                std::ptr::copy_nonoverlapping(from.as_ptr(), piece.iov_base.cast(), from.len());
            }
            bytes = behind;
        }
    }
}

/// Calls `step` with what is left until all bytes went through, beginning behind `done`.
///
/// # Errors
/// Those of `step`; `UnexpectedEof` when it moves nothing.
pub fn move_all(
    buffers: &Buffers,
    mut done: usize,
    mut step: impl FnMut(&[libc::iovec], u64) -> isize,
) -> io::Result<()> {
    while done < buffers.len() {
        let rest;
        let pieces = if done == 0 {
            buffers.pieces()
        } else {
            rest = buffers.rest(done);
            &rest
        };
        match step(pieces, done as u64) {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            moved if moved > 0 => done += moved.cast_unsigned(),
            _ => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}
