//! The stack, and RSP as data.

use crate::lab::{KERNEL, Lab, R14, R15, RAX, RBP, RBX, RCX, RDX, RSP, SETTINGS, Setting, set};
use crate::world::End;

/// Checks instructions with RSP against the same ones with R15 as a number.
macro_rules! as_number {
    ($lab:expr, $guest:literal = $native:literal: $(($before:literal, $after:literal $(, $then:literal)*)),* $(,)?) => {
        $(
            for setting in KERNEL {
                for round in 0..6 {
                    $lab.set(setting);
                    let guest = code!(concat!($before, $guest, $after) $(, $then)*);
                    let native = code!(concat!($before, $native, $after) $(, $then)*);
                    let mut case = $lab.case(&guest);
                    if round > 1 {
                        case.state.regs[RSP] = $lab.rng.value();
                    }
                    case.state.regs[RCX] = if round & 1 == 0 { 3 } else { case.state.regs[RCX] };
                    let twin = if $native.contains("15") { R15 } else { RBP };
                    $lab.check_stack_pointer(&case, &native, twin);
                }
            }
        )*
    };
}

#[test]
fn stack_pointer_is_a_number() {
    let mut lab = Lab::new(10);
    as_number!(lab, "rsp" = "r15":
        ("mov rax, ", ""), ("mov r8, ", ""), ("mov ", ", rcx"), ("mov ", ", r9"),
        ("mov ", ", -77"), ("movabs ", ", 0x123456789abcdef0"), ("mov [rdi], ", ""),
        ("mov ", ", [rsi]"), ("xchg ", ", rax"), ("xchg ", ", r12"), ("xchg [rdi], ", ""),
        ("add ", ", 40"), ("sub ", ", 0x1234"), ("add ", ", rax"), ("sub ", ", [rdi]"),
        ("add rax, ", ""), ("sub [rdi], ", ""), ("cmp ", ", rbx"), ("cmp rbx, ", ""),
        ("cmp ", ", [rdi]"), ("cmp ", ", 0"), ("test ", ", 15"), ("test rax, ", ""),
        ("and ", ", -16"), ("and ", ", -4096"), ("and ", ", -65536"), ("and ", ", -131072"),
        ("and ", ", 0xfff"), ("and ", ", rax"), ("or ", ", 8"), ("xor ", ", rcx"),
        ("xor rcx, ", ""), ("inc ", ""), ("dec ", ""), ("neg ", ""), ("not ", ""),
        ("adc ", ", rdx"), ("sbb ", ", 5"), ("shl ", ", 3"), ("sar ", ", cl"), ("ror ", ", 9"),
        ("imul ", ", rax"), ("imul rax, ", ", 17"), ("imul ", ", [rdi], 5"), ("mul ", ""),
        ("imul ", ""), ("bswap ", ""), ("bsf rax, ", ""), ("bsr ", ", rax"),
        ("popcnt rdx, ", ""), ("tzcnt ", ", rbx"), ("bt ", ", 13"), ("bts ", ", rax"),
        ("cmovc ", ", rax"), ("cmovnc rax, ", ""), ("cmovz ", ", [rdi]"), ("xadd ", ", rax"),
        ("xadd rbx, ", ""), ("xadd [rdi], ", ""), ("cmpxchg ", ", rbx"), ("cmpxchg rbx, ", ""),
        ("lock cmpxchg [rdi], ", ""), ("shld ", ", rax, 7"), ("shrd rax, ", ", cl"),
        ("movzx ", ", byte ptr [rdi]"), ("movsxd ", ", eax"),
        ("crc32 ", ", rax"), ("crc32 rax, ", ""), ("andn rax, ", ", rbx"),
        ("andn ", ", rax, rbx"), ("andn rcx, rdx, ", ""), ("blsr ", ", rax"), ("blsi rax, ", ""),
        ("pdep rax, ", ", rbx"), ("pext ", ", rax, [rdi]"), ("rorx ", ", rax, 3"),
        ("sarx rax, ", ", rcx"), ("shlx rax, rcx, ", ""), ("mulx ", ", rax, rcx"),
        ("bextr ", ", rax, rcx"), ("bzhi rax, ", ", rcx"), ("adcx ", ", rax"), ("adox rax, ", ""),
        ("movq xmm4, ", ""), ("movq ", ", xmm4"), ("pinsrq xmm4, ", ", 1"),
        ("pextrq ", ", xmm4, 1"), ("vmovq xmm12, ", ""), ("cvtsi2sd xmm4, ", ""),
        ("cvttsd2si ", ", xmm4"), ("vcvtsi2sd xmm1, xmm4, ", ""), ("movnti [rdi], ", ""),
        ("movbe ", ", [rdi]"), ("movmskpd ", ", xmm3"), ("mov r10, ", "", "add r10, 5"),
    );
}

