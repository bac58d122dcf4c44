//! What a qcow2 image's growth has to know of its tables (QEMU's docs/interop/qcow2.txt), read from an
//! image that nobody writes meanwhile, and believed only as far as it was checked.

use std::io;

/// Largest table of the first level, in bytes (QEMU's block/qcow2.h, `QCOW_MAX_L1_SIZE`).
const MOST_L1: u64 = 32 << 20;
/// Largest table of reference counts, in bytes (`QCOW_MAX_REFTABLE_SIZE`).
const MOST_REFTABLE: u64 = 8 << 20;
/// Where an entry's address is in it.
const ADDRESS: u64 = 0x00ff_ffff_ffff_fe00;
/// Bit of the auto-clear features: there are bitmaps, which are as long as the image.
const BITMAPS: u64 = 1;

/// The file of an image.
pub trait Place {
    /// Reads; behind the end there are zeros.
    fn read(&self, at: u64, bytes: &mut [u8]) -> io::Result<()>;
    /// Writes all of it.
    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// What was written is on the medium.
    fn sync(&self) -> io::Result<()>;
    /// Its length, if it has one that grows.
    fn length(&self) -> io::Result<Option<u64>>;
    /// Takes its end away.
    fn cut(&self, length: u64) -> io::Result<()>;
}

pub fn refused(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why.into())
}

/// The fields of the header that a growth changes. They lie side by side within a sector, so that one
/// write changes all of them or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pointers {
    /// Size of the disk.
    pub size: u64,
    pub l1_entries: u32,
    pub l1_at: u64,
    pub reftable_at: u64,
    pub reftable_clusters: u32,
}

impl Pointers {
    /// Where they are in the header.
    pub const AT: u64 = 24;
    const LENGTH: usize = 36;

    pub fn bytes(&self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        // The field behind the size, the method of encryption, is 0: others are not served.
        let fields: [(usize, &[u8]); 5] = [
            (0, &self.size.to_be_bytes()),
            (12, &self.l1_entries.to_be_bytes()),
            (16, &self.l1_at.to_be_bytes()),
            (24, &self.reftable_at.to_be_bytes()),
            (32, &self.reftable_clusters.to_be_bytes()),
        ];
        for (at, field) in fields {
            if let Some(place) = bytes.get_mut(at..at + field.len()) {
                place.copy_from_slice(field);
            }
        }
        bytes
    }
}

/// What the header says.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    pub pointers: Pointers,
    /// Bytes of a cluster.
    pub cluster: u64,
    /// Bits of a reference count, as a power of two.
    pub order: u32,
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let field = bytes.get(at..).and_then(<[u8]>::first_chunk);
    u64::from_be_bytes(field.copied().unwrap_or_default())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let field = bytes.get(at..).and_then(<[u8]>::first_chunk);
    u32::from_be_bytes(field.copied().unwrap_or_default())
}

impl Header {
    /// Reads it, and refuses images that cannot grow.
    pub fn read(file: &impl Place) -> io::Result<Self> {
        let mut bytes = [0; 104];
        file.read(0, &mut bytes)?;
        let version = u32_at(&bytes, 4);
        if u32_at(&bytes, 0) != 0x5146_49fb || !(2..=3).contains(&version) {
            return Err(refused("its header is not that of a qcow2 image"));
        }
        let (features, clears, order) = match version {
            2 => (0, 0, 4),
            _ => (u64_at(&bytes, 72), u64_at(&bytes, 88), u32_at(&bytes, 96)),
        };
        if u32_at(&bytes, 32) != 0 || features != 0 {
            return Err(refused("it has features with which it cannot grow, or is not clean"));
        }
        if clears & BITMAPS != 0 {
            return Err(refused("it has bitmaps, with which it cannot grow"));
        }
        if version == 2 && u32_at(&bytes, 60) != 0 {
            return Err(refused("it is of version 2 and has snapshots, with which it cannot grow"));
        }
        let bits = u32_at(&bytes, 20);
        if !(9..=21).contains(&bits) || order > 6 {
            return Err(refused("its header is wrong"));
        }
        let pointers = Pointers {
            size: u64_at(&bytes, 24),
            l1_entries: u32_at(&bytes, 36),
            l1_at: u64_at(&bytes, 40),
            reftable_at: u64_at(&bytes, 48),
            reftable_clusters: u32_at(&bytes, 56),
        };
        let header = Self { pointers, cluster: 1 << bits, order };
        let aligned = |at: u64| at != 0 && at.is_multiple_of(header.cluster) && at & ADDRESS == at;
        let fits = u64::from(pointers.l1_entries) * 8 <= MOST_L1
            && header.may_have(pointers.reftable_clusters.into())
            && pointers.reftable_clusters != 0;
        if !fits || !aligned(pointers.reftable_at) || !aligned(pointers.l1_at) {
            return Err(refused("its tables are not where they can be"));
        }
        Ok(header)
    }

