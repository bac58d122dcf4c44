//! Builds small guests and walks what was built, as the guest would.

use super::*;
use std::io::Write;
use std::ops::Range;
use std::path::Path;

const BASE: u64 = 0xffff_ffff_8000_0000;
const P2M: u64 = 0x80_0000_0000;

/// A kernel of two segments at 1 MiB and 2 MiB.
fn kernel() -> KernelImage {
    let mut elf = vec![0xaa; 8192];
    elf.extend([0xbb; 100]);
    KernelImage {
        segments: vec![
            kernel::Segment { paddr: 1 << 20, mem_size: 8192, file: 0..8192 },
            kernel::Segment { paddr: 2 << 20, mem_size: 10000, file: 8192..8292 },
        ],
        elf,
        entry: BASE + (1 << 20) + 16,
        virt_base: BASE,
        paddr_offset: 0,
        init_p2m: Some(P2M),
        hypercall_page: None,
        hv_start_low: None,
        mod_start_pfn: true,
        suspend_cancel: false,
        bsd_symtab: false,
        features: kernel::Features::default(),
        l1_mfn_valid: Vec::new(),
        phys32_entry: None,
        guest_os: "linux".into(),
        guest_version: "2.6".into(),
        xen_version: "xen-3.0".into(),
        loader: "generic".into(),
        pae_mode: None,
        release: None,
        compression: None,
    }
}

fn ramdisk(bytes: &[u8]) -> Option<Ramdisk> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    Some(Ramdisk::open(file.path()).unwrap())
}

fn order(kernel: &KernelImage, memory_mib: u64) -> Order<'_> {
    Order {
        kernel,
        ramdisk: None,
        command_line: "console=hvc0 quiet",
        memory_mib,
        maxmem_mib: memory_mib,
        vcpus: 1,
        domid: 7,
        uuid: [9; 16],
        cpuid: cpuid::Policy::default(),
    }
}

/// A built guest as the guest's kernel sees it.
struct Guest(Built);

impl Guest {
    fn build(order: &Order<'_>) -> Self {
        Self(build(order).unwrap())
    }

    fn physical(&self, at: u64) -> u64 {
        let bytes = self.0.ram.copy_out(at, 8).unwrap();
        u64::from_le_bytes(bytes.try_into().unwrap())
    }

    /// The last-level entry for an address, or `None` if it is not mapped.
    fn entry(&self, address: u64) -> Option<u64> {
        let mut table = self.0.setup.cr3_mfn;
        for level in [3, 2, 1] {
            let entry = self.physical(table * PAGE + (address >> (12 + 9 * level) & 511) * 8);
            if entry & 1 == 0 {
                return None;
            }
            assert_eq!(entry & 0x7, 7, "upper entries are present, writable, user");
            table = (entry & 0x000f_ffff_ffff_f000) / PAGE;
        }
        let entry = self.physical(table * PAGE + (address >> 12 & 511) * 8);
        (entry & 1 == 1).then_some(entry)
    }

    fn frame(&self, address: u64) -> Option<u64> {
        self.entry(address).map(|entry| (entry & 0x000f_ffff_ffff_f000) / PAGE)
    }

    fn virtual_u64(&self, address: u64) -> u64 {
        self.physical(self.frame(address).unwrap() * PAGE + address % PAGE)
    }

    fn info(&self, offset: usize) -> u64 {
        self.virtual_u64(self.0.setup.start_info + offset as u64)
    }

    /// Addresses that the initial mapping covers, by looking at every page.
    fn mapped(&self) -> Range<u64> {
        let first = (0..1 << 18).find(|page| self.entry(BASE + page * PAGE).is_some()).unwrap();
        let length = (first..).take_while(|page| self.entry(BASE + page * PAGE).is_some()).count();
        first..first + length as u64
    }
}

mod offset {
    use abi::start::StartInfo;
    use std::mem::offset_of;
    pub const PAGES: usize = offset_of!(StartInfo, nr_pages);
    pub const SHARED: usize = offset_of!(StartInfo, shared_info);
    pub const FLAGS: usize = offset_of!(StartInfo, flags);
    pub const STORE: usize = offset_of!(StartInfo, store_mfn);
    pub const CONSOLE: usize = offset_of!(StartInfo, console_mfn);
    pub const TABLES: usize = offset_of!(StartInfo, pt_base);
    pub const NR_TABLES: usize = offset_of!(StartInfo, nr_pt_frames);
    pub const P2M: usize = offset_of!(StartInfo, mfn_list);
    pub const RAMDISK: usize = offset_of!(StartInfo, mod_start);
    pub const RAMDISK_BYTES: usize = offset_of!(StartInfo, mod_len);
    pub const COMMAND_LINE: usize = offset_of!(StartInfo, cmd_line);
    pub const FIRST_P2M: usize = offset_of!(StartInfo, first_p2m_pfn);
    pub const NR_P2M: usize = offset_of!(StartInfo, nr_p2m_frames);
}

