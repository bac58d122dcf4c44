//! Numbers and texts as bytes, and records whose damage is found.
//!
//! A record is its length and its checksum, 32 bits each, and its body. What was cut off while it
//! was written is told from what is whole.

/// Longest body that is believed; the longest that is written has one transaction's changes.
const MOST: usize = 64 << 20;
const HEAD: usize = 8;

/// CRC-32 as in IEEE 802.3.
fn checksum(bytes: &[u8]) -> u32 {
    #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, which checks it")]
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let (mut value, mut bit) = (i as u32, 0);
            while bit < 8 {
                value = if value & 1 == 1 { value >> 1 ^ 0xedb8_8320 } else { value >> 1 };
                bit += 1;
            }
            table[i] = value;
            i += 1;
        }
        table
    };
    let step = |crc: u32, byte: &u8| {
        let index = ((crc ^ u32::from(*byte)) & 0xff) as usize;
        crc >> 8 ^ TABLE.get(index).copied().unwrap_or_default()
    };
    !bytes.iter().fold(!0, step)
}

/// Adds a record whose body `fill` writes.
pub(crate) fn record(out: &mut Vec<u8>, fill: impl FnOnce(&mut Writer<'_>)) {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD]);
    fill(&mut Writer(out));
    let body = out.get(start + HEAD..).unwrap_or_default();
    let (length, crc) = (body.len() as u32, checksum(body));
    if let Some(head) = out.get_mut(start..start + HEAD) {
        let (first, second) = head.split_at_mut(4);
        first.copy_from_slice(&length.to_le_bytes());
        second.copy_from_slice(&crc.to_le_bytes());
    }
}

/// The body of the first record, and what follows it; `None` if it is not whole.
pub(crate) fn split_record(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (crc, rest) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok().filter(|n| *n <= MOST)?;
    let (body, rest) = rest.split_at_checked(length)?;
    (checksum(body) == u32::from_le_bytes(*crc)).then_some((body, rest))
}

/// Writes values.
pub(crate) struct Writer<'a>(&'a mut Vec<u8>);

impl Writer<'_> {
    pub(crate) fn byte(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn short(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn long(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// Bytes with their number.
    pub(crate) fn bytes(&mut self, value: &[u8]) {
        self.0.extend_from_slice(&(value.len() as u32).to_le_bytes());
        self.0.extend_from_slice(value);
    }
}

/// Reads what [`Writer`] wrote. Everything is `None` after the end.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    fn chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (chunk, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*chunk)
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        self.chunk::<1>().map(|[byte]| byte)
    }

    pub(crate) fn short(&mut self) -> Option<u16> {
        self.chunk().map(u16::from_le_bytes)
    }

    pub(crate) fn long(&mut self) -> Option<u64> {
        self.chunk().map(u64::from_le_bytes)
    }

    pub(crate) fn size(&mut self) -> Option<usize> {
        usize::try_from(self.long()?).ok()
    }

    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.chunk().map(u32::from_le_bytes)?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(crate) fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    /// `None` if something is left.
    pub(crate) fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_found() {
        assert_eq!(checksum(b"123456789"), 0xcbf4_3926, "the check value of CRC-32");
        let mut out = Vec::new();
        record(&mut out, |to| {
            to.byte(7);
            to.bytes(b"text");
        });
        let (body, rest) = split_record(&out).unwrap();
        assert!(rest.is_empty());
        let mut from = Reader(body);
        assert_eq!((from.byte(), from.text(), from.byte()), (Some(7), Some("text"), None));
        for cut in 0..out.len() {
            assert!(split_record(&out[..cut]).is_none(), "{cut} bytes of {}", out.len());
            let mut changed = out.clone();
            changed[cut] ^= 4;
            assert!(split_record(&changed).is_none(), "byte {cut} changed");
        }
    }
}
