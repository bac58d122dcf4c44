//! The core file: an ELF file for three kinds of readers.
//!
//! - `gdb` and readelf(1) see segments at the guest's kernel addresses: all memory where the kernel
//!   has its direct map, the first GiB where it has its own image, and the registers.
//! - `crash` sees what a kdump of a plain machine has, since machine frames are the guest's own here:
//!   segments by physical address, and the kernel's note about itself.
//! - Readers of Xen's format ("Domain Core File Format", docs/misc/dump-core-format.txt) find its
//!   sections by name.

use std::fs::File;
use std::os::unix::fs::FileExt;

use control::{MemoryImage, Registers};

use super::notes;

/// Bytes in a page.
pub(super) const PAGE: u64 = 4096;
/// Where Linux maps all memory (Documentation/arch/x86/x86_64/mm.rst); paravirtual kernels are not
/// placed at random.
const DIRECT_MAP: u64 = 0xffff_8880_0000_0000;
/// Where it maps its own image, and how much of memory it sees there.
const IMAGE: u64 = 0xffff_ffff_8000_0000;
const IMAGE_SIZE: u64 = 1 << 30;

const HEADER: u64 = 64;
const PROGRAM_HEADER: u64 = 56;
const SECTION_HEADER: u64 = 64;
/// Notes, direct map, image.
const SEGMENTS: u64 = 3;
/// Sections, their names in order; the first is the empty one that each file has.
const SECTIONS: [&str; 7] =
    ["", ".shstrtab", ".note.Xen", ".xen_prstatus", ".xen_shared_info", ".xen_p2m", ".xen_pages"];

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const SHT_NULL: u32 = 0;
const SHT_PROGBITS: u32 = 1;
const SHT_STRTAB: u32 = 3;
const SHT_NOTE: u32 = 7;
const ET_CORE: u16 = 4;
const EM_X86_64: u16 = 62;

/// Notes of Xen's format.
const NOTE_NONE: u32 = 0x0200_0000;
const NOTE_HEADER: u32 = 0x0200_0001;
const NOTE_VERSION: u32 = 0x0200_0002;
const NOTE_FORMAT: u32 = 0x0200_0003;
/// `XC_CORE_MAGIC`: of a paravirtual domain.
const MAGIC: u64 = 0xf00f_ebed;
/// Size of `vcpu_guest_context` (xen.h), and where in it the registers and CR3 are.
const CONTEXT: usize = 5168;
const CONTEXT_REGISTERS: usize = 520;
const CONTEXT_CR3: usize = 5008;

/// Where everything lies in the file.
#[derive(Debug)]
pub(super) struct Layout {
    /// For debuggers.
    notes: Vec<u8>,
    /// For readers of Xen's format.
    xen_notes: Vec<u8>,
    context: Vec<u8>,
    names: Vec<u8>,
    frames: u64,
    /// Pairs of frame numbers.
    frame_list: u64,
    /// The page `shared_info`.
    pub(super) shared_info: u64,
    /// The guest's memory.
    pub(super) pages: u64,
}

impl Layout {
    /// Plans the file; `info` is the note of the guest's kernel.
    pub(super) fn new(image: &MemoryImage, info: Option<&[u8]>) -> Self {
        let mut notes = image.registers.as_ref().map(notes::registers).unwrap_or_default();
        notes.extend_from_slice(info.unwrap_or_default());
        let mut layout = Self {
            notes,
            xen_notes: xen_notes(image.frames),
            context: context(image.registers.as_ref()),
            names: SECTIONS.iter().flat_map(|name| name.bytes().chain([0])).collect(),
            frames: image.frames,
            frame_list: 0,
            shared_info: 0,
            pages: 0,
        };
        layout.frame_list = layout.sections() + SECTIONS.len() as u64 * SECTION_HEADER;
        let end = layout.frame_list.saturating_add(layout.frames.saturating_mul(16));
        layout.shared_info = end.next_multiple_of(PAGE);
        layout.pages = layout.shared_info.saturating_add(PAGE);
        layout
    }

    /// The whole file's length.
    pub(super) fn length(&self) -> u64 {
        self.pages.saturating_add(self.memory())
    }

    fn memory(&self) -> u64 {
        self.frames.saturating_mul(PAGE)
    }

    fn notes(&self) -> u64 {
        HEADER + SEGMENTS * PROGRAM_HEADER
    }

