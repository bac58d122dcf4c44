//! Builds small kernels: ELF files with Xen notes, and bzImages around compressed ones.
#![allow(dead_code, reason = "each test program uses a part of this module")]

/// Where Linux is mapped.
pub const VIRT_BASE: u64 = 0xffff_ffff_8000_0000;
/// Physical address of the first segment of a built kernel.
pub const TEXT: u64 = 0x10_0000;
/// Bytes of its text: more than two lzop blocks.
pub const TEXT_SIZE: usize = 600 << 10;

/// One program header of type `PT_LOAD`, with its bytes.
pub struct Load {
    pub paddr: u64,
    pub mem_size: u64,
    pub bytes: Vec<u8>,
}

/// Where the notes are announced.
#[derive(PartialEq, Eq)]
pub enum NotePlace {
    Segment,
    Section,
}

/// A kernel to build.
pub struct Spec {
    pub loads: Vec<Load>,
    pub notes: Vec<u8>,
    pub place: NotePlace,
    pub class: u8,
    pub order: u8,
    pub elf_type: u16,
    pub machine: u16,
    pub entry: u64,
}

impl Default for Spec {
    fn default() -> Spec {
        Spec {
            loads: vec![
                Load { paddr: TEXT, mem_size: TEXT_SIZE as u64, bytes: text(TEXT_SIZE) },
                Load { paddr: 0x20_0000, mem_size: 0x3000, bytes: vec![0xda; 0x1000] },
            ],
            notes: linux_notes(),
            place: NotePlace::Segment,
            class: 2,
            order: 1,
            elf_type: 2,
            machine: 62,
            entry: TEXT,
        }
    }
}

impl Spec {
    /// A kernel of few bytes, for tests that try each of them.
    pub fn tiny() -> Spec {
        let load = Load { paddr: TEXT, mem_size: 0x2000, bytes: text(0x600) };
        Spec { loads: vec![load], ..Spec::default() }
    }

    /// The ELF file.
    pub fn build(&self) -> Vec<u8> {
        let headers = self.loads.len() + usize::from(self.place == NotePlace::Segment);
        let notes_at = 64 + 56 * headers;
        let mut data_at = (notes_at + self.notes.len()).next_multiple_of(16);
        let data_start = data_at;
        let mut table = Vec::new();
        for load in &self.loads {
            let sizes = (load.bytes.len() as u64, load.mem_size);
            table.extend(program_header(1, data_at as u64, load.paddr, sizes));
            data_at += load.bytes.len();
        }
        if self.place == NotePlace::Segment {
            let size = self.notes.len() as u64;
            table.extend(program_header(4, notes_at as u64, 0, (size, size)));
        }
        let mut file = self.file_header(headers as u16, data_at as u64);
        file.extend(table);
        file.extend(&self.notes);
        file.resize(data_start, 0);
        self.loads.iter().for_each(|load| file.extend(&load.bytes));
        if self.place == NotePlace::Section {
            file.extend(section_headers(notes_at as u64, self.notes.len() as u64));
        }
        file
    }

