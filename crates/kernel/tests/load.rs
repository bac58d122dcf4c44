//! Kernels in every packing load; what is wrong with a file is named.

mod common;

use std::time::{Duration, Instant};

use common::{
    FIXTURES, Load, NotePlace, Spec, TEXT, VIRT_BASE, bzimage, linux_notes, note, number, payload,
};
use kernel::{Compression, Error, Feature, FileKind, KernelImage, Limits, NoteKind};

fn load(file: &[u8]) -> Result<KernelImage, Error> {
    KernelImage::load(file, &Limits::default())
}

fn error_of(spec: &Spec) -> Error {
    load(&spec.build()).unwrap_err()
}

fn with_notes(notes: Vec<u8>) -> Spec {
    Spec { notes, ..Spec::default() }
}

#[test]
fn plain_elf_gives_segments_and_notes() {
    let spec = Spec::default();
    let image = load(&spec.build()).unwrap();
    assert_eq!(image.segments.len(), 2);
    for (segment, load) in image.segments.iter().zip(&spec.loads) {
        assert_eq!((segment.paddr, segment.mem_size), (load.paddr, load.mem_size));
        assert_eq!(image.segment_bytes(segment), load.bytes);
        assert_eq!(image.guest_physical(segment), load.paddr);
    }
    assert_eq!(image.entry, VIRT_BASE + TEXT + 0x1c0);
    assert_eq!(image.virt_base, VIRT_BASE);
    assert_eq!(image.virtual_range(), VIRT_BASE + TEXT..VIRT_BASE + 0x20_3000);
    assert_eq!(image.paddr_offset, 0);
    assert_eq!(image.init_p2m, Some(0x80_0000_0000));
    assert_eq!(image.hypercall_page, Some(VIRT_BASE + TEXT + 0x1000));
    assert_eq!(image.hv_start_low, Some(0xffff_8000_0000_0000));
    assert!(image.mod_start_pfn && image.suspend_cancel && !image.bsd_symtab);
    assert_eq!(image.features.supported, 0x8811);
    assert!(image.features.requires(Feature::WritablePageTables));
    assert!(image.features.supports(Feature::PaePgdirAbove4gb));
    assert!(!image.features.requires(Feature::PaePgdirAbove4gb));
    assert_eq!(image.l1_mfn_valid, [kernel::PteMark { mask: 1, value: 1 }]);
    assert_eq!(image.phys32_entry, Some(0x100_0850));
    assert_eq!(image.guest_os, "linux");
    assert_eq!(image.guest_version, "2.6");
    assert_eq!(image.xen_version, "xen-3.0");
    assert_eq!(image.loader, "generic");
    assert_eq!(image.pae_mode.as_deref(), Some("yes"));
    assert_eq!((image.release, image.compression), (None, None));
}

#[test]
fn owned_plain_elf_is_not_copied() {
    let file = Spec::default().build();
    let address = file.as_ptr();
    let image = KernelImage::load(file, &Limits::default()).unwrap();
    assert_eq!(image.elf.as_ptr(), address);
}

#[test]
fn every_compression_loads_in_a_bzimage_and_alone() {
    let plain = Spec::default().build();
    for (name, packed) in FIXTURES {
        let image = load(&bzimage(payload(packed), plain.len() as u32)).unwrap();
        assert!(image.elf == plain, "{name} in a bzImage");
        assert_eq!(image.compression.unwrap().to_string(), name);
        assert_eq!(image.release.as_deref(), Some("7.1.0-test (a@b) #1"));
        let image = load(packed).unwrap();
        assert!(image.elf == plain, "{name} alone");
        assert_eq!(image.release, None);
    }
}

#[test]
#[ignore = "writes the files that tests/fixtures/regenerate.sh compresses"]
fn write_plain_kernels() {
    let folder = std::path::PathBuf::from(std::env::var_os("XENOLITH_FIXTURE_FOLDER").unwrap());
    std::fs::write(folder.join("kernel"), Spec::default().build()).unwrap();
    std::fs::write(folder.join("tiny"), Spec::tiny().build()).unwrap();
}

