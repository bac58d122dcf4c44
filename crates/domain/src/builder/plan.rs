//! Where everything goes. Pure arithmetic on frame numbers.

use super::error::BuildError;
use super::tables::count_tables;
use boundary::PAGE;
use kernel::KernelImage;

/// The initial mapping ends at a multiple of this (xen.h: "aligned to 4MB").
const MAPPING_ALIGN: u64 = (4 << 20) / PAGE;
/// Free mapped memory behind the boot stack (xen.h: "at least 512kB").
const SLACK: u64 = (512 << 10) / PAGE;
/// Frames of the grant table.
const GRANT_FRAMES: u64 = 32;
/// Start of the part of the upper half that guests own (arch-x86/xen-x86_64.h,
/// `HYPERVISOR_VIRT_END`).
const GUEST_UPPER_HALF: u64 = 0xffff_8800_0000_0000;
/// log2 of what one entry of a level-4 table maps.
const L4_SHIFT: u32 = 39;
/// Entries of 8 bytes in a page.
const ENTRIES: u64 = PAGE / 8;

/// A run of frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Area {
    /// First frame.
    pub start: u64,
    /// Number of frames.
    pub count: u64,
}

impl Area {
    /// The frame after the last one.
    pub fn end(self) -> u64 {
        self.start.saturating_add(self.count)
    }
}

/// What the layout depends on in a kernel.
#[derive(Clone, Copy, Debug)]
pub struct KernelShape {
    /// Guest-physical address behind the kernel.
    pub end: u64,
    /// Guest address of frame 0.
    pub virt_base: u64,
    /// Where the kernel wants its P2M list mapped, if not behind itself.
    pub init_p2m: Option<u64>,
    /// Whether it takes the ramdisk unmapped.
    pub mod_start_pfn: bool,
}

impl KernelShape {
    /// The shape of a kernel.
    pub fn of(kernel: &KernelImage) -> Self {
        let end = kernel.physical_range().end.saturating_sub(kernel.paddr_offset);
        Self {
            end,
            virt_base: kernel.virt_base,
            init_p2m: kernel.init_p2m,
            mod_start_pfn: kernel.mod_start_pfn,
        }
    }

    /// The address for the P2M list, if it can be honoured: in the upper half or
    /// below the hole, and with a level-4 entry of its own.
    fn separate_p2m(&self, frames: u64) -> Option<u64> {
        let start = self.init_p2m?;
        let last = start.checked_add(frames.checked_mul(PAGE)?)?.checked_sub(1)?;
        let slot = |address: u64| address >> L4_SHIFT;
        let canonical = slot(last) < 1 << 8 || start >= GUEST_UPPER_HALF;
        let apart = slot(last) < slot(self.virt_base);
        (canonical && apart && start.is_multiple_of(PAGE)).then_some(start)
    }
}

/// Where everything goes, in frame numbers.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Guest address of frame 0.
    pub virt_base: u64,
    /// The ramdisk.
    pub ramdisk: Option<Area>,
    /// The P2M list.
    pub p2m: Area,
    /// Guest address of the P2M list.
    pub p2m_address: u64,
    /// Page tables of a P2M list that is mapped by itself (else empty); the list
    /// follows them.
    pub p2m_tables: Area,
    /// `start_info`.
    pub start_info: u64,
    /// xenstore ring.
    pub store: u64,
    /// Console ring.
    pub console: u64,
    /// Page tables, the top one first.
    pub tables: Area,
    /// Boot stack.
    pub stack: u64,
    /// End of the initial mapping, which starts at frame 0.
    pub mapped_end: u64,
    /// Frames of the guest.
    pub nr_pages: u64,
    /// Most frames of the guest.
    pub max_pages: u64,
    /// `shared_info`.
    pub shared_info: u64,
    /// Grant table.
    pub grants: Area,
    /// Machine-to-physical table.
    pub m2p: Area,
    /// All frames.
    pub nr_frames: u64,
}

/// Hands out frames one after the other.
struct Frames {
    next: u64,
}

impl Frames {
    fn take(&mut self, count: u64) -> Area {
        let area = Area { start: self.next, count };
        self.next = area.end();
        area
    }
}

fn pages(bytes: u64) -> u64 {
    bytes.div_ceil(PAGE)
}

