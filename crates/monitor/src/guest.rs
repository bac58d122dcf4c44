//! Guest memory as the monitor reads and writes it: by frame through its own
//! view of RAM, by guest address through the guest's page tables.
//!
//! Page tables and everything found by them are hostile input: frame numbers
//! are checked against the memfd's size at every step, values are copied once.

use abi::mmu::{PTE_ADDR, PTE_NX, PTE_PRESENT, PTE_PSE, PTE_USER, PTE_WRITE};

use crate::{layout::at, state::Monitor};

/// Lowest guest kernel address.
pub const KERNEL_HALF: u64 = 0xffff_8000_0000_0000;
/// Where guests see the machine-to-physical table; folds to free host addresses.
pub const M2P: u64 = 0xffff_8100_0000_0000;
/// The guest kernel's direct map of all frames (Linux `__PAGE_OFFSET_BASE_L4`).
pub const DIRECT_MAP: u64 = 0xffff_8880_0000_0000;
/// The guest kernel's image mapping (Linux `__START_KERNEL_map`).
pub const IMAGE_MAP: u64 = 0xffff_ffff_8000_0000;

/// A guest address that is not mapped as the access needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unmapped;

/// A last-level entry found by a walk.
#[derive(Clone, Copy, Debug)]
pub struct Leaf {
    /// Frame of the table that holds the entry.
    pub table: u32,
    /// Index in that table.
    pub index: usize,
    /// The entry.
    pub entry: u64,
    /// Write and user bits of all levels and-ed, NX or-ed.
    pub rights: u64,
    /// The same of the levels above.
    pub upper: u64,
}

impl Leaf {
    /// The frame mapped.
    pub fn frame(&self) -> u32 {
        frame_of(self.entry)
    }
    /// All levels allow writing.
    pub fn writable(&self) -> bool {
        self.rights & PTE_WRITE != 0
    }
    /// All levels allow user mode.
    pub fn user(&self) -> bool {
        self.rights & PTE_USER != 0
    }
    /// All levels allow execution.
    pub fn executable(&self) -> bool {
        self.rights & PTE_NX == 0
    }
}

/// The frame number in an entry; too large ones become `u32::MAX`.
pub fn frame_of(entry: u64) -> u32 {
    u32::try_from((entry & PTE_ADDR) >> 12).unwrap_or(u32::MAX)
}

/// Are bits 47 to 63 equal (SDM vol. 1 3.3.7.1)?
pub fn is_canonical(va: u64) -> bool {
    ((va << 16) as i64 >> 16) as u64 == va
}

/// Is the address canonical and in the kernel half?
pub fn is_kernel(va: u64) -> bool {
    va >= KERNEL_HALF
}

/// The host address of a guest kernel address.
pub fn fold(va: u64) -> u64 {
    va.wrapping_add(translate::FOLD)
}

/// The guest kernel address of a folded host address.
pub fn unfold(host: u64) -> u64 {
    host.wrapping_sub(translate::FOLD)
}

impl Monitor {
    /// Is it a frame of the RAM memfd?
    pub fn has_frame(&self, frame: u32) -> bool {
        u64::from(frame) < self.setup.nr_frames
    }

    /// Is it a frame guest page tables may map: guest RAM, shared_info, grant table?
    pub fn guest_may_map(&self, frame: u32) -> bool {
        let f = u64::from(frame);
        f < self.setup.max_pages
            || f == self.setup.shared_info_mfn
            || (f >= self.setup.grant_mfn && f < self.setup.grant_mfn + 32)
    }

    /// Where the monitor sees a frame. The frame must exist.
    pub fn frame_ptr(&self, frame: u32) -> *mut u8 {
        debug_assert!(self.has_frame(frame));
        (at::RAM + (u64::from(frame) << 12)) as *mut u8
    }

    /// Reads an entry of a table; `None` if the frame does not exist.
    pub fn entry(&self, table: u32, index: usize) -> Option<u64> {
        if !self.has_frame(table) {
            return None;
        }
        // SAFETY: the frame exists and the index is masked to the table; other
        // spaces are parked, the guest may race and yields some value.
        Some(unsafe { self.frame_ptr(table).cast::<u64>().add(index & 511).read_volatile() })
    }

    /// All entries of a table; none is present if the frame does not exist.
    pub fn entries(&self, table: u32) -> [u64; 512] {
        let mut entries = [0; 512];
        if self.has_frame(table) {
            let from = self.frame_ptr(table).cast::<u64>();
            // SAFETY: the frame exists; the guest may race and yields some values.
            unsafe { core::ptr::copy_nonoverlapping(from, entries.as_mut_ptr(), 512) };
        }
        entries
    }

    /// Sets bits of an entry (accessed, dirty).
    pub fn mark_entry(&self, table: u32, index: usize, bits: u64) {
        if self.has_frame(table) {
            // SAFETY: as in `entry`.
            unsafe {
                let p = self.frame_ptr(table).cast::<u64>().add(index & 511);
                let old = p.read_volatile();
                if old & bits != bits {
                    p.write_volatile(old | bits);
                }
            }
        }
    }

    /// Walks the guest's tables from `root`.
    pub fn walk_from(&self, root: u32, va: u64) -> Option<Leaf> {
        if !is_canonical(va) {
            return None;
        }
        let mut table = root;
        let mut allow = PTE_WRITE | PTE_USER;
        let mut nx = 0;
        for level in (0..4).rev() {
            let index = (va >> (12 + 9 * level)) as usize & 511;
            let entry = self.entry(table, index)?;
            if entry & PTE_PRESENT == 0 || (level > 0 && entry & PTE_PSE != 0) {
                return None;
            }
            let upper = allow | nx;
            allow &= entry;
            nx |= entry & PTE_NX;
            if level == 0 {
                return self.guest_may_map(frame_of(entry)).then_some(Leaf {
                    table,
                    index,
                    entry,
                    rights: allow | nx,
                    upper,
                });
            }
            table = frame_of(entry);
        }
        None
    }

