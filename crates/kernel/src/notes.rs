//! The Xen notes of an ELF file: what a PV kernel tells the domain builder.
//!
//! Source: `xen/elfnote.h`. A note is a header of three 32-bit words (length of the name with its
//! NUL, length of the value, type), the name and the value, each padded to 4 bytes, whatever
//! alignment the segment states. Numbers are 4 or 8 bytes long, in the kernel's choice.

use std::fmt;

use crate::bytes::{le32, le64, printable};
use crate::{Error, Features};

/// The types of the notes that are read, by the names of `xen/elfnote.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of xen/elfnote.h, which explains them")]
#[repr(u32)]
pub enum NoteKind {
    Entry = 1,
    HypercallPage = 2,
    VirtBase = 3,
    PaddrOffset = 4,
    XenVersion = 5,
    GuestOs = 6,
    GuestVersion = 7,
    Loader = 8,
    PaeMode = 9,
    Features = 10,
    BsdSymtab = 11,
    HvStartLow = 12,
    L1MfnValid = 13,
    SuspendCancel = 14,
    InitP2m = 15,
    ModStartPfn = 16,
    SupportedFeatures = 17,
    Phys32Entry = 18,
}

impl NoteKind {
    const ALL: [(NoteKind, &'static str); 18] = [
        (NoteKind::Entry, "ENTRY"),
        (NoteKind::HypercallPage, "HYPERCALL_PAGE"),
        (NoteKind::VirtBase, "VIRT_BASE"),
        (NoteKind::PaddrOffset, "PADDR_OFFSET"),
        (NoteKind::XenVersion, "XEN_VERSION"),
        (NoteKind::GuestOs, "GUEST_OS"),
        (NoteKind::GuestVersion, "GUEST_VERSION"),
        (NoteKind::Loader, "LOADER"),
        (NoteKind::PaeMode, "PAE_MODE"),
        (NoteKind::Features, "FEATURES"),
        (NoteKind::BsdSymtab, "BSD_SYMTAB"),
        (NoteKind::HvStartLow, "HV_START_LOW"),
        (NoteKind::L1MfnValid, "L1_MFN_VALID"),
        (NoteKind::SuspendCancel, "SUSPEND_CANCEL"),
        (NoteKind::InitP2m, "INIT_P2M"),
        (NoteKind::ModStartPfn, "MOD_START_PFN"),
        (NoteKind::SupportedFeatures, "SUPPORTED_FEATURES"),
        (NoteKind::Phys32Entry, "PHYS32_ENTRY"),
    ];

    fn of(number: u32) -> Option<NoteKind> {
        NoteKind::ALL.into_iter().map(|(kind, _)| kind).find(|&kind| kind as u32 == number)
    }
}

impl fmt::Display for NoteKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NoteKind::ALL.into_iter().find(|(kind, _)| kind == self);
        f.write_str(name.map_or("", |(_, name)| name))
    }
}

/// The values of the Xen notes, unchecked against each other and the segments.
///
/// Addresses are virtual and in bytes, unless stated. A field is `None` or empty if its note is
/// absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct XenNotes {
    /// Number of Xen notes seen.
    pub count: usize,
    /// `ENTRY`: where the first vCPU starts.
    pub entry: Option<u64>,
    /// `HYPERCALL_PAGE`: the page to fill with hypercall stubs; newer kernels have none.
    pub hypercall_page: Option<u64>,
    /// `VIRT_BASE`: where the first page of guest memory is to be mapped.
    pub virt_base: Option<u64>,
    /// `PADDR_OFFSET`: subtracted from the segments' physical addresses.
    pub paddr_offset: Option<u64>,
    /// `XEN_VERSION`: `xen-3.0`.
    pub xen_version: Option<String>,
    /// `GUEST_OS`: `linux`, `NetBSD`, ...
    pub guest_os: Option<String>,
    /// `GUEST_VERSION`: for Linux always `2.6`.
    pub guest_version: Option<String>,
    /// `LOADER`: `generic`.
    pub loader: Option<String>,
    /// `PAE_MODE`: only 32-bit kernels mean anything by it.
    pub pae_mode: Option<String>,
    /// `FEATURES` and `SUPPORTED_FEATURES` together.
    pub features: Features,
    /// `BSD_SYMTAB`: whether the symbol table is to be loaded behind the kernel.
    pub bsd_symtab: bool,
    /// `HV_START_LOW`: lowest address that the kernel leaves to the hypervisor.
    pub hv_start_low: Option<u64>,
    /// `L1_MFN_VALID`: pairs of mask and value; a last-level page-table entry holds a frame number
    /// if it has one of the values under its mask.
    pub l1_mfn_valid: Vec<(u64, u64)>,
    /// `SUSPEND_CANCEL`: whether the kernel can resume after a suspend that did not take place.
    pub suspend_cancel: bool,
    /// `INIT_P2M`: where the initial physical-to-machine table is to be mapped.
    pub init_p2m: Option<u64>,
    /// `MOD_START_PFN`: whether `mod_start` may be a PFN instead of a virtual address.
    pub mod_start_pfn: bool,
    /// `PHYS32_ENTRY`: entry of the PVH mode, a physical address.
    pub phys32_entry: Option<u64>,
}