#[test]
fn short_forms_of_the_stack_pointer() {
    let mut lab = Lab::new(11);
    as_number!(lab, "esp" = "r15d":
        ("mov eax, ", ""), ("mov ", ", eax"), ("mov ", ", 5"), ("add ", ", 8"), ("sub eax, ", ""),
        ("cmp ", ", ecx"), ("and ", ", -16"), ("xchg ", ", ebx"), ("xchg [rdi], ", ""),
        ("cmovc ", ", eax"), ("movd xmm4, ", ""), ("movd ", ", xmm4"), ("movsxd rax, ", ""),
        ("movzx ", ", al"), ("bswap ", ""), ("xadd ", ", ecx"),
        ("andn ", ", eax, ebx"), ("imul ", ", [rdi], 3"), ("lea eax, [", " + 5]"),
    );
    // With AH and its like there can be no REX, so no R15.
    as_number!(lab, "esp" = "ebp": ("movzx ", ", ah"), ("movsx ", ", bh"), ("crc32 ", ", ch"));
    as_number!(lab, "sp" = "r15w":
        ("mov ax, ", ""), ("mov ", ", ax"), ("add ", ", 8"), ("cmp ", ", cx"), ("neg ", ""),
        ("mov [rdi], ", ""), ("movzx eax, ", ""), ("xchg ", ", cx"), ("inc ", ""),
    );
    as_number!(lab, "spl" = "r15b":
        ("mov al, ", ""), ("mov ", ", al"), ("add ", ", 8"), ("movsx rcx, ", ""), ("not ", ""),
    );
}

#[test]
fn addresses_from_the_stack_pointer() {
    let mut lab = Lab::new(12);
    as_number!(lab, "rsp" = "r15":
        ("lea rax, [", "]"), ("lea rax, [", " + 8]"), ("lea r8, [", " + 0x12345]"),
        ("lea rax, [", " + rcx*8 + 16]"), ("lea rcx, [", " + rcx*4 - 5]"), ("lea eax, [", " + 7]"),
        ("lea ecx, [", " + rcx*2 + 7]"), ("lea ax, [", " + 7]"), ("lea r12w, [", " + r12 + 7]"),
        ("lea ", ", [rax + rcx*2 + 9]"), ("lea ", ", [rdx]"), ("lea ", ", [0x12345678]"),
        ("lea ", ", [rcx*8 + 7]"), ("lea rbp, gs:[", " + 24]"),
    );
    // RSP on both sides.
    for setting in KERNEL {
        lab.set(setting);
        for (guest, native) in [
            (code!("lea rsp, [rsp + 8]"), code!("lea r15, [r15 + 8]")),
            (code!("lea rsp, [rsp + rcx*2 - 8]"), code!("lea r15, [r15 + rcx*2 - 8]")),
            (code!("lea esp, [rsp + rcx - 8]"), code!("lea r15d, [r15 + rcx - 8]")),
            (code!("lea sp, [rsp + rcx - 8]"), code!("lea r15w, [r15 + rcx - 8]")),
            (code!("lea rsp, [esp + ecx - 8]"), code!("lea r15, [r15d + ecx - 8]")),
            (code!("lea rax, [esp + ecx - 8]"), code!("lea rax, [r15d + ecx - 8]")),
            (code!("mov rsp, rsp"), code!("mov r15, r15")),
            (code!("mov esp, esp"), code!("mov r15d, r15d")),
            (code!("add rsp, rsp"), code!("add r15, r15")),
            (code!("xor rsp, rsp"), code!("xor r15, r15")),
            (code!("test rsp, rsp"), code!("test r15, r15")),
            (code!("sbb rsp, rsp"), code!("sbb r15, r15")),
            (code!("xchg rsp, rsp"), code!("xchg r15, r15")),
            (code!("cmp esp, esp"), code!("cmp r15d, r15d")),
            (
                code!("mov rsp, 0xffffffff", "add rsp, 1"),
                code!("mov r15, 0xffffffff", "add r15, 1"),
            ),
        ] {
            let case = lab.case(&guest);
            lab.check_stack_pointer(&case, &native, R15);
        }
    }
}

