//! Layout of the wire protocol (`xen/include/public/io/xs_wire.h`).

/// Longest payload of a message in bytes (`XENSTORE_PAYLOAD_MAX`), both ways.
pub const MAX_PAYLOAD: usize = 4096;
/// Size of a message header in bytes (`struct xsd_sockmsg`).
pub const HEADER_SIZE: usize = 16;

/// Message types (`enum xsd_sockmsg_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs, reason = "named as in the header")]
pub enum MessageType {
    Control = 0,
    Directory = 1,
    Read = 2,
    GetPerms = 3,
    Watch = 4,
    Unwatch = 5,
    TransactionStart = 6,
    TransactionEnd = 7,
    Introduce = 8,
    Release = 9,
    GetDomainPath = 10,
    Write = 11,
    Mkdir = 12,
    Rm = 13,
    SetPerms = 14,
    WatchEvent = 15,
    Error = 16,
    IsDomainIntroduced = 17,
    Resume = 18,
    SetTarget = 19,
    ResetWatches = 21,
    DirectoryPart = 22,
    GetFeature = 23,
    GetQuota = 25,
    SetQuota = 26,
}

impl MessageType {
    /// All types.
    pub const ALL: [Self; 25] = [
        Self::Control,
        Self::Directory,
        Self::Read,
        Self::GetPerms,
        Self::Watch,
        Self::Unwatch,
        Self::TransactionStart,
        Self::TransactionEnd,
        Self::Introduce,
        Self::Release,
        Self::GetDomainPath,
        Self::Write,
        Self::Mkdir,
        Self::Rm,
        Self::SetPerms,
        Self::WatchEvent,
        Self::Error,
        Self::IsDomainIntroduced,
        Self::Resume,
        Self::SetTarget,
        Self::ResetWatches,
        Self::DirectoryPart,
        Self::GetFeature,
        Self::GetQuota,
        Self::SetQuota,
    ];

    /// The type with this number, if there is one.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u32 == number)
    }
}

/// Header of a message: four 32-bit numbers in the byte order of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// A [`MessageType`], or anything else that a client sends.
    pub kind: u32,
    /// Chosen by the client, repeated in the reply.
    pub request: u32,
    /// Transaction id, 0 for none.
    pub transaction: u32,
    /// Payload length in bytes.
    pub length: u32,
}

impl Header {
    /// Reads a header.
    pub fn decode(bytes: &[u8; HEADER_SIZE]) -> Self {
        let mut words = [0; 4];
        let (chunks, _) = bytes.as_chunks::<4>();
        for (word, chunk) in words.iter_mut().zip(chunks) {
            *word = u32::from_ne_bytes(*chunk);
        }
        let [kind, request, transaction, length] = words;
        Self { kind, request, transaction, length }
    }

    /// Writes the header and the payload, whose length replaces `length`, as one message.
    pub fn encode(self, payload: &[u8]) -> Vec<u8> {
        // A longer payload than u32 can say never gets here: all are at most MAX_PAYLOAD.
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let mut message = Vec::with_capacity(HEADER_SIZE + payload.len());
        for word in [self.kind, self.request, self.transaction, length] {
            message.extend_from_slice(&word.to_ne_bytes());
        }
        message.extend_from_slice(payload);
        message
    }
}

/// Parses plain decimal digits, which `str::parse` would also accept with a plus sign.
pub(crate) fn decimal<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}
