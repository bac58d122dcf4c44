//! The LZO1X bit stream.
//!
//! Source: the Linux kernel's `Documentation/staging/lzo.rst`, which describes the stream that
//! `lzo1x_decompress_safe` accepts. Every instruction copies a match (an earlier stretch of the
//! output) and then up to three literals (bytes of the input); long runs of literals are
//! instructions of their own. What an instruction below 16 means depends on how many literals came
//! just before it.

const TOO_SHORT: &str = "a block's data ends too early";
const TOO_LONG: &str = "a block is longer than it states";
const BAD_MATCH: &str = "a match refers to bytes before its block";
const BAD_LENGTH: &str = "a block does not have the length it states";

/// Decodes one block of LZO1X data that must fill `plain` exactly.
///
/// # Errors
///
/// What is wrong with the block.
pub(crate) fn decode(packed: &[u8], plain: &mut [u8]) -> Result<(), &'static str> {
    let mut decoder = Decoder { packed, from: 0, plain, to: 0 };
    decoder.run()?;
    if decoder.from == packed.len() && decoder.to == decoder.plain.len() {
        Ok(())
    } else {
        Err(BAD_LENGTH)
    }
}

struct Decoder<'a> {
    packed: &'a [u8],
    from: usize,
    plain: &'a mut [u8],
    to: usize,
}

/// How many literals preceded an instruction; decides the meaning of instructions 0 to 15.
#[derive(Clone, Copy)]
enum Before {
    /// A match without literals after it.
    Match,
    /// One to three literals, carried by a match instruction.
    Few,
    /// Four or more, from a literal run.
    Run,
}

impl Before {
    /// `count` is that of a match instruction, 0 to 3.
    fn few(count: usize) -> Before {
        if count == 0 { Before::Match } else { Before::Few }
    }
}

