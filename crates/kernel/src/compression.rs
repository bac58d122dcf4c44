//! The compressions of Linux kernel images, told apart by their first bytes.
//!
//! The list and the magic numbers are those of the kernel's own `lib/decompress.c`.

use std::fmt;

use bzip2::bufread::BzDecoder;
use flate2::bufread::GzDecoder;
use lzma_rust2::{LzmaReader, XzReader};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use crate::bytes::le32;
use crate::output::Output;
use crate::{Error, Limits, lz4, lzo};

/// How a kernel is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// gzip (RFC 1952).
    Gzip,
    /// bzip2.
    Bzip2,
    /// The old `.lzma` container.
    Lzma,
    /// xz, in kernels with the x86 branch filter.
    Xz,
    /// LZO1X in an lzop container.
    Lzo,
    /// LZ4 in the legacy frame (`lz4 -l`).
    Lz4,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// All of them, in the order of `lib/decompress.c`.
    pub const ALL: [Compression; 7] = [
        Compression::Gzip,
        Compression::Bzip2,
        Compression::Lzma,
        Compression::Xz,
        Compression::Lzo,
        Compression::Lz4,
        Compression::Zstd,
    ];

    /// The compression that `data` starts with, if any.
    #[must_use]
    pub fn detect(data: &[u8]) -> Option<Compression> {
        Compression::ALL.into_iter().find(|kind| data.starts_with(kind.magic()))
    }

    const fn magic(self) -> &'static [u8] {
        match self {
            Compression::Gzip => &[0x1f, 0x8b],
            Compression::Bzip2 => b"BZh",
            // Properties byte 0x5d (lc 3, lp 0, pb 2) and a dictionary of a multiple of 64 KiB.
            Compression::Lzma => &[0x5d, 0, 0],
            Compression::Xz => &[0xfd, b'7', b'z', b'X', b'Z', 0],
            Compression::Lzo => &lzo::MAGIC,
            Compression::Lz4 => &lz4::MAGIC,
            Compression::Zstd => &[0x28, 0xb5, 0x2f, 0xfd],
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Compression::Gzip => "gzip",
            Compression::Bzip2 => "bzip2",
            Compression::Lzma => "lzma",
            Compression::Xz => "xz",
            Compression::Lzo => "lzo",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        })
    }
}

/// Decompresses an ELF file of at most `limits.max_output` bytes.
///
/// `stated` is the decompressed length, if the container of `data` states one (a bzImage does): a
/// hint for the allocation, and checked against the length found.
///
/// # Errors
///
/// [`Error::Corrupt`], [`Error::OutputTooLarge`], [`Error::WrongLength`], and
/// [`Error::NotAKernel`] if what comes out is not an ELF file.
pub fn decompress(
    kind: Compression,
    data: &[u8],
    stated: Option<u32>,
    limits: &Limits,
) -> Result<Vec<u8>, Error> {
    let hint = stated.map_or_else(|| guess_length(kind, data), u64::from);
    let mut output = Output::new(kind, hint, limits.max_output);
    match kind {
        Compression::Gzip => output.fill_from(&mut GzDecoder::new(data))?,
        Compression::Bzip2 => output.fill_from(&mut BzDecoder::new(data))?,
        Compression::Lzma => lzma(data, limits, &mut output)?,
        Compression::Xz => {
            output.fill_from(&mut XzReader::new_mem_limit(data, false, window_kib(limits)))?;
        }
        Compression::Lzo => lzo::unpack(data, &mut output)?,
        Compression::Lz4 => lz4::unpack(data, &mut output)?,
        Compression::Zstd => zstd(data, limits, &mut output)?,
    }
    let elf = output.finish()?;
    match stated {
        Some(stated) if elf.len() as u64 != u64::from(stated) => {
            Err(Error::WrongLength { compression: kind, stated, found: elf.len() as u64 })
        }
        _ => Ok(elf),
    }
}

/// A guess at the decompressed length for a file that does not state it in its container.
fn guess_length(kind: Compression, data: &[u8]) -> u64 {
    // gzip ends with the length modulo 2^32.
    let trailer = data.len().checked_sub(4).and_then(|at| le32(data, at));
    match (kind, trailer) {
        (Compression::Gzip, Some(length)) => u64::from(length),
        _ => data.len() as u64 * 4,
    }
}

/// Largest dictionary or window of a decompressor, in bytes: what `zstd -22 --ultra` states, with
/// which kernels are compressed, or the limit if that is more.
fn max_window(limits: &Limits) -> u64 {
    limits.max_output.max(128 << 20)
}

/// [`max_window`] in KiB, with a MiB more for what else these decompressors count.
fn window_kib(limits: &Limits) -> u32 {
    let max = max_window(limits).div_ceil(1024).saturating_add(1024);
    // u32::MAX would mean no bound.
    u32::try_from(max).map_or(u32::MAX - 1, |max| max.min(u32::MAX - 1))
}

fn lzma(data: &[u8], limits: &Limits, output: &mut Output) -> Result<(), Error> {
    let mut reader = LzmaReader::new_mem_limit(data, window_kib(limits), None)
        .map_err(|error| output.corrupt(&error))?;
    output.fill_from(&mut reader)
}

/// One zstd frame, whose checksum, if it has one, is compared.
fn zstd(mut data: &[u8], limits: &Limits, output: &mut Output) -> Result<(), Error> {
    /// Decoded between two drains of the decoder's own buffer, in bytes.
    const STEP: usize = 1 << 20;

    let mut decoder = FrameDecoder::new();
    decoder.set_max_window_size(max_window(limits));
    decoder.init(&mut data).map_err(|error| output.corrupt(&error))?;
    while !decoder.is_finished() {
        decoder
            .decode_blocks(&mut data, BlockDecodingStrategy::UptoBytes(STEP))
            .map_err(|error| output.corrupt(&error))?;
        if decoder.can_collect() > 0 {
            output.fill_from(&mut decoder)?;
        }
    }
    match (decoder.get_checksum_from_data(), decoder.get_calculated_checksum()) {
        (Some(stated), Some(found)) if stated != found => {
            let reason = format!("checksum is {found:#010x}, expected {stated:#010x}");
            Err(output.corrupt(&reason))
        }
        _ => Ok(()),
    }
}
