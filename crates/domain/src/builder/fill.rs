//! Writing a planned guest into its memory.

use super::error::BuildError;
use super::plan::{Area, Plan};
use super::{Order, tables};
use crate::sys::memory::PrivateMemory;
use abi::start::StartInfo;
use abi::vcpu::{VcpuInfo, shared};
use boundary::{PAGE, port};
use kernel::KernelImage;
use std::mem::offset_of;

/// `start_info.magic`: interface version and architecture.
const MAGIC: &[u8] = b"xen-3.0-x86_64";
/// A P2M or M2P entry without a frame.
const INVALID: u64 = u64::MAX;
/// Hypercalls that the hypercall page has room for.
const STUBS: u8 = 128;
/// Size of a stub in the hypercall page in bytes.
const STUB: u64 = 32;
/// `__HYPERVISOR_iret` (xen.h).
const IRET: u8 = 23;

/// Writes everything; the frames are zero before.
pub(super) fn fill(
    ram: &mut PrivateMemory,
    plan: &Plan,
    order: &Order<'_>,
) -> Result<(), BuildError> {
    let bytes = ram.bytes();
    load_files(bytes, plan, order)?;
    write_numbers(bytes, plan.p2m, plan.nr_pages, plan.nr_pages)?;
    // Frames that the guest gets later have their numbers already.
    write_numbers(bytes, plan.m2p, plan.max_pages, plan.nr_frames)?;
    tables::write_tables(bytes, plan)?;
    write_start_info(bytes, plan, order)?;
    write_shared_info(bytes, plan)
}

/// The bytes of an area.
fn area_bytes<'a>(
    ram: &'a mut [u8],
    area: Area,
    what: &'static str,
) -> Result<&'a mut [u8], BuildError> {
    range(ram, area.start.saturating_mul(PAGE), area.count.saturating_mul(PAGE), what)
}

/// `length` bytes at `start`.
fn range<'a>(
    ram: &'a mut [u8],
    start: u64,
    length: u64,
    what: &'static str,
) -> Result<&'a mut [u8], BuildError> {
    let place = || {
        let start = usize::try_from(start).ok()?;
        let end = start.checked_add(usize::try_from(length).ok()?)?;
        Some(start..end)
    };
    place().and_then(|place| ram.get_mut(place)).ok_or(BuildError::Layout { what })
}

/// Loads the kernel and, at the same time, the ramdisk, which lies behind it.
fn load_files(ram: &mut [u8], plan: &Plan, order: &Order<'_>) -> Result<(), BuildError> {
    let (Some(area), Some(ramdisk)) = (plan.ramdisk, &order.ramdisk) else {
        return load_kernel(ram, order.kernel);
    };
    let start = usize::try_from(area.start.saturating_mul(PAGE)).unwrap_or(usize::MAX);
    let parts = ram.split_at_mut_checked(start);
    let (low, high) = parts.ok_or(BuildError::Layout { what: "the ramdisk" })?;
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| ramdisk.read_into(high));
        load_kernel(low, order.kernel)?;
        reading.join().map_err(|_| BuildError::Layout { what: "the ramdisk" })?
    })
}

/// Copies the kernel's segments to their addresses.
fn load_kernel(ram: &mut [u8], kernel: &KernelImage) -> Result<(), BuildError> {
    for segment in &kernel.segments {
        let data = kernel.segment_bytes(segment);
        let start = kernel.guest_physical(segment);
        range(ram, start, data.len() as u64, "the kernel")?.copy_from_slice(data);
    }
    if let Some(page) = kernel.hypercall_page {
        write_stubs(range(ram, page.wrapping_sub(kernel.virt_base), PAGE, "the hypercall page")?);
    }
    Ok(())
}

/// Fills a hypercall page: each stub loads its number and does `syscall`, with
/// RCX and R11, which that destroys, saved; the one for `iret` leaves them, and
/// RAX, on the stack, where the hypervisor expects them.
fn write_stubs(page: &mut [u8]) {
    for (number, stub) in (0..STUBS).zip(page.chunks_exact_mut(STUB as usize)) {
        let code: &[u8] = if number == IRET {
            &[0x51, 0x41, 0x53, 0x50, 0xb8, number, 0, 0, 0, 0x0f, 0x05]
        } else {
            &[0x51, 0x41, 0x53, 0xb8, number, 0, 0, 0, 0x0f, 0x05, 0x41, 0x5b, 0x59, 0xc3]
        };
        stub.fill(0xcc);
        for (to, from) in stub.iter_mut().zip(code) {
            *to = *from;
        }
    }
}

