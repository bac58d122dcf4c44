//! Any bytes translate into something well-formed, or into an error.

use proptest::prelude::*;
use std::cell::RefCell;
use translate::output::MAX_INSTRUCTIONS;
use translate::{
    Error, LookupEntry, Mode, Output, PROLOGUE, Request, Targets, Translator, UserMemory,
    lookup_slots,
};

const BASE: u64 = 0x600_0000_0000;

fn targets() -> Targets {
    Targets {
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
    }
}

fn request<'a>(mode: Mode, va: u64, code: &'a [u8], user: &'a dyn Fn(u64) -> bool) -> Request<'a> {
    Request {
        mode,
        va,
        code,
        page_bytes: code.len().min(4096 - (va & 4095) as usize),
        code_host: BASE + 0x40_0000,
        stub_host: BASE + 0x80_0000,
        first_tag: 1,
        user_access: user,
        user_memory: UserMemory::Checked,
        state_may_be_away: false,
        restores_elsewhere: false,
        avoid: &|_| false,
        limit: MAX_INSTRUCTIONS,
    }
}

thread_local! {
    static TRANSLATOR: RefCell<Translator> = RefCell::new(Translator::new(targets()));
}

/// Translates and checks what must hold of any result.
fn translate(request: &Request, code_size: usize, stub_size: usize) -> Result<Output, Error> {
    let (mut code, mut stubs) = (vec![0xcc; code_size], vec![0xcc; stub_size]);
    let mut out = Output::new();
    TRANSLATOR.with_borrow_mut(|translator| {
        translator.translate(request, &mut code, &mut stubs, &mut out)
    })?;
    assert!(out.code_len <= code_size && out.stub_len <= stub_size);
    assert!(out.guest_len <= request.code.len());
    assert!(out.guest_len < request.page_bytes + 15);
    let entries = out.entries();
    assert!(entries.is_sorted_by(|a, b| a.host < b.host && a.guest <= b.guest));
    assert!(entries.iter().all(|entry| usize::from(entry.guest) <= out.guest_len));
    assert!(entries.iter().all(|entry| usize::from(entry.host) < out.code_len));
    assert_eq!(u64::from(entries[0].host), PROLOGUE);
    for link in out.links() {
        let (site, stub) = (usize::from(link.site), usize::from(link.stub));
        assert!(site + 4 <= out.code_len && stub < out.stub_len);
        let distance = i32::from_le_bytes(code[site..site + 4].try_into().expect("4 bytes"));
        let from = request.code_host + site as u64 + 4;
        let to = from.wrapping_add_signed(i64::from(distance));
        assert_eq!(to, request.stub_host + stub as u64);
    }
    check_decodes(&code[..out.code_len], entries.iter().map(|entry| entry.host.into()).collect());
    Ok(out)
}

/// The output decodes from end to end, and entries are at its boundaries.
fn check_decodes(code: &[u8], mut entries: Vec<usize>) {
    let mut decoder = iced_x86::Decoder::new(64, code, 0);
    while decoder.can_decode() {
        let at = decoder.position();
        entries.retain(|entry| *entry != at);
        let instruction = decoder.decode();
        assert!(!instruction.is_invalid(), "invalid output at {at} of {code:02x?}");
        assert!(!instruction.is_privileged());
    }
    assert!(entries.is_empty(), "entries inside instructions: {entries:?} in {code:02x?}");
}

/// What the translation of `bytes` at `va` fetches ahead.
fn fetched(mode: Mode, va: u64, bytes: &[u8]) -> Vec<u64> {
    let request = request(mode, va, bytes, &|_| false);
    let (mut code, mut stubs, mut out) = ([0; 4096], [0; 1024], Output::new());
    let done = TRANSLATOR.with_borrow_mut(|translator| {
        translator.translate(&request, &mut code, &mut stubs, &mut out)
    });
    assert_eq!(done, Ok(()));
    let decoder = iced_x86::Decoder::with_ip(64, &code[..out.code_len], request.code_host, 0);
    let fetches = decoder.into_iter().filter(|i| i.mnemonic() == iced_x86::Mnemonic::Prefetcht0);
    fetches.map(|i| i.ip_rel_memory_address()).collect()
}