    fn file_header(&self, headers: u16, sections_at: u64) -> Vec<u8> {
        let has_sections = self.place == NotePlace::Section;
        let mut file = b"\x7fELF".to_vec();
        file.extend([self.class, self.order, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        file.extend(self.elf_type.to_le_bytes());
        file.extend(self.machine.to_le_bytes());
        file.extend(1u32.to_le_bytes());
        file.extend(self.entry.to_le_bytes());
        file.extend(64u64.to_le_bytes());
        file.extend(if has_sections { sections_at } else { 0 }.to_le_bytes());
        file.extend(0u32.to_le_bytes());
        let sections = if has_sections { 2 } else { 0 };
        for field in [64, 56, headers, 64, sections, 0u16] {
            file.extend(field.to_le_bytes());
        }
        file
    }
}

fn program_header(kind: u32, offset: u64, paddr: u64, (file, mem): (u64, u64)) -> Vec<u8> {
    let mut header = kind.to_le_bytes().to_vec();
    header.extend(7u32.to_le_bytes());
    for field in [offset, VIRT_BASE.wrapping_add(paddr), paddr, file, mem, 4] {
        header.extend(field.to_le_bytes());
    }
    header
}

/// The empty first section and one of type `SHT_NOTE`.
fn section_headers(offset: u64, size: u64) -> Vec<u8> {
    let mut table = vec![0; 64];
    table.extend([0u32, 7].into_iter().flat_map(u32::to_le_bytes));
    table.extend([0, 0, offset, size].into_iter().flat_map(u64::to_le_bytes));
    table.extend([0; 8]);
    table.extend([4u64, 0].into_iter().flat_map(u64::to_le_bytes));
    table
}

/// Something like machine code: repetitive, with relative calls for the branch filter of xz.
fn text(size: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(size + 1024);
    let mut state = 0x9e37_79b9u32;
    while text.len() < size {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let target = (state >> 28) * 0x400;
        text.push(0xe8);
        text.extend(target.wrapping_sub(text.len() as u32).to_le_bytes());
        text.extend([0x48, 0x89, (state >> 24 & 0x3f) as u8]);
        text.extend(std::iter::repeat_n(0x90, (state >> 16 & 0x1ff) as usize));
    }
    text.truncate(size);
    text
}

/// One note of owner `Xen`.
pub fn note(kind: u32, value: &[u8]) -> Vec<u8> {
    named_note(b"Xen\0", kind, value)
}

/// A note of any owner; `name` has its NUL.
pub fn named_note(name: &[u8], kind: u32, value: &[u8]) -> Vec<u8> {
    let mut note = Vec::new();
    for word in [name.len() as u32, value.len() as u32, kind] {
        note.extend(word.to_le_bytes());
    }
    for part in [name, value] {
        note.extend(part);
        note.resize(note.len().next_multiple_of(4), 0);
    }
    note
}

/// A note with an 8-byte number.
pub fn number(kind: u32, value: u64) -> Vec<u8> {
    note(kind, &value.to_le_bytes())
}

/// The notes of a Linux kernel, in its order, with another owner's between them.
pub fn linux_notes() -> Vec<u8> {
    [
        note(6, b"linux\0"),
        note(7, b"2.6\0"),
        note(5, b"xen-3.0\0"),
        named_note(b"GNU\0", 3, &[1; 20]),
        number(3, VIRT_BASE),
        number(15, 0x80_0000_0000),
        number(1, VIRT_BASE + TEXT + 0x1c0),
        number(2, VIRT_BASE + TEXT + 0x1000),
        note(10, b"!writable_page_tables|pae_pgdir_above_4gb"),
        note(17, &0x8801u32.to_le_bytes()),
        note(9, b"yes\0"),
        note(8, b"generic\0"),
        note(13, &[1u64, 1].map(u64::to_le_bytes).concat()),
        note(14, &1u32.to_le_bytes()),
        note(16, &1u32.to_le_bytes()),
        number(12, 0xffff_8000_0000_0000),
        number(4, 0),
        number(18, 0x100_0850),
    ]
    .concat()
}

/// What the build makes of a fixture for a bzImage: it appends the decompressed length, except to
/// gzip data, whose trailer ends with it. The length is added by `bzimage`, so here it goes.
pub fn payload(packed: &[u8]) -> &[u8] {
    if packed.starts_with(&[0x1f, 0x8b]) { &packed[..packed.len() - 4] } else { packed }
}

/// A bzImage of protocol 2.15 around `payload` and its decompressed length `plain`.
pub fn bzimage(payload: &[u8], plain: u32) -> Vec<u8> {
    let setup_sects = 3;
    let mut file = vec![0; (setup_sects + 1) * 512];
    file[0x1f1] = setup_sects as u8;
    file[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    file[0x202..0x206].copy_from_slice(b"HdrS");
    file[0x206..0x208].copy_from_slice(&0x020fu16.to_le_bytes());
    file[0x20e..0x210].copy_from_slice(&0x300u16.to_le_bytes());
    file[0x248..0x24c].copy_from_slice(&64u32.to_le_bytes());
    file[0x24c..0x250].copy_from_slice(&(payload.len() as u32 + 4).to_le_bytes());
    file[0x500..0x513].copy_from_slice(b"7.1.0-test (a@b) #1");
    file.resize(file.len() + 64, 0xcc);
    file.extend(payload);
    file.extend(plain.to_le_bytes());
    file.resize(file.len() + 100, 0xdd);
    file
}

/// A kernel, compressed, and how.
pub type Fixtures = [(&'static str, &'static [u8]); 7];

/// The kernel of `Spec::default`.
pub const FIXTURES: Fixtures = [
    ("gzip", include_bytes!("../fixtures/kernel.gz")),
    ("bzip2", include_bytes!("../fixtures/kernel.bz2")),
    ("lzma", include_bytes!("../fixtures/kernel.lzma")),
    ("xz", include_bytes!("../fixtures/kernel.xz")),
    ("lzo", include_bytes!("../fixtures/kernel.lzo")),
    ("lz4", include_bytes!("../fixtures/kernel.lz4")),
    ("zstd", include_bytes!("../fixtures/kernel.zst")),
];

/// The kernel of `Spec::tiny`.
pub const TINY: Fixtures = [
    ("gzip", include_bytes!("../fixtures/tiny.gz")),
    ("bzip2", include_bytes!("../fixtures/tiny.bz2")),
    ("lzma", include_bytes!("../fixtures/tiny.lzma")),
    ("xz", include_bytes!("../fixtures/tiny.xz")),
    ("lzo", include_bytes!("../fixtures/tiny.lzo")),
    ("lz4", include_bytes!("../fixtures/tiny.lz4")),
    ("zstd", include_bytes!("../fixtures/tiny.zst")),
];
