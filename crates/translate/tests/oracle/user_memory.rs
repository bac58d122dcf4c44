//! User memory that is not mapped at its own address, and vector state that is
//! in another process: what the code looks up, and when it leaves instead.

use crate::lab::{Case, KERNEL, Lab, R14, RAX, RBX, RCX, RDI, RSI, Setting, set};
use crate::place::PAGE;
use crate::world::End;
use translate::{FOLD, USER_TLB_ENTRIES, UserMemory, user_tlb_index};

/// Where the guest believes its user memory to be; nothing is mapped there.
const ELSEWHERE: u64 = 0x1234_5678_0000;

/// What a form does with the memory first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum First {
    Reads,
    Writes,
    /// It reads, and a later instruction writes.
    ReadsThenWrites,
}

use First::{Reads, ReadsThenWrites, Writes};

fn forms() -> Vec<(Vec<u8>, First)> {
    vec![
        (code!("mov rax, [rsi+0x18]"), Reads),
        (code!("movzx ecx, byte ptr [rsi+rbx*2]"), Reads),
        (code!("cmp [rsi], rcx", "setc al"), Reads),
        (code!("vmovdqu ymm3, [rsi+0x40]"), Reads),
        (code!("mov [rsi+0x10], rcx"), Writes),
        (code!("mov word ptr [rsi], 0x1234"), Writes),
        (code!("add dword ptr [rsi+4], 77", "adc rax, 0"), Writes),
        (code!("xchg rdx, [rsi]"), Writes),
        (code!("lock cmpxchg [rsi+8], rcx"), Writes),
        (code!("lock xadd [rsi], ecx"), Writes),
        (code!("bts dword ptr [rsi], 5"), Writes),
        (code!("vmovups [rsi+0x20], ymm2"), Writes),
        (code!("stc", "mov rax, [rsi]", "adc rcx, [rsi+8]", "mov [rsi], rcx"), ReadsThenWrites),
    ]
}

fn looked_up(lab: &mut Lab, setting: Setting) {
    lab.set(setting);
    lab.world.all_aware = true;
    lab.world.user_memory = UserMemory::LookedUp;
    empty(lab);
}

fn empty(lab: &mut Lab) {
    lab.world.user_tlb().init();
}

/// Shows the page of guest address `va` at `va + delta`.
fn show(lab: &mut Lab, va: u64, delta: u64, write: bool) {
    let tlb = lab.world.user_tlb();
    let table = if write { &mut tlb.write } else { &mut tlb.read };
    let i = user_tlb_index(va);
    (table.tags[i], table.deltas[i]) = ((va & !(PAGE as u64 - 1)).wrapping_neg(), delta);
}

fn case_on_user(lab: &mut Lab, code: &[u8], at: u64) -> Case {
    let mut case = lab.case(code);
    case.state.regs[RSI] = at;
    case.state.regs[RBX] = 24;
    case.pointers &= !set(&[RSI]);
    case.pointers_after = case.pointers;
    case
}

/// With the page shown, everything is as natively at the page's true address.
#[test]
fn shown_pages_are_reached() {
    let mut lab = Lab::new(70);
    for setting in KERNEL {
        for (code, first) in forms() {
            looked_up(&mut lab, setting);
            let user = lab.user_data();
            let native = case_on_user(&mut lab, &code, user + 0x300);
            let mut guest = native.clone();
            guest.state.regs[RSI] = ELSEWHERE + 0x300;
            let delta = user.wrapping_sub(ELSEWHERE);
            show(&mut lab, ELSEWHERE, delta, false);
            if first != Reads {
                show(&mut lab, ELSEWHERE, delta, true);
            }
            lab.check_like(&guest, &native, |expected| expected.regs[RSI] = ELSEWHERE + 0x300);
        }
    }
}