/// Flags of `add rsp` and its like, when someone looks and when no one does.
#[test]
fn flags_of_stack_adjustments() {
    let mut lab = Lab::new(13);
    as_number!(lab, "rsp" = "r15":
        ("add ", ", 64", "test eax, eax"), ("sub ", ", 64", "mov rax, rbx", "cmp rcx, rdx"),
        ("add ", ", 64", "setc al"), ("sub ", ", 24", "mov rbx, rcx", "js 9f", "nop", "9:"),
        ("and ", ", -16", "lea rax, [rbx]", "xor ecx, ecx"), ("and ", ", -64", "lahf"),
        ("sub ", ", 24", "inc rax"), ("sub ", ", 24", "inc rax", "adc rbx, 0"),
        ("add ", ", 24", "bt rax, 3", "setz bl"), ("sub ", ", rcx", "neg rcx"),
        ("add ", ", [rdi]", "or rcx, rdx"), ("add ", ", 8", "jrcxz 9f", "nop", "9:"),
        ("add ", ", 8", "cmovs rax, rbx", "test rax, rax"),
    );
}

#[test]
fn pushes_and_pops() {
    let mut lab = Lab::new(14);
    let codes = [
        code!("push rax", "push 5", "push -1", "push 0x12345678", "pop rbx", "pop rcx"),
        code!("push r12", "push [rdi]", "push qword ptr [rsp+8]", "pop [rdi+8]", "pop r9"),
        code!("push [rsp]", "pop [rsp+16]", "pop [rsp]", "pop qword ptr [rsi+8]"),
        code!("push ax", "push word ptr [rdi]", "pop cx", "pop word ptr [rsi]"),
        code!("pushfq", "pop rax", "and rax, 0x8d5"),
        code!("and rax, 0xcd5", "push rax", "popfq"),
        code!("and eax, 0x8d5", "push ax", "popf", "pushf", "pop bx", "and ebx, 0x8d5"),
        code!("mov [rsp-16], rax", "mov rbx, [rsp+8]", "xchg rcx, [rsp]", "add [rsp-8], rdx"),
        code!("pop sp", "mov eax, 1"),
        code!("push sp", "pop ax"),
    ];
    for setting in SETTINGS {
        for code in &codes {
            lab.set(setting);
            let mut case = lab.case(code);
            case.state.regs[RAX] &= 0x8d5;
            lab.check(&case);
        }
    }
}

/// RSP's value travels through the stack and other registers.
#[test]
fn stack_pointer_through_the_stack() {
    let mut lab = Lab::new(15);
    let below = 0x1800 - 8;
    for setting in SETTINGS {
        lab.set(setting);
        let mut case = lab.case(&code!("push rsp", "pop rax"));
        case.pointers_after |= set(&[RAX]);
        case.slots = vec![below];
        lab.check(&case);

        let mut case = lab.case(&code!("push r14", "pop rsp", "push rcx"));
        case.slots = vec![below];
        lab.check(&case);

        let mut case = lab.case(&code!("push r14", "pop [rsp]", "mov rsp, [rsp]", "pop rcx"));
        case.slots = vec![below, 0x1800];
        lab.check(&case);

        let mut case = lab.case(&code!("mov rbp, rsp", "sub rsp, 64", "mov [rbp-8], rax", "leave"));
        case.code.splice(..0, code!("push rbp")[..1].to_vec());
        // The sign of RSP differs natively: only what its low bits decide.
        case.flags = 0x14;
        lab.check(&case);

        let mut case = lab.case(&code!("mov gs:[0x100], rsp", "mov rsp, gs:[0x100]", "push rax"));
        case.slots = vec![0x100];
        lab.check(&case);

        let mut case = lab.case(&code!("xchg rsp, r14", "push rax", "mov rbx, rsp", "pop rcx"));
        case.pointers_after |= set(&[RBX]);
        lab.check(&case);

        let mut case = lab.case(&code!("push rsp", "push [rsp]", "pop rdx", "pop rbx"));
        case.pointers_after |= set(&[RBX, RDX]);
        case.slots = vec![below, below - 8];
        lab.check(&case);
    }
}

