//! The domain builder: lays out a PV guest's memory at its start of day.
//!
//! Source of the layout: xen.h, "start of day"; arch-x86/xen.h. Frames are laid
//! out from frame 0 up; machine frames equal pseudo-physical frames:
//!
//! ```text
//! kernel segments at their physical addresses
//! [ramdisk]  [P2M list]                 unless the kernel wants them unmapped
//! start_info, xenstore page, console page
//! page tables
//! boot stack
//! slack, to a multiple of 4 MiB          end of the initial mapping
//! [ramdisk]  [P2M tables, P2M list]      if the kernel takes them unmapped
//! ... the rest of the guest's memory
//! max_pages: shared_info, 32 grant frames, M2P table
//! ```

mod clock;
mod error;
mod fill;
mod plan;
mod ramdisk;
mod tables;

pub(crate) use clock::time_zero;
pub use clock::{ClockStart, TimeScale};
pub use error::BuildError;
pub use plan::{Area, KernelShape, Plan};
pub use ramdisk::Ramdisk;

use crate::sys::memory::{PrivateMemory, SharedMemory};
use boundary::{PAGE, Setup};
use kernel::KernelImage;

/// Pages in a MiB.
const PAGES_PER_MIB: u64 = (1 << 20) / PAGE;

/// What to build.
#[derive(Debug)]
pub struct Order<'a> {
    /// The kernel.
    pub kernel: &'a KernelImage,
    /// The ramdisk, if there is one.
    pub ramdisk: Option<Ramdisk>,
    /// Kernel command line, at most 1023 bytes.
    pub command_line: &'a str,
    /// Memory at start in MiB.
    pub memory_mib: u64,
    /// Most memory ever in MiB, at least `memory_mib`.
    pub maxmem_mib: u64,
    /// vCPUs.
    pub vcpus: u32,
    /// Domain number.
    pub domid: u32,
    /// Domain UUID.
    pub uuid: [u8; 16],
    /// What the guest sees of the processor.
    pub cpuid: cpuid::Policy,
}

/// A guest that is laid out. The clock fields of its setup are still zero.
#[derive(Debug)]
pub struct Built {
    /// Guest RAM with the monitor's frames.
    pub ram: SharedMemory,
    /// What the monitor needs to know.
    pub setup: Setup,
}

/// Where Linux kernels are linked to load, in bytes.
const USUAL_KERNEL_START: u64 = 16 << 20;
/// How much larger a kernel is than its compressed file, at least.
const USUAL_RATIO: u64 = 3;

/// Makes memory for a guest, before its kernel is unpacked; can run beside that.
/// A kernel file of `kernel_bytes` lets the host provide the pages in which the
/// kernel will most likely lie (0: none).
///
/// # Errors
/// When the guest would be too large or the host gives no memory.
pub fn prepare(
    memory_mib: u64,
    maxmem_mib: u64,
    kernel_bytes: u64,
) -> Result<PrivateMemory, BuildError> {
    let pages = to_pages(maxmem_mib.max(memory_mib))?;
    let size = Plan::all_frames(pages)?.saturating_mul(PAGE);
    let mut ram = PrivateMemory::new(c"guest-ram", size, size).map_err(BuildError::Memory)?;
    let room = to_pages(memory_mib)?.saturating_mul(PAGE).saturating_sub(USUAL_KERNEL_START);
    let likely = kernel_bytes.saturating_mul(USUAL_RATIO).min(room / 2) / PAGE * PAGE;
    if likely > 0 {
        ram.populate(USUAL_KERNEL_START, likely);
    }
    Ok(ram)
}

/// Makes memory for a guest and lays it out there.
///
/// # Errors
/// As [`prepare`] and [`build_in`].
pub fn build(order: &Order<'_>) -> Result<Built, BuildError> {
    build_in(order, prepare(order.memory_mib, order.maxmem_mib, 0)?)
}

/// Lays out a guest in memory that [`prepare`] made for the same sizes.
///
/// # Errors
/// When the guest does not fit its memory, the kernel asks for something we do
/// not have, or a file cannot be read.
pub fn build_in(order: &Order<'_>, mut ram: PrivateMemory) -> Result<Built, BuildError> {
    check_kernel(order.kernel)?;
    check_command_line(order.command_line)?;
    let shape = KernelShape::of(order.kernel);
    let ramdisk_bytes = order.ramdisk.as_ref().map(Ramdisk::size);
    let max_pages = to_pages(order.maxmem_mib.max(order.memory_mib))?;
    let plan = Plan::new(&shape, ramdisk_bytes, to_pages(order.memory_mib)?, max_pages)?;
    if let Some(area) = plan.ramdisk {
        ram.populate(area.start.saturating_mul(PAGE), area.count.saturating_mul(PAGE));
    }
    fill::fill(&mut ram, &plan, order)?;
    let setup = setup(&plan, order);
    Ok(Built { ram: ram.share(), setup })
}

fn to_pages(mib: u64) -> Result<u64, BuildError> {
    mib.checked_mul(PAGES_PER_MIB).ok_or(BuildError::too_much(mib))
}

/// Checks what the kernel demands of us.
fn check_kernel(kernel: &KernelImage) -> Result<(), BuildError> {
    // Linux demands writable page tables of the builder, although Xen does not
    // advertise them to PV guests: ours may always write to their tables.
    let ours = abi::version::FEATURES | 1 << abi::version::FEAT_WRITABLE_PAGE_TABLES;
    let missing = kernel.features.required & !ours;
    if missing != 0 {
        return Err(BuildError::Features { missing });
    }
    Ok(())
}

fn check_command_line(line: &str) -> Result<(), BuildError> {
    let most = abi::start::MAX_COMMAND_LINE - 1;
    if line.len() > most {
        return Err(BuildError::CommandLine { length: line.len(), most });
    }
    match line.bytes().position(|byte| byte == 0) {
        Some(at) => Err(BuildError::CommandLineZero { at }),
        None => Ok(()),
    }
}

fn setup(plan: &Plan, order: &Order<'_>) -> Setup {
    Setup {
        nr_pages: plan.nr_pages,
        max_pages: plan.max_pages,
        nr_frames: plan.nr_frames,
        shared_info_mfn: plan.shared_info,
        console_mfn: plan.console,
        store_mfn: plan.store,
        grant_mfn: plan.grants.start,
        m2p_mfn: plan.m2p.start,
        m2p_frames: plan.m2p.count,
        vcpus: order.vcpus,
        domid: order.domid,
        uuid: order.uuid,
        entry: order.kernel.entry,
        stack: plan.address(plan.stack.saturating_add(1)),
        start_info: plan.address(plan.start_info),
        cr3_mfn: plan.tables.start,
        cpuid_hidden: order.cpuid.hidden,
        cpuid_level: order.cpuid.level as u32,
        ..Setup::default()
    }
}

#[cfg(test)]
mod tests;
