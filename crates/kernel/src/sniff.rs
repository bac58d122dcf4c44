//! Names what a file that is not a kernel looks like, so that the error can say more than "no".

use std::fmt;

use crate::Compression;
use crate::bytes::{array, le16, printable};

/// What the first bytes of a file look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// No bytes at all.
    Empty,
    /// Only zero bytes.
    Zeros,
    /// An ELF file, of any machine and type.
    Elf,
    /// Data in a compression that kernels use.
    Compressed(Compression),
    /// A script; the text after `#!`.
    Script(String),
    /// A cpio archive: an initramfs.
    Cpio,
    /// A tar archive.
    Tar,
    /// A Windows or UEFI program without a Linux setup header, such as a boot loader or a kernel
    /// of another machine.
    EfiProgram,
    /// A QCOW disk image.
    Qcow,
    /// A disk image: a boot sector, but no Linux setup header.
    BootSector,
    /// A Debian package or another `ar` archive.
    Archive,
    /// Text; its first line.
    Text(String),
    /// None of these; the first eight bytes.
    Unknown([u8; 8]),
}

impl FileKind {
    /// Judges by the start of `data`; the first 512 bytes suffice.
    #[must_use]
    pub fn of(data: &[u8]) -> FileKind {
        if let Some(kind) = FileKind::by_magic(data) {
            return kind;
        }
        let head = data.get(..512).unwrap_or(data);
        if le16(data, 0x1fe) == Some(0xaa55) {
            FileKind::BootSector
        } else if head.iter().all(|&byte| byte == 0) {
            FileKind::Zeros
        } else if is_text(head) {
            FileKind::Text(first_line(head))
        } else {
            let mut first = [0; 8];
            first.iter_mut().zip(head).for_each(|(to, from)| *to = *from);
            FileKind::Unknown(first)
        }
    }

    fn by_magic(data: &[u8]) -> Option<FileKind> {
        if data.is_empty() {
            return Some(FileKind::Empty);
        }
        if data.starts_with(b"\x7fELF") {
            return Some(FileKind::Elf);
        }
        if let Some(text) = data.strip_prefix(b"#!") {
            return Some(FileKind::Script(first_line(text)));
        }
        if let Some(compression) = Compression::detect(data) {
            return Some(FileKind::Compressed(compression));
        }
        let is_cpio = [&b"070701"[..], b"070702", b"070707", b"\xc7\x71"];
        if is_cpio.iter().any(|magic| data.starts_with(magic)) {
            return Some(FileKind::Cpio);
        }
        if array(data, 257) == Some(*b"ustar") {
            return Some(FileKind::Tar);
        }
        let magics = [
            (&b"MZ"[..], FileKind::EfiProgram),
            (b"QFI\xfb", FileKind::Qcow),
            (b"!<arch>\n", FileKind::Archive),
        ];
        magics.into_iter().find(|(magic, _)| data.starts_with(magic)).map(|(_, kind)| kind)
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FileKind::Empty => f.write_str("empty"),
            FileKind::Zeros => f.write_str("only zero bytes"),
            FileKind::Elf => f.write_str("an ELF file"),
            FileKind::Compressed(compression) => write!(f, "{compression}-compressed data"),
            FileKind::Script(program) => write!(f, "a script for {program}"),
            FileKind::Cpio => f.write_str("a cpio archive (an initramfs?)"),
            FileKind::Tar => f.write_str("a tar archive"),
            FileKind::EfiProgram => f.write_str("an EFI or Windows program, not a Linux kernel"),
            FileKind::Qcow => f.write_str("a QCOW disk image"),
            FileKind::BootSector => f.write_str("a disk image or boot sector"),
            FileKind::Archive => f.write_str("a package or ar archive"),
            FileKind::Text(line) => write!(f, "text that starts with \"{line}\""),
            FileKind::Unknown(bytes) => {
                f.write_str("of an unknown kind that starts with the bytes")?;
                bytes.iter().try_for_each(|byte| write!(f, " {byte:02x}"))
            }
        }
    }
}

fn is_text(head: &[u8]) -> bool {
    head.iter().all(|&byte| byte >= b' ' && byte != 0x7f || byte.is_ascii_whitespace())
        && std::str::from_utf8(head).map_or_else(|error| error.error_len().is_none(), |_| true)
}

/// The first line, shortened to what fits a message.
fn first_line(text: &[u8]) -> String {
    const MAX: usize = 40;
    let line = text.trim_ascii_start().split(|&byte| byte == b'\n').next().unwrap_or_default();
    printable(line.get(..MAX).unwrap_or(line).trim_ascii_end())
}
