//! The host as the monitor knows it: a record of mappings, other processes that do at once what they
//! are woken for, and a jail.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::CString,
    fs,
    os::unix::ffi::OsStringExt,
    vec::Vec,
};

use boundary::{Setup, at, fd};

use super::guest;
use crate::{
    code::Code,
    layout,
    runner::mailbox::{self, Command, request},
    space::MOST,
    start,
    state::page,
    sys, tlb,
};

/// A page as the host would map it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    pub frame: u64,
    /// `PROT_*`.
    pub prot: u32,
    pub shadow: bool,
    pub key: u32,
}

/// The pages of one process, by address.
pub type Pages = BTreeMap<u64, Page>;

/// What a runner's program leaves behind, whatever it may be.
#[derive(Clone, Copy, Default)]
pub struct Report {
    pub event: u32,
    pub regs: [u64; 16],
    pub rip: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub signal: crate::user_signal::UserSignal,
}

#[derive(Default)]
pub struct Host {
    armed: bool,
    /// Pages of spaces, and of runners, by number.
    pub spaces: HashMap<usize, Pages>,
    pub runners: HashMap<usize, Pages>,
    /// The next report of a runner.
    pub report: Report,
    /// How translated code would leave: reason and target.
    pub leaving: (u64, u64),
    /// The host refuses this mapping, and later ones: 0 = never.
    pub refuse: u32,
    /// The code cache between inputs, and where an empty one begins.
    pub code: Option<Code>,
    pub fresh: Option<(u32, u32)>,
    clones: bool,
    runner_count: usize,
    waits: u32,
}

static mut HOST: Option<Host> = None;

/// The one host.
pub fn host() -> &'static mut Host {
    // SAFETY: the process has one thread, and no two of the borrows are used in turns.
    unsafe { (*core::ptr::addr_of_mut!(HOST)).get_or_insert_with(Host::default) }
}

/// libFuzzer's threads and the heap must not lie at the monitor's places.
pub fn free_the_places() {
    let maps = fs::read_to_string("/proc/self/maps").expect("/proc");
    let taken = maps.lines().any(|line| {
        let mut ends = line.split([' ', '-']).map(|end| u64::from_str_radix(end, 16));
        let (Some(Ok(from)), Some(Ok(to))) = (ends.next(), ends.next()) else { return false };
        (from < at::END && to > at::CONTEXT) || from < at::SITES + at::SITES_SIZE
    });
    if !taken {
        return;
    }
    // SAFETY: plain calls; the strings end with zeros.
    unsafe {
        let old = libc::personality(0xffff_ffff);
        assert!(old & libc::ADDR_NO_RANDOMIZE == 0, "the places of the monitor are taken:\n{maps}");
        libc::personality((old | libc::ADDR_NO_RANDOMIZE) as libc::c_ulong);
        let args: Vec<CString> =
            std::env::args_os().filter_map(|arg| CString::new(arg.into_vec()).ok()).collect();
        let mut pointers: Vec<_> = args.iter().map(|arg| arg.as_ptr()).collect();
        pointers.push(core::ptr::null());
        libc::execv(c"/proc/self/exe".as_ptr(), pointers.as_ptr());
    }
    panic!("the program could not be started again");
}

/// The memfds of a domain at their numbers.
pub fn make_files(setup: Setup) {
    let ram = setup.nr_frames << 12;
    for (number, size) in
        [(fd::RAM, ram), (fd::ARENA, at::ARENA_SIZE), (fd::CODE, at::CODE_SIZE), (fd::SHADOW, ram)]
    {
        // SAFETY: plain calls. Whatever had the number was inherited and is of no use here.
        unsafe {
            let file = libc::memfd_create(c"fuzz".as_ptr(), 0);
            assert!(file >= 0 && libc::ftruncate(file, size as i64) == 0);
            if file != number {
                assert!(libc::dup2(file, number) == number);
                if file > fd::SHADOW {
                    libc::close(file);
                }
            }
        }
    }
    let mut first = [0u8; size_of::<u64>() + size_of::<Setup>()];
    let (magic, rest) = first.split_at_mut(8);
    magic.copy_from_slice(&boundary::MAGIC.to_ne_bytes());
    // SAFETY: a structure of plain numbers, copied as bytes.
    unsafe {
        let from = core::ptr::from_ref(&setup).cast::<u8>();
        core::ptr::copy_nonoverlapping(from, rest.as_mut_ptr(), rest.len());
        let n = libc::pwrite(fd::ARENA, first.as_ptr().cast(), first.len(), 0);
        assert!(n == first.len() as isize);
    }
}

/// Says how the next domain is to be.
pub fn write_setup(setup: Setup) {
    let domain = at::ARENA as *mut boundary::DomainPage;
    // SAFETY: mapped; no monitor uses it now.
    unsafe {
        (*domain).magic = boundary::MAGIC;
        (*domain).setup = setup;
        (*domain).ballooned = (setup.max_pages - setup.nr_pages).into();
        (*domain).most_pages = setup.max_pages.into();
    }
}

