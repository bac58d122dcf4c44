//! Frames in a stream of bytes, which may begin or break off anywhere.
//!
//! A frame ends with a zero byte and has none in it: consistent overhead byte stuffing (Cheshire and
//! Baker, 1999) takes one byte in 254. So whoever starts to listen, or finds nonsense, goes on behind
//! the next zero. The first two bytes say how long the frame is, which tells a torn one.

use std::collections::VecDeque;

/// The most that a frame carries.
pub const MOST_PAYLOAD: usize = 32 << 10;
/// The most of it in a counted one.
pub const MOST_COUNTED: usize = MOST_PAYLOAD - size_of::<u16>();
/// Length, session, kind.
const HEAD: usize = 5;
/// The longest frame before stuffing, and after it without the zero at its end.
const MOST_PLAIN: usize = HEAD + MOST_PAYLOAD;
const MOST_STUFFED: usize = MOST_PLAIN + MOST_PLAIN / 254 + 1;
/// The longest block of bytes that are not zero.
const BLOCK: usize = 254;

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Which session it belongs to; 0 is the channel itself.
    pub session: u16,
    /// What it is, see [`crate::message::Kind`].
    pub kind: u8,
    /// The rest.
    pub payload: Vec<u8>,
}

/// Appends a frame to `out`. A payload that is too long is cut: callers see to it.
pub fn encode(session: u16, kind: u8, payload: &[u8], out: &mut Vec<u8>) {
    let payload = payload.get(..MOST_PAYLOAD).unwrap_or(payload);
    let length = u16::try_from(payload.len()).unwrap_or(u16::MAX).to_le_bytes();
    let session = session.to_le_bytes();
    let head = length.into_iter().chain(session).chain([kind]);
    let mut block: Vec<u8> = Vec::with_capacity(BLOCK);
    let flush = |block: &mut Vec<u8>, out: &mut Vec<u8>| {
        // At most 254, so that the code is at most 255.
        out.push(u8::try_from(block.len() + 1).unwrap_or(u8::MAX));
        out.append(block);
    };
    for byte in head.chain(payload.iter().copied()) {
        if byte == 0 {
            flush(&mut block, out);
            continue;
        }
        block.push(byte);
        if block.len() == BLOCK {
            flush(&mut block, out);
        }
    }
    flush(&mut block, out);
    out.push(0);
}

fn unstuff(stuffed: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(stuffed.len());
    let mut rest = stuffed;
    while let Some((code, tail)) = rest.split_first() {
        let length = usize::from(*code).checked_sub(1)?;
        plain.extend_from_slice(tail.get(..length)?);
        rest = tail.get(length..)?;
        if length < BLOCK && !rest.is_empty() {
            plain.push(0);
        }
    }
    Some(plain)
}

fn parse(stuffed: &[u8]) -> Option<Frame> {
    let plain = unstuff(stuffed)?;
    let [a, b, c, d, kind, payload @ ..] = plain.as_slice() else { return None };
    let whole = usize::from(u16::from_le_bytes([*a, *b])) == payload.len();
    let fits = payload.len() <= MOST_PAYLOAD;
    let session = u16::from_le_bytes([*c, *d]);
    (whole && fits).then(|| Frame { session, kind: *kind, payload: payload.to_vec() })
}

/// What a counted frame carries: its number, then what it is about.
pub fn counted(number: u16, payload: &[u8]) -> Vec<u8> {
    number.to_le_bytes().iter().chain(payload).copied().collect()
}

/// The number of a counted frame, and what it is about.
pub fn number(payload: &[u8]) -> Option<(u16, &[u8])> {
    let (number, rest) = payload.split_first_chunk()?;
    Some((u16::from_le_bytes(*number), rest))
}

/// Finds frames in what comes in.
#[derive(Debug, Default)]
pub struct Decoder {
    stuffed: Vec<u8>,
    /// The frame is longer than any may be: wait for its end.
    overflow: bool,
    frames: VecDeque<Frame>,
    nonsense: u64,
}

