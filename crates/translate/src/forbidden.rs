//! Instructions that guest programs may not execute by themselves because they can
//! load PKRU: WRPKRU and XRSTOR. Their bytes are the same in 64-bit and in
//! compatibility mode, and prefixes come before them, so that three bytes tell.

use iced_x86::{Decoder, DecoderError, DecoderOptions};

/// Bytes that identify one of the instructions.
pub const LENGTH: usize = 3;
/// WRPKRU (0F 01 EF), or XRSTOR (0F AE /5 with a memory operand; SDM vol. 2)?
fn is_forbidden(bytes: &[u8]) -> bool {
    match *bytes {
        [0x0f, 0x01, 0xef, ..] => true,
        [0x0f, 0xae, modrm, ..] => modrm >> 3 & 7 == 5 && modrm >> 6 != 3,
        _ => false,
    }
}

/// Where one begins in `bytes`, from `from` on.
pub fn find(bytes: &[u8], from: usize) -> Option<usize> {
    const LARGE: usize = 256;
    const SMALL: usize = 32;
    let mut at = from;
    loop {
        let (len, may) = if let Some(may) = may_begin::<LARGE>(bytes, at) {
            (LARGE, may)
        } else if let Some(may) = may_begin::<SMALL>(bytes, at) {
            (SMALL, may)
        } else {
            break;
        };
        let end = (at + len + LENGTH - 1).min(bytes.len());
        if may && let Some(found) = find_slowly(bytes.get(at..end)?) {
            return Some(at + found);
        }
        at += len;
    }
    find_slowly(bytes.get(at..)?).map(|found| at + found)
}

/// Can one begin in the `LEN` bytes from `at` on? `None` at the end of `bytes`. Arrays of a known length,
/// and no branch between their bytes, become vector code.
fn may_begin<const LEN: usize>(bytes: &[u8], at: usize) -> Option<bool> {
    let window = bytes.get(at..at + LEN + 1)?;
    let (left, right) = (window.first_chunk::<LEN>()?, window.last_chunk::<LEN>()?);
    let hits = left.iter().zip(right).fold(0, |hits, (a, b)| {
        hits | u8::from(*a == 0x0f) & (u8::from(*b == 0x01) | u8::from(*b == 0xae))
    });
    Some(hits != 0)
}

fn find_slowly(bytes: &[u8]) -> Option<usize> {
    bytes.windows(LENGTH).position(is_forbidden)
}

/// How far on translated code is to be emitted anew when one begins at byte `at` of it; a multiple of 16.
///
/// Mostly it lies in the distance to something outside of the code cache. The upper three bytes of one are the
/// same for 256 bytes, and in a block longer than that another instruction would meet them if the block moved
/// by less than what lies before the first.
#[must_use]
pub const fn way_beyond(at: u32) -> u32 {
    (at & !15) + 256 + 16
}

/// How many there are in `bytes`.
pub fn count(bytes: &[u8]) -> usize {
    let first = find(bytes, 0);
    core::iter::successors(first, |at| find(bytes, at + 1)).count()
}

/// Does one begin in the last bytes of `left` and end in the first of `right`?
pub fn straddles(left: &[u8], right: &[u8]) -> bool {
    let (Some(l), Some(r)) = (left.last_chunk::<2>(), right.first_chunk::<2>()) else {
        return false;
    };
    is_forbidden(&[l[0], l[1], r[0]]) || is_forbidden(&[l[1], r[0], r[1]])
}

/// Where the instruction begins that holds byte `at` of a page, if decoding from
/// every one of a stretch of places before it agrees on that. Compiled code falls
/// in step after a few instructions wherever one begins to read it.
pub fn instruction_at(page: &[u8], at: usize) -> Option<usize> {
    /// Where reading begins: so far before, and so many places in a row.
    const BEFORE: usize = 80;
    const PLACES: usize = 15;
    let first = at.checked_sub(BEFORE)?;
    let mut found = None;
    for start in first..first + PLACES {
        let mut decoder = Decoder::with_ip(64, page.get(start..)?, 0, DecoderOptions::NONE);
        let mut here = start;
        loop {
            let ins = decoder.decode();
            if decoder.last_error() == DecoderError::NoMoreBytes {
                // It goes on in the next page, whatever it is.
                return None;
            }
            let len = if ins.is_invalid() { 1 } else { ins.len() };
            if here + len > at {
                break;
            }
            here += len;
            decoder.set_position(here - start).ok()?;
        }
        if *found.get_or_insert(here) != here {
            return None;
        }
    }
    found
}