    /// Whether the table of reference counts may have so many clusters.
    pub fn may_have(&self, reftable: u64) -> bool {
        reftable.saturating_mul(self.cluster) <= MOST_REFTABLE.max(self.cluster)
    }

    /// Entries of the first table for a disk of this size.
    pub fn l1_entries(&self, size: u64) -> io::Result<u32> {
        let covered = self.cluster / 8 * self.cluster;
        let entries = size.div_ceil(covered);
        if entries * 8 > MOST_L1 {
            let (most, kib) = (MOST_L1 / 8 * covered, self.cluster >> 10);
            let unit = if kib == 0 { "512 bytes".into() } else { format!("{kib} KiB") };
            return Err(refused(format!(
                "a qcow2 image with clusters of {unit} has {most} bytes at most"
            )));
        }
        u32::try_from(entries).map_err(|_| refused("its first table would be too long"))
    }

    /// Clusters that so many bytes take.
    pub fn clusters(&self, bytes: u64) -> u64 {
        bytes.div_ceil(self.cluster)
    }

    /// Reference counts in a block of them.
    pub fn counts(&self) -> u64 {
        (self.cluster * 8) >> self.order
    }

    /// The table of reference counts: addresses of its blocks.
    pub fn reftable(&self, file: &impl Place) -> io::Result<Vec<u64>> {
        let length = u64::from(self.pointers.reftable_clusters) * self.cluster;
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        file.read(self.pointers.reftable_at, &mut bytes)?;
        let (entries, _) = bytes.as_chunks::<8>();
        let table: Vec<u64> =
            entries.iter().map(|entry| u64::from_be_bytes(*entry) & ADDRESS).collect();
        if table.iter().any(|at| !at.is_multiple_of(self.cluster)) {
            return Err(refused("a block of its reference counts is not where it can be"));
        }
        Ok(table)
    }
}

/// A block of reference counts.
#[derive(Clone, Debug)]
pub struct Block {
    pub bytes: Vec<u8>,
    order: u32,
}

impl Block {
    pub fn new(bytes: Vec<u8>, order: u32) -> Self {
        Self { bytes, order }
    }

    /// The bytes of a count, and where its bits are in them.
    fn place(&self, index: u64) -> (std::ops::Range<usize>, u32) {
        let bit = index << self.order;
        let start = usize::try_from(bit / 8).unwrap_or(usize::MAX);
        let length = ((1usize << self.order) / 8).max(1);
        let shift = if self.order < 3 { (bit % 8) as u32 } else { 0 };
        (start..start.saturating_add(length), shift)
    }

    fn mask(&self) -> u64 {
        u64::MAX >> (64 - (1u32 << self.order))
    }

    /// A count; `None` behind the end.
    pub fn get(&self, index: u64) -> Option<u64> {
        let (range, shift) = self.place(index);
        let value =
            self.bytes.get(range)?.iter().fold(0u64, |all, byte| all << 8 | u64::from(*byte));
        Some(value >> shift & self.mask())
    }

    /// Sets a count to 0 or 1.
    pub fn set(&mut self, index: u64, is_used: bool) {
        let (range, shift) = self.place(index);
        let mask = self.mask();
        let Some(bytes) = self.bytes.get_mut(range) else { return };
        let Some((last, before)) = bytes.split_last_mut() else { return };
        before.fill(0);
        let cleared = u64::from(*last) & !(mask << shift);
        *last = (cleared | u64::from(is_used) << shift) as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_every_width() {
        for order in 0..=6 {
            let mut block = Block::new(vec![0xff; 64], order);
            let count = 512 >> order;
            let all = block.mask();
            assert_eq!(block.get(count), None);
            block.set(3, false);
            block.set(5, true);
            let seen: Vec<_> = (2..7).map(|index| block.get(index).unwrap()).collect();
            assert_eq!(seen, [all, 0, all, 1, all], "order {order}");
        }
        // Big-endian, and from the lowest bit on (docs/interop/qcow2.txt).
        let mut block = Block::new(vec![0; 8], 4);
        block.set(1, true);
        assert_eq!(block.bytes, [0, 0, 0, 1, 0, 0, 0, 0]);
        let mut block = Block::new(vec![0; 8], 1);
        block.set(1, true);
        assert_eq!(block.bytes[0], 4);
    }
}
