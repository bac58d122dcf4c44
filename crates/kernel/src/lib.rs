//! Guest kernel images: bzImage payloads, ELF, Xen notes.
//!
//! A guest kernel arrives as one file: a Linux bzImage (`/boot/vmlinuz-*`), a plain ELF `vmlinux`,
//! or such an ELF file compressed. [`KernelImage::load`] unpacks it, reads its ELF program headers
//! and its Xen notes, and checks everything a domain builder relies on, so that what it returns can
//! be copied into guest memory and entered:
//!
//! 1. `bzimage` finds the payload through the setup header;
//! 2. `compression` unpacks it (gzip, bzip2, lzma, xz, lzo, lz4, zstd), never beyond a limit;
//! 3. `elf` checks the file header and lists what to load where;
//! 4. `notes` reads the Xen notes, the kernel's side of the start-of-day agreement.
//!
//! The file is hostile input: nothing here trusts a size or an offset that it states, no input makes
//! it panic, and the memory used is bounded by [`Limits`], plus a decompressor's window of at most
//! 128 MiB or the same limit.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod bytes;
mod bzimage;
mod compression;
mod elf;
mod error;
mod features;
mod image;
mod lz4;
mod lzo;
mod notes;
mod output;
mod sniff;

pub use bzimage::{BzImage, find_payload};
pub use compression::{Compression, decompress};
pub use elf::Segment;
pub use error::Error;
pub use features::{Feature, Features};
pub use image::{KernelImage, PteMark};
pub use notes::{NoteKind, XenNotes, parse_notes};
pub use sniff::FileKind;

/// Bounds on what loading a kernel may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest decompressed kernel file, and largest span of its segments in guest memory, in
    /// bytes.
    pub max_output: u64,
}

impl Default for Limits {
    /// 512 MiB: about eight times the largest distribution kernel.
    fn default() -> Limits {
        Limits { max_output: 512 << 20 }
    }
}
