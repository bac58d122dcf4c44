//! Memory that a guest shares with its domain process, changing between steps in any way: the console
//! ring, the domain page with its claims, log and emergency rings, and the crash record (for xenstore's
//! ring see store_ring and store_link).
//! Nothing panics; work is bounded; of the guest's pages only a ring's own fields and free places are
//! written; what people are shown cannot drive a terminal.
#![no_main]

use std::cell::RefCell;
use std::mem::offset_of;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use abi::console::Interface;
use boundary::{CrashRecord, DomainPage, PAGE, Setup};
use domain::builder::{Built, TimeScale};
use domain::console::Console;
use domain::life::{CrashDetails, Report};
use domain::space::{DomainMemory, DomainPageView, Ring, RingReader};
use domain::sys::memory::PrivateMemory;
use libfuzzer_sys::fuzz_target;

/// Frames: one of the guest's, and the rings.
const FRAMES: u64 = 3;
const CONSOLE: u64 = 1;
const STORE: u64 = 2;
/// Most steps of an input.
const STEPS: usize = 200;

thread_local! {
    static MEMORY: RefCell<Option<Arc<DomainMemory>>> = const { RefCell::new(None) };
}

/// The memory of a domain; the same one for all inputs, with zeros in it.
fn memory() -> Arc<DomainMemory> {
    MEMORY.with_borrow_mut(|kept| {
        let memory = kept.get_or_insert_with(|| {
            let size = FRAMES * PAGE;
            let ram = PrivateMemory::new(c"ram", size, size).expect("memory").share();
            let setup = Setup {
                nr_pages: FRAMES,
                max_pages: FRAMES,
                nr_frames: FRAMES,
                console_mfn: CONSOLE,
                store_mfn: STORE,
                vcpus: 1,
                domid: 7,
                ..Setup::default()
            };
            let built = Built { ram, setup };
            let scale = TimeScale { mul: 1 << 31, shift: 0 };
            Arc::new(DomainMemory::new(built, scale, 0).expect("memory"))
        });
        memory.ram.copy_in(0, &[0; (FRAMES * PAGE) as usize]).expect("all of it");
        // The rings' data may stay.
        for offset in (0..offset_of!(DomainPage, emergency) + 8).step_by(4) {
            memory.arena.word(offset as u64).expect("a word").store(0, Ordering::Relaxed);
        }
        let log = offset_of!(DomainPage, log) as u64;
        memory.arena.copy_in(log, &[0; 8]).expect("the page");
        let crash = offset_of!(DomainPage, crash) as u64;
        memory.arena.copy_in(crash, &[0; size_of::<CrashRecord>()]).expect("the page");
        memory.clone()
    })
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn bytes(&mut self, most: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A word: small, near the ends of a ring, or any.
    fn word(&mut self) -> u32 {
        let byte = u32::from(self.byte());
        match byte {
            0..160 => byte,
            160..176 => 1024 + byte - 168,
            176..192 => 2048 + byte - 184,
            192..208 => 0u32.wrapping_sub(byte - 192),
            _ => byte << 24 | u32::from(self.byte()) << 12 | u32::from(self.byte()),
        }
    }
}

/// Does what it does with the rest of memory as it was?
fn within(memory: &DomainMemory, may: &[Range<u64>], act: impl FnOnce()) {
    let word = |at| memory.ram.word(at).expect("a word").load(Ordering::Relaxed);
    let all = || (0..FRAMES * PAGE).step_by(4).map(word);
    let before: Vec<u32> = all().collect();
    act();
    for (i, (was, is)) in before.into_iter().zip(all()).enumerate() {
        let at = 4 * i as u64;
        let allowed = || may.iter().any(|range| range.contains(&at));
        assert!(was == is || allowed(), "word {at:#x} of guest memory was written");
    }
}

fn word_of(page: u64, offset: usize) -> Range<u64> {
    let start = page * PAGE + offset as u64;
    start..start + 4
}

fn pump_console(memory: &DomainMemory, console: &mut Console) {
    let input = CONSOLE * PAGE;
    let may = [
        input..input + 1024,
        word_of(CONSOLE, offset_of!(Interface, in_prod)),
        word_of(CONSOLE, offset_of!(Interface, out_cons)),
    ];
    let before = console.history().end();
    within(memory, &may, || {
        console.pump(&memory.ram);
    });
    assert!(console.history().end() - before <= 2048);
}

fn report(page: DomainPageView<'_>, console: &Console) {
    let details = CrashDetails::from_record(page.crash_record());
    let kernel = Path::new("/nonexistent/vmlinuz");
    let console = console.history().all();
    let at = SystemTime::UNIX_EPOCH;
    let report =
        Report { name: "fuzz", domid: 7, kernel, details: &details, console: &console, at };
    let text = report.text();
    assert!(text.len() < 64 << 10 && !details.reason.is_empty());
    assert!(!text.chars().any(|c| c.is_control() && c != '\n' && c != '\t'));
}

fuzz_target!(|data: &[u8]| {
    let memory = memory();
    let mut console = Console::new(CONSOLE);
    let mut readers = [RingReader::new(Ring::Log), RingReader::new(Ring::Emergency)];
    let page = DomainPageView::new(&memory.arena);
    let mut input = Input(data);
    for _ in 0..STEPS {
        if input.0.is_empty() {
            break;
        }
        match input.byte() % 9 {
            // The guest writes: into its frames, an index of a ring, the domain page.
            0 => {
                let at = u64::from(input.word()) % (FRAMES * PAGE - 255);
                let len = input.byte().into();
                memory.ram.copy_in(at, input.bytes(len)).expect("within");
            }
            1 => {
                let (ring, index) = (input.byte(), u64::from(input.byte() & 7));
                let offset =
                    if ring & 1 == 0 { CONSOLE * PAGE + 3072 } else { STORE * PAGE + 2048 };
                let word = memory.ram.word(offset + 4 * index).expect("a word");
                let value = input.word();
                let value = if ring & 2 == 0 {
                    value
                } else {
                    word.load(Ordering::Relaxed).wrapping_add(value)
                };
                word.store(value, Ordering::Relaxed);
            }
            2 => {
                let base = match input.byte() & 7 {
                    0 => offset_of!(DomainPage, log),
                    1 => offset_of!(DomainPage, emergency),
                    2 => offset_of!(DomainPage, doorbell),
                    _ => offset_of!(DomainPage, crash),
                };
                let at = base as u64 + u64::from(input.byte()) * 4;
                let len = input.byte().into();
                let _ = memory.arena.copy_in(at, input.bytes(len));
            }
            // The domain process acts.
            3 | 4 => pump_console(&memory, &mut console),
            5 => {
                for reader in &mut readers {
                    let taken = reader.take(page);
                    assert!(taken.len() <= boundary::RING);
                    console.print(&taken);
                }
            }
            6 => report(page, &console),
            7 => {
                let len = input.byte().into();
                console.type_in(input.bytes(len));
                assert!(console.room() <= 4096);
            }
            _ => {
                let _ = (page.take_bells(), page.vcpu_state(), page.active_pid());
                let _ = (page.shutdown_reason(), page.ballooned());
                page.post(1);
            }
        }
    }
});