    /// Walks the tables the guest kernel uses now.
    pub fn walk(&self, va: u64) -> Option<Leaf> {
        self.walk_from(self.vcpu.kernel_root, va)
    }

    /// The last-level table that covers `va`, if the upper levels are present.
    pub fn leaf_table(&self, va: u64) -> Option<u32> {
        if !is_canonical(va) {
            return None;
        }
        let mut table = self.vcpu.kernel_root;
        for level in (1..4).rev() {
            let entry = self.entry(table, (va >> (12 + 9 * level)) as usize & 511)?;
            if entry & PTE_PRESENT == 0 || entry & PTE_PSE != 0 {
                return None;
            }
            table = frame_of(entry);
        }
        self.has_frame(table).then_some(table)
    }

    /// Calls `f` with the pieces of `len` bytes at guest address `va`.
    fn pieces(
        &mut self,
        va: u64,
        len: usize,
        mut f: impl FnMut(&mut Monitor, u32, usize, core::ops::Range<usize>) -> Result<(), Unmapped>,
    ) -> Result<(), Unmapped> {
        let mut done = 0;
        while done < len {
            let at = va.wrapping_add(done as u64);
            let offset = (at & 0xfff) as usize;
            let n = (4096 - offset).min(len - done);
            let frame = self.frame_at(at).ok_or(Unmapped)?;
            f(self, frame, offset, done..done + n)?;
            done += n;
        }
        Ok(())
    }

    /// The frame behind a guest address (the M2P included).
    fn frame_at(&self, va: u64) -> Option<u32> {
        if va >= M2P && va < M2P + self.setup.m2p_frames * 4096 {
            return u32::try_from(self.setup.m2p_mfn + ((va - M2P) >> 12)).ok();
        }
        self.walk(va).map(|l| l.frame())
    }

    /// Copies guest memory at `va` to `to`.
    pub fn read(&mut self, va: u64, to: &mut [u8]) -> Result<(), Unmapped> {
        let len = to.len();
        self.pieces(va, len, |m, frame, offset, range| {
            let to = to.get_mut(range).unwrap_or_default();
            // SAFETY: the frame exists, the piece lies within it; the guest may
            // change it meanwhile and then gets what it deserves.
            unsafe {
                core::ptr::copy_nonoverlapping(
                    m.frame_ptr(frame).add(offset),
                    to.as_mut_ptr(),
                    to.len(),
                );
            }
            Ok(())
        })
    }

    /// Copies `from` to guest memory at `va`; the guest's write protection does not apply.
    pub fn write(&mut self, va: u64, from: &[u8]) -> Result<(), Unmapped> {
        self.pieces(va, from.len(), |m, frame, offset, range| {
            if !m.guest_may_map(frame) {
                return Err(Unmapped);
            }
            m.before_write(frame);
            let from = from.get(range).unwrap_or_default();
            // SAFETY: as in `read`.
            unsafe {
                core::ptr::copy_nonoverlapping(
                    from.as_ptr(),
                    m.frame_ptr(frame).add(offset),
                    from.len(),
                );
            }
            Ok(())
        })
    }

    /// Reads a plain value.
    pub fn read_value<T: Plain>(&mut self, va: u64) -> Result<T, Unmapped> {
        let mut value = core::mem::MaybeUninit::<T>::zeroed();
        // SAFETY: `T` is plain data (see `Plain`), so its bytes may be any.
        let bytes = unsafe {
            core::slice::from_raw_parts_mut(value.as_mut_ptr().cast::<u8>(), size_of::<T>())
        };
        self.read(va, bytes)?;
        // SAFETY: zeroed and filled.
        Ok(unsafe { value.assume_init() })
    }

    /// Writes a plain value.
    pub fn write_value<T: Plain>(&mut self, va: u64, value: &T) -> Result<(), Unmapped> {
        // SAFETY: `T` is plain data without uninitialised bytes (see `Plain`).
        let bytes = unsafe {
            core::slice::from_raw_parts(core::ptr::from_ref(value).cast::<u8>(), size_of::<T>())
        };
        self.write(va, bytes)
    }

    /// Must precede every write of the monitor to a guest frame.
    pub fn before_write(&mut self, frame: u32) {
        if self.frames.get(frame as usize).is_some_and(|f| f.is_protected()) {
            self.invalidate_frame(frame);
        }
    }
}

/// Data of which any bytes are a value and that has no padding left unwritten.
///
/// # Safety
/// Only `repr(C)` structs of integers whose padding is explicit.
pub unsafe trait Plain: Copy {}
macro_rules! plain {
    ($($t:ty),* $(,)?) => {
        // SAFETY: integers and `repr(C)` structs of integers with explicit padding.
        $(unsafe impl Plain for $t {})*
    };
}
plain!(
    u8,
    u16,
    u32,
    u64,
    abi::callback::Register,
    abi::grant::SetupTable,
    abi::grant::QuerySize,
    abi::memory::Reservation,
    abi::memory::Exchange,
    abi::mmu::Update,
    abi::mmu::ExtOp,
    abi::sched::Poll,
    abi::trap::TrapInfo,
    abi::trap::IretContext,
    abi::vcpu::TimeInfo,
    abi::vcpu::VcpuInfo,
    abi::vcpu::RunstateInfo,
    [u64; 8],
    [u64; 2],
    [u64; 3],
    [u64; 5],
    [u32; 2],
);
