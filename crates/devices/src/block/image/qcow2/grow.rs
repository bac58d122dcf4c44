//! A qcow2 image becomes longer, in such a way that it is whole at every moment.
//!
//! (imago can do it too, but has the header point at a new table before the counts that say that its
//! clusters are in use are in the file: who is killed then leaves an image that gives them away again.)
//!
//! All that is new is written where nobody looks: behind the end of the file, or into the unused rest
//! of the first table. If that table must move, then so do the blocks of reference counts that change
//! by it, and their table. Then one small write makes the header point at all of this. Whoever dies
//! before it leaves an image as it was, with some unused bytes behind it; whoever dies after it leaves
//! one that has grown.

use super::tables::{Block, Header, Place, Pointers, refused};
use std::collections::BTreeMap;
use std::io;

/// How often another place is looked for, or more blocks to be written anew.
const TRIES: u32 = 64;
/// Most bytes of blocks that are written anew: what an image says of itself may be anything.
const MOST_BLOCKS: u64 = 128 << 20;

/// What is to be done.
struct Plan {
    /// What is written first, to places that are not in use.
    fresh: Vec<(u64, Vec<u8>)>,
    /// What the header says then.
    pointers: Pointers,
}

/// The way back to an image as it was.
#[derive(Debug)]
pub struct Undo {
    pointers: Pointers,
    length: Option<u64>,
}

impl Undo {
    /// Goes it, as far as the host lets us.
    ///
    /// # Errors
    /// When the header may still be the new one; then nothing is cut off.
    pub fn undo(&self, file: &impl Place) -> io::Result<()> {
        file.write(Pointers::AT, &self.pointers.bytes())?;
        file.sync()?;
        self.cut(file)
    }

    fn cut(&self, file: &impl Place) -> io::Result<()> {
        self.length.map_or(Ok(()), |length| file.cut(length))
    }
}

/// Makes an image longer that nobody else uses meanwhile. It is as it was if that fails.
pub fn grow(file: &impl Place, size: u64) -> io::Result<Undo> {
    let header = Header::read(file)?;
    if size < header.pointers.size {
        return Err(refused("it is longer than that already"));
    }
    let undo = Undo { pointers: header.pointers, length: file.length()? };
    let plan = plan(file, &header, size, undo.length)?;
    let fresh = plan.fresh.iter().try_for_each(|(at, bytes)| file.write(*at, bytes));
    if let Err(error) = fresh.and_then(|()| file.sync()) {
        // The header is as it was.
        let _longer_than_it_needs = undo.cut(file);
        return Err(error);
    }
    let switched = file.write(Pointers::AT, &plan.pointers.bytes()).and_then(|()| file.sync());
    match switched {
        Ok(()) => Ok(undo),
        Err(error) => {
            let _as_far_as_possible = undo.undo(file);
            Err(error)
        }
    }
}

fn plan(file: &impl Place, header: &Header, size: u64, length: Option<u64>) -> io::Result<Plan> {
    let old = header.pointers;
    let entries = header.l1_entries(size)?.max(old.l1_entries);
    let used = u64::from(old.l1_entries) * 8;
    let more = u64::from(entries - old.l1_entries) * 8;
    let rest = header.clusters(used) * header.cluster - used;
    let pointers = Pointers { size, l1_entries: entries, ..old };
    if more == 0 {
        return Ok(Plan { fresh: Vec::new(), pointers });
    }
    if more <= rest {
        let zeros = vec![0; usize::try_from(more).unwrap_or(0)];
        return Ok(Plan { fresh: vec![(old.l1_at + used, zeros)], pointers });
    }
    let Some(length) = length else {
        return Err(refused(
            "its first table has no room left, and on a device it cannot be moved",
        ));
    };
    let mut l1 = vec![0; usize::try_from(used).unwrap_or(0)];
    file.read(old.l1_at, &mut l1)?;
    l1.resize(usize::try_from(u64::from(entries) * 8).unwrap_or(0), 0);
    let counts = Counts { file, header, table: header.reftable(file)?, length };
    let moved = counts.make_room(header.clusters(l1.len() as u64))?;
    let at = moved.start * header.cluster;
    let mut fresh = vec![(at, padded(l1, header))];
    let reftable_at = at + header.cluster * header.clusters(u64::from(entries) * 8);
    let table: Vec<u8> = moved.table.iter().flat_map(|entry| entry.to_be_bytes()).collect();
    fresh.push((reftable_at, table));
    fresh.extend(moved.blocks);
    let reftable_clusters = u32::try_from(header.clusters(moved.table.len() as u64 * 8))
        .map_err(|_| refused("its table of reference counts would be too long"))?;
    let pointers = Pointers { l1_at: at, reftable_at, reftable_clusters, ..pointers };
    Ok(Plan { fresh, pointers })
}

fn padded(mut bytes: Vec<u8>, header: &Header) -> Vec<u8> {
    let length = header.clusters(bytes.len() as u64) * header.cluster;
    bytes.resize(usize::try_from(length).unwrap_or(0), 0);
    bytes
}

/// The reference counts of an image.
struct Counts<'a, P> {
    file: &'a P,
    header: &'a Header,
    /// Addresses of the blocks.
    table: Vec<u64>,
    /// Bytes of the file.
    length: u64,
}