/// A call fetches the entry that its return will be looked up in first; a jump does not.
#[test]
fn calls_fetch_where_they_return() {
    let va = 0xffff_ffff_8123_4567;
    for (mode, table) in
        [(Mode::Kernel, targets().kernel_lookup), (Mode::User, targets().user_lookup)]
    {
        let entry = |after| {
            let [first, _] = lookup_slots(va + after);
            table + (first * size_of::<LookupEntry>()) as u64
        };
        assert_eq!(fetched(mode, va, &[0xe8, 0, 1, 0, 0]), [entry(5)]); // call near
        assert_eq!(fetched(mode, va, &[0xff, 0xd0]), [entry(2)]); // call rax
        assert_eq!(fetched(mode, va, &[0xe9, 0, 1, 0, 0]), []); // jmp near
        assert_eq!(fetched(mode, va, &[0xc3]), []); // ret
    }
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![Just(Mode::Kernel), Just(Mode::User)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_translate(
        bytes in prop::collection::vec(any::<u8>(), 1..120),
        mode in mode(),
        va in any::<u64>(),
        aware in any::<bool>(),
    ) {
        let user = |_| aware;
        let result = translate(&request(mode, va, &bytes, &user), 16384, 8192);
        prop_assert!(matches!(result, Ok(_) | Err(Error::NeedNextPage)), "{:?}", result.err());
    }

    /// Bytes that are instructions more often: few opcodes, many prefixes.
    #[test]
    fn any_prefixes_translate(
        prefixes in prop::collection::vec(
            prop::sample::select(vec![0x66_u8, 0x67, 0xf0, 0xf2, 0xf3, 0x65, 0x64, 0x2e, 0x48, 0x41, 0x0f]), 0..14),
        rest in prop::collection::vec(any::<u8>(), 1..20),
        mode in mode(),
        aware in any::<bool>(),
    ) {
        let bytes = [prefixes, rest].concat();
        let user = |_| aware;
        let result = translate(&request(mode, 0xffff_ffff_8100_0100, &bytes, &user), 16384, 8192);
        prop_assert!(matches!(result, Ok(_) | Err(Error::NeedNextPage)), "{:?}", result.err());
    }

    /// Buffers of any size: too small is an error, never a panic or an overrun.
    #[test]
    fn any_buffers_do(
        bytes in prop::collection::vec(any::<u8>(), 1..200),
        code_size in 0_usize..3000,
        stub_size in 0_usize..600,
        limit in 0_usize..60,
        mode in mode(),
    ) {
        let user = |_| false;
        let request = Request { limit, ..request(mode, 0xffff_ffff_8100_0100, &bytes, &user) };
        let result = translate(&request, code_size, stub_size);
        if code_size >= 1200 && stub_size >= 256 {
            prop_assert!(matches!(result, Ok(_) | Err(Error::NeedNextPage)), "{:?}", result.err());
        }
    }
}

/// One instruction repeated to fill a page: blocks end where their limits are.
#[test]
fn long_runs_end_early() {
    let nothing = |_| false;
    let everything = |_| true;
    let jump: [u8; 6] = [0x0f, 0x84, 1, 0, 0, 0];
    let load: [u8; 3] = [0x48, 0x8b, 0x07];
    let nop: [u8; 1] = [0x90];
    for (bytes, user) in [
        (jump.repeat(600), &nothing as &dyn Fn(u64) -> bool),
        (load.repeat(1300), &nothing),
        (load.repeat(1300), &everything),
        (nop.repeat(4000), &nothing),
    ] {
        for mode in [Mode::Kernel, Mode::User] {
            for limit in [1, 7, 1000] {
                let request = Request { limit, ..request(mode, 0x10_0000, &bytes, user) };
                let out = translate(&request, 16384, 8192).expect("translates");
                let taken = limit.min(MAX_INSTRUCTIONS);
                let length = bytes.len()
                    / if bytes[0] == 0x90 {
                        4000
                    } else if bytes[0] == 0x48 {
                        1300
                    } else {
                        600
                    };
                assert_eq!(out.guest_len, taken * length);
                let last = out.links().last().expect("a closing link");
                assert_eq!(last.target, 0x10_0000 + out.guest_len as u64);
            }
        }
    }
}

/// An instruction over a page end: only as a block's first, with the next page.
#[test]
fn page_ends() {
    let user = |_| false;
    let nops_and_move =
        [&[0x90; 4][..], &[0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8, 0x90, 0x90]].concat();
    let va = 0xffff_ffff_8100_0ff6;
    // The move begins on the page and ends on the next: the block ends before it.
    let first = request(Mode::Kernel, va, &nops_and_move[..10], &user);
    let out = translate(&first, 4096, 4096).expect("translates");
    assert_eq!((out.guest_len, out.links()[0].target), (4, va + 4));
    // Even if the next page is there.
    let joined = request(Mode::Kernel, va, &nops_and_move, &user);
    assert_eq!(translate(&joined, 4096, 4096).expect("translates").guest_len, 4);
    // Alone it asks for that page, and then ends behind itself.
    let alone = request(Mode::Kernel, va + 4, &nops_and_move[4..10], &user);
    assert_eq!(translate(&alone, 4096, 4096).err(), Some(Error::NeedNextPage));
    let whole = request(Mode::Kernel, va + 4, &nops_and_move[4..], &user);
    let out = translate(&whole, 4096, 4096).expect("translates");
    assert_eq!((out.guest_len, out.links()[0].target), (10, va + 14));
    // An empty request has nothing to decode.
    assert_eq!(
        translate(&request(Mode::User, 0x1000, &[], &user), 4096, 4096).err(),
        Some(Error::NeedNextPage)
    );
}

/// Targets beyond the reach of a 32-bit displacement are an error.
#[test]
fn targets_out_of_reach() {
    let user = |_| false;
    let code = [0xc3_u8];
    let near = request(Mode::Kernel, 0xffff_ffff_8100_0000, &code, &user);
    let far = Request { code_host: BASE + (1 << 33), ..near };
    assert_eq!(translate(&far, 4096, 4096).err(), Some(Error::OutOfReach));
}

/// Guest addresses whose bytes are those of WRPKRU or XRSTOR do not bring these into
/// translated code, whether they are return addresses, targets or operands.
#[test]
fn delicate_addresses() {
    let codes: [&[u8]; 6] = [
        &[0xe8, 0, 0, 0, 0],             // call next
        &[0x75, 0x00],                   // jne next
        &[0xeb, 0x00],                   // jmp next
        &[0x48, 0x8d, 0x05, 0, 0, 0, 0], // lea rax, [rip]
        &[0x48, 0x8b, 0x05, 0, 0, 0, 0], // mov rax, [rip]
        &[0x0f, 0xa2],                   // cpuid, left to the monitor
    ];
    let forbidden = [[0x0f, 0xae, 0x2d], [0x0f, 0xae, 0x6c], [0x0f, 0x01, 0xef]];
    for (code, bytes) in codes.iter().flat_map(|c| forbidden.iter().map(move |b| (c, b))) {
        let low = u64::from(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0x81]));
        let high = u64::from_le_bytes([7, bytes[0], bytes[1], bytes[2], 0x88, 0x88, 0xff, 0xff]);
        for address in [0xffff_ffff_0000_0000 | low, high] {
            // The address itself, and the one behind the instruction.
            for va in [address, address.wrapping_sub(code.len() as u64)] {
                let request = request(Mode::Kernel, va, code, &|_| false);
                let (mut host, mut stubs) = (vec![0xcc; 4096], vec![0xcc; 4096]);
                let mut out = Output::new();
                TRANSLATOR
                    .with_borrow_mut(|translator| {
                        translator.translate(&request, &mut host, &mut stubs, &mut out)
                    })
                    .expect("translates");
                let found = translate::forbidden::count(&host[..out.code_len])
                    + translate::forbidden::count(&stubs[..out.stub_len]);
                assert_eq!(found, 0, "{code:02x?} at {va:#x}");
            }
        }
    }
}