impl Decoder<'_> {
    fn run(&mut self) -> Result<(), &'static str> {
        let mut before = self.first()?;
        loop {
            let code = usize::from(self.byte()?);
            let (distance, length, literals) = match (code, before) {
                (0..=15, Before::Match) => {
                    let length = self.long(code, 15)? + 3;
                    self.literals(length)?;
                    before = Before::Run;
                    continue;
                }
                (0..=15, Before::Few) => (self.near(code)? + 1, 2, code & 3),
                (0..=15, Before::Run) => (self.near(code)? + 0x801, 3, code & 3),
                (16..=31, _) => {
                    let length = self.long(code & 7, 7)? + 2;
                    let low = self.word()?;
                    let distance = ((code & 8) << 11) + (low >> 2);
                    // A distance of 0 here is the end mark; its length is always 3.
                    if distance == 0 {
                        return if length == 3 { Ok(()) } else { Err(BAD_LENGTH) };
                    }
                    (distance + 0x4000, length, low & 3)
                }
                (32..=63, _) => {
                    let length = self.long(code & 31, 31)? + 2;
                    let low = self.word()?;
                    ((low >> 2) + 1, length, low & 3)
                }
                _ => {
                    // 01LDDDSS (lengths 3 and 4) and 1LLDDDSS (5 to 8).
                    let high = usize::from(self.byte()?) << 3;
                    (high + (code >> 2 & 7) + 1, (code >> 5) + 1, code & 3)
                }
            };
            self.repeat(distance, length)?;
            self.literals(literals)?;
            before = Before::few(literals);
        }
    }

    /// The first byte, from 18 up, is a run of literals in its own encoding.
    fn first(&mut self) -> Result<Before, &'static str> {
        let code = usize::from(self.packed.first().copied().ok_or(TOO_SHORT)?);
        if code < 18 {
            return Ok(Before::Match);
        }
        self.from = 1;
        self.literals(code - 17)?;
        Ok(if code < 21 { Before::Few } else { Before::Run })
    }

    fn byte(&mut self) -> Result<u8, &'static str> {
        let byte = self.packed.get(self.from).copied().ok_or(TOO_SHORT)?;
        self.from += 1;
        Ok(byte)
    }

    /// A 16-bit little-endian word.
    fn word(&mut self) -> Result<usize, &'static str> {
        let low = usize::from(self.byte()?);
        Ok(low | usize::from(self.byte()?) << 8)
    }

    /// The distance bits of a two-byte match, without its offset.
    fn near(&mut self, code: usize) -> Result<usize, &'static str> {
        Ok((usize::from(self.byte()?) << 2) + (code >> 2))
    }

    /// A length: `bits` if not 0, else `base` plus 255 for each zero byte plus the byte that ends
    /// them. Limited by the input, whose bytes it uses up.
    fn long(&mut self, bits: usize, base: usize) -> Result<usize, &'static str> {
        if bits != 0 {
            return Ok(bits);
        }
        let mut length = base;
        loop {
            match self.byte()? {
                0 => length += 255,
                last => return Ok(length + usize::from(last)),
            }
        }
    }

    /// Copies `length` bytes of input.
    fn literals(&mut self, length: usize) -> Result<(), &'static str> {
        let rest = self.packed.get(self.from..).unwrap_or_default();
        let source = rest.get(..length).ok_or(TOO_SHORT)?;
        let target = self.plain.get_mut(self.to..).unwrap_or_default();
        target.get_mut(..length).ok_or(TOO_LONG)?.copy_from_slice(source);
        self.from += length;
        self.to += length;
        Ok(())
    }

    /// Copies `length` bytes from `distance` bytes back in the output; the two may overlap, then
    /// the stretch between them repeats.
    fn repeat(&mut self, distance: usize, length: usize) -> Result<(), &'static str> {
        let source = self.to.checked_sub(distance).ok_or(BAD_MATCH)?;
        let end = self.to.checked_add(length).ok_or(TOO_LONG)?;
        if end > self.plain.len() {
            return Err(TOO_LONG);
        }
        // Each step can copy all that exists from `source` on, which doubles it.
        while self.to < end {
            let step = (self.to - source).min(end - self.to);
            self.plain.copy_within(source..source + step, self.to);
            self.to += step;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: [u8; 3] = [0x11, 0, 0];

    fn decoded(parts: &[&[u8]], length: usize) -> Result<Vec<u8>, &'static str> {
        let mut plain = vec![0xee; length];
        decode(&parts.concat(), &mut plain)?;
        Ok(plain)
    }

    /// Literals by the first byte, then `parts`, then the end mark.
    fn after(literals: &[u8], parts: &[&[u8]], length: usize) -> Result<Vec<u8>, &'static str> {
        let first = [17 + literals.len() as u8];
        decoded(&[&first, literals, &parts.concat(), &END], length)
    }

    #[test]
    fn first_byte_is_a_run_of_literals() {
        for length in [1, 2, 3, 4, 5, 100, 238] {
            let literals: Vec<u8> = (0..length as u8).collect();
            assert_eq!(after(&literals, &[], length).unwrap(), literals);
        }
    }

    #[test]
    fn literal_runs_of_every_length_form() {
        // First byte 17 is no run: state 0, so a run instruction of its own may follow.
        for length in [4usize, 17, 18, 19, 18 + 254, 18 + 255, 18 + 256, 2000] {
            let code = if length <= 18 {
                vec![length as u8 - 3]
            } else {
                let rest = length - 18 - 1;
                let mut code = vec![0; 1 + rest / 255];
                code.push((rest % 255) as u8 + 1);
                code
            };
            let literals: Vec<u8> = (0..length).map(|n| n as u8).collect();
            assert_eq!(decoded(&[&code, &literals, &END], length).unwrap(), literals, "{length}");
        }
    }

    #[test]
    fn short_matches_depend_on_the_literals_before() {
        // After one literal: two bytes, distance up to 1024. 0000DDSS H, no literal after.
        assert_eq!(after(b"a", &[&[0, 0]], 3).unwrap(), b"aaa");
        // After a match with two literals.
        let mid = &[0x40u8 | 2, 0, b'x', b'y', 4, 0];
        assert_eq!(after(b"abcd", &[mid], 11).unwrap(), b"abcddddxyxy");
        // After a run of four or more: three bytes, from distance 2049 on.
        let long: Vec<u8> = (0..2100u32).map(|n| (n * 7 % 251) as u8).collect();
        let rest = long.len() - 18 - 1;
        let mut run = vec![0; 1 + rest / 255];
        run.push((rest % 255) as u8 + 1);
        let plain = decoded(&[&run, &long, &[0, 1], &END], 2103).unwrap();
        assert_eq!(plain[2100..], long[2100 - 2049 - 4..][..3]);
    }

    #[test]
    fn medium_and_long_matches() {
        // 01LDDDSS: length 4, distance 1 + 3 + (1 << 3) needs 12 bytes.
        let text = b"ABCDEFGHIJKLMN";
        let plain = after(text, &[&[0x60 | 3 << 2, 1]], 18).unwrap();
        assert_eq!(plain[14..], text[2..6]);
        // 1LLDDDSS: length 8, distance 1: repeats a byte.
        assert_eq!(after(b"abcd", &[&[0xe0, 0]], 12).unwrap(), b"abcddddddddd");
        // 001LLLLL with a length of 2 + 31 + 255 + 7 and distance 3, one literal after.
        let code = [0x20, 0, 7, 2 << 2 | 1, 0, b'!'];
        let plain = after(b"xyz", &[&code], 3 + 295 + 1).unwrap();
        assert!(plain[..298].chunks(3).all(|part| b"xyz".starts_with(part)));
        assert_eq!(plain[298], b'!');
    }

    #[test]
    fn far_matches_reach_beyond_16_and_32_kib() {
        let mut plain: Vec<u8> = (0..60_000u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
        let rest = plain.len() - 18 - 1;
        let mut run = vec![0; 1 + rest / 255];
        run.push((rest % 255) as u8 + 1);
        // 0001HLLL: length 9; distance 0x4000 + 5 and 0x8000 + 0x3fff.
        let near = [0x10 | 7, 5 << 2, 0];
        let far = [0x18 | 7, 0xfc, 0xff];
        let packed = [&run[..], &plain, &near, &far];
        let length = plain.len() + 18;
        let found = decoded(&[&packed.concat(), &END], length).unwrap();
        for distance in [0x4005, 0x8000 + 0x3fff] {
            let at = plain.len() - distance;
            plain.extend_from_within(at..at + 9);
        }
        assert!(found == plain);
    }

    #[test]
    fn damaged_blocks_are_errors() {
        assert_eq!(decoded(&[], 0), Err(TOO_SHORT));
        assert_eq!(after(b"abc", &[], 2), Err(TOO_LONG));
        assert_eq!(after(b"abc", &[], 4), Err(BAD_LENGTH));
        assert_eq!(decoded(&[&[20], b"abc", &END, &[0]], 3), Err(BAD_LENGTH));
        assert_eq!(decoded(&[&[20], b"ab"], 3), Err(TOO_SHORT));
        // Distance 8 of 4 bytes, and a match longer than the block.
        assert_eq!(after(b"abcd", &[&[0xe0 | 7 << 2, 0]], 12), Err(BAD_MATCH));
        assert_eq!(after(b"abcd", &[&[0xe0, 0]], 11), Err(TOO_LONG));
        // An end mark of another length.
        assert_eq!(decoded(&[&[18, b'a', 0x12, 0, 0]], 1), Err(BAD_LENGTH));
    }
}
