//! A question that `passt` answers whatever the guest does: who has an address (RFC 826). It says that
//! it has each but the guest's own.

/// An address of documentation (RFC 5737), which no guest has.
const ADDRESS: [u8; 4] = [192, 0, 2, 1];
/// Length of a question.
pub const LENGTH: usize = 42;

/// The question, from the guest's Ethernet address: `passt` takes for that whatever it saw last. The
/// sender's IP address is blank, as of one who has none.
pub fn question(mac: [u8; 6]) -> [u8; LENGTH] {
    let mut frame = [0; LENGTH];
    let parts: [&[u8]; 6] =
        [&[0xff; 6], &mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &mac, &[0; 10], &ADDRESS];
    for (place, byte) in frame.iter_mut().zip(parts.into_iter().flatten()) {
        *place = *byte;
    }
    frame
}

/// Whether a frame is the answer.
pub fn is_answer(frame: &[u8]) -> bool {
    let is = |at: usize, bytes: &[u8]| frame.get(at..at + bytes.len()) == Some(bytes);
    is(12, &[8, 6]) && is(20, &[0, 2]) && is(28, &ADDRESS)
}