#[test]
fn leave_restores_everything_on_a_fault() {
    let mut lab = Lab::new(16);
    for setting in SETTINGS {
        lab.set(setting);
        let mut case = lab.case(&code!("leave"));
        case.pointers |= set(&[RBP]);
        case.pointers_after = case.pointers;
        case.state.regs[RBP] = lab.data() + 0x8000;
        let end = lab.check(&case);
        assert!(matches!(end, End::PageFault { write: false, .. }), "{end:?}");
        // Across the end of the readable pages.
        case.state.regs[RBP] = lab.data() + 0x4ffc;
        lab.check(&case);
    }
}

#[test]
fn stack_faults() {
    let mut lab = Lab::new(17);
    let codes = [
        code!("push rax"),
        code!("push rsp"),
        code!("pop rsp"),
        code!("pop [rdi]"),
        code!("push [rdi]"),
        code!("call 2f", "2:"),
        code!("call rax"),
        code!("ret"),
        code!("ret 16"),
        code!("pushfq"),
        code!("mov rax, [rsp]"),
        code!("xchg [rsp+8], rsp"),
        code!("add rsp, [rsp+16]"),
    ];
    for setting in SETTINGS {
        for code in &codes {
            for offset in [0x4000, 0x4004, 0x5004, 0x8000, -4_i64 as u64] {
                lab.set(setting);
                let mut case = lab.case(code);
                case.state.regs[RSP] = lab.data().wrapping_add(offset);
                // Some get through where there is memory to read: a return to nowhere.
                let (native, ..) = lab.native(&case);
                if matches!(native.end, End::PageFault { address, .. } if address != native.state.rip)
                {
                    lab.check(&case);
                }
            }
        }
    }
}

/// A kernel stack pointer into user memory: what goes through RSP as an
/// operand is learnt; what pushes and pops is the guest's own fault.
#[test]
fn operands_on_a_user_stack() {
    let mut lab = Lab::new(18);
    for setting in KERNEL {
        lab.set(setting);
        let mut case = lab.case(&code!("mov rax, [rsp+8]", "add [rsp+rcx*8-16], rax"));
        case.state.regs[RSP] = lab.user_data() + 0x1800;
        case.state.regs[RCX] = 5;
        case.pointers &= !set(&[RSP]);
        case.pointers_after = case.pointers;
        assert_eq!(lab.check(&case), End::Stop);
        assert_eq!(lab.world.aware.len(), 2);

        lab.set(setting);
        let case = crate::lab::Case { code: code!("push rax"), ..case };
        let (outcome, ..) = lab.translated(&case);
        assert_eq!(outcome.end, End::Protection);
    }
}

/// With a user-space operand PUSH and POP go to the monitor.
#[test]
fn pushes_of_user_memory_are_emulated() {
    let mut lab = Lab::new(19);
    lab.set(Setting::Top);
    for code in [code!("push [r14]"), code!("pop [r14]")] {
        let mut case = lab.case(&code);
        case.state.regs[R14] = lab.user_data() + 0x100;
        case.pointers &= !set(&[R14]);
        let (outcome, ..) = lab.translated(&case);
        assert_eq!(outcome.end, End::Stop);
        assert_eq!(outcome.state.rip, lab.code() + 0x40);
        assert_eq!(outcome.state.regs, case.state.regs);
    }
}
