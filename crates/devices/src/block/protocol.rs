//! Requests and responses as they lie in the ring (blkif.h, 64-bit layout).

/// Bytes of a ring entry: the longest request.
pub const ENTRY: usize = 112;
/// Bytes of a sector of the protocol, whatever the disk's are.
pub const SECTOR: u64 = 512;
/// Sectors of a page.
const SECTORS_PER_PAGE: u8 = 8;
/// Most segments that lie in a request itself (`BLKIF_MAX_SEGMENTS_PER_REQUEST`).
pub const MOST_SEGMENTS: usize = 11;
/// Most segments of an indirect request that we offer.
pub const MOST_INDIRECT: usize = 256;
/// Pages that an indirect request can name (`BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST`).
const INDIRECT_PAGES: usize = 8;
/// Segments described in a page.
const SEGMENTS_PER_PAGE: usize = 512;

/// `BLKIF_OP_*`.
mod operation {
    pub const READ: u8 = 0;
    pub const WRITE: u8 = 1;
    pub const WRITE_BARRIER: u8 = 2;
    pub const FLUSH: u8 = 3;
    pub const DISCARD: u8 = 5;
    pub const INDIRECT: u8 = 6;
}

/// How a request ended (`BLKIF_RSP_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i16)]
pub enum Status {
    /// Done.
    Okay = 0,
    /// Failed, or made no sense.
    Error = -1,
    /// Not offered.
    Unsupported = -2,
}

/// What a request with data wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// Disk to memory.
    Read,
    /// Memory to disk.
    Write,
    /// The same, after all writes before it and before all behind it, and to the medium.
    Barrier,
    /// To the medium with what was written before; then memory to disk.
    Flush,
}

/// Part of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The page's grant.
    pub reference: u32,
    /// First sector in it.
    pub first: u8,
    /// Last sector in it, inclusive.
    pub last: u8,
}

impl Segment {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let reference = u32_at(bytes, 0)?;
        Some(Self { reference, first: *bytes.get(4)?, last: *bytes.get(5)? })
    }

    /// Offset and length in the page, if they lie in it.
    pub fn range(&self) -> Option<(usize, usize)> {
        if self.first > self.last || self.last >= SECTORS_PER_PAGE {
            return None;
        }
        let sector = SECTOR as usize;
        let length = usize::from(self.last - self.first + 1) * sector;
        Some((usize::from(self.first) * sector, length))
    }
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Data, its segments in the request.
    Direct(Transfer, Vec<Segment>),
    /// Data, its segments in pages that the request names.
    Indirect(Transfer, Indirect),
    /// Forget so many sectors.
    Discard(u64),
}

/// Where the segments of an indirect request lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Indirect {
    /// Segments.
    pub count: usize,
    /// Grants of the pages that describe them.
    pub pages: Vec<u32>,
}

/// A request, in form checked, in content not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// First sector.
    pub sector: u64,
    /// What it asks for.
    pub body: Body,
}

/// What a response repeats of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// The guest's own value.
    pub id: u64,
    /// Operation; that of an indirect request is the one inside (as blkfront checks).
    pub operation: u8,
}

impl Tag {
    /// Reads it off a request, whatever else is in that.
    pub fn parse(entry: &[u8; ENTRY]) -> Self {
        let [outer, inner, ..] = *entry;
        let operation = if outer == operation::INDIRECT { inner } else { outer };
        Self { id: u64_at(entry, 8).unwrap_or_default(), operation }
    }

    /// The response.
    pub fn response(self, status: Status) -> [u8; 16] {
        let mut bytes = [0; 16];
        let (id, rest) = bytes.split_at_mut(8);
        id.copy_from_slice(&self.id.to_ne_bytes());
        let [low, high] = (status as i16).to_ne_bytes();
        if let [operation, _, status_low, status_high, ..] = rest {
            (*operation, *status_low, *status_high) = (self.operation, low, high);
        }
        bytes
    }
}

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    /// The status to answer it with.
    pub fn parse(entry: &[u8; ENTRY]) -> Result<Self, Status> {
        let [operation, second, ..] = *entry;
        let sector = u64_at(entry, 16).ok_or(Status::Error)?;
        let body = match operation {
            operation::DISCARD => {
                let is_secure = second & 1 != 0;
                if is_secure {
                    // `discard-secure` is not offered.
                    return Err(Status::Unsupported);
                }
                Body::Discard(u64_at(entry, 24).ok_or(Status::Error)?)
            }
            operation::INDIRECT => {
                let transfer = match second {
                    operation::READ => Transfer::Read,
                    operation::WRITE => Transfer::Write,
                    _ => return Err(Status::Error),
                };
                Body::Indirect(transfer, Indirect::parse(entry)?)
            }
            _ => {
                let transfer = transfer(operation)?;
                let count = usize::from(second);
                let may_be_empty = matches!(transfer, Transfer::Flush | Transfer::Barrier);
                if count > MOST_SEGMENTS || count == 0 && !may_be_empty {
                    return Err(Status::Error);
                }
                Body::Direct(transfer, segments(entry.get(24..).unwrap_or_default(), count)?)
            }
        };
        Ok(Self { sector, body })
    }
}

impl Indirect {
    fn parse(entry: &[u8; ENTRY]) -> Result<Self, Status> {
        let count = usize::from(u16_at(entry, 2).ok_or(Status::Error)?);
        if count == 0 || count > MOST_INDIRECT {
            return Err(Status::Error);
        }
        let pages = (0..count.div_ceil(SEGMENTS_PER_PAGE).min(INDIRECT_PAGES))
            .map(|i| u32_at(entry, 28 + 4 * i).ok_or(Status::Error))
            .collect::<Result<_, _>>()?;
        Ok(Self { count, pages })
    }

    /// How many of the segments the page number `index` describes.
    pub fn in_page(&self, index: usize) -> usize {
        self.count.saturating_sub(index * SEGMENTS_PER_PAGE).min(SEGMENTS_PER_PAGE)
    }
}

/// `count` segments that lie one after another.
///
/// # Errors
/// When there are fewer.
pub fn segments(bytes: &[u8], count: usize) -> Result<Vec<Segment>, Status> {
    let mut chunks = bytes.chunks_exact(8);
    (0..count).map(|_| chunks.next().and_then(Segment::parse).ok_or(Status::Error)).collect()
}

fn transfer(operation: u8) -> Result<Transfer, Status> {
    match operation {
        operation::READ => Ok(Transfer::Read),
        operation::WRITE => Ok(Transfer::Write),
        operation::WRITE_BARRIER => Ok(Transfer::Barrier),
        operation::FLUSH => Ok(Transfer::Flush),
        _ => Err(Status::Unsupported),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}