/// Forgets where kernel pages were mapped.
pub fn clear_aliases() {
    // SAFETY: a part of the arena's mapping; the memory reads as zeros afterwards.
    unsafe {
        let at = layout::ALIASES as *mut libc::c_void;
        libc::madvise(at, translate::ALIAS_TABLE as usize, libc::MADV_REMOVE);
    }
}

/// From now on calls do not reach the real host.
pub fn arm() {
    host().armed = true;
}

impl Host {
    /// A fresh domain with one space.
    pub fn begin(&mut self, settings: u8) {
        self.spaces.clear();
        self.runners.clear();
        self.report = Report::default();
        self.refuse = 0;
        self.clones = settings & 8 == 0;
        self.waits = 0;
    }

    pub fn end(&mut self) {
        self.refuse = 0;
    }

    /// How many parts of the arena runners may have used.
    pub fn take_runners(&mut self) -> usize {
        core::mem::replace(&mut self.runner_count, 1).max(1)
    }

    /// The pages of the running space.
    pub fn own(&mut self) -> &mut Pages {
        // SAFETY: the monitor is built before guest pages are mapped; only a number is read.
        let current = unsafe { (*start::monitor()).spaces.current };
        self.spaces.entry(current).or_default()
    }

    fn refuses(&mut self) -> bool {
        self.refuse = self.refuse.saturating_sub(1);
        self.refuse == 1
    }
}

/// What a runner keeps of the monitor.
const RUNNERS: [(u64, u64); 2] =
    [(at::START, at::ALIASES - at::START), (at::SITES, at::SITES_SIZE)];

/// The jail's rules for pages, and those of the layout: guest addresses only.
fn guest_range(start: u64, len: u64) -> u64 {
    range_without(start, len, &tlb::reserved())
}

fn range_without(start: u64, len: u64, places: &[(u64, u64)]) -> u64 {
    assert!(start & 0xfff == 0 && len & 0xfff == 0 && len > 0, "odd range {start:#x} {len:#x}");
    let end = start.checked_add(len).expect("a range that wraps");
    assert!(start >= tlb::LOWEST && end <= tlb::HIGHEST, "no guest addresses: {start:#x} {len:#x}");
    for &(place, size) in places {
        assert!(
            end <= place || start >= place + size,
            "a place of the monitor's: {start:#x} {len:#x}"
        );
    }
    end
}

/// What `mmap` of guest pages does to a process.
fn map(pages: &mut Pages, [start, len, prot, file, offset]: [u64; 5], user: bool) {
    let end = guest_range(start, len);
    assert!(file as i32 == fd::RAM || file as i32 == fd::SHADOW, "file {file}");
    assert!(offset & 0xfff == 0 && offset + len <= guest::ALL << 12, "offset {offset:#x}");
    for page in (start..end).step_by(4096) {
        let frame = (offset + page - start) >> 12;
        let m2p = !user && prot == u64::from(sys::READ) && frame == guest::ALL - 1;
        assert!(guest::is_the_guests(frame) || m2p, "frame {frame} mapped at {page:#x}");
        let shadow = file as i32 == fd::SHADOW;
        pages.insert(page, Page { frame, prot: prot as u32, shadow, key: 0 });
    }
}

fn unmap(pages: &mut Pages, start: u64, len: u64, places: &[(u64, u64)]) {
    let end = range_without(start, len, places);
    let gone: Vec<u64> = pages.range(start..end).map(|(page, _)| *page).collect();
    for page in gone {
        pages.remove(&page);
    }
}

/// `mprotect` ends at the first hole.
fn protect(pages: &mut Pages, start: u64, len: u64, prot: u32, key: Option<u32>) -> bool {
    for page in (start..guest_range(start, len)).step_by(4096) {
        let Some(page) = pages.get_mut(&page) else { return false };
        page.prot = prot;
        page.key = key.unwrap_or(page.key);
    }
    true
}

/// Carries out one of a runner's commands.
pub fn command(pages: &mut Pages, c: &Command) {
    match c.what {
        Command::MAP => map(pages, [c.start, c.len, c.prot.into(), c.file as u64, c.offset], true),
        Command::UNMAP => unmap(pages, c.start, c.len, &RUNNERS),
        _ => _ = protect(pages, c.start, c.len, c.prot, None),
    }
}

/// A runner takes its turn.
fn runner_acts(number: usize) {
    let h = host();
    let (b, o) = (mailbox::of(number), mailbox::orders_of(number));
    h.runner_count = h.runner_count.max(number + 1);
    if number != 0 {
        let pages = h.runners.entry(number).or_default();
        for c in o.commands.iter().take(o.count as usize) {
            command(pages, c);
        }
    }
    b.pid.store(1000 + number as i32, core::sync::atomic::Ordering::Relaxed);
    b.event = match o.request {
        request::BEAR => u32::from(!h.clones),
        request::RUN => {
            let r = h.report;
            (b.regs, b.frame.rip, b.frame.rflags, b.frame.rsp) = (r.regs, r.rip, r.rflags, r.rsp);
            b.signal = r.signal;
            r.event
        }
        _ => u32::from(h.refuses()),
    };
    let given = o.given.load(core::sync::atomic::Ordering::Relaxed);
    b.done.store(given, core::sync::atomic::Ordering::Relaxed);
}

