//! Branches, calls, returns, indirect jumps, and blocks that meet page ends.

use crate::lab::{Case, Lab, R14, RAX, RBX, RCX, RSP, SETTINGS, Setting, set};
use crate::place::PAGE;
use crate::world::End;
use translate::LOOKUP_ENTRIES;

/// Where sequences are placed: in a page, across the next, at its very end.
const OFFSETS: [usize; 8] =
    [0x40, PAGE - 2, PAGE - 3, PAGE - 5, PAGE - 7, PAGE - 12, PAGE - 21, PAGE - 40];

#[track_caller]
fn everywhere(lab: &mut Lab, code: &[u8], change: impl Fn(&mut Lab, &mut Case)) {
    for setting in SETTINGS {
        for offset in OFFSETS {
            for limit in [1, 2, 40] {
                lab.set(setting);
                lab.world.limit = limit;
                let mut case = lab.case(code);
                case.offset = offset;
                change(lab, &mut case);
                let end = lab.check(&case);
                assert_eq!(end, End::Stop);
            }
        }
    }
}

#[test]
fn conditional_jumps() {
    let mut lab = Lab::new(30);
    let codes = [
        code!("cmp rax, rcx", "ja 2f", "mov eax, 1", "jc 2f", "mov ebx, 2", "2:", "setp dl"),
        code!("mov ecx, 20", "2:", "add rax, rcx", "dec ecx", "jnz 2b", "mov ebx, ecx"),
        code!("mov ecx, 9", "2:", "add rax, rcx", "loop 2b"),
        code!(
            "mov ecx, 9",
            "2:",
            "dec eax",
            "loope 2b",
            "mov ecx, 9",
            "3:",
            "dec eax",
            "loopne 3b"
        ),
        code!("jrcxz 2f", "mov eax, 1", "2:", "xor ecx, ecx", "jrcxz 3f", "mov ebx, 1", "3:"),
        code!("jecxz 2f", "mov eax, 1", "2:", "mov ecx, 0", "jecxz 3f", "mov ebx, 1", "3:"),
        code!("mov rcx, -1", "shl rcx, 32", "add rcx, 3", "2:", "inc eax", ".byte 0x67", "loop 2b"),
        code!("jo 2f", "jno 2f", "ud2", "2:", "js 3f", "jns 3f", "3:", "jp 4f", "jnp 4f", "4:"),
        code!("jmp 3f", "2:", "mov eax, 7", "jmp 4f", "3:", "jmp 2b", "4:"),
        code!("jl 2f", "jge 2f", "ud2", "2:", "jle 3f", "jg 3f", "3:", "jbe 5f", "ja 5f", "5:"),
    ];
    for code in &codes {
        everywhere(&mut lab, code, |_, _| ());
    }
}

/// Words below RSP that hold return addresses at the end.
fn return_slots(count: usize) -> Vec<usize> {
    (1..=count).map(|i| 0x1800 - 8 * i).collect()
}

#[test]
fn calls_and_returns() {
    let mut lab = Lab::new(31);
    let codes = [
        (code!("call 2f", "mov ebx, 1", "jmp 3f", "2:", "mov eax, 5", "ret", "3:"), 1),
        (code!("push rax", "push rcx", "call 2f", "jmp 3f", "2:", "ret 16", "3:"), 3),
        (
            code!(
                "mov ecx, 5",
                "call 2f",
                "jmp 4f",
                "2:",
                "dec ecx",
                "jz 3f",
                "call 2b",
                "inc eax",
                "3:",
                "rep ret",
                "4:"
            ),
            5,
        ),
        (
            code!(
                "call 2f", "jmp 3f", "2:", "push rax", "call 4f", "pop rax", "ret", "4:", "ret",
                "3:"
            ),
            3,
        ),
        // As compilers guard indirect jumps.
        (
            code!(
                "call 2f",
                "4:",
                "pause",
                "lfence",
                "jmp 4b",
                "2:",
                "add [rsp], ecx",
                "ret",
                "nop",
                "nop"
            ),
            1,
        ),
    ];
    for (code, depth) in &codes {
        everywhere(&mut lab, code, |_, case| {
            case.slots = return_slots(*depth);
            // A pushed register is no address.
            if *depth == 3 {
                case.slots = vec![0x1800 - if case.code[0] == 0x50 { 24 } else { 8 }];
                if case.code[0] != 0x50 {
                    case.slots.push(0x1800 - 24);
                }
            }
            // From the return address to the last line of the guarded jump.
            case.state.regs[RCX] = 2 + 3 + 2 + 3 + 1;
        });
    }
}

