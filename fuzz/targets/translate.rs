//! Any bytes as guest code, in every setting of the translator. No panic; the output keeps to its
//! buffers; it decodes from end to end, and what it names lies at its boundaries: the table of precise
//! points, the links and their stubs. No output is privileged or can write PKRU, and each precise
//! point can be repaired and explained.
#![no_main]

use std::cell::RefCell;
use std::collections::BTreeSet;

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic};
use libfuzzer_sys::fuzz_target;
use translate::{
    Context, Error, Mode, Output, PROLOGUE, Request, Targets, Translator, UserMemory, guest_fault,
    output::MAX_INSTRUCTIONS, repair,
};

const BASE: u64 = 0x600_0000_0000;
const CODE: u64 = BASE + 0x40_0000;
const STUBS: u64 = BASE + 0x80_0000;
/// What the monitor gives to a block at most.
const ROOM: usize = 16384;

const TARGETS: Targets = Targets {
    context: BASE,
    user_context: BASE + 0x1000,
    kernel_lookup: BASE + 0x10_0000,
    user_lookup: BASE + 0x20_0000,
    kernel_lookup_miss: BASE + 0x3000,
    user_lookup_miss: BASE + 0x3080,
    exit_link: BASE + 0x2000,
    exit_indirect: BASE + 0x2010,
    exit_emulate: BASE + 0x2020,
    exit_syscall: BASE + 0x2030,
    xsave_mask: 0xe7,
    aliases: BASE + 0x1000_0000,
    alias_mask: BASE + 0x4000,
    user_tlb: BASE + 0x5000,
    exit_state: BASE + 0x2040,
};

struct Place {
    translator: Translator,
    out: Box<Output>,
    code: Vec<u8>,
    stubs: Vec<u8>,
}

thread_local! {
    static PLACE: RefCell<Place> = RefCell::new(Place {
        translator: Translator::new(TARGETS),
        out: Box::new(Output::new()),
        code: Vec::new(),
        stubs: Vec::new(),
    });
}

/// The boundaries of instructions in `bytes`, which lie at `at`.
fn boundaries(bytes: &[u8], at: u64, mut see: impl FnMut(&Instruction)) -> BTreeSet<usize> {
    let mut decoder = Decoder::with_ip(64, bytes, at, DecoderOptions::NONE);
    let mut found = BTreeSet::new();
    while decoder.can_decode() {
        found.insert(decoder.position());
        let instruction = decoder.decode();
        assert!(!instruction.is_invalid(), "invalid output at {:#x}", instruction.ip());
        assert!(!instruction.is_privileged(), "privileged output: {:?}", instruction.code());
        see(&instruction);
    }
    found
}

/// What may not come out whatever comes in (a mask is loaded before what can be masked).
fn forbidden(instruction: &Instruction) -> bool {
    use Mnemonic::*;
    matches!(
        instruction.mnemonic(),
        Wrpkru | Syscall | Sysenter | Int | Into | Sysexit | Wrfsbase | Cpuid | Xgetbv
    )
}

/// A vCPU's, with nothing in it.
fn context() -> Context {
    Context {
        regs: [0; 16],
        rflags: 0,
        rip: 0,
        target: 0,
        argument: 0,
        reason: 0,
        enter: 0,
        spill: [0; 4],
        lookup_rcx: 0,
        delta_rdi: 0,
        delta_rsi: 0,
        fold: translate::FOLD,
        fs_base: 0,
        gs_base: 0,
        count_left: 0,
        displacement: 0,
        state_away: 0,
        gate: [0; 14],
        xmm: [0; 16],
    }
}

