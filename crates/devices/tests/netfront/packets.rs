//! Packets for tests, and a checksum that was written apart from the backend's.
#![allow(dead_code, reason = "each test uses a part")]

pub const GUEST: [u8; 6] = [0x00, 0x16, 0x3e, 1, 2, 3];
pub const HOST: [u8; 6] = [0x02, 0, 0, 0, 0, 1];

/// The checksum of RFC 1071, a word at a time.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let bytes: Vec<u8> = parts.concat();
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// A frame of a type.
pub fn frame(to: [u8; 6], from: [u8; 6], kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from[..], &kind.to_be_bytes(), payload].concat()
}

/// A frame of bytes that are nothing known.
pub fn plain(length: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..length.saturating_sub(14)).map(|i| (i * 7 + length) as u8).collect();
    frame(HOST, GUEST, 0x88b5, &payload)
}

pub fn ipv4(source: [u8; 4], to: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let total = (20 + payload.len()) as u16;
    let mut header = [0u8; 20];
    (header[0], header[8], header[9]) = (0x45, 64, protocol);
    header[2..4].copy_from_slice(&total.to_be_bytes());
    header[12..16].copy_from_slice(&source);
    header[16..20].copy_from_slice(&to);
    let sum = checksum(&[&header]);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
    [&header[..], payload].concat()
}

pub fn ipv6(source: [u8; 16], to: [u8; 16], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = [0u8; 40];
    (header[0], header[6], header[7]) = (0x60, protocol, 64);
    header[4..6].copy_from_slice(&(payload.len() as u16).to_be_bytes());
    header[8..24].copy_from_slice(&source);
    header[24..40].copy_from_slice(&to);
    [&header[..], payload].concat()
}

/// A TCP segment without its checksum.
pub fn tcp(ports: (u16, u16), numbers: (u32, u32), flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut header = [0u8; 20];
    header[..2].copy_from_slice(&ports.0.to_be_bytes());
    header[2..4].copy_from_slice(&ports.1.to_be_bytes());
    header[4..8].copy_from_slice(&numbers.0.to_be_bytes());
    header[8..12].copy_from_slice(&numbers.1.to_be_bytes());
    (header[12], header[13]) = (0x50, flags);
    header[14..16].copy_from_slice(&0xffffu16.to_be_bytes());
    [&header[..], payload].concat()
}

pub fn udp(ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let length = (8 + payload.len()) as u16;
    let header = [ports.0.to_be_bytes(), ports.1.to_be_bytes(), length.to_be_bytes(), [0; 2]];
    [&header.concat()[..], payload].concat()
}

/// Whether the checksum of TCP or UDP of a frame over IPv4 or IPv6 without options is right.
pub fn is_right(frame: &[u8]) -> bool {
    let (addresses, protocol, transport) = match frame[12..14] {
        [8, 0] => {
            let end = 14 + usize::from(u16::from_be_bytes([frame[16], frame[17]]));
            (&frame[26..34], frame[23], &frame[34..end])
        }
        _ => (&frame[22..54], frame[20], &frame[54..]),
    };
    let length = (transport.len() as u32).to_be_bytes();
    checksum(&[addresses, &length, &[0, protocol], transport]) == 0
}

/// The backend's question of a user-mode network: who has 192.0.2.1?
pub fn is_question(frame: &[u8]) -> bool {
    frame.len() == 42
        && frame[..6] == [0xff; 6]
        && frame[12..22] == [8, 6, 0, 1, 8, 0, 6, 4, 0, 1]
        && frame[38..] == [192, 0, 2, 1]
}

/// `passt`'s answer to it.
pub fn answer(question: &[u8]) -> Vec<u8> {
    let head = frame(question[6..12].try_into().unwrap(), HOST, 0x0806, &[]);
    let what = [0, 1, 8, 0, 6, 4, 0, 2];
    [&head, &what[..], &HOST, &question[38..42], &question[22..28], &[0; 4]].concat()
}