#[test]
fn the_kernel_lies_at_its_addresses() {
    let kernel = kernel();
    let guest = Guest::build(&order(&kernel, 32));
    let ram = &guest.0.ram;
    assert_eq!(ram.copy_out((1 << 20) - 1, 2).unwrap(), [0, 0xaa]);
    assert_eq!(ram.copy_out((1 << 20) + 8191, 2).unwrap(), [0xaa, 0]);
    assert_eq!(ram.copy_out((2 << 20) + 99, 2).unwrap(), [0xbb, 0]);
    assert_eq!(guest.0.setup.entry, kernel.entry);
    assert_eq!(guest.frame(kernel.entry), Some(0x100));
}

#[test]
fn the_initial_mapping_is_one_to_one_and_tables_are_read_only() {
    let kernel = kernel();
    let guest = Guest::build(&order(&kernel, 32));
    let mapped = guest.mapped();
    assert_eq!(mapped.start, 0);
    assert_eq!(mapped.end % 1024, 0, "ends at a multiple of 4 MiB");
    let first = (guest.info(offset::TABLES) - BASE) / PAGE;
    let tables = first..first + guest.info(offset::NR_TABLES);
    assert_eq!(first, guest.0.setup.cr3_mfn);
    for page in mapped.clone() {
        let entry = guest.entry(BASE + page * PAGE).unwrap();
        assert_eq!(entry >> 12, page);
        assert_eq!(entry >> 1 & 1 == 0, tables.contains(&page), "page {page}");
    }
    let stack = (guest.0.setup.stack - BASE) / PAGE;
    assert_eq!(stack, tables.end + 1, "the stack begins at the end of its page");
    assert!(mapped.end - stack >= 128, "512 KiB of slack");
    assert_eq!(guest.entry(BASE - PAGE), None);
    assert_eq!(guest.entry(BASE + mapped.end * PAGE), None);
    assert_eq!(guest.entry(0), None);
}

#[test]
fn the_p2m_list_is_mapped_where_the_kernel_wants_it() {
    let kernel = kernel();
    let guest = Guest::build(&order(&kernel, 32));
    assert_eq!(guest.info(offset::P2M), P2M);
    for pfn in 0..32 * 256 {
        assert_eq!(guest.virtual_u64(P2M + pfn * 8), pfn);
    }
    assert_eq!(guest.entry(P2M + 16 * PAGE), None, "and no further");
    let first = guest.info(offset::FIRST_P2M);
    assert_eq!(first, guest.mapped().end, "behind the initial mapping");
    assert_eq!(guest.info(offset::NR_P2M), 3 + 16, "tables of three levels, then the list");
    assert_eq!(guest.frame(P2M), Some(first + 3));
}

#[test]
fn kernels_without_wishes_get_the_p2m_list_and_the_ramdisk_mapped() {
    let kernel = KernelImage { init_p2m: None, mod_start_pfn: false, ..kernel() };
    let disk = [0x5a; 5000];
    let guest = Guest::build(&Order { ramdisk: ramdisk(&disk), ..order(&kernel, 32) });
    let start = guest.info(offset::RAMDISK);
    assert_eq!(start, BASE + (2 << 20) + 3 * PAGE, "right behind the kernel");
    assert_eq!(guest.info(offset::RAMDISK_BYTES), 5000);
    assert_eq!(guest.info(offset::FLAGS) as u32, 0);
    assert_eq!(guest.virtual_u64(start + 4992), 0x5a5a_5a5a_5a5a_5a5a);
    assert_eq!(guest.virtual_u64(start + 5000), 0);
    let list = guest.info(offset::P2M);
    assert_eq!(list, start + 2 * PAGE);
    assert_eq!(guest.virtual_u64(list + 8191 * 8), 8191);
    assert_eq!((guest.info(offset::FIRST_P2M), guest.info(offset::NR_P2M)), (0, 0));
}