#[test]
fn output_limit_holds_for_every_compression() {
    let plain = Spec::default().build();
    // Exactly enough loads; one byte less does not, whatever length the file states.
    for (name, packed) in FIXTURES {
        let span = Limits { max_output: 2 << 20 };
        assert!(KernelImage::load(packed, &span).is_ok(), "{name}");
        for stated in [plain.len() as u32, 1000, u32::MAX] {
            let limits = Limits { max_output: plain.len() as u64 - 1 };
            let kind = Compression::detect(packed).unwrap();
            let error = kernel::decompress(kind, packed, Some(stated), &limits).unwrap_err();
            let expected = Error::OutputTooLarge { compression: kind, limit: limits.max_output };
            assert_eq!(error, expected, "{name}");
        }
        let kind = Compression::detect(packed).unwrap();
        let limits = Limits { max_output: plain.len() as u64 };
        assert!(kernel::decompress(kind, packed, None, &limits).unwrap() == plain, "{name}");
    }
}

#[test]
fn wrong_stated_length_is_an_error() {
    let plain = Spec::default().build();
    for (name, packed) in FIXTURES {
        for stated in [0, plain.len() as u32 - 1, plain.len() as u32 + 1, 400 << 20] {
            let error = load(&bzimage(payload(packed), stated)).unwrap_err();
            let is_length = matches!(
                error,
                Error::WrongLength { stated: s, found, .. }
                    if s == stated && found == plain.len() as u64
            );
            // In gzip data the length is part of the format itself.
            let is_length = is_length || name == "gzip" && matches!(error, Error::Corrupt { .. });
            assert!(is_length, "{name}: {error}");
        }
    }
}

#[test]
fn damage_in_the_payload_is_seen() {
    let plain = Spec::default().build();
    for (name, packed) in FIXTURES {
        // LZ4's legacy frame has no checksum: only damage to its structure can be seen.
        if name == "lz4" {
            continue;
        }
        // The streams of the old lzma container have neither checksum nor redundancy, so what the
        // damage breaks is the length.
        let mut file = bzimage(payload(packed), plain.len() as u32);
        let middle = 2112 + packed.len() / 2;
        file[middle] ^= 0x55;
        let error = load(&file).unwrap_err();
        let is_damage = matches!(error, Error::Corrupt { .. } | Error::WrongLength { .. });
        assert!(is_damage, "{name}: {error}");
    }
}

#[test]
fn compressed_files_that_are_no_kernel_are_named_early() {
    // 1 GiB of zeros behind a cpio header would exceed the limit: the name comes first.
    let mut archive = b"07070100000000".repeat(1000);
    archive.resize(4 << 20, 0);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, &archive).unwrap();
    let packed = encoder.finish().unwrap();
    let error = KernelImage::load(&packed, &Limits { max_output: 1 << 20 }).unwrap_err();
    let expected = Error::NotAKernel { found: FileKind::Cpio, inside: Some(Compression::Gzip) };
    assert_eq!(error, expected);
}

#[test]
fn other_files_are_named() {
    let mut boot_sector = vec![7; 512];
    boot_sector[510..].copy_from_slice(&[0x55, 0xaa]);
    let mut efi = boot_sector.clone();
    efi[..2].copy_from_slice(b"MZ");
    let cases: [(&[u8], FileKind); 11] = [
        (b"", FileKind::Empty),
        (&[0; 4096], FileKind::Zeros),
        (b"#!/bin/sh -e\nexit 0\n", FileKind::Script("/bin/sh -e".into())),
        (b"070701001234", FileKind::Cpio),
        (&boot_sector, FileKind::BootSector),
        (&efi, FileKind::EfiProgram),
        (b"QFI\xfb\0\0\0\x03", FileKind::Qcow),
        (b"!<arch>\ndebian-binary", FileKind::Archive),
        (b"kernel = \"x\"\nmemory = 1\n", FileKind::Text("kernel = \"x\"".into())),
        (&[1, 2, 3], FileKind::Unknown([1, 2, 3, 0, 0, 0, 0, 0])),
        (b"\xff\xfe\0\x01abcdef", FileKind::Unknown(*b"\xff\xfe\0\x01abcd")),
    ];
    for (file, found) in cases {
        assert_eq!(load(file).unwrap_err(), Error::NotAKernel { found, inside: None });
    }
}