#[test]
fn indirect_branches() {
    let mut lab = Lab::new(32);
    // The target is in the `nop` sled.
    let cases: [(Vec<u8>, bool); 6] = [
        (code!("jmp rbx", ".skip 20, 0xf4", ".skip 30, 0x90", "mov eax, 1"), false),
        (code!("call rbx", ".skip 20, 0xf4", ".skip 30, 0x90", "mov eax, 1"), true),
        (code!("jmp [r14]", ".skip 20, 0xf4", ".skip 30, 0x90", "mov eax, 1"), false),
        (code!("call [r14]", ".skip 20, 0xf4", ".skip 30, 0x90", "mov eax, 1"), true),
        (code!("jmp [r14+rcx*8]", ".skip 20, 0xf4", ".skip 30, 0x90", "mov eax, 1"), false),
        (code!("call gs:[0x1200]", ".skip 20, 0xf4", ".skip 30, 0x90", "mov eax, 1"), true),
    ];
    for setting in SETTINGS {
        for (code, call) in &cases {
            for offset in OFFSETS {
                lab.set(setting);
                let mut case = lab.case(code);
                case.offset = offset;
                let target = lab.code() + offset as u64 + 40;
                case.state.regs[RBX] = target;
                case.state.regs[RCX] = 0;
                case.pointers |= set(&[RBX]);
                case.pointers_after = case.pointers;
                if *call {
                    case.slots = return_slots(1);
                }
                case.words.push((0x1200, target));
                case.slots.push(0x1200);
                assert_eq!(lab.check(&case), End::Stop);
            }
        }
    }
}

/// `call` with RSP in the operand reads it before the push; `call rsp` jumps to
/// the guest's value.
#[test]
fn indirect_branches_with_the_stack_pointer() {
    let mut lab = Lab::new(33);
    for setting in SETTINGS {
        lab.set(setting);
        let mut case = lab.case(&code!("call [rsp+8]", ".skip 20, 0xf4", ".skip 30, 0x90"));
        let target = lab.code() + 0x40 + 30;
        case.words.push((0x1808, target));
        case.slots = vec![0x1808, 0x1800 - 8];
        assert_eq!(lab.check(&case), End::Stop);

        lab.set(setting);
        let mut case = lab.case(&code!("jmp rsp", ".skip 20, 0xf4", ".skip 30, 0x90"));
        case.state.regs[RSP] = lab.code() + 0x40 + 30;
        assert_eq!(lab.check(&case), End::Stop);

        lab.set(setting);
        let mut case =
            lab.case(&code!("mov rax, rsp", "jmp rax", ".skip 20, 0xf4", ".skip 30, 0x90"));
        case.state.regs[RSP] = lab.code() + 0x40 + 30;
        case.pointers_after |= set(&[RAX]);
        assert_eq!(lab.check(&case), End::Stop);
    }
}

/// A loop of indirect jumps and returns stays in translated code: hits in the
/// first table and in the second.
#[test]
fn lookups_hit() {
    let mut lab = Lab::new(34);
    let code = code!(
        "mov ecx, 1000",
        "2:",
        "call 3f",
        "dec ecx",
        "jnz 2b",
        "jmp 4f",
        "3:",
        "add rax, rcx",
        "test ecx, 1",
        "jz 5f",
        "ret",
        "5:",
        "ret",
        "4:"
    );
    for setting in SETTINGS {
        for shift in 0..8 {
            lab.set(setting);
            let mut case = lab.case(&code);
            case.offset += shift;
            case.slots = return_slots(1);
            assert_eq!(lab.check(&case), End::Stop);
            assert!(lab.world.rounds < 30, "{} rounds through the monitor", lab.world.rounds);
        }
    }
}

/// No guest address meets an empty entry.
#[test]
fn empty_entries_match_nothing() {
    use translate::{LookupEntry, lookup_slots};
    let mut rng = crate::rng::Rng(35);
    let edges = [0, 1, 2, 3, u64::MAX, u64::MAX - 1, u64::MAX - 2, 1 << 63];
    let random = (0..100_000).map(|_| rng.next());
    for va in edges.into_iter().chain(random) {
        for (table, slot) in lookup_slots(va).into_iter().enumerate() {
            assert_eq!(slot / LOOKUP_ENTRIES as usize, table);
            assert_ne!(LookupEntry::empty(slot).tag, va.wrapping_neg());
        }
    }
    let mut lab = Lab::new(36);
    for setting in SETTINGS {
        for target in edges {
            lab.set(setting);
            let mut case = lab.case(&code!("jmp rax"));
            case.state.regs[RAX] = target;
            let (outcome, ..) = lab.translated(&case);
            assert_eq!((outcome.end, outcome.state.rip), (End::Stop, target));
            assert_eq!(outcome.state.regs, case.state.regs);
        }
    }
}

/// An indirect branch through user memory is learnt like any access.
#[test]
fn kernel_jump_through_user_memory() {
    let mut lab = Lab::new(37);
    lab.set(Setting::Far);
    let mut case = lab.case(&code!("jmp [r14]", ".skip 20, 0xf4"));
    case.state.regs[R14] = lab.user_data() + 0x10;
    case.pointers &= !set(&[R14]);
    let (outcome, ..) = lab.translated(&case);
    assert_eq!(outcome.end, End::Stop);
    assert_eq!(outcome.state.regs, case.state.regs);
    assert_eq!(outcome.state.rip, lab.user_word(0x10));
    assert_eq!(lab.world.aware.len(), 1);
}

#[test]
fn system_calls_leave_with_everything_intact() {
    let mut lab = Lab::new(38);
    for setting in SETTINGS {
        for limit in [1, 40] {
            lab.set(setting);
            lab.world.limit = limit;
            let case = lab.case(&code!("nop", "syscall"));
            let (outcome, ..) = lab.translated(&case);
            assert_eq!(outcome.end, End::Syscall);
            assert_eq!(outcome.state.rip, lab.code() + 0x40 + 3);
            assert_eq!(outcome.state.regs, case.state.regs);
            assert_eq!(outcome.state.flags & case.flags, case.state.flags & case.flags);
        }
    }
}
