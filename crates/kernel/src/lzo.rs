//! LZO1X in the container of lzop, as the kernel's `lib/decompress_unlzo.c` reads it.
//!
//! All container fields are big-endian. After a header with a checksum of its own come blocks: the
//! decompressed length (0 ends the file), the compressed length, the checksums that the header's
//! flags promise, and the data. A block that does not shrink is stored.

mod block;

use crate::Error;
use crate::bytes::array;
use crate::output::Output;

pub(crate) use block::decode;

pub(crate) const MAGIC: [u8; 9] = [0x89, b'L', b'Z', b'O', 0, 0x0d, 0x0a, 0x1a, 0x0a];
/// Longest decompressed block of lzop (`MAX_BLOCK_SIZE`); it writes 256 KiB.
const MAX_BLOCK: usize = 64 << 20;

/// Flags of the header that say which checksums come with a block.
const ADLER32_PLAIN: u32 = 0x1;
const ADLER32_PACKED: u32 = 0x2;
const CRC32_PLAIN: u32 = 0x100;
const CRC32_PACKED: u32 = 0x200;
/// The header is longer by these fields.
const EXTRA_FIELD: u32 = 0x40;
const FILTER: u32 = 0x800;
/// The version of lzop from which the header has the fields "version needed" and "level".
const WITH_LEVEL: u16 = 0x0940;

/// Unpacks `data`, which starts with [`MAGIC`].
pub(crate) fn unpack(data: &[u8], output: &mut Output) -> Result<(), Error> {
    let mut cursor = Cursor { data, at: MAGIC.len() };
    let flags = header(&mut cursor).map_err(|reason| output.corrupt(reason))?;
    loop {
        let block = next_block(&mut cursor, flags).map_err(|reason| output.corrupt(reason))?;
        let Some(block) = block else { return Ok(()) };
        unpack_block(&block, output)?;
    }
}

/// One block as the container holds it.
struct Block<'a> {
    packed: &'a [u8],
    plain_length: usize,
    adler32: Option<u32>,
    crc32: Option<u32>,
}

fn unpack_block(block: &Block<'_>, output: &mut Output) -> Result<(), Error> {
    let room = output.space(block.plain_length)?;
    let Some(room) = room.get_mut(..block.plain_length) else { return Err(output.too_large()) };
    let result = if block.packed.len() == block.plain_length {
        room.copy_from_slice(block.packed);
        Ok(())
    } else {
        decode(block.packed, room)
    };
    let result = result.and_then(|()| verify(block, room));
    match result {
        Ok(()) => output.commit(block.plain_length),
        Err(reason) => Err(output.corrupt(reason)),
    }
}

/// Compares the checksums of the decompressed bytes that the block has.
fn verify(block: &Block<'_>, plain: &[u8]) -> Result<(), &'static str> {
    if block.adler32.is_some_and(|stated| stated != adler32(plain)) {
        return Err("the Adler-32 checksum of a block does not match");
    }
    if block.crc32.is_some_and(|stated| stated != crc32(plain)) {
        return Err("the CRC-32 checksum of a block does not match");
    }
    Ok(())
}

/// Reads the header after the magic number; returns its flags.
fn header(cursor: &mut Cursor<'_>) -> Result<u32, &'static str> {
    let start = cursor.at;
    let version = cursor.u16()?;
    cursor.skip(2)?; // version of the LZO library
    if version >= WITH_LEVEL {
        cursor.skip(2)?; // version needed to extract
    }
    let method = cursor.u8()?;
    if !(1..=3).contains(&method) {
        return Err("the method is not one of LZO1X (1 to 3)");
    }
    if version >= WITH_LEVEL {
        cursor.skip(1)?; // level
    }
    let flags = cursor.u32()?;
    if flags & FILTER != 0 {
        return Err("a filter is used, which kernels do not");
    }
    cursor.skip(8)?; // mode, low half of the modification time
    if version >= WITH_LEVEL {
        cursor.skip(4)?; // its high half
    }
    let name = cursor.u8()?;
    cursor.skip(usize::from(name))?;
    let fields = cursor.data.get(start..cursor.at).unwrap_or_default();
    header_checksum(cursor, flags, fields)?;
    if flags & EXTRA_FIELD != 0 {
        let length = cursor.u32()?;
        cursor.skip(length as usize)?;
        cursor.skip(4)?; // its checksum
    }
    Ok(flags)
}

fn header_checksum(cursor: &mut Cursor<'_>, flags: u32, fields: &[u8]) -> Result<(), &'static str> {
    /// The header's checksum is a CRC-32 instead of an Adler-32.
    const HEADER_CRC32: u32 = 0x1000;
    let found = if flags & HEADER_CRC32 == 0 { adler32(fields) } else { crc32(fields) };
    if cursor.u32()? == found { Ok(()) } else { Err("the checksum of the header does not match") }
}

/// Reads the next block; `None` at the end mark.
fn next_block<'a>(cursor: &mut Cursor<'a>, flags: u32) -> Result<Option<Block<'a>>, &'static str> {
    let plain_length = cursor.u32()? as usize;
    if plain_length == 0 {
        return Ok(None);
    }
    let packed_length = cursor.u32()? as usize;
    if plain_length > MAX_BLOCK {
        return Err("a block is longer than 64 MiB decompressed");
    }
    if packed_length == 0 || packed_length > plain_length {
        return Err("a block is empty, or longer compressed than decompressed");
    }
    let adler32 = if flags & ADLER32_PLAIN == 0 { None } else { Some(cursor.u32()?) };
    let crc32 = if flags & CRC32_PLAIN == 0 { None } else { Some(cursor.u32()?) };
    // Checksums of the compressed bytes add nothing to those of the decompressed ones.
    if packed_length < plain_length {
        for flag in [ADLER32_PACKED, CRC32_PACKED] {
            if flags & flag != 0 {
                cursor.skip(4)?;
            }
        }
    }
    let packed = cursor.take(packed_length)?;
    Ok(Some(Block { packed, plain_length, adler32, crc32 }))
}

/// Reads big-endian fields one after the other.
struct Cursor<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], &'static str> {
        let rest = self.data.get(self.at..).unwrap_or_default();
        let taken = rest.get(..length).ok_or("the data ends too early")?;
        self.at += length;
        Ok(taken)
    }

    fn skip(&mut self, length: usize) -> Result<(), &'static str> {
        self.take(length).map(|_| ())
    }

    fn u8(&mut self) -> Result<u8, &'static str> {
        self.take(1).map(|bytes| bytes.first().copied().unwrap_or_default())
    }

    fn u16(&mut self) -> Result<u16, &'static str> {
        let bytes = self.take(2)?;
        Ok(array(bytes, 0).map_or(0, u16::from_be_bytes))
    }

    fn u32(&mut self) -> Result<u32, &'static str> {
        let bytes = self.take(4)?;
        Ok(array(bytes, 0).map_or(0, u32::from_be_bytes))
    }
}

/// Adler-32 (RFC 1950).
fn adler32(data: &[u8]) -> u32 {
    const MODULUS: u32 = 65521;
    /// Most bytes whose sums cannot overflow 32 bits.
    const CHUNK: usize = 5552;
    let (mut a, mut b) = (1u32, 0u32);
    for chunk in data.chunks(CHUNK) {
        for &byte in chunk {
            a += u32::from(byte);
            b += a;
        }
        a %= MODULUS;
        b %= MODULUS;
    }
    b << 16 | a
}

fn crc32(data: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(data);
    crc.sum()
}
