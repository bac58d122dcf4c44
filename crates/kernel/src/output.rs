//! The buffer a kernel is decompressed into: bounded, allocated once, never cleared by hand.
//!
//! The buffer comes zeroed from the allocator. For the sizes of a kernel that is fresh memory from
//! the operating system, which costs nothing until it is written, so a hint that is too large, even
//! a hostile one, uses address space but no memory.

use std::io::Read;

use crate::{Compression, Error, FileKind};

/// Smallest buffer; a kernel without size hint grows from here by doubling.
const MIN_SIZE: usize = 1 << 20;
/// Bytes that must be decompressed before the head check can tell what they are.
const HEAD: usize = 512;

/// Decompressed bytes so far, in a buffer that may be larger.
pub(crate) struct Output {
    buffer: Vec<u8>,
    used: usize,
    limit: usize,
    compression: Compression,
    head: Head,
}

/// Whether the first decompressed bytes have been looked at.
#[derive(PartialEq, Eq)]
enum Head {
    Unchecked,
    Checked,
}

impl Output {
    /// A buffer for about `hint` bytes and never more than `limit`.
    pub(crate) fn new(compression: Compression, hint: u64, limit: u64) -> Output {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let hint = usize::try_from(hint).unwrap_or(usize::MAX);
        let size = hint.max(MIN_SIZE).min(limit);
        Output { buffer: vec![0; size], used: 0, limit, compression, head: Head::Unchecked }
    }

    /// Free bytes to decompress into, at least `want` of them, or fewer (but not none) at the
    /// limit.
    pub(crate) fn space(&mut self, want: usize) -> Result<&mut [u8], Error> {
        let needed = self.used.saturating_add(want);
        if needed > self.buffer.len() {
            self.grow(needed);
        }
        let too_large = self.too_large();
        let free = self.buffer.get_mut(self.used..).unwrap_or_default();
        if free.is_empty() && want > 0 { Err(too_large) } else { Ok(free) }
    }

    /// The error for a payload that does not fit the limit.
    pub(crate) fn too_large(&self) -> Error {
        Error::OutputTooLarge { compression: self.compression, limit: self.limit as u64 }
    }

    /// Counts `length` bytes of the free space as decompressed.
    ///
    /// Stops with [`Error::NotAKernel`] as soon as the first bytes show that this is no ELF file:
    /// a large compressed initramfs is then named as what it is, not unpacked to the limit first.
    pub(crate) fn commit(&mut self, length: usize) -> Result<(), Error> {
        self.used = self.used.saturating_add(length).min(self.buffer.len());
        if self.head == Head::Unchecked && self.used >= HEAD { self.check_head() } else { Ok(()) }
    }

    /// Appends all that `reader` gives.
    pub(crate) fn fill_from(&mut self, reader: &mut impl Read) -> Result<(), Error> {
        loop {
            let space = match self.space(1) {
                Ok(space) => space,
                // At the limit: only an error if there is more to come.
                Err(error) => return self.expect_end(reader, error),
            };
            match reader.read(space) {
                Ok(0) => return Ok(()),
                Ok(length) => self.commit(length)?,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.corrupt(&error)),
            }
        }
    }

    /// The error for a payload that does not decompress.
    pub(crate) fn corrupt(&self, reason: &(impl ToString + ?Sized)) -> Error {
        Error::Corrupt {
            compression: self.compression,
            offset: self.used as u64,
            reason: reason.to_string(),
        }
    }

    /// The decompressed bytes.
    pub(crate) fn finish(mut self) -> Result<Vec<u8>, Error> {
        if self.head == Head::Unchecked {
            self.check_head()?;
        }
        self.buffer.truncate(self.used);
        // A hint far too large would otherwise stay reserved as long as the image lives.
        if self.buffer.capacity() / 2 > self.used {
            self.buffer.shrink_to_fit();
        }
        Ok(self.buffer)
    }

    fn expect_end(&self, reader: &mut impl Read, too_large: Error) -> Result<(), Error> {
        match reader.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(too_large),
            Err(error) => Err(self.corrupt(&error)),
        }
    }

    fn grow(&mut self, needed: usize) {
        let size = needed.max(self.buffer.len().saturating_mul(2)).min(self.limit);
        if size > self.buffer.len() {
            self.buffer.resize(size, 0);
        }
    }

    fn check_head(&mut self) -> Result<(), Error> {
        self.head = Head::Checked;
        let head = self.buffer.get(..self.used).unwrap_or_default();
        match FileKind::of(head) {
            FileKind::Elf => Ok(()),
            found => Err(Error::NotAKernel { found, inside: Some(self.compression) }),
        }
    }
}
