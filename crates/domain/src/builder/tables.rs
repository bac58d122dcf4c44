//! The initial page tables.

use super::error::BuildError;
use super::plan::{Area, Plan};
use boundary::PAGE;

/// Page-table bits (SDM volume 3, "4-Level Paging"): present, accessed, dirty.
const PRESENT: u64 = 1 | 1 << 5 | 1 << 6;
/// Writable.
const WRITABLE: u64 = 1 << 1;
/// User: set in the upper levels, as the guest kernel has no ring 0.
const USER: u64 = 1 << 2;
/// Address bits of an entry.
const FRAME: u64 = 0x000f_ffff_ffff_f000;
/// Index bits per level.
const INDEX_BITS: u32 = 9;

/// Page tables of levels 1 to 3 that map `count` pages at `start`.
pub(super) fn count_tables(start: u64, count: u64) -> u64 {
    if count == 0 {
        return 0;
    }
    let last = start.wrapping_add((count - 1).wrapping_mul(PAGE));
    let at_level = |level: u32| {
        let shift = 12 + level * INDEX_BITS;
        (last >> shift) - (start >> shift) + 1
    };
    at_level(1) + at_level(2) + at_level(3)
}

/// Makes page tables in guest memory from a fixed supply of frames.
pub(super) struct TableMaker<'a> {
    ram: &'a mut [u8],
    top: u64,
    next: u64,
    end: u64,
}

impl<'a> TableMaker<'a> {
    /// A maker whose top table is frame `top` and whose other tables come from `supply`.
    pub(super) fn new(ram: &'a mut [u8], top: u64, supply: Area) -> Self {
        Self { ram, top, next: supply.start, end: supply.end() }
    }

    /// Maps `area` at `address`; frames in `read_only` without write permission.
    pub(super) fn map(
        &mut self,
        address: u64,
        area: Area,
        read_only: Area,
    ) -> Result<(), BuildError> {
        let mut table = None;
        for (i, frame) in (area.start..area.end()).enumerate() {
            let page = address.wrapping_add(i as u64 * PAGE);
            let index = page >> 12 & 0x1ff;
            let level1 = match table.filter(|_| index != 0) {
                Some(known) => known,
                None => self.level1(page)?,
            };
            table = Some(level1);
            let writable = frame < read_only.start || frame >= read_only.end();
            let flags = if writable { PRESENT | WRITABLE } else { PRESENT };
            self.set(level1, index, (frame * PAGE) | flags)?;
        }
        Ok(())
    }

    /// The level-1 table for `address`, with the tables above it.
    fn level1(&mut self, address: u64) -> Result<u64, BuildError> {
        let mut table = self.top;
        for level in [3, 2, 1] {
            let index = address >> (12 + level * INDEX_BITS) & 0x1ff;
            let entry = self.get(table, index)?;
            table = if entry == 0 {
                let new = self.take()?;
                self.set(table, index, (new * PAGE) | PRESENT | WRITABLE | USER)?;
                new
            } else {
                (entry & FRAME) / PAGE
            };
        }
        Ok(table)
    }

    fn take(&mut self) -> Result<u64, BuildError> {
        if self.next >= self.end {
            return Err(BuildError::Layout { what: "a page table" });
        }
        self.next += 1;
        Ok(self.next - 1)
    }

    fn entry(&mut self, table: u64, index: u64) -> Result<&mut [u8], BuildError> {
        let at = usize::try_from(table * PAGE + index * 8).unwrap_or(usize::MAX);
        let range = at..at.saturating_add(8);
        self.ram.get_mut(range).ok_or(BuildError::Layout { what: "a page-table entry" })
    }

    fn get(&mut self, table: u64, index: u64) -> Result<u64, BuildError> {
        let bytes = self.entry(table, index)?.try_into().unwrap_or_default();
        Ok(u64::from_le_bytes(bytes))
    }

    fn set(&mut self, table: u64, index: u64, value: u64) -> Result<(), BuildError> {
        self.entry(table, index)?.copy_from_slice(&value.to_le_bytes());
        Ok(())
    }
}

/// Writes the page tables of a guest.
pub(super) fn write_tables(ram: &mut [u8], plan: &Plan) -> Result<(), BuildError> {
    let top = plan.tables.start;
    let rest = Area { start: top + 1, count: plan.tables.count.saturating_sub(1) };
    let mapped = Area { start: 0, count: plan.mapped_end };
    TableMaker::new(ram, top, rest).map(plan.virt_base, mapped, plan.tables)?;
    if plan.p2m_tables.count > 0 {
        let mut maker = TableMaker::new(ram, top, plan.p2m_tables);
        maker.map(plan.p2m_address, plan.p2m, Area::default())?;
    }
    Ok(())
}
