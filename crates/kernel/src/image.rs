//! A kernel that is ready to be copied into guest memory.

use std::borrow::Cow;
use std::ops::Range;

use crate::elf::{self, ElfKernel, Segment};
use crate::notes::{NoteKind, XenNotes};
use crate::{Compression, Error, Features, FileKind, Limits, compression, find_payload};

/// Bytes of a guest page.
const PAGE: u64 = 4096;

/// When a last-level page-table entry holds a frame number: if it has `value` under `mask`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PteMark {
    /// Bits of the entry to look at.
    pub mask: u64,
    /// What they must be.
    pub value: u64,
}

/// A PV kernel: its bytes, where they go, and what it tells the domain builder.
///
/// All addresses are in bytes, and virtual unless called physical. The kernel's segments, its entry
/// and its hypercall page are checked to agree with each other: the segments are mapped at
/// [`KernelImage::virtual_range`], which does not wrap around and contains the others.
#[derive(Clone, Debug)]
pub struct KernelImage {
    /// The decompressed ELF file, which the segments refer to.
    pub elf: Vec<u8>,
    /// What to load, by ascending physical address; at least one, none overlap.
    pub segments: Vec<Segment>,
    /// Where the first vCPU starts.
    pub entry: u64,
    /// Where page 0 of guest memory is mapped; page-aligned.
    pub virt_base: u64,
    /// To be subtracted from the segments' physical addresses to get guest-physical ones.
    pub paddr_offset: u64,
    /// Where the initial physical-to-machine table goes, if not behind the kernel; page-aligned.
    pub init_p2m: Option<u64>,
    /// The page to fill with hypercall stubs, if the kernel uses one; page-aligned.
    pub hypercall_page: Option<u64>,
    /// The lowest address that the kernel leaves to the hypervisor.
    pub hv_start_low: Option<u64>,
    /// Whether the start info may give the initramfs as a PFN, outside the initial mapping.
    pub mod_start_pfn: bool,
    /// Whether the kernel can resume after a suspend that did not take place.
    pub suspend_cancel: bool,
    /// Whether the symbol table is to be loaded behind the kernel.
    pub bsd_symtab: bool,
    /// Interface features it supports and requires.
    pub features: Features,
    /// When a last-level page-table entry holds a frame number; empty if the kernel does not say.
    pub l1_mfn_valid: Vec<PteMark>,
    /// Entry of the PVH mode, a physical address, if it has one.
    pub phys32_entry: Option<u64>,
    /// Guest system: `linux`, ...
    pub guest_os: String,
    /// Version of the guest system in its Xen note; `2.6` for all of Linux.
    pub guest_version: String,
    /// Interface version: `xen-3.0`, perhaps with a suffix.
    pub xen_version: String,
    /// Loader that the kernel is made for: `generic`.
    pub loader: String,
    /// PAE mode; only 32-bit kernels mean anything by it.
    pub pae_mode: Option<String>,
    /// Release and build from the setup header of a bzImage.
    pub release: Option<String>,
    /// How the kernel was compressed.
    pub compression: Option<Compression>,
}