/// A block of accesses to user memory at a place where the distance to the table of aliases holds an XRSTOR: where
/// [`way_beyond`] leads there is none, wherever in the block it was.
#[test]
fn one_step_leads_out_of_forbidden_distances() {
    // mov [rbx+8], rax, as a kernel writes a signal's frame.
    let guest: Vec<u8> = [0x48, 0x89, 0x43, 8].repeat(30);
    let mut tried = 0;
    // 0F AE /5 without a register operand, in the distance's upper bytes.
    for modrm in [0x28u64, 0x2f] {
        let aliases = BASE + 0x4000_0000;
        let window = aliases - (modrm << 24 | 0x00ae_0f00);
        for before in (0..4096).step_by(112) {
            let host = (window - before) & !15;
            let near = Targets {
                context: host - 0x100_0000,
                user_context: host - 0x100_1000,
                kernel_lookup: host - 0x200_0000,
                user_lookup: host - 0x300_0000,
                kernel_lookup_miss: host - 0x1000,
                user_lookup_miss: host - 0x1080,
                exit_link: host - 0x2000,
                exit_indirect: host - 0x2010,
                exit_emulate: host - 0x2020,
                exit_syscall: host - 0x2030,
                alias_mask: host - 0x4000,
                user_tlb: host - 0x5000,
                exit_state: host - 0x2040,
                aliases,
                ..targets()
            };
            let mut translator = Translator::new(near);
            let mut emit = |host: u64| {
                let (mut code, mut stubs) = (vec![0xcc; 16384], vec![0xcc; 4096]);
                let mut out = Output::new();
                let request = Request {
                    code_host: host,
                    stub_host: host + 0x80_0000,
                    ..request(Mode::Kernel, 0xffff_ffff_8100_0000, &guest, &|_| true)
                };
                translator.translate(&request, &mut code, &mut stubs, &mut out).expect("it fits");
                translate::forbidden::find(&code[..out.code_len], 0)
            };
            let Some(at) = emit(host) else { continue };
            tried += 1;
            let beyond = host + u64::from(translate::forbidden::way_beyond(at as u32));
            assert_eq!(emit(beyond), None, "still there, from {host:#x} on");
        }
    }
    assert!(tried > 10, "only {tried} blocks met it");
}
