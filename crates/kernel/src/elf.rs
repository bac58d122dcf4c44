//! ELF64 headers of a kernel: what to load where, and where the notes lie.

use std::ops::Range;

use object::LittleEndian;
use object::elf::{self, FileHeader64, ProgramHeader64};
use object::read::elf::{FileHeader as _, ProgramHeader as _, SectionHeader as _};

use crate::bytes::{array, le16};
use crate::notes::{XenNotes, parse_notes};
use crate::{Error, FileKind, Limits};

type Header = FileHeader64<LittleEndian>;

/// Length of `e_ident`, `e_type` and `e_machine`, by which a foreign file is recognised.
const START: u64 = 20;

/// One stretch of guest memory to fill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Physical address that the ELF file states (`p_paddr`), in bytes. It need not be aligned.
    pub paddr: u64,
    /// Bytes in memory; those beyond the length of `file` are to be zero.
    pub mem_size: u64,
    /// Where its bytes lie in the decompressed ELF file; never longer than `mem_size`.
    pub file: Range<usize>,
}

impl Segment {
    /// Physical addresses that the segment fills.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        // Checked not to wrap when the segment was made.
        self.paddr..self.paddr.saturating_add(self.mem_size)
    }
}

/// What the ELF headers of a kernel say, checked.
#[derive(Debug)]
pub(crate) struct ElfKernel {
    /// `e_entry`.
    pub(crate) entry: u64,
    /// In the order of their addresses; at least one; none overlap.
    pub(crate) segments: Vec<Segment>,
    pub(crate) notes: XenNotes,
}

/// Reads the headers and notes of `data`, a whole ELF file.
pub(crate) fn parse(data: &[u8], limits: &Limits) -> Result<ElfKernel, Error> {
    let header = file_header(data)?;
    let program_headers = header.program_headers(LittleEndian, data).map_err(bad_elf)?;
    let segments = segments(program_headers, data, limits)?;
    let mut notes = segment_notes(program_headers, data)?;
    if notes.count == 0 {
        notes = section_notes(header, data)?;
    }
    Ok(ElfKernel { entry: header.e_entry(LittleEndian), segments, notes })
}

/// The file header, if it is that of an executable for x86-64.
fn file_header(data: &[u8]) -> Result<&Header, Error> {
    if FileKind::of(data) != FileKind::Elf {
        return Err(Error::NotAKernel { found: FileKind::of(data), inside: None });
    }
    let (Some(ident), Some(elf_type), Some(machine)) =
        (array::<16>(data, 0), le16(data, 16), le16(data, 18))
    else {
        return Err(truncated("ELF header", START, data));
    };
    let [_, _, _, _, class, order, ..] = ident;
    if class == elf::ELFCLASS32.0 {
        return Err(Error::Elf32);
    }
    if order == elf::ELFDATA2MSB.0 {
        return Err(Error::BigEndian);
    }
    if machine != elf::EM_X86_64.0 {
        return Err(Error::WrongMachine { machine });
    }
    if ![elf::ET_EXEC.0, elf::ET_DYN.0].contains(&elf_type) {
        return Err(Error::WrongType { elf_type });
    }
    let size = size_of::<Header>();
    if data.len() < size {
        return Err(truncated("ELF header", size as u64, data));
    }
    Header::parse(data).map_err(bad_elf)
}

fn segments(
    headers: &[ProgramHeader64<LittleEndian>],
    data: &[u8],
    limits: &Limits,
) -> Result<Vec<Segment>, Error> {
    let mut segments = Vec::new();
    for (index, header) in headers.iter().enumerate() {
        if header.p_type(LittleEndian) == elf::PT_LOAD && header.p_memsz(LittleEndian) > 0 {
            segments.push(segment(index, header, data)?);
        }
    }
    segments.sort_by_key(|segment| segment.paddr);
    for pair in segments.windows(2) {
        if let [first, second] = pair
            && first.range().end > second.paddr
        {
            let (first, second) = (first.range(), second.range());
            return Err(Error::SegmentsOverlap { first, second });
        }
    }
    let (Some(first), Some(last)) = (segments.first(), segments.last()) else {
        return Err(Error::NoSegments);
    };
    let span = last.range().end - first.paddr;
    if span > limits.max_output {
        return Err(Error::SpanTooLarge { span, limit: limits.max_output });
    }
    Ok(segments)
}

fn segment(
    index: usize,
    header: &ProgramHeader64<LittleEndian>,
    data: &[u8],
) -> Result<Segment, Error> {
    let paddr = header.p_paddr(LittleEndian);
    let mem_size = header.p_memsz(LittleEndian);
    let (offset, file_size) = header.file_range(LittleEndian);
    if file_size > mem_size || paddr.checked_add(mem_size).is_none() {
        return Err(Error::BadSegment { index, paddr, file_size, mem_size });
    }
    let file = file_range(offset, file_size, data)
        .ok_or_else(|| truncated("ELF segment", offset.saturating_add(file_size), data))?;
    Ok(Segment { paddr, mem_size, file })
}

fn segment_notes(
    headers: &[ProgramHeader64<LittleEndian>],
    data: &[u8],
) -> Result<XenNotes, Error> {
    let mut notes = XenNotes::default();
    for header in headers.iter().filter(|header| header.p_type(LittleEndian) == elf::PT_NOTE) {
        let (offset, size) = header.file_range(LittleEndian);
        let range = file_range(offset, size, data)
            .ok_or_else(|| truncated("note segment", offset.saturating_add(size), data))?;
        parse_notes(data.get(range).unwrap_or_default(), &mut notes)?;
    }
    Ok(notes)
}

/// The notes of the sections of type `SHT_NOTE`, for a file whose linker made no note segment.
fn section_notes(header: &Header, data: &[u8]) -> Result<XenNotes, Error> {
    let mut notes = XenNotes::default();
    // A stripped kernel may have lost its section table; then there simply are no notes.
    let Ok(sections) = header.section_headers(LittleEndian, data) else { return Ok(notes) };
    for section in sections.iter().filter(|s| s.sh_type(LittleEndian) == elf::SHT_NOTE) {
        let content = section.data(LittleEndian, data).map_err(bad_elf)?;
        parse_notes(content, &mut notes)?;
    }
    Ok(notes)
}

/// The range `offset..offset + size`, if it lies inside `data`.
fn file_range(offset: u64, size: u64, data: &[u8]) -> Option<Range<usize>> {
    let end = offset.checked_add(size).filter(|&end| end <= data.len() as u64)?;
    Some(usize::try_from(offset).ok()?..usize::try_from(end).ok()?)
}

fn bad_elf(error: object::read::Error) -> Error {
    Error::BadElf { reason: error.to_string() }
}

fn truncated(part: &'static str, expected: u64, data: &[u8]) -> Error {
    Error::Truncated { part, expected, found: data.len() as u64 }
}