impl KernelImage {
    /// Unpacks and checks a kernel file: a bzImage, an ELF file, or a compressed ELF file.
    ///
    /// An owned plain ELF file is kept without a copy.
    ///
    /// # Errors
    ///
    /// Every [`Error`]; its message names what is wrong with the file.
    pub fn load<'a>(file: impl Into<Cow<'a, [u8]>>, limits: &Limits) -> Result<KernelImage, Error> {
        let file = file.into();
        if let Some(setup) = find_payload(&file)? {
            let payload = file.get(setup.payload).unwrap_or_default();
            let mut image = KernelImage::from_payload(payload, limits)?;
            image.release = setup.release;
            return Ok(image);
        }
        match FileKind::of(&file) {
            FileKind::Elf => KernelImage::from_elf(file.into_owned(), limits),
            FileKind::Compressed(kind) => {
                let elf = compression::decompress(kind, &file, None, limits)?;
                // The file may be large and is of no more use.
                drop(file);
                let mut image = KernelImage::from_elf(elf, limits)?;
                image.compression = Some(kind);
                Ok(image)
            }
            found => Err(Error::NotAKernel { found, inside: None }),
        }
    }

    /// Checks a decompressed ELF file.
    ///
    /// # Errors
    ///
    /// Every [`Error`] but those of decompression.
    pub fn from_elf(elf: Vec<u8>, limits: &Limits) -> Result<KernelImage, Error> {
        let ElfKernel { entry, segments, notes } = elf::parse(&elf, limits)?;
        check_is_pv(&notes)?;
        let virt_base = notes.virt_base.unwrap_or(0);
        let image = KernelImage {
            elf,
            segments,
            entry: notes.entry.unwrap_or(entry),
            virt_base,
            paddr_offset: notes.paddr_offset.unwrap_or(0),
            init_p2m: notes.init_p2m,
            hypercall_page: notes.hypercall_page,
            hv_start_low: notes.hv_start_low,
            mod_start_pfn: notes.mod_start_pfn,
            suspend_cancel: notes.suspend_cancel,
            bsd_symtab: notes.bsd_symtab,
            features: notes.features,
            l1_mfn_valid: notes
                .l1_mfn_valid
                .into_iter()
                .map(|(mask, value)| PteMark { mask, value })
                .collect(),
            phys32_entry: notes.phys32_entry,
            guest_os: notes.guest_os.unwrap_or_default(),
            guest_version: notes.guest_version.unwrap_or_default(),
            xen_version: notes.xen_version.unwrap_or_default(),
            loader: notes.loader.unwrap_or_default(),
            pae_mode: notes.pae_mode,
            release: None,
            compression: None,
        };
        image.check_addresses()?;
        Ok(image)
    }

    /// Physical addresses from the start of the first segment to the end of the last, as the ELF
    /// file states them; guest-physical once [`KernelImage::paddr_offset`] is subtracted.
    #[must_use]
    pub fn physical_range(&self) -> Range<u64> {
        let start = self.segments.first().map_or(0, |segment| segment.paddr);
        let end = self.segments.last().map_or(start, |segment| segment.range().end);
        start..end
    }

    /// Virtual addresses of [`KernelImage::physical_range`] in the initial mapping.
    #[must_use]
    pub fn virtual_range(&self) -> Range<u64> {
        let physical = self.physical_range();
        // Checked not to wrap when the image was made.
        self.to_virtual(physical.start).unwrap_or(0)..self.to_virtual(physical.end).unwrap_or(0)
    }

    /// The bytes of a segment that come from the file; the rest of its memory is zero.
    #[must_use]
    pub fn segment_bytes(&self, segment: &Segment) -> &[u8] {
        self.elf.get(segment.file.clone()).unwrap_or_default()
    }

    /// Guest-physical address at which a segment starts, counted from the guest's page 0.
    #[must_use]
    pub fn guest_physical(&self, segment: &Segment) -> u64 {
        // Checked not to be below the offset when the image was made.
        segment.paddr.saturating_sub(self.paddr_offset)
    }

    fn from_payload(payload: &[u8], limits: &Limits) -> Result<KernelImage, Error> {
        let kind = Compression::detect(payload)
            .ok_or_else(|| Error::UnknownPayload { found: FileKind::of(payload) })?;
        let Some((data, stated)) = payload.split_last_chunk() else {
            return Err(Error::UnknownPayload { found: FileKind::of(payload) });
        };
        // In gzip data the length is the end of the format's own trailer; to the others the build
        // of the kernel appends it.
        let data = if kind == Compression::Gzip { payload } else { data };
        let stated = u32::from_le_bytes(*stated);
        let elf = compression::decompress(kind, data, Some(stated), limits)?;
        let mut image = KernelImage::from_elf(elf, limits)?;
        image.compression = Some(kind);
        Ok(image)
    }

    fn to_virtual(&self, physical: u64) -> Option<u64> {
        physical.checked_sub(self.paddr_offset)?.checked_add(self.virt_base)
    }

    /// Checks the addresses of the notes against the segments.
    fn check_addresses(&self) -> Result<(), Error> {
        let physical = self.physical_range();
        if physical.start < self.paddr_offset {
            let reason = format!(
                "{:#x}, expected at most the lowest physical address {:#x}",
                self.paddr_offset, physical.start
            );
            return Err(Error::BadNote { note: NoteKind::PaddrOffset, reason });
        }
        if self.to_virtual(physical.end).is_none() {
            let reason = format!("{:#x}, which maps the kernel beyond 2^64", self.virt_base);
            return Err(Error::BadNote { note: NoteKind::VirtBase, reason });
        }
        check_page(NoteKind::VirtBase, Some(self.virt_base))?;
        check_page(NoteKind::InitP2m, self.init_p2m)?;
        check_page(NoteKind::HypercallPage, self.hypercall_page)?;
        self.check_inside("entry point", self.entry)?;
        if let Some(page) = self.hypercall_page {
            self.check_inside("hypercall page", page)?;
            self.check_inside("end of the hypercall page", page.saturating_add(PAGE - 1))?;
        }
        if let Some(table) = self.init_p2m.filter(|table| self.virtual_range().contains(table)) {
            let reason = format!("{table:#x} is inside the kernel, expected an address outside");
            return Err(Error::BadNote { note: NoteKind::InitP2m, reason });
        }
        Ok(())
    }

    fn check_inside(&self, what: &'static str, value: u64) -> Result<(), Error> {
        let range = self.virtual_range();
        if range.contains(&value) {
            Ok(())
        } else {
            Err(Error::OutsideKernel { what, value, range })
        }
    }
}

/// Whether the notes are those of a kernel that starts in PV mode on this interface.
fn check_is_pv(notes: &XenNotes) -> Result<(), Error> {
    if notes.count == 0 {
        return Err(Error::NoXenNotes);
    }
    // Linux writes the general notes with any kind of Xen support, those of the memory layout only
    // for PV; kernels without a layout of their own (Mini-OS) have a hypercall page or a loader.
    let has_pv = notes.entry.is_some()
        || notes.virt_base.is_some()
        || notes.hypercall_page.is_some()
        || notes.loader.is_some();
    if !has_pv {
        return Err(match notes.phys32_entry {
            Some(phys32_entry) => Error::PvhOnly { phys32_entry },
            None => Error::NoXenNotes,
        });
    }
    let xen_version =
        notes.xen_version.as_ref().ok_or(Error::MissingNote { note: NoteKind::XenVersion })?;
    if !xen_version.starts_with("xen-3.0") {
        return Err(Error::WrongXenVersion { found: xen_version.clone() });
    }
    let guest_os = notes.guest_os.clone().unwrap_or_default();
    let loader = notes.loader.clone().unwrap_or_default();
    if !loader.starts_with("generic") && !guest_os.starts_with("linux") {
        return Err(Error::WrongLoader { guest_os, loader });
    }
    Ok(())
}

fn check_page(note: NoteKind, address: Option<u64>) -> Result<(), Error> {
    match address {
        Some(address) if !address.is_multiple_of(PAGE) => {
            let reason = format!("{address:#x}, expected a multiple of {PAGE}");
            Err(Error::BadNote { note, reason })
        }
        _ => Ok(()),
    }
}
