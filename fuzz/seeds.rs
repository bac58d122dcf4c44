//! Writes the first inputs of each target: `write-seeds FOLDER` fills `FOLDER/TARGET/`. A target without
//! inputs here starts from nothing.

#[path = "../crates/kernel/tests/common/mod.rs"]
mod kernels;

use std::io;
use std::path::Path;

use kernels::{NotePlace, Spec, TINY};

fn main() -> io::Result<()> {
    let folder =
        std::env::args_os().nth(1).ok_or_else(|| io::Error::other("usage: write-seeds FOLDER"))?;
    let folder = Path::new(&folder);
    kernel_files(folder)?;
    let plain = Spec::tiny().build();
    write(folder, "kernel_elf", "segment", &plain)?;
    let sections = Spec { place: NotePlace::Section, ..Spec::tiny() };
    write(folder, "kernel_elf", "section", &sections.build())?;
    write(folder, "kernel_notes", "linux", &kernels::linux_notes())
}

/// Every compression, alone and in a bzImage, and the data of the one block of an lzop file.
fn kernel_files(folder: &Path) -> io::Result<()> {
    let length = Spec::tiny().build().len() as u32;
    for (name, packed) in TINY {
        write(folder, "kernel_bzimage", &format!("{name}-alone"), packed)?;
        let image = kernels::bzimage(kernels::payload(packed), length);
        write(folder, "kernel_bzimage", name, &image)?;
        if name == "lzo" {
            // The end of the file is a word of zeros.
            let data = &packed[LZO_DATA.min(packed.len())..packed.len().saturating_sub(4)];
            let block = [&(length as u16).to_le_bytes(), data].concat();
            write(folder, "kernel_lzo", "block", &block)?;
            write(folder, "kernel_lzo", "file", packed)?;
        }
    }
    Ok(())
}

/// Where the data of the first block starts in a file of lzop without a name: after a header of 38
/// bytes, two lengths and two checksums.
const LZO_DATA: usize = 38 + 16;

fn write(folder: &Path, target: &str, name: &str, content: &[u8]) -> io::Result<()> {
    let folder = folder.join(target);
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join(name), content)
}