#[test]
fn a_large_ramdisk_stays_outside_the_mapping() {
    let kernel = kernel();
    let mut disk = vec![0; 20 << 20];
    disk.extend(*b"the end!");
    let guest = Guest::build(&Order { ramdisk: ramdisk(&disk), ..order(&kernel, 40) });
    assert_eq!(guest.info(offset::FLAGS) as u32, abi::start::SIF_MOD_START_PFN);
    let start = guest.info(offset::RAMDISK);
    assert_eq!(start, guest.mapped().end);
    assert_eq!(guest.physical(start * PAGE + (20 << 20)), u64::from_le_bytes(*b"the end!"));
    assert!(guest.info(offset::FIRST_P2M) > start + 5120);
}

#[test]
fn start_info_and_setup_name_the_same_frames() {
    let kernel = kernel();
    let guest = Guest::build(&order(&kernel, 32));
    let setup = &guest.0.setup;
    let (first, second) = (guest.info(0).to_le_bytes(), guest.info(8).to_le_bytes());
    assert_eq!([first, second].concat(), *b"xen-3.0-x86_64\0\0");
    assert_eq!(guest.info(offset::PAGES), 8192);
    assert_eq!(guest.info(offset::SHARED), setup.shared_info_mfn * PAGE);
    assert_eq!(guest.info(offset::STORE), setup.store_mfn);
    assert_eq!(guest.info(offset::STORE + 8) as u32, boundary::port::STORE);
    assert_eq!(guest.info(offset::CONSOLE), setup.console_mfn);
    assert_eq!(guest.info(offset::CONSOLE + 8) as u32, boundary::port::CONSOLE);
    let info = guest.frame(setup.start_info).unwrap() * PAGE;
    let line = guest.0.ram.copy_out(info + offset::COMMAND_LINE as u64, 19).unwrap();
    assert_eq!(line, b"console=hvc0 quiet\0");
    assert_eq!((setup.domid, setup.vcpus, setup.uuid), (7, 1, [9; 16]));
    for frame in [setup.store_mfn, setup.console_mfn] {
        assert_eq!(guest.0.ram.copy_out(frame * PAGE, 4096).unwrap(), vec![0; 4096]);
    }
}

#[test]
fn the_monitor_frames_lie_behind_maxmem() {
    let kernel = kernel();
    let guest = Guest::build(&Order { maxmem_mib: 64, ..order(&kernel, 32) });
    let setup = &guest.0.setup;
    assert_eq!((setup.nr_pages, setup.max_pages), (8192, 16384));
    let mut areas =
        [(setup.shared_info_mfn, 1), (setup.grant_mfn, 32), (setup.m2p_mfn, setup.m2p_frames)];
    areas.sort_unstable();
    assert!(areas[0].0 >= setup.max_pages);
    for pair in areas.windows(2) {
        assert!(pair[0].0 + pair[0].1 <= pair[1].0);
    }
    assert!(areas[2].0 + areas[2].1 <= setup.nr_frames);
    assert!(setup.m2p_frames * 512 >= setup.nr_frames);
    for mfn in 0..setup.nr_frames {
        // The guest may grow to 16384.
        let expected = if mfn < 16384 { mfn } else { u64::MAX };
        assert_eq!(guest.physical(setup.m2p_mfn * PAGE + mfn * 8), expected, "mfn {mfn}");
    }
}

#[test]
fn events_are_masked_at_the_start() {
    let kernel = kernel();
    let guest = Guest::build(&order(&kernel, 32));
    let page = guest.0.ram.copy_out(guest.0.setup.shared_info_mfn * PAGE, 4096).unwrap();
    for (vcpu, info) in page[..2048].chunks(64).enumerate() {
        assert_eq!(info.iter().map(|b| u32::from(*b)).sum::<u32>(), 1, "vcpu {vcpu}");
        assert_eq!(info[1], 1, "evtchn_upcall_mask");
    }
    assert!(page[2048..2560].iter().all(|byte| *byte == 0), "nothing pending");
    assert!(page[2560..3072].iter().all(|byte| *byte == 0xff), "everything masked");
    assert!(page[3072..].iter().all(|byte| *byte == 0));
}

#[test]
fn hypercall_stubs_carry_their_numbers() {
    let kernel = KernelImage { hypercall_page: Some(BASE + (1 << 20) + PAGE), ..kernel() };
    let guest = Guest::build(&order(&kernel, 32));
    let page = guest.0.ram.copy_out((1 << 20) + PAGE, 4096).unwrap();
    assert_eq!(page[32..46], [0x51, 0x41, 0x53, 0xb8, 1, 0, 0, 0, 0x0f, 5, 0x41, 0x5b, 0x59, 0xc3]);
    assert_eq!(page[23 * 32..][..11], [0x51, 0x41, 0x53, 0x50, 0xb8, 23, 0, 0, 0, 0x0f, 5]);
}