impl Plan {
    /// Plans a guest with `nr_pages` of memory now and `max_pages` at most.
    ///
    /// # Errors
    /// When it does not fit `nr_pages` or is larger than a domain can be.
    pub fn new(
        kernel: &KernelShape,
        ramdisk_bytes: Option<u64>,
        nr_pages: u64,
        max_pages: u64,
    ) -> Result<Self, BuildError> {
        if kernel.virt_base < GUEST_UPPER_HALF {
            let least = GUEST_UPPER_HALF;
            return Err(BuildError::Base { virt_base: kernel.virt_base, least });
        }
        let max_pages = max_pages.max(nr_pages);
        let monitor = MonitorFrames::new(max_pages)?;
        let mut frames = Frames { next: pages(kernel.end) };
        let p2m_frames = pages(nr_pages.saturating_mul(8));
        let separate = kernel.separate_p2m(p2m_frames);
        let ramdisk_frames = ramdisk_bytes.map(pages);
        let mapped_ramdisk = ramdisk_frames.filter(|_| !kernel.mod_start_pfn);
        let ramdisk = mapped_ramdisk.map(|count| frames.take(count));
        let mapped_p2m = separate.is_none().then(|| frames.take(p2m_frames));
        let start_info = frames.take(1).start;
        let store = frames.take(1).start;
        let console = frames.take(1).start;
        let (tables, stack, mapped_end) = mapping(kernel.virt_base, frames.next)?;
        frames.next = mapped_end;
        let ramdisk = ramdisk.or_else(|| ramdisk_frames.map(|count| frames.take(count)));
        let p2m_tables = frames.take(separate.map_or(0, |start| count_tables(start, p2m_frames)));
        let p2m = mapped_p2m.unwrap_or_else(|| frames.take(p2m_frames));
        if frames.next > nr_pages {
            return Err(too_small(frames.next, nr_pages));
        }
        let in_mapping = kernel.virt_base.wrapping_add(p2m.start.wrapping_mul(PAGE));
        let p2m_address = separate.unwrap_or(in_mapping);
        Ok(Self {
            virt_base: kernel.virt_base,
            ramdisk,
            p2m,
            p2m_address,
            p2m_tables,
            start_info,
            store,
            console,
            tables,
            stack,
            mapped_end,
            nr_pages,
            max_pages,
            shared_info: monitor.shared_info,
            grants: monitor.grants,
            m2p: monitor.m2p,
            nr_frames: monitor.m2p.end(),
        })
    }

    /// All frames of a guest of at most `max_pages`, those of the monitor included.
    ///
    /// # Errors
    /// When it is larger than a domain can be.
    pub fn all_frames(max_pages: u64) -> Result<u64, BuildError> {
        Ok(MonitorFrames::new(max_pages)?.m2p.end())
    }

    /// Guest address of a frame in the initial mapping.
    pub fn address(&self, frame: u64) -> u64 {
        self.virt_base.wrapping_add(frame.wrapping_mul(PAGE))
    }
}

/// What the monitor needs behind the guest's frames.
struct MonitorFrames {
    shared_info: u64,
    grants: Area,
    m2p: Area,
}

impl MonitorFrames {
    fn new(max_pages: u64) -> Result<Self, BuildError> {
        let most = boundary::at::RAM_MAX / PAGE;
        let too_large = || BuildError::too_much(max_pages.div_ceil(super::PAGES_PER_MIB));
        if max_pages > most {
            return Err(too_large());
        }
        let mut frames = Frames { next: max_pages };
        let shared_info = frames.take(1).start;
        let grants = frames.take(GRANT_FRAMES);
        // The M2P table has an entry for each of its own frames too.
        let mut count = pages(frames.next.saturating_mul(8));
        while count.saturating_mul(ENTRIES) < frames.next.saturating_add(count) {
            count = count.saturating_add(1);
        }
        let m2p = frames.take(count);
        if m2p.end() > most {
            return Err(too_large());
        }
        Ok(Self { shared_info, grants, m2p })
    }
}

/// Page tables, boot stack and end of the initial mapping; the tables start at `next`.
fn mapping(virt_base: u64, next: u64) -> Result<(Area, u64, u64), BuildError> {
    let mut count = 1;
    loop {
        let stack = next.saturating_add(count);
        let end = stack.saturating_add(1 + SLACK).next_multiple_of(MAPPING_ALIGN);
        let fits = end.checked_mul(PAGE).and_then(|bytes| virt_base.checked_add(bytes - 1));
        if fits.is_none() {
            return Err(BuildError::too_much(end / super::PAGES_PER_MIB));
        }
        let needed = count_tables(virt_base, end).saturating_add(1);
        if needed <= count {
            return Ok((Area { start: next, count }, stack, end));
        }
        count = needed;
    }
}

/// The error for a guest that needs `need` frames; a larger P2M list for the
/// larger memory is taken into account.
fn too_small(need: u64, nr_pages: u64) -> BuildError {
    let extra = pages(need.saturating_sub(nr_pages).saturating_mul(8)).saturating_add(1);
    BuildError::TooSmall {
        have_mib: nr_pages / super::PAGES_PER_MIB,
        need_mib: need.saturating_add(extra).div_ceil(super::PAGES_PER_MIB),
    }
}