    fn xen_notes(&self) -> u64 {
        self.notes() + self.notes.len() as u64
    }

    fn context(&self) -> u64 {
        (self.xen_notes() + self.xen_notes.len() as u64).next_multiple_of(8)
    }

    fn names(&self) -> u64 {
        self.context() + self.context.len() as u64
    }

    fn sections(&self) -> u64 {
        (self.names() + self.names.len() as u64).next_multiple_of(8)
    }

    /// Everything up to the list of frames.
    pub(super) fn head(&self, image: &MemoryImage) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.header(&mut bytes);
        self.segment(&mut bytes, PT_NOTE, [self.notes(), 0, 0, self.notes.len() as u64]);
        self.segment(&mut bytes, PT_LOAD, [self.pages, DIRECT_MAP, 0, self.memory()]);
        let seen = self.memory().min(IMAGE_SIZE);
        self.segment(&mut bytes, PT_LOAD, [self.pages, IMAGE, 0, seen]);
        let parts = [
            (self.notes(), &self.notes),
            (self.xen_notes(), &self.xen_notes),
            (self.context(), &self.context),
            (self.names(), &self.names),
        ];
        for (at, part) in parts {
            bytes.resize(usize::try_from(at).unwrap_or(bytes.len()), 0);
            bytes.extend_from_slice(part);
        }
        bytes.resize(usize::try_from(self.sections()).unwrap_or(bytes.len()), 0);
        debug_assert_eq!(image.frames, self.frames);
        self.section_headers(&mut bytes);
        bytes
    }

    fn header(&self, bytes: &mut Vec<u8>) {
        // 64 bits, little-endian, version 1, System V.
        bytes.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
        for half in [ET_CORE, EM_X86_64] {
            bytes.extend_from_slice(&half.to_le_bytes());
        }
        bytes.extend_from_slice(&1_u32.to_le_bytes());
        for long in [0, HEADER, self.sections()] {
            bytes.extend_from_slice(&long.to_le_bytes());
        }
        bytes.extend_from_slice(&0_u32.to_le_bytes());
        let counts = [HEADER, PROGRAM_HEADER, SEGMENTS, SECTION_HEADER, SECTIONS.len() as u64, 1];
        for count in counts {
            bytes.extend_from_slice(&(count as u16).to_le_bytes());
        }
    }

    /// `offset`, virtual address, physical address, size.
    fn segment(&self, bytes: &mut Vec<u8>, kind: u32, place: [u64; 4]) {
        let [offset, virtual_address, physical_address, size] = place;
        let flags: u32 = if kind == PT_LOAD { 7 } else { 0 };
        bytes.extend_from_slice(&kind.to_le_bytes());
        bytes.extend_from_slice(&flags.to_le_bytes());
        // `crash` takes a file for a kdump, and not for a netdump, by alignments of zero.
        let (memory, align) = if kind == PT_LOAD { (size, 0_u64) } else { (0, 4) };
        for long in [offset, virtual_address, physical_address, size, memory, align] {
            bytes.extend_from_slice(&long.to_le_bytes());
        }
    }

    fn section_headers(&self, bytes: &mut Vec<u8>) {
        let places = [
            (SHT_NULL, 0, 0, 0),
            (SHT_STRTAB, self.names(), self.names.len() as u64, 0),
            (SHT_NOTE, self.xen_notes(), self.xen_notes.len() as u64, 0),
            (SHT_PROGBITS, self.context(), self.context.len() as u64, CONTEXT as u64),
            (SHT_PROGBITS, self.shared_info, PAGE, PAGE),
            (SHT_PROGBITS, self.frame_list, self.frames.saturating_mul(16), 16),
            (SHT_PROGBITS, self.pages, self.memory(), PAGE),
        ];
        let mut name = 0;
        for (title, (kind, offset, size, entry)) in SECTIONS.iter().zip(places) {
            bytes.extend_from_slice(&(name as u32).to_le_bytes());
            bytes.extend_from_slice(&kind.to_le_bytes());
            for long in [0, 0, offset, size] {
                bytes.extend_from_slice(&u64::to_le_bytes(long));
            }
            bytes.extend_from_slice(&[0; 8]);
            let align: u64 = if kind == SHT_NULL { 0 } else { 1 };
            for long in [align, entry] {
                bytes.extend_from_slice(&long.to_le_bytes());
            }
            name += title.len() + 1;
        }
    }

    /// Writes the pairs of the guest's frame number and the machine's, which are the same.
    pub(super) fn write_frame_list(&self, to: &File) -> std::io::Result<()> {
        const MOST: u64 = 1 << 16;
        let mut first = 0;
        while first < self.frames {
            let end = self.frames.min(first + MOST);
            let pairs = (first..end).flat_map(|frame| [frame, frame]);
            let bytes: Vec<u8> = pairs.flat_map(u64::to_le_bytes).collect();
            to.write_all_at(&bytes, self.frame_list + 16 * first)?;
            first = end;
        }
        Ok(())
    }
}