#[test]
fn too_little_memory_is_told_with_what_is_needed() {
    let kernel = kernel();
    for size in [0, 1 << 20, 64 << 20] {
        let disk = || (size > 0).then(|| ramdisk(&vec![1; size])).flatten();
        let mut memory = 1;
        let need = loop {
            match build(&Order { ramdisk: disk(), ..order(&kernel, memory) }) {
                Err(BuildError::TooSmall { have_mib, need_mib }) => {
                    assert_eq!(have_mib, memory);
                    assert!(need_mib > memory);
                    memory = need_mib;
                }
                other => break other.map(|_| memory).unwrap(),
            }
        };
        let less = build(&Order { ramdisk: disk(), ..order(&kernel, need - 1) });
        assert!(matches!(less, Err(BuildError::TooSmall { .. })), "{need} is not the least");
    }
    assert!(matches!(build(&order(&kernel, 0)), Err(BuildError::TooSmall { have_mib: 0, .. })));
}

#[test]
fn impossible_orders_are_refused() {
    let kernel = kernel();
    let long = "x".repeat(1024);
    let line = |command_line| build(&Order { command_line, ..order(&kernel, 32) });
    assert!(matches!(line(&long), Err(BuildError::CommandLine { length: 1024, .. })));
    assert!(line(&long[..1023]).is_ok());
    assert!(matches!(line("a\0b"), Err(BuildError::CommandLineZero { at: 1 })));
    for mib in [1 << 20, u64::MAX / 256, u64::MAX] {
        let built = build(&Order { maxmem_mib: mib, ..order(&kernel, 32) });
        assert!(matches!(built, Err(BuildError::TooLarge { .. })), "{mib}");
    }
    let low = KernelImage { virt_base: 0, ..kernel.clone() };
    assert!(matches!(build(&order(&low, 32)), Err(BuildError::Base { virt_base: 0, .. })));
    let demanding = kernel::Features { supported: 4, required: 4 };
    let auto = KernelImage { features: demanding, ..kernel.clone() };
    assert!(matches!(build(&order(&auto, 32)), Err(BuildError::Features { missing: 4 })));
    assert!(Ramdisk::open(Path::new("/")).is_err());
    assert!(Ramdisk::open(Path::new("/nonexistent")).is_err());
    assert!(Ramdisk::open(tempfile::NamedTempFile::new().unwrap().path()).is_err());
}

#[test]
fn strange_places_for_the_p2m_list_are_not_honoured() {
    for at in [BASE + (1 << 30), 0x8000_0000_0000, u64::MAX - PAGE + 1, P2M + 1] {
        let kernel = KernelImage { init_p2m: Some(at), ..kernel() };
        let guest = Guest::build(&order(&kernel, 32));
        let list = guest.info(offset::P2M);
        assert!(list > BASE && list < BASE + guest.mapped().end * PAGE, "{at:#x}");
        assert_eq!(guest.virtual_u64(list + 8), 1);
    }
}

#[test]
fn plans_hold_for_many_sizes() {
    let shape = KernelShape::of(&kernel());
    for ramdisk in [None, Some(1), Some(4096), Some(300 << 20)] {
        for mib in [320, 1000, 4096, 100_000] {
            for mod_start_pfn in [false, true] {
                let shape = KernelShape { mod_start_pfn, ..shape };
                let plan = Plan::new(&shape, ramdisk, mib * 256, mib * 256).unwrap();
                let mut areas = vec![
                    Area { start: 0, count: shape.end.div_ceil(PAGE) },
                    plan.p2m,
                    plan.p2m_tables,
                    Area { start: plan.start_info, count: 3 },
                    plan.tables,
                    Area { start: plan.stack, count: 1 },
                    Area { start: plan.shared_info, count: 1 },
                    plan.grants,
                    plan.m2p,
                ];
                areas.extend(plan.ramdisk);
                areas.retain(|area| area.count > 0);
                areas.sort_by_key(|area| area.start);
                for pair in areas.windows(2) {
                    assert!(pair[0].end() <= pair[1].start, "{plan:?}");
                }
                assert!(plan.nr_frames >= plan.m2p.end());
                assert!(plan.p2m.count * 512 >= plan.nr_pages);
            }
        }
    }
}