/// Writes the table 0, 1, 2, ... `valid` - 1, then invalid entries up to `count`.
fn write_numbers(ram: &mut [u8], area: Area, valid: u64, count: u64) -> Result<(), BuildError> {
    let table = area_bytes(ram, area, "a frame table")?;
    for (number, entry) in (0..count).zip(table.chunks_exact_mut(8)) {
        let value = if number < valid { number } else { INVALID };
        entry.copy_from_slice(&value.to_le_bytes());
    }
    Ok(())
}

/// Writes fields of a structure at `base`.
struct Fields<'a> {
    page: &'a mut [u8],
}

impl Fields<'_> {
    fn put(&mut self, offset: usize, data: &[u8]) -> Result<(), BuildError> {
        self.page
            .get_mut(offset..offset.saturating_add(data.len()))
            .ok_or(BuildError::Layout { what: "a field" })?
            .copy_from_slice(data);
        Ok(())
    }

    fn u64(&mut self, offset: usize, value: u64) -> Result<(), BuildError> {
        self.put(offset, &value.to_le_bytes())
    }

    fn u32(&mut self, offset: usize, value: u32) -> Result<(), BuildError> {
        self.put(offset, &value.to_le_bytes())
    }
}

fn one_page<'a>(
    ram: &'a mut [u8],
    frame: u64,
    what: &'static str,
) -> Result<&'a mut [u8], BuildError> {
    area_bytes(ram, Area { start: frame, count: 1 }, what)
}

fn write_start_info(ram: &mut [u8], plan: &Plan, order: &Order<'_>) -> Result<(), BuildError> {
    let mut info = Fields { page: one_page(ram, plan.start_info, "start_info")? };
    info.put(offset_of!(StartInfo, magic), MAGIC)?;
    info.u64(offset_of!(StartInfo, nr_pages), plan.nr_pages)?;
    info.u64(offset_of!(StartInfo, shared_info), plan.shared_info * PAGE)?;
    info.u64(offset_of!(StartInfo, store_mfn), plan.store)?;
    info.u32(offset_of!(StartInfo, store_evtchn), port::STORE)?;
    info.u64(offset_of!(StartInfo, console_mfn), plan.console)?;
    info.u32(offset_of!(StartInfo, console_evtchn), port::CONSOLE)?;
    info.u64(offset_of!(StartInfo, pt_base), plan.address(plan.tables.start))?;
    info.u64(offset_of!(StartInfo, nr_pt_frames), plan.tables.count)?;
    info.u64(offset_of!(StartInfo, mfn_list), plan.p2m_address)?;
    if let (Some(area), Some(ramdisk)) = (plan.ramdisk, &order.ramdisk) {
        let unmapped = order.kernel.mod_start_pfn;
        let start = if unmapped { area.start } else { plan.address(area.start) };
        let flags = if unmapped { abi::start::SIF_MOD_START_PFN } else { 0 };
        info.u32(offset_of!(StartInfo, flags), flags)?;
        info.u64(offset_of!(StartInfo, mod_start), start)?;
        info.u64(offset_of!(StartInfo, mod_len), ramdisk.size())?;
    }
    info.put(offset_of!(StartInfo, cmd_line), order.command_line.as_bytes())?;
    if plan.p2m_tables.count > 0 {
        // The tables count as part of the list: the guest frees them with it.
        let frames = plan.p2m_tables.count + plan.p2m.count;
        info.u64(offset_of!(StartInfo, first_p2m_pfn), plan.p2m_tables.start)?;
        info.u64(offset_of!(StartInfo, nr_p2m_frames), frames)?;
    }
    Ok(())
}

/// All event channels masked, upcalls masked on every vCPU; the monitor fills in the time.
fn write_shared_info(ram: &mut [u8], plan: &Plan) -> Result<(), BuildError> {
    let mut info = Fields { page: one_page(ram, plan.shared_info, "shared_info")? };
    for vcpu in 0..shared::LEGACY_VCPUS as usize {
        let base = shared::VCPU_INFO as usize + vcpu * size_of::<VcpuInfo>();
        info.put(base + offset_of!(VcpuInfo, evtchn_upcall_mask), &[1])?;
    }
    let mask = (shared::WC_VERSION - shared::MASK) as usize;
    info.put(shared::MASK as usize, &vec![0xff; mask])
}