#[test]
fn bzimage_headers_are_checked() {
    let good = bzimage(FIXTURES[0].1, 1);
    let mut old = good.clone();
    old[0x206..0x208].copy_from_slice(&0x0207u16.to_le_bytes());
    assert_eq!(load(&old).unwrap_err(), Error::OldBootProtocol { version: 0x0207 });

    let cut = &good[..good.len() - 101];
    let expected = (good.len() - 100) as u64;
    let error = Error::Truncated { part: "compressed kernel", expected, found: expected - 1 };
    assert_eq!(load(cut).unwrap_err(), error);
    let error = Error::Truncated { part: "setup header", expected: 0x250, found: 0x230 };
    assert_eq!(load(&good[..0x230]).unwrap_err(), error);

    let mut far = good.clone();
    far[0x248..0x250].fill(0xff);
    assert!(matches!(
        load(&far).unwrap_err(),
        Error::Truncated { expected: 0x2_0000_0000.., .. } | Error::Truncated { .. }
    ));

    let odd = bzimage(b"070701 is no compression", 1);
    assert_eq!(load(&odd).unwrap_err(), Error::UnknownPayload { found: FileKind::Cpio });
}

#[test]
fn foreign_elf_files_are_named() {
    assert_eq!(error_of(&Spec { class: 1, ..Spec::default() }), Error::Elf32);
    assert_eq!(error_of(&Spec { order: 2, ..Spec::default() }), Error::BigEndian);
    let aarch64 = Spec { machine: 183, ..Spec::default() };
    assert_eq!(error_of(&aarch64), Error::WrongMachine { machine: 183 });
    let module = Spec { elf_type: 1, ..Spec::default() };
    assert_eq!(error_of(&module), Error::WrongType { elf_type: 1 });
    assert!(error_of(&module).to_string().contains("kernel module"));
    assert_eq!(error_of(&Spec { loads: vec![], ..Spec::default() }), Error::NoSegments);
}

#[test]
fn impossible_segments_are_errors() {
    let spec = |loads| Spec { loads, ..Spec::default() };
    let page = |paddr, mem_size| Load { paddr, mem_size, bytes: vec![1; 0x1000] };
    let error = error_of(&spec(vec![page(TEXT, 0x2000), page(TEXT + 0x1fff, 0x1000)]));
    let (first, second) = (TEXT..TEXT + 0x2000, TEXT + 0x1fff..TEXT + 0x2fff);
    assert_eq!(error, Error::SegmentsOverlap { first, second });
    let error = error_of(&spec(vec![page(TEXT, 0xfff)]));
    assert!(matches!(error, Error::BadSegment { index: 0, mem_size: 0xfff, .. }));
    let error = error_of(&spec(vec![page(u64::MAX - 0x800, 0x1000)]));
    assert!(matches!(error, Error::BadSegment { .. }));
    let error = error_of(&spec(vec![page(TEXT, 0x1000), page(TEXT + (1 << 30), 0x1000)]));
    assert_eq!(error, Error::SpanTooLarge { span: (1 << 30) + 0x1000, limit: 512 << 20 });
    let file = Spec::default().build();
    let cut = &file[..file.len() - 1];
    let (expected, found) = (file.len() as u64, cut.len() as u64);
    assert_eq!(load(cut).unwrap_err(), Error::Truncated { part: "ELF segment", expected, found });
}

#[test]
fn notes_in_a_section_are_found() {
    let spec = Spec { place: NotePlace::Section, ..Spec::default() };
    let image = load(&spec.build()).unwrap();
    assert_eq!(image.entry, VIRT_BASE + TEXT + 0x1c0);
}

