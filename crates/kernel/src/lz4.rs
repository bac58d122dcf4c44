//! LZ4 in the legacy frame, as `lz4 -l` writes it and the kernel's `lib/decompress_unlz4.c` reads
//! it: a magic number, then blocks, each a 32-bit little-endian length and an independent LZ4 block
//! of at most 8 MiB decompressed. The frame has no end mark; a bzImage adds the decompressed length
//! of the whole kernel, which must not be taken for the length of another block.

use lz4_flex::block::DecompressError;

use crate::Error;
use crate::bytes::le32;
use crate::output::Output;

/// The magic number 0x184c2102, little-endian.
pub(crate) const MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
/// Decompressed length of every block but the last.
const BLOCK: usize = 8 << 20;
/// Most that LZ4 can make of an incompressible block (`LZ4_COMPRESSBOUND`).
const MAX_COMPRESSED: usize = BLOCK + BLOCK / 255 + 16;

/// Unpacks `data`, which starts with [`MAGIC`], until its end or a trailing length word.
pub(crate) fn unpack(data: &[u8], output: &mut Output) -> Result<(), Error> {
    let mut rest = data.get(MAGIC.len()..).unwrap_or_default();
    // Exactly one word left is the length trailer of a bzImage: no block fits behind it.
    while rest.len() > 4 {
        // Concatenated frames repeat the magic number.
        if let Some(next) = rest.strip_prefix(&MAGIC) {
            rest = next;
            continue;
        }
        let length = le32(rest, 0).map_or(0, |length| length as usize);
        if length == 0 || length > MAX_COMPRESSED {
            let reason = format!("a block of {length} bytes, expected 1 to {MAX_COMPRESSED}");
            return Err(output.corrupt(&reason));
        }
        let Some((block, next)) = rest.get(4..).and_then(|rest| rest.split_at_checked(length))
        else {
            let reason = format!("a block of {length} bytes, but only {} are left", rest.len() - 4);
            return Err(output.corrupt(&reason));
        };
        unpack_block(block, output)?;
        rest = next;
    }
    Ok(())
}

fn unpack_block(block: &[u8], output: &mut Output) -> Result<(), Error> {
    // The last block may be shorter than the others: first use the room there is, which the length
    // trailer of a bzImage makes exact, and only grow if that was too little.
    let room = output.space(1)?;
    let is_short = room.len() < BLOCK;
    let mut result = decode(block, room);
    if is_short && matches!(result, Err(DecompressError::OutputTooSmall { .. })) {
        let room = output.space(BLOCK)?;
        let limited = room.len() < BLOCK;
        result = decode(block, room);
        if limited && matches!(result, Err(DecompressError::OutputTooSmall { .. })) {
            return Err(output.too_large());
        }
    }
    let length = result.map_err(|error| output.corrupt(&error))?;
    output.commit(length)
}

fn decode(block: &[u8], room: &mut [u8]) -> Result<usize, DecompressError> {
    let (room, _) = room.split_at_mut(room.len().min(BLOCK));
    lz4_flex::block::decompress_into(block, room)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Compression;

    /// Several blocks of an ELF file, the last one short.
    fn plain() -> Vec<u8> {
        let mut plain = b"\x7fELF".to_vec();
        let words = (0..).flat_map(|word: u32| (word / 3).to_le_bytes());
        plain.extend(words.take(2 * BLOCK + 12345));
        plain
    }

    fn frame(plain: &[u8]) -> Vec<u8> {
        let mut frame = MAGIC.to_vec();
        for block in plain.chunks(BLOCK) {
            let block = lz4_flex::block::compress(block);
            frame.extend((block.len() as u32).to_le_bytes());
            frame.extend(block);
        }
        frame
    }

    fn unpacked(frame: &[u8], hint: u64, limit: u64) -> Result<Vec<u8>, Error> {
        let mut output = Output::new(Compression::Lz4, hint, limit);
        unpack(frame, &mut output)?;
        output.finish()
    }

    #[test]
    fn several_blocks_with_any_hint() {
        let plain = plain();
        let frame = frame(&plain);
        for hint in [0, plain.len() as u64 / 2, plain.len() as u64, 100 << 20] {
            assert!(unpacked(&frame, hint, 64 << 20).unwrap() == plain);
        }
        let limit = plain.len() as u64 - 1;
        let too_large = Error::OutputTooLarge { compression: Compression::Lz4, limit };
        assert_eq!(unpacked(&frame, 0, limit).unwrap_err(), too_large);
    }

    #[test]
    fn trailer_and_second_frame_are_no_blocks() {
        let plain = plain();
        let mut frame = frame(&plain);
        frame.extend((plain.len() as u32).to_le_bytes());
        assert!(unpacked(&frame, 0, 64 << 20).unwrap() == plain);
        frame.truncate(frame.len() - 4);
        let twice = frame.repeat(2);
        assert!(unpacked(&twice, 0, 64 << 20).unwrap() == plain.repeat(2));
    }

    #[test]
    fn impossible_block_lengths_are_errors() {
        for length in [0, 1000, u32::MAX] {
            let mut frame = MAGIC.to_vec();
            frame.extend(length.to_le_bytes());
            frame.extend([0; 100]);
            assert!(matches!(unpacked(&frame, 0, 1 << 20), Err(Error::Corrupt { .. })));
        }
    }
}