fn check(request: &Request, place: &Place) {
    let (out, entries) = (&place.out, place.out.entries());
    assert!(out.code_len <= place.code.len() && out.stub_len <= place.stubs.len());
    assert!(out.guest_len <= request.code.len() && out.guest_len < request.page_bytes + 15);
    assert!(entries.len() <= out.entry_count && !entries.is_empty());
    assert!(entries.is_sorted_by(|a, b| a.host < b.host && a.guest <= b.guest));
    assert_eq!(u64::from(entries[0].host), PROLOGUE);
    let kernel = request.mode == Mode::Kernel;
    let code = boundaries(&place.code[..out.code_len], request.code_host, |instruction| {
        assert!(!kernel || !forbidden(instruction), "{:?} in the output", instruction.code());
        assert!(instruction.mnemonic() != Mnemonic::Wrpkru);
    });
    let stubs = boundaries(&place.stubs[..out.stub_len], request.stub_host, |instruction| {
        assert!(!forbidden(instruction));
    });
    // Boundaries of the guest's own instructions, as far as the block goes.
    let mut guest = BTreeSet::from([out.guest_len]);
    let mut decoder =
        Decoder::with_ip(64, &request.code[..out.guest_len], request.va, DecoderOptions::NONE);
    while decoder.can_decode() {
        guest.insert(decoder.position());
        let _ = decoder.decode();
    }
    let context = context();
    for entry in entries {
        assert!(code.contains(&entry.host.into()), "an entry inside of an instruction");
        assert!(guest.contains(&entry.guest.into()), "an entry inside of a guest instruction");
        let mut regs = [0x55; 16];
        repair(entry.fix, &mut regs, &context);
        for page_fault in [false, true] {
            let _ = guest_fault(entry.fix, &regs, &context, 0x1234, page_fault, true, request.mode);
        }
    }
    for link in out.links() {
        let (site, stub) = (usize::from(link.site), usize::from(link.stub));
        assert!(stubs.contains(&stub), "a stub inside of an instruction");
        let field = place.code[..out.code_len].get(site..site + 4).expect("a displacement");
        let distance = i32::from_le_bytes(field.try_into().expect("4 bytes"));
        let from = request.code_host + site as u64 + 4;
        let to = from.wrapping_add_signed(distance.into());
        assert_eq!(to, request.stub_host + stub as u64);
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((settings, code)) = data.split_first_chunk::<4>() else { return };
    let [flags, limit, aware, size] = *settings;
    let mode = if flags & 1 == 0 { Mode::Kernel } else { Mode::User };
    let user_memory = match flags >> 1 & 3 {
        0 => UserMemory::Checked,
        1 => UserMemory::LookedUp,
        _ => UserMemory::Displaced,
    };
    let base = if flags & 8 == 0 { 0xffff_ffff_8100_0000 } else { 0x4242_0000 };
    // Where the page ends: behind all of it, or in the midst of it.
    let offset = if flags & 16 == 0 { 0 } else { 4096 - u64::from(limit.max(1)) };
    let page_bytes = code.len().min(4096 - offset as usize);
    let next = if flags & 32 == 0 { 0 } else { 16 };
    let code = &code[..code.len().min(page_bytes + next)];
    PLACE.with_borrow_mut(|place| {
        // As much room as the monitor gives, or hardly any.
        let room = if flags & 64 == 0 { ROOM } else { usize::from(size) * 8 };
        place.code.clear();
        place.code.resize(room, 0xcc);
        place.stubs.clear();
        place.stubs.resize(room, 0xcc);
        let request = Request {
            mode,
            va: base + offset,
            code,
            page_bytes,
            code_host: CODE,
            stub_host: STUBS,
            first_tag: 1,
            user_access: &|va| aware >> (va & 7) & 1 != 0,
            user_memory,
            state_may_be_away: flags & 128 != 0,
            restores_elsewhere: flags & 128 == 0,
            avoid: &|va| size & 128 != 0 && va & 7 == 3,
            limit: if limit & 1 == 0 { MAX_INSTRUCTIONS } else { usize::from(limit >> 1) },
        };
        let Place { translator, out, code, stubs } = place;
        let result = translator.translate(&request, code, stubs, out);
        match result {
            Ok(()) => check(&request, place),
            Err(Error::NeedNextPage) => {}
            Err(error) => assert!(room < ROOM, "{error:?} with all the room there is"),
        }
    });
});