/// Somebody else does what the monitor waits for.
fn wait(word: u64) -> i64 {
    let h = host();
    let runners = at::ARENA + layout::ARENA_RUNNERS;
    if word == page().wake.as_ptr() as u64 {
        h.waits += 1;
        page().inbox.fetch_or((h.waits & 3) | 1, core::sync::atomic::Ordering::Relaxed);
        // Sooner or later something comes that is not masked.
        // SAFETY: the monitor is built; `vcpu_info` is mapped.
        unsafe { crate::event::info().write_volatile(1) };
    } else if (runners..runners + (MOST as u64 + 1) * layout::RUNNER_SIZE).contains(&word) {
        runner_acts(((word - runners) / layout::RUNNER_SIZE) as usize);
    } else if word == page().runner_gone.as_ptr() as u64 {
        // The domain process kills it: all that it had mapped is gone.
        let pid = page().runner.load(core::sync::atomic::Ordering::Relaxed);
        h.runners.remove(&(pid as usize).wrapping_sub(1000));
        page().runner_gone.store(pid, core::sync::atomic::Ordering::Relaxed);
    } else {
        // A space that had the vCPU hands it back, which makes this one that space.
        // SAFETY: a futex of the monitor's.
        unsafe {
            (*(word as *const core::sync::atomic::AtomicU32))
                .store(1, core::sync::atomic::Ordering::Relaxed)
        };
    }
    0
}

/// Maps for real what the monitor maps for itself.
fn own_place(start: u64, len: u64) -> bool {
    let windows = layout::WINDOWS..layout::WINDOWS + 16 * 4096;
    len == 4096 && (start == layout::VCPU_PAGE || windows.contains(&start))
}

/// The monitor's system calls.
///
/// # Safety
/// As the call itself demands.
pub unsafe fn call6(nr: u64, a: [u64; 6]) -> i64 {
    let h = host();
    let real = |a: [u64; 6]| {
        // SAFETY: the caller's promise.
        let r = unsafe { libc::syscall(nr as i64, a[0], a[1], a[2], a[3], a[4], a[5]) };
        if r < 0 { -1 } else { r }
    };
    if !h.armed {
        return real(a);
    }
    match nr as i64 {
        libc::SYS_mmap if own_place(a[0], a[1]) => {
            assert!(a[4] as i32 == fd::RAM && guest::is_the_guests(a[5] >> 12));
            real(a)
        }
        libc::SYS_mmap => {
            let flags = a[3] as u32 & !sys::MAP_POPULATE;
            assert!(flags == sys::MAP_SHARED | sys::MAP_FIXED, "flags {flags:#x}");
            if h.refuses() {
                return -12;
            }
            map(h.own(), [a[0], a[1], a[2], a[4], a[5]], false);
            a[0] as i64
        }
        libc::SYS_munmap => {
            unmap(h.own(), a[0], a[1], &tlb::reserved());
            0
        }
        // Guest memory that goes back to the host: by the monitor's own view of it.
        libc::SYS_madvise => {
            let (first, end) = (a[0].wrapping_sub(at::RAM), a[0].wrapping_sub(at::RAM) + a[1]);
            assert!(first & 0xfff == 0 && end & 0xfff == 0 && a[2] == 9, "madvise {a:x?}");
            assert!((first >> 12..end >> 12).all(guest::is_the_guests), "madvise {a:x?}");
            real(a)
        }
        libc::SYS_mprotect => i64::from(protect(h.own(), a[0], a[1], a[2] as u32, None)) - 1,
        libc::SYS_pkey_mprotect if own_place(a[0], a[1]) => 0,
        libc::SYS_pkey_mprotect => {
            i64::from(protect(h.own(), a[0], a[1], a[2] as u32, Some(a[3] as u32))) - 1
        }
        libc::SYS_futex if a[1] == 0 => wait(a[0]),
        libc::SYS_clone if h.clones => {
            // SAFETY: as in `Host::own`.
            let (here, child) = unsafe {
                let spaces = &(*start::monitor()).spaces;
                (spaces.current, spaces.all.len() - 1)
            };
            let pages = h.spaces.get(&here).cloned().unwrap_or_default();
            h.spaces.insert(child, pages);
            1000 + child as i64
        }
        libc::SYS_clone => -11,
        libc::SYS_exit_group => panic!("the monitor exits with {}", a[0]),
        libc::SYS_futex
        | libc::SYS_setitimer
        | libc::SYS_getpid
        | libc::SYS_prctl
        | libc::SYS_arch_prctl
        | libc::SYS_write => 0,
        _ => panic!("the jail refuses system call {nr}"),
    }
}