/// Reference counts that say what is to be.
struct Moved {
    /// First of the new clusters: those of the first table, of the table of counts, of its blocks.
    start: u64,
    /// Addresses of blocks.
    table: Vec<u64>,
    /// The blocks that changed.
    blocks: Vec<(u64, Vec<u8>)>,
}

impl<P: Place> Counts<'_, P> {
    /// Room for so many clusters of the first table; what it, the table of counts and the blocks that
    /// change had is free then.
    fn make_room(&self, l1: u64) -> io::Result<Moved> {
        let mut start = self.header.clusters(self.length);
        for _ in 0..TRIES {
            match self.place(start, l1)? {
                Ok(moved) => return Ok(moved),
                // A process that was killed may have left clusters that it had counted.
                Err(used) => start = used + 1,
            }
        }
        Err(refused("there are clusters in use behind its end ('qemu-img check' tells more)"))
    }

    fn address(&self, block: u64) -> u64 {
        let entry = usize::try_from(block).ok().and_then(|index| self.table.get(index));
        entry.copied().unwrap_or(0)
    }

    /// The clusters that become free, when these blocks are written anew.
    fn freed(&self, blocks: &BTreeMap<u64, u64>) -> Vec<u64> {
        let Pointers { l1_entries, l1_at, reftable_at, reftable_clusters, .. } =
            self.header.pointers;
        let cluster = self.header.cluster;
        let l1 = self.header.clusters(u64::from(l1_entries) * 8);
        let tables = [(l1_at / cluster, l1), (reftable_at / cluster, reftable_clusters.into())];
        let tables = tables.into_iter().flat_map(|(first, count)| first..first + count);
        let blocks = blocks.values().filter(|at| **at != 0).map(|at| at / cluster);
        tables.chain(blocks).collect()
    }

    /// The same from `start` on, or the cluster there that is in use.
    fn place(&self, start: u64, l1: u64) -> io::Result<Result<Moved, u64>> {
        let counts = self.header.counts();
        let mut reftable = u64::from(self.header.pointers.reftable_clusters);
        // Blocks that are written anew, with their old addresses. Each takes a cluster and frees one,
        // whose counts may be in blocks that have to be written anew by that.
        let mut blocks: BTreeMap<u64, u64> = BTreeMap::new();
        let mut rounds = 0..TRIES;
        let (end, freed) = loop {
            let end = start + l1 + reftable + blocks.len() as u64;
            let freed = self.freed(&blocks);
            let touched = (start / counts..=(end - 1) / counts)
                .chain(freed.iter().map(|cluster| cluster / counts));
            let before = (blocks.len(), reftable);
            for block in touched {
                blocks.insert(block, self.address(block));
            }
            let last = blocks.last_key_value().map_or(0, |(block, _)| *block);
            let entries = (self.table.len() as u64).max(last + 1);
            reftable = self.header.clusters(entries * 8);
            let is_too_much = blocks.len() as u64 * self.header.cluster > MOST_BLOCKS;
            if is_too_much || rounds.next().is_none() || !self.header.may_have(reftable) {
                return Err(refused("its reference counts are too much in disorder"));
            }
            if (blocks.len(), reftable) == before {
                break (end, freed);
            }
        };
        let mut contents = BTreeMap::new();
        for (block, at) in &blocks {
            contents.insert(*block, self.read(*at)?);
        }
        for cluster in start..end {
            let block = contents.get_mut(&(cluster / counts));
            let block = block.ok_or_else(|| refused("its reference counts are wrong"))?;
            if block.get(cluster % counts) != Some(0) {
                let in_use = |index: &u64| block.get(*index).is_some_and(|count| count > 0);
                let last = (cluster % counts..counts).rev().find(in_use);
                return Ok(Err(cluster - cluster % counts + last.unwrap_or(counts - 1)));
            }
            block.set(cluster % counts, true);
        }
        for cluster in freed {
            let block = contents.get_mut(&(cluster / counts));
            match block {
                Some(block) if block.get(cluster % counts) == Some(1) => {
                    block.set(cluster % counts, false);
                }
                _ => {
                    let why =
                        "its reference counts are wrong ('qemu-img check -r all' repairs them)";
                    return Err(refused(why));
                }
            }
        }
        Ok(Ok(self.laid_out(start, start + l1 + reftable, reftable, contents)))
    }

    fn laid_out(
        &self,
        start: u64,
        first: u64,
        reftable: u64,
        blocks: BTreeMap<u64, Block>,
    ) -> Moved {
        let cluster = self.header.cluster;
        let mut table = self.table.clone();
        table.resize(usize::try_from(reftable * cluster / 8).unwrap_or(0), 0);
        let mut written = Vec::new();
        for (place, (block, content)) in (first..).zip(blocks) {
            let at = place * cluster;
            if let Some(entry) = usize::try_from(block).ok().and_then(|index| table.get_mut(index))
            {
                *entry = at;
            }
            written.push((at, content.bytes));
        }
        Moved { start, table, blocks: written }
    }

    fn read(&self, at: u64) -> io::Result<Block> {
        let mut bytes = vec![0; usize::try_from(self.header.cluster).unwrap_or(0)];
        if at != 0 {
            if at >= self.length {
                return Err(refused("a block of its reference counts lies behind its end"));
            }
            self.file.read(at, &mut bytes)?;
        }
        Ok(Block::new(bytes, self.header.order))
    }
}

#[cfg(test)]
#[path = "grow_tests.rs"]
mod tests;