/// Without it, or shown for reading alone, the instruction is left untouched.
#[test]
fn other_pages_are_left_to_the_monitor() {
    let mut lab = Lab::new(71);
    for setting in KERNEL {
        for (code, first) in forms() {
            looked_up(&mut lab, setting);
            let case = case_on_user(&mut lab, &code, ELSEWHERE);
            // The same entry, another page.
            show(&mut lab, ELSEWHERE + (USER_TLB_ENTRIES * PAGE) as u64, 0, false);
            show(&mut lab, ELSEWHERE + (USER_TLB_ENTRIES * PAGE) as u64, 0, true);
            assert_left(&mut lab, &case);
            if first == Writes {
                empty(&mut lab);
                show(&mut lab, ELSEWHERE, 0, false);
                assert_left(&mut lab, &case);
            }
        }
    }
}

/// All registers and flags are the guest's where it was left, and it got nowhere.
fn assert_left(lab: &mut Lab, case: &Case) {
    let before = lab.image().to_vec();
    let (outcome, data, _) = lab.translated(case);
    assert_eq!(outcome.end, End::Stop);
    let steps = outcome.state.rip.wrapping_sub(lab.code() + case.offset as u64);
    assert!(steps < 2, "it ran to {steps}");
    for (i, register) in outcome.state.regs.iter().enumerate() {
        assert_eq!(*register, case.state.regs[i], "register {i}");
    }
    assert_eq!(outcome.state.ymm, case.state.ymm);
    assert_eq!(data, before);
}

/// An access may end with its page, but not go beyond it.
#[test]
fn page_ends_are_respected() {
    let mut lab = Lab::new(72);
    for setting in KERNEL {
        looked_up(&mut lab, setting);
        let user = lab.user_data();
        let delta = user.wrapping_sub(ELSEWHERE);
        show(&mut lab, ELSEWHERE, delta, false);
        for (back, fits) in [(8, true), (7, false), (4, false), (1, false)] {
            let end = PAGE as u64 - back;
            let code = code!("mov rax, [rsi]");
            let case = case_on_user(&mut lab, &code, ELSEWHERE + end);
            let (outcome, _, memory) = lab.translated(&case);
            let moved = outcome.state.rip != lab.code() + case.offset as u64;
            assert_eq!(moved, fits, "{back} bytes before the end");
            if fits {
                let word = &memory[end as usize..][..8];
                assert_eq!(outcome.state.regs[RAX].to_le_bytes(), word);
            }
        }
    }
}

/// The same instructions on kernel memory, which the tables show at its fold.
#[test]
fn kernel_pages_are_reached_too() {
    let mut lab = Lab::new(73);
    for setting in KERNEL {
        for (code, _) in forms() {
            looked_up(&mut lab, setting);
            let mut case = lab.case(&code);
            case.state.regs[RBX] = 24;
            let va = case.state.regs[RSI];
            show(&mut lab, va, FOLD, false);
            show(&mut lab, va, FOLD, true);
            lab.check(&case);
        }
    }
}

/// Strings on pages that are not shown, and areas of unknown size on user memory, are the monitor's.
#[test]
fn strings_and_areas_are_left() {
    let mut lab = Lab::new(74);
    for setting in KERNEL {
        for code in [code!("rep movsb"), code!("stosq"), code!("xsave64 [rsi]")] {
            looked_up(&mut lab, setting);
            let mut case = case_on_user(&mut lab, &code, ELSEWHERE);
            case.state.regs[RDI] = ELSEWHERE + 0x100;
            case.state.regs[RCX] = 10;
            case.pointers &= !set(&[RDI]);
            assert_left(&mut lab, &case);
        }
        // And on kernel memory they run.
        looked_up(&mut lab, setting);
        let mut case = lab.case(&code!("rep movsb", "mov rax, [r14]"));
        case.state.regs[RCX] = 40;
        let va = case.state.regs[R14];
        show(&mut lab, va, FOLD, false);
        lab.check(&case);
    }
}

