//! The Internet checksum (RFC 1071).

use super::headers::{Headers, Transport};

/// A sum of 16-bit words in ones' complement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// Adds bytes, which begin at an even place of what is summed.
    pub fn add(&mut self, bytes: &[u8]) {
        // In the order of memory: a sum in ones' complement can be swapped at the end. Four words at
        // once, each 32 bits of a wide lane, so that carries stay until the end.
        let mut lanes = [0u64; 4];
        let (blocks, rest) = bytes.as_chunks::<16>();
        for block in blocks {
            let (words, _) = block.as_chunks::<4>();
            for (lane, word) in lanes.iter_mut().zip(words) {
                *lane += u64::from(u32::from_ne_bytes(*word));
            }
        }
        let mut sum: u64 = lanes.iter().map(|lane| u64::from(fold(*lane))).sum();
        let (words, rest) = rest.as_chunks::<2>();
        sum += words.iter().map(|word| u64::from(u16::from_ne_bytes(*word))).sum::<u64>();
        if let [last] = rest {
            sum += u64::from(u16::from_ne_bytes([*last, 0]));
        }
        self.0 += sum;
    }

    /// The bytes of the sum, as a blank checksum holds them.
    pub fn bytes(self) -> [u8; 2] {
        fold(self.0).to_ne_bytes()
    }

    /// The bytes of the checksum.
    pub fn complement(self) -> [u8; 2] {
        (!fold(self.0)).to_ne_bytes()
    }
}

fn fold(mut sum: u64) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // No more than 16 bits are left.
    u16::try_from(sum).unwrap_or(u16::MAX)
}

/// Puts the pseudo-header's sum where the checksum belongs: what the kernel expects of a packet
/// whose checksum it is to compute.
pub fn make_blank(head: &mut [u8], headers: &Headers) {
    let sum = headers.pseudo_sum(head).bytes();
    put(head, headers.checksum(), sum);
}

/// Computes the checksum of a TCP or UDP packet. False if the frame ends before the packet.
pub fn complete(frame: &mut [u8], headers: &Headers) -> bool {
    let mut sum = headers.pseudo_sum(frame);
    put(frame, headers.checksum(), [0, 0]);
    let Some(packet) = frame.get(headers.start..headers.end) else { return false };
    sum.add(packet);
    let checksum = sum.complement();
    // To UDP, 0 means that there is none (RFC 768).
    let none = headers.transport == Transport::Udp && checksum == [0, 0];
    put(frame, headers.checksum(), if none { [0xff, 0xff] } else { checksum });
    true
}

/// Computes a checksum of what lies from `start` to the end, and puts it at `at`, where the sum of
/// the pseudo-header is: what `VIRTIO_NET_HDR_F_NEEDS_CSUM` asks for (virtio 1.2, 5.1.6.2).
pub fn complete_at(frame: &mut [u8], start: usize, at: usize) -> bool {
    let Some(packet) = frame.get(start..) else { return false };
    if at < start || at + 2 > frame.len() {
        return false;
    }
    let mut sum = Sum::default();
    sum.add(packet);
    let checksum = sum.complement();
    put(frame, at, if checksum == [0, 0] { [0xff, 0xff] } else { checksum });
    true
}

fn put(frame: &mut [u8], at: usize, value: [u8; 2]) {
    if let Some(place) = frame.get_mut(at..at + 2) {
        place.copy_from_slice(&value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071, a word at a time.
    fn slow(bytes: &[u8]) -> [u8; 2] {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        u16::try_from(sum).unwrap().to_be_bytes()
    }

    #[test]
    fn sums_are_those_of_the_rfc() {
        // Its example.
        let mut sum = Sum::default();
        sum.add(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.bytes(), [0xdd, 0xf2]);
        let mut state = 1u64;
        for length in (0..300).chain([65535]) {
            let bytes: Vec<u8> = (0..length)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    if length % 3 == 0 { 0xff } else { (state >> 56) as u8 }
                })
                .collect();
            let mut sum = Sum::default();
            sum.add(&bytes);
            assert_eq!(sum.bytes(), slow(&bytes), "{length} bytes");
        }
    }

    #[test]
    fn a_checksum_elsewhere_is_computed_in_place() {
        let mut frame: Vec<u8> = (0..60).collect();
        frame[40..42].copy_from_slice(&[0x12, 0x34]);
        assert!(complete_at(&mut frame, 20, 40));
        // The sum of everything with its pseudo-header's sum (0x1234) in the place is what counts.
        let mut before: Vec<u8> = (0..60).collect();
        before[40..42].copy_from_slice(&[0x12, 0x34]);
        let [a, b] = slow(&before[20..]);
        assert_eq!(frame[40..42], [!a, !b]);
        for (start, at) in [(61, 62), (20, 59), (20, 18), (usize::MAX, 4)] {
            assert!(!complete_at(&mut frame, start, at));
        }
    }
}
