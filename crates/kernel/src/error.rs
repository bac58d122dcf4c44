//! Why a file cannot be started as a guest kernel.
//!
//! Every message says what was found, what was expected and what to do about it.

use std::ops::Range;

use crate::{Compression, FileKind, NoteKind};

/// Why a file cannot be started as a guest kernel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Neither a bzImage nor an ELF file, nor a compressed ELF file.
    #[error(
        "The {} is {found}; expected a Linux kernel: a bzImage (/boot/vmlinuz-*) or an ELF vmlinux",
        place(*inside)
    )]
    NotAKernel {
        /// What it looks like.
        found: FileKind,
        /// The compression that this was found inside of, if any.
        inside: Option<Compression>,
    },

    /// The setup header is of a version without the location of the payload.
    #[error(
        "The kernel has boot protocol {}.{:02}, expected 2.08 or newer; use Linux 2.6.26 or newer, \
         or the ELF vmlinux of this kernel",
        version >> 8,
        version & 0xff
    )]
    OldBootProtocol {
        /// Major version in the high byte, minor in the low byte.
        version: u16,
    },

    /// The payload of a bzImage is in no compression that Linux uses.
    #[error(
        "The compressed kernel inside the bzImage is {found}; expected gzip, bzip2, lzma, xz, lzo, \
         lz4 or zstd data; copy the file again from its package"
    )]
    UnknownPayload {
        /// What it looks like.
        found: FileKind,
    },

    /// The file ends too early.
    #[error(
        "The file is {found} bytes long but its {part} ends at byte {expected}: it is cut short; \
         copy it again"
    )]
    Truncated {
        /// What does not fit.
        part: &'static str,
        /// Bytes needed.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },

    /// The payload does not decompress.
    #[error(
        "The {compression} data of the kernel is damaged or cut short after {offset} decompressed \
         bytes: {reason}; copy the file again"
    )]
    Corrupt {
        /// The compression.
        compression: Compression,
        /// Bytes decompressed before the error was seen; may be a block behind.
        offset: u64,
        /// What the decompressor says.
        reason: String,
    },

    /// The payload decompresses to another length than the bzImage states.
    #[error(
        "The {compression} data of the kernel decompresses to {found} bytes, expected {stated}: \
         the file is damaged; copy it again"
    )]
    WrongLength {
        /// The compression.
        compression: Compression,
        /// Length at the end of the payload, in bytes.
        stated: u32,
        /// Length that it decompresses to, in bytes.
        found: u64,
    },

    /// The kernel decompresses to more than the limit.
    #[error(
        "The kernel's {compression} data decompresses to more than the limit of {limit} bytes; use \
         a smaller kernel or raise the limit"
    )]
    OutputTooLarge {
        /// The compression.
        compression: Compression,
        /// The limit, in bytes.
        limit: u64,
    },

    /// An ELF file of 32-bit class.
    #[error("The kernel is a 32-bit ELF file, expected a 64-bit one; use an amd64 kernel")]
    Elf32,

    /// An ELF file of another machine.
    #[error(
        "The kernel is an ELF file for machine {machine}, expected 62 (x86-64); use an amd64 kernel"
    )]
    WrongMachine {
        /// `e_machine`.
        machine: u16,
    },

    /// An ELF file in big-endian byte order.
    #[error("The kernel is a big-endian ELF file, expected little-endian; use an amd64 kernel")]
    BigEndian,

    /// An ELF file that is no program: an object, a kernel module, a core dump.
    #[error(
        "The kernel is an ELF file of type {elf_type} ({}), expected an executable; use vmlinux or \
         vmlinuz",
        type_name(*elf_type)
    )]
    WrongType {
        /// `e_type`.
        elf_type: u16,
    },

    /// ELF headers that contradict themselves.
    #[error("The kernel's ELF headers are damaged: {reason}; copy the file again")]
    BadElf {
        /// What is wrong.
        reason: String,
    },

    /// No segment to load.
    #[error("The kernel's ELF file has nothing to load, expected segments of type PT_LOAD")]
    NoSegments,

    /// A segment whose address range wraps around, or with more bytes in the file than in memory.
    #[error(
        "The kernel's segment {index} has {file_size:#x} bytes in the file and {mem_size:#x} at \
         physical address {paddr:#x}, which is impossible: the file is damaged; copy it again"
    )]
    BadSegment {
        /// Index among the program headers.
        index: usize,
        /// Guest-physical address, in bytes.
        paddr: u64,
        /// Bytes in the file.
        file_size: u64,
        /// Bytes in memory.
        mem_size: u64,
    },

    /// Two segments claim the same memory.
    #[error(
        "The kernel's segments at physical addresses {:#x}-{:#x} and {:#x}-{:#x} overlap: the file \
         is damaged; copy it again",
        first.start, first.end, second.start, second.end
    )]
    SegmentsOverlap {
        /// Addresses of the lower one, in bytes.
        first: Range<u64>,
        /// Addresses of the upper one.
        second: Range<u64>,
    },

    /// The segments reach over more memory than the limit.
    #[error(
        "The kernel's segments span {span} bytes of memory, the limit is {limit}; use a smaller \
         kernel or raise the limit"
    )]
    SpanTooLarge {
        /// From the lowest to the highest address, in bytes.
        span: u64,
        /// The limit, in bytes.
        limit: u64,
    },

    /// No Xen notes at all.
    #[error(
        "The kernel has no Xen notes: it is built without Xen PV support; use a kernel with \
         CONFIG_XEN_PV=y, such as a distribution's"
    )]
    NoXenNotes,

    /// Xen notes for the PVH mode only.
    #[error(
        "The kernel can start on Xen only in PVH mode (entry {phys32_entry:#x}): it is built \
         without PV support; use a kernel with CONFIG_XEN_PV=y"
    )]
    PvhOnly {
        /// The note `PHYS32_ENTRY`: a physical address, in bytes.
        phys32_entry: u64,
    },

    /// A Xen note with a value that cannot be.
    #[error("The kernel's Xen note {note} is wrong: {reason}")]
    BadNote {
        /// Which.
        note: NoteKind,
        /// The value, and what was expected.
        reason: String,
    },

    /// A Xen note that is needed is not there.
    #[error("The kernel has no Xen note {note}, which is needed to start it; rebuild the kernel")]
    MissingNote {
        /// Which.
        note: NoteKind,
    },

    /// The kernel is made for another interface version.
    #[error("The kernel is made for \"{found}\", expected \"xen-3.0\"")]
    WrongXenVersion {
        /// The note `XEN_VERSION`.
        found: String,
    },

    /// The kernel wants a loader of its own kind.
    #[error(
        "The kernel is for guest system \"{guest_os}\" and loader \"{loader}\", expected system \
         \"linux\" or loader \"generic\""
    )]
    WrongLoader {
        /// The note `GUEST_OS`, empty if there is none.
        guest_os: String,
        /// The note `LOADER`, empty if there is none.
        loader: String,
    },

    /// An address in the notes does not fit the segments.
    #[error(
        "The kernel's {what} is {value:#x}, expected an address in {:#x}-{:#x}, where its segments \
         are mapped",
        range.start, range.end
    )]
    OutsideKernel {
        /// Which address.
        what: &'static str,
        /// Virtual address, in bytes.
        value: u64,
        /// Virtual addresses of the segments.
        range: Range<u64>,
    },
}

fn place(inside: Option<Compression>) -> String {
    inside.map_or_else(|| "file".to_owned(), |kind| format!("content of the {kind} data"))
}

fn type_name(elf_type: u16) -> &'static str {
    match elf_type {
        1 => "an object file or kernel module",
        4 => "a core dump",
        _ => "unknown",
    }
}