/// One instruction run by itself on memory that the monitor made ready.
#[test]
fn displaced_memory() {
    let mut lab = Lab::new(75);
    for setting in KERNEL {
        for (code, _) in forms() {
            looked_up(&mut lab, setting);
            lab.world.user_memory = UserMemory::Displaced;
            let user = lab.user_data();
            let native = case_on_user(&mut lab, &code, user + 0x300);
            let mut guest = native.clone();
            guest.state.regs[RSI] = ELSEWHERE + 0x300;
            lab.world.context().displacement = user.wrapping_sub(ELSEWHERE);
            lab.check_like(&guest, &native, |expected| expected.regs[RSI] = ELSEWHERE + 0x300);
        }
    }
}

/// What uses vector state leaves before it while the state is away, and nothing
/// else does.
#[test]
fn state_that_is_away() {
    let mut lab = Lab::new(76);
    let needs = [
        code!("paddd xmm1, xmm2"),
        code!("vzeroupper"),
        code!("fld1"),
        code!("fxsave [r14]"),
        code!("xsave [r14]"),
        code!("ldmxcsr [rsi]"),
        code!("stmxcsr [rsi]"),
        code!("movd eax, mm1"),
        code!("vaddpd ymm1, ymm2, [rdi]"),
        code!("aesenc xmm1, xmm2"),
        code!("vpternlogd zmm1, zmm2, zmm3, 5"),
        code!("kmovq k1, rax"),
        code!("pclmulqdq xmm1, xmm2, 1"),
        code!("sha256rnds2 xmm1, xmm2"),
    ];
    let does_not = [
        code!("lfence", "mfence", "sfence", "pause"),
        code!("mov rax, [rdi]", "cmove rbx, rax", "popcnt rcx, rax", "bsf rax, rcx"),
        code!("lock cmpxchg16b [r14]"),
        code!("andn rax, rbx, rcx", "rorx rax, rbx, 5", "mulx rax, rbx, rcx", "adcx rax, rbx"),
        code!("rep stosb"),
        code!("movnti [rdi], rax", "prefetcht0 [rdi]"),
        code!("bswap rax", "xadd rax, rbx", "lahf", "cqo"),
    ];
    for setting in KERNEL {
        for (list, end) in [(&needs[..], End::NeedsState), (&does_not[..], End::Stop)] {
            for code in list {
                lab.set(setting);
                lab.world.state_may_be_away = true;
                lab.world.context().state_away = 1;
                let mut case = lab.case(code);
                case.state.regs[RCX] = 8;
                let (outcome, ..) = lab.translated(&case);
                assert_eq!(outcome.end, end, "{code:02x?}");
                if end == End::NeedsState {
                    assert_eq!(outcome.state.rip, lab.code() + case.offset as u64);
                    assert_eq!(outcome.state.regs, case.state.regs);
                }
                lab.world.context().state_away = 0;
            }
        }
        // Back again, it runs as always.
        lab.set(setting);
        lab.world.state_may_be_away = true;
        lab.world.context().state_away = 0;
        let case = lab.case(&code!("stc", "paddd xmm1, xmm2", "adc rcx, rcx", "addps xmm1, xmm3"));
        lab.check(&case);
    }
}

/// An instruction behind the question whether the state is away faults at its own address.
#[test]
fn faults_with_the_state_here() {
    let mut lab = Lab::new(77);
    for setting in KERNEL {
        lab.set(setting);
        lab.world.state_may_be_away = true;
        lab.world.context().state_away = 0;
        let mut case = lab.case(&code!("divps xmm0, xmm1"));
        case.state.ymm[0] = std::array::from_fn(|i| [0, 0, 0x80, 0x3f][i % 4]);
        case.state.ymm[1] = [0; 32];
        // MXCSR with division by zero unmasked.
        case.state.legacy[24..28].copy_from_slice(&0x1d80_u32.to_le_bytes());
        assert_eq!(lab.check(&case), End::Trap(19));
    }
}
