//! The Linux/x86 setup header: where a bzImage keeps its compressed kernel.
//!
//! Source: the Linux/x86 boot protocol (`Documentation/arch/x86/boot.rst`). The header starts at
//! file offset 0x1f1; the protected-mode part, against which `payload_offset` counts, starts after
//! the boot sector and `setup_sects` further sectors of 512 bytes.

use std::ops::Range;

use crate::Error;
use crate::bytes::{le16, le32, printable};

const SECTOR: usize = 512;
const SETUP_SECTS: usize = 0x1f1;
const BOOT_FLAG: usize = 0x1fe;
const HEADER_MAGIC: usize = 0x202;
const VERSION: usize = 0x206;
const KERNEL_VERSION: usize = 0x20e;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
/// First protocol version with `payload_offset` and `payload_length` (Linux 2.6.26).
const FIRST_WITH_PAYLOAD: u16 = 0x0208;
/// `setup_sects` of 0 means 4, as in the first version of the protocol.
const DEFAULT_SETUP_SECTS: usize = 4;
/// Longest release string kept; Linux writes less than 256 bytes.
const MAX_RELEASE: usize = 256;

/// What the setup header of a bzImage says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BzImage {
    /// Where in the file the compressed kernel lies. Its last four bytes are the length of the
    /// decompressed kernel, little-endian, as the kernel's build appends them.
    pub payload: Range<usize>,
    /// The release and build string, such as `6.1.0-56-cloud-amd64 (builder@host) #1 SMP ...`.
    pub release: Option<String>,
}

/// Reads the setup header of `file`; `Ok(None)` if the file is not a bzImage at all.
///
/// # Errors
///
/// [`Error::OldBootProtocol`] before protocol 2.08, [`Error::Truncated`] if the file ends before
/// the payload does.
pub fn find_payload(file: &[u8]) -> Result<Option<BzImage>, Error> {
    if file.get(HEADER_MAGIC..HEADER_MAGIC + 4) != Some(b"HdrS")
        || le16(file, BOOT_FLAG) != Some(0xaa55)
    {
        return Ok(None);
    }
    let header_end = PAYLOAD_LENGTH + 4;
    let fields = (le16(file, VERSION), le32(file, PAYLOAD_OFFSET), le32(file, PAYLOAD_LENGTH));
    let (Some(version), Some(offset), Some(length)) = fields else {
        return Err(truncated("setup header", header_end as u64, file));
    };
    if version < FIRST_WITH_PAYLOAD {
        return Err(Error::OldBootProtocol { version });
    }
    let setup_sects = match file.get(SETUP_SECTS) {
        Some(0) | None => DEFAULT_SETUP_SECTS,
        Some(&count) => usize::from(count),
    };
    let start = (setup_sects + 1) * SECTOR + offset as usize;
    let end = start + length as usize;
    if end > file.len() {
        return Err(truncated("compressed kernel", end as u64, file));
    }
    Ok(Some(BzImage { payload: start..end, release: release(file) }))
}

/// The release string; `kernel_version` counts from the header's sector, 0x200 below the string.
fn release(file: &[u8]) -> Option<String> {
    let pointer = le16(file, KERNEL_VERSION).filter(|&pointer| pointer != 0)?;
    let text = file.get(usize::from(pointer) + SECTOR..)?;
    let text = printable(text.get(..MAX_RELEASE).unwrap_or(text));
    (!text.is_empty()).then_some(text)
}

fn truncated(part: &'static str, expected: u64, file: &[u8]) -> Error {
    Error::Truncated { part, expected, found: file.len() as u64 }
}