fn xen_notes(frames: u64) -> Vec<u8> {
    let longs = |values: &[u64]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let (major, minor) = (abi::version::XEN_VERSION >> 16, abi::version::XEN_VERSION & 0xffff);
    // `xen_dumpcore_elfnote_xen_version_desc`: numbers, then texts of fixed size, here empty but for
    // the extra version; then the page size.
    let mut version = longs(&[u64::from(major), u64::from(minor)]);
    let extra = concat!("-xenolith-", env!("CARGO_PKG_VERSION"));
    let texts: [(usize, &str); 7] =
        [(16, extra), (64, "rustc"), (16, ""), (32, ""), (32, ""), (1024, ""), (64, "")];
    for (size, text) in texts {
        let start = version.len();
        version.extend(text.bytes().take(size - 1));
        version.resize(start + size, 0);
    }
    version.extend_from_slice(&longs(&[0, PAGE]));
    [
        notes::note(b"Xen\0", NOTE_NONE, &[]),
        notes::note(b"Xen\0", NOTE_HEADER, &longs(&[MAGIC, 1, frames, PAGE])),
        notes::note(b"Xen\0", NOTE_VERSION, &version),
        notes::note(b"Xen\0", NOTE_FORMAT, &longs(&[1])),
    ]
    .concat()
}

/// `vcpu_guest_context` with what is known: registers and the top-level page table.
fn context(registers: Option<&Registers>) -> Vec<u8> {
    let mut bytes = vec![0; CONTEXT];
    let Some(r) = registers else { return bytes };
    let [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15] = r.general;
    // In the order of `cpu_user_regs` (xen-x86_64.h): error code and vector, then what an interrupt
    // pushes.
    let cs = if r.kernel { 0xe030 } else { 0xe033 };
    let all = [
        r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi, 0, r.rip, cs,
        r.rflags, rsp, 0xe02b,
    ];
    let mut put = |at: usize, value: u64| {
        if let Some(to) = bytes.get_mut(at..at + 8) {
            to.copy_from_slice(&value.to_le_bytes());
        }
    };
    for (index, value) in all.iter().enumerate() {
        put(CONTEXT_REGISTERS + 8 * index, *value);
    }
    put(CONTEXT_CR3, r.root << 12);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_follow_each_other_and_nothing_overlaps() {
        let image = MemoryImage { frames: 1000, shared_info: 1001, registers: None, stopped: true };
        let layout = Layout::new(&image, Some(&[0; 100]));
        let head = layout.head(&image);
        assert_eq!(head.len() as u64, layout.frame_list);
        assert_eq!(layout.length(), layout.pages + 1000 * PAGE);
        assert!(layout.frame_list + 16_000 <= layout.shared_info);
        assert_eq!(&head[..4], b"\x7fELF");
        let word = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap());
        assert_eq!((word(32), word(40)), (HEADER, layout.sections()));
        let second = (HEADER + PROGRAM_HEADER) as usize;
        assert_eq!(word(second + 48), 0, "a kdump has no alignments");
        // The third segment: the kernel's image, at the same place in the file as the direct map.
        let third = (HEADER + 2 * PROGRAM_HEADER) as usize;
        assert_eq!((word(third + 8), word(third + 16)), (layout.pages, IMAGE));
    }

    #[test]
    fn the_context_has_the_size_of_xens() {
        // fpu 512, flags 8, registers 200, traps 4096, ldt 16, gdt 136, kernel stack 16, then CR0..7.
        assert_eq!(CONTEXT_REGISTERS, 512 + 8);
        assert_eq!(CONTEXT_CR3, 520 + 200 + 4096 + 16 + 136 + 16 + 3 * 8);
        assert_eq!(CONTEXT, CONTEXT_CR3 - 24 + 64 + 64 + 3 * 8 + 8 + 3 * 8);
    }
}