impl Decoder {
    /// Takes bytes. Frames must be taken out before more comes in: they are kept until then.
    pub fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == 0) {
            let (end, body) = match piece.split_last() {
                Some((0, body)) => (true, body),
                _ => (false, piece),
            };
            if self.stuffed.len() + body.len() > MOST_STUFFED {
                self.overflow = true;
                self.stuffed.clear();
            }
            if !self.overflow {
                self.stuffed.extend_from_slice(body);
            }
            if end {
                self.finish();
            }
        }
    }

    fn finish(&mut self) {
        let overflow = std::mem::take(&mut self.overflow);
        match parse(&self.stuffed) {
            Some(frame) if !overflow => self.frames.push_back(frame),
            // Whoever begins to speak ends what may have been torn before: with a zero.
            None if self.stuffed.is_empty() && !overflow => {}
            _ => self.nonsense = self.nonsense.saturating_add(1),
        }
        self.stuffed.clear();
    }

    /// The next frame.
    pub fn next_frame(&mut self) -> Option<Frame> {
        self.frames.pop_front()
    }

    /// Whether what came ends with a frame's end.
    pub fn is_between_frames(&self) -> bool {
        self.stuffed.is_empty() && !self.overflow
    }

    /// How many pieces of the stream were no frames.
    pub fn nonsense(&self) -> u64 {
        self.nonsense
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(bytes: &[u8]) -> Vec<Frame> {
        let mut decoder = Decoder::default();
        decoder.push(bytes);
        std::iter::from_fn(|| decoder.next_frame()).collect()
    }

    fn frame() -> impl Strategy<Value = Frame> {
        // Many zeros, and lengths around those of blocks.
        let byte = prop_oneof![Just(0u8), any::<u8>()];
        let payload = prop_oneof![
            prop::collection::vec(byte, 0..600),
            prop::collection::vec(1u8.., 240..260),
        ];
        (any::<u16>(), any::<u8>(), payload).prop_map(|(session, kind, payload)| Frame {
            session,
            kind,
            payload,
        })
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(frames in prop::collection::vec(frame(), 0..6), cut in 1usize..50) {
            let mut bytes = Vec::new();
            for frame in &frames {
                encode(frame.session, frame.kind, &frame.payload, &mut bytes);
            }
            let mut decoder = Decoder::default();
            bytes.chunks(cut).for_each(|piece| decoder.push(piece));
            let found: Vec<Frame> = std::iter::from_fn(|| decoder.next_frame()).collect();
            prop_assert_eq!(found, frames);
            prop_assert_eq!(decoder.nonsense(), 0);
        }

        #[test]
        fn a_torn_frame_does_not_harm_the_next(torn in frame(), whole in frame(), cut in any::<prop::sample::Index>()) {
            let mut bytes = Vec::new();
            encode(torn.session, torn.kind, &torn.payload, &mut bytes);
            bytes.truncate(cut.index(bytes.len() - 1));
            bytes.push(0);
            encode(whole.session, whole.kind, &whole.payload, &mut bytes);
            let mut found = decode(&bytes);
            prop_assert_eq!(found.pop(), Some(whole));
            // Only the last code of a frame can be missing from it without a loss.
            prop_assert!(found.is_empty() || found == [torn]);
        }

        #[test]
        fn nonsense_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..2000), whole in frame()) {
            let mut bytes = bytes;
            bytes.push(0);
            encode(whole.session, whole.kind, &whole.payload, &mut bytes);
            prop_assert_eq!(decode(&bytes).pop(), Some(whole));
        }
    }

    #[test]
    fn an_endless_frame_takes_no_memory() {
        let mut decoder = Decoder::default();
        for _ in 0..1000 {
            decoder.push(&[1; 4096]);
            assert!(decoder.stuffed.len() <= MOST_STUFFED);
        }
        decoder.push(&[0]);
        let mut bytes = Vec::new();
        encode(3, 4, &[5; MOST_PAYLOAD], &mut bytes);
        decoder.push(&bytes);
        let payload = vec![5; MOST_PAYLOAD];
        assert_eq!(decoder.next_frame(), Some(Frame { session: 3, kind: 4, payload }));
        assert_eq!(decoder.nonsense(), 1);
    }
}