#[test]
fn kernels_that_cannot_start_in_pv_mode_are_named() {
    assert_eq!(error_of(&with_notes(vec![])), Error::NoXenNotes);
    let general = [note(6, b"linux\0"), note(7, b"2.6\0"), note(5, b"xen-3.0\0")].concat();
    assert_eq!(error_of(&with_notes(general.clone())), Error::NoXenNotes);
    let pvh = [general, number(18, 0x100_0000)].concat();
    assert_eq!(error_of(&with_notes(pvh)), Error::PvhOnly { phys32_entry: 0x100_0000 });
    let old = [linux_notes(), note(5, b"xen-2.0\0")].concat();
    assert_eq!(error_of(&with_notes(old)), Error::WrongXenVersion { found: "xen-2.0".into() });
    let own = [linux_notes(), note(6, b"plan9\0"), note(8, b"own\0")].concat();
    let (guest_os, loader) = ("plan9".into(), "own".into());
    assert_eq!(error_of(&with_notes(own)), Error::WrongLoader { guest_os, loader });
    let bare = [note(6, b"linux\0"), number(3, VIRT_BASE)].concat();
    let missing = Error::MissingNote { note: NoteKind::XenVersion };
    assert_eq!(error_of(&with_notes(bare)), missing);
}

#[test]
fn addresses_in_notes_are_checked() {
    let with = |extra: Vec<u8>| error_of(&with_notes([linux_notes(), extra].concat()));
    let kind_of = |error| match error {
        Error::BadNote { note, .. } => note,
        error => panic!("{error}"),
    };
    assert!(matches!(with(number(1, 0x1000)), Error::OutsideKernel { value: 0x1000, .. }));
    assert!(matches!(with(number(2, 0x1000)), Error::OutsideKernel { .. }));
    assert_eq!(kind_of(with(number(2, VIRT_BASE + TEXT + 8))), NoteKind::HypercallPage);
    assert_eq!(kind_of(with(number(3, VIRT_BASE + 1))), NoteKind::VirtBase);
    assert_eq!(kind_of(with(number(3, u64::MAX - 0xfff))), NoteKind::VirtBase);
    assert_eq!(kind_of(with(number(4, TEXT + 1))), NoteKind::PaddrOffset);
    assert_eq!(kind_of(with(number(15, VIRT_BASE + TEXT))), NoteKind::InitP2m);
    assert_eq!(kind_of(with(number(15, 12))), NoteKind::InitP2m);
    assert_eq!(kind_of(with(note(1, &[0; 3]))), NoteKind::Entry);
    assert_eq!(kind_of(with(note(10, b"!no_such_feature"))), NoteKind::Features);
    assert!(load(&with_notes([linux_notes(), note(10, b"no_such")].concat()).build()).is_ok());
    let too_long = [linux_notes(), vec![0xff; 12]].concat();
    assert!(matches!(error_of(&with_notes(too_long)), Error::BadElf { .. }));
}

#[test]
fn paddr_offset_moves_the_segments() {
    // As NetBSD does: physical addresses include the base.
    let mut spec = with_notes([linux_notes(), number(4, VIRT_BASE)].concat());
    spec.loads.iter_mut().for_each(|load| load.paddr += VIRT_BASE);
    let image = load(&spec.build()).unwrap();
    assert_eq!(image.guest_physical(&image.segments[0]), TEXT);
    assert_eq!(image.virtual_range().start, VIRT_BASE + TEXT);
}

/// Set `XENOLITH_TEST_KERNELS` to a folder with `vmlinuz-*` files of Xen PV kernels.
#[test]
fn real_kernels_load() {
    let Some(folder) = std::env::var_os("XENOLITH_TEST_KERNELS") else {
        eprintln!("skipped: XENOLITH_TEST_KERNELS is not set");
        return;
    };
    let mut loaded = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if !path.file_name().unwrap().to_string_lossy().starts_with("vmlinuz") {
            continue;
        }
        let file = std::fs::read(&path).unwrap();
        let start = Instant::now();
        let image = load(&file).unwrap();
        let time = start.elapsed();
        eprintln!(
            "{}: {} {} bytes in {time:?}, entry {:#x}, {:?}",
            path.display(),
            image.compression.unwrap(),
            image.elf.len(),
            image.entry,
            image.features
        );
        assert_eq!(image.guest_os, "linux");
        assert_eq!(image.virt_base, VIRT_BASE);
        assert_eq!(image.init_p2m, Some(0x80_0000_0000));
        assert!(image.mod_start_pfn && image.release.is_some() && image.segments.len() >= 3);
        assert!(time < Duration::from_secs(30));
        loaded += 1;
    }
    assert!(loaded > 0, "no vmlinuz-* in XENOLITH_TEST_KERNELS");
}