/// Reads all Xen notes in `data`, the content of one note segment or section, into `notes`; skips
/// those of other owners.
///
/// # Errors
///
/// [`Error::BadElf`] for a note that does not fit `data`, [`Error::BadNote`] for a value that
/// cannot be read.
pub fn parse_notes(data: &[u8], notes: &mut XenNotes) -> Result<(), Error> {
    let mut rest = data;
    // Fewer bytes than a header are padding.
    while let (Some(name_length), Some(value_length), Some(number)) =
        (le32(rest, 0), le32(rest, 4), le32(rest, 8))
    {
        let bad = || Error::BadElf { reason: format!("note {number} is longer than its segment") };
        let body = rest.get(12..).unwrap_or_default();
        let (name, body) = split_padded(body, name_length).ok_or_else(bad)?;
        let (value, next) = split_padded(body, value_length).ok_or_else(bad)?;
        if name == b"Xen\0"
            && let Some(kind) = NoteKind::of(number)
        {
            notes.count += 1;
            notes.set(kind, value)?;
        }
        rest = next;
    }
    Ok(())
}

/// Splits `length` bytes and their padding to a multiple of 4 off the front. The padding of the
/// last note may be missing.
fn split_padded(data: &[u8], length: u32) -> Option<(&[u8], &[u8])> {
    let length = length as usize;
    let padded = length.checked_next_multiple_of(4)?;
    Some((data.get(..length)?, data.get(padded..).unwrap_or_default()))
}

impl XenNotes {
    fn set(&mut self, kind: NoteKind, value: &[u8]) -> Result<(), Error> {
        let number = || number(kind, value);
        let text = || Some(printable(value));
        match kind {
            NoteKind::Entry => self.entry = Some(number()?),
            NoteKind::HypercallPage => self.hypercall_page = Some(number()?),
            NoteKind::VirtBase => self.virt_base = Some(number()?),
            NoteKind::PaddrOffset => self.paddr_offset = Some(number()?),
            NoteKind::XenVersion => self.xen_version = text(),
            NoteKind::GuestOs => self.guest_os = text(),
            NoteKind::GuestVersion => self.guest_version = text(),
            NoteKind::Loader => self.loader = text(),
            NoteKind::PaeMode => self.pae_mode = text(),
            NoteKind::Features => self
                .features
                .add_names(&printable(value))
                .map_err(|name| bad(kind, format!("it requires the unknown feature {name}")))?,
            NoteKind::BsdSymtab => self.bsd_symtab = is_yes(value),
            NoteKind::HvStartLow => self.hv_start_low = Some(number()?),
            NoteKind::L1MfnValid => self.l1_mfn_valid = pairs(kind, value)?,
            NoteKind::SuspendCancel => self.suspend_cancel = number()? != 0,
            NoteKind::InitP2m => self.init_p2m = Some(number()?),
            NoteKind::ModStartPfn => self.mod_start_pfn = number()? != 0,
            NoteKind::SupportedFeatures => {
                // More words than one are submaps that do not exist yet.
                let map = le32(value, 0)
                    .ok_or_else(|| bad(kind, format!("{} bytes, expected 4", value.len())))?;
                self.features.supported |= map;
            }
            NoteKind::Phys32Entry => self.phys32_entry = Some(number()?),
        }
        Ok(())
    }
}

fn bad(note: NoteKind, reason: String) -> Error {
    Error::BadNote { note, reason }
}

fn number(kind: NoteKind, value: &[u8]) -> Result<u64, Error> {
    match value.len() {
        4 => le32(value, 0).map(u64::from),
        8 => le64(value, 0),
        _ => None,
    }
    .ok_or_else(|| {
        bad(kind, format!("a value of {} bytes, expected a number of 4 or 8", value.len()))
    })
}

fn pairs(kind: NoteKind, value: &[u8]) -> Result<Vec<(u64, u64)>, Error> {
    /// More would mean nothing: a page-table entry has 64 bits.
    const MAX: usize = 64;
    if !value.len().is_multiple_of(16) || value.len() / 16 > MAX {
        let reason = format!("a value of {} bytes, expected pairs of 16", value.len());
        return Err(bad(kind, reason));
    }
    let pair = |bytes: &[u8]| Some((le64(bytes, 0)?, le64(bytes, 8)?));
    Ok(value.chunks_exact(16).filter_map(pair).collect())
}

/// A switch in the form of a string; some kernels write a number instead.
fn is_yes(value: &[u8]) -> bool {
    value.starts_with(b"yes") || matches!(value.len(), 4 | 8) && value.first() == Some(&1)
}
