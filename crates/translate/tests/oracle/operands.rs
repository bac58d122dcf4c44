//! Memory operands: segments, RIP-relative, absolute, implicit, vectors.

use crate::lab::{Case, KERNEL, Lab, R13, R14, RAX, RBX, RCX, RDI, RSI, SETTINGS, Setting, set};
use crate::world::End;

#[track_caller]
fn all_settings(seed: u64, codes: &[Vec<u8>], change: impl Fn(&mut Lab, &mut Case)) {
    let mut lab = Lab::new(seed);
    for setting in SETTINGS {
        for code in codes {
            for aware in [false, true] {
                lab.set(setting);
                lab.world.all_aware = aware;
                let mut case = lab.case(code);
                change(&mut lab, &mut case);
                assert_eq!(lab.check(&case), End::Stop);
            }
        }
    }
}

#[test]
fn guest_segments() {
    let codes = [
        code!("mov rax, gs:[0x100]", "add gs:[r13+0x20], rcx", "mov gs:[r13*8], eax"),
        code!("lock xadd gs:[0x48], rax", "cmpxchg gs:[r13], rbx", "movaps xmm1, gs:[0x200]"),
        code!("mov eax, es:[rdi]", "mov ds:[rsi], ax", "add cs:[r14], al", "mov rbx, ss:[r15]"),
        code!("inc dword ptr gs:[0x3c]", "vpaddd ymm2, ymm3, gs:[r13+3]", "bsf rax, gs:[r13+8]"),
    ];
    all_settings(40, &codes, |_, case| case.state.regs[R13] = 24);
}

/// Kernels address per-CPU data relative to RIP under GS.
#[test]
fn guest_segment_relative_to_rip() {
    let mut lab = Lab::new(41);
    lab.set(Setting::Top);
    let native = code!("inc qword ptr gs:[0x110]");
    let mut guest = lab.case(&native);
    let next = lab.code() + guest.offset as u64 + 8;
    let distance = i32::try_from(0x110_u64.wrapping_sub(next) as i64).expect("reaches");
    guest.code = [&[0x65, 0x48, 0xff, 0x05], &distance.to_le_bytes()[..], &[0x0f, 0x0b]].concat();
    let native = Case { code: native, ..guest.clone() };
    lab.check_like(&guest, &native, |_| ());
}

/// Instructions so long that a segment prefix makes them longer than the CPU takes:
/// useless prefixes, and every operand that can be written shorter.
#[test]
fn longest_instructions() {
    let distance = |lab: &mut Lab, end: u64| {
        let next = lab.code() + 0x40 + end;
        (lab.data().wrapping_add(0x300).wrapping_sub(next) as i32).to_le_bytes()
    };
    // imul r12, [rip + distance], imm32
    let tail: [u8; 4] = [0x3c, 0xf5, 0x97, 0x60];
    for prefixes in [&[0x66_u8][..], &[0x66, 0xf2, 0xf3], &[0x66, 0xf2, 0xf3, 0xf2]] {
        let mut lab = Lab::new(43);
        for setting in KERNEL {
            lab.set(setting);
            let opcode = [0x4d_u8, 0x69, 0x25];
            let len = prefixes.len() + opcode.len() + 8;
            let distance = distance(&mut lab, len as u64);
            let code = [prefixes, &opcode, &distance, &tail, &[0x0f, 0x0b]].concat();
            let case = lab.case(&code);
            assert_eq!(lab.check(&case), End::Stop);
            // imul r12, [r14 + r13 + 8], imm32: 15 bytes with one more prefix.
            let opcode = [0x4f_u8, 0x69, 0xa4, 0x2e, 8, 0, 0, 0];
            let prefixes = &[prefixes, &[0x66; 3]].concat()[..3];
            let code = [prefixes, &opcode, &tail, &[0x0f, 0x0b]].concat();
            let mut case = lab.case(&code);
            case.state.regs[R13] = 24;
            assert_eq!(lab.check(&case), End::Stop);
        }
    }
}

#[test]
fn user_segments() {
    let mut lab = Lab::new(42);
    let codes = [
        code!("mov rax, fs:[0x10]", "add fs:[r13], rcx", "mov gs:[r13+8], rax", "push fs:[0x28]"),
        code!("mov rax, fs:[0]", "rdfsbase rcx", "wrgsbase rcx", "mov rdx, gs:[8]"),
    ];
    for code in &codes {
        lab.set(Setting::User);
        let mut case = lab.case(code);
        case.state.regs[R13] = 40;
        assert_eq!(lab.check(&case), End::Stop);
    }
}

/// RIP-relative operands at every width and kind, at the data from the code.
#[test]
fn relative_to_rip() {
    let codes = [
        code!("mov rax, [rip+0x100040]", "lea rbx, [rip+0x7fffffff]", "xor ebx, ebx"),
        code!("add dword ptr [rip+0x100040], 0x12345678", "imul rcx, [rip+0x100100], 99"),
        code!("mov byte ptr [rip+0x100040], 5", "cmp [rip+0x100044], ah", "setc [rip+0x100050]"),
        code!("vaddps ymm9, ymm10, [rip+0x100039]", "vpshufd xmm12, [rip+0x100131], 0x1b"),
        code!(
            "movups [rip+0x100111], xmm15",
            "lock cmpxchg [rip+0x100040], r9",
            "crc32 eax, byte ptr [rip+0x100078]"
        ),
        code!(
            "push qword ptr [rip+0x100040]",
            "pop qword ptr [rip+0x100100]",
            "shl word ptr [rip+0x100040], 3"
        ),
        code!("lea r9d, [rip+0x100]", "lea cx, [rip+0x100]", "xor r9d, r9d", "xor ecx, ecx"),
        code!(
            "fld qword ptr [rip+0x100040]",
            "fstp tbyte ptr [rip+0x100100]",
            "bextr rax, [rip+0x100040], rcx"
        ),
    ];
    let mut lab = Lab::new(43);
    for setting in SETTINGS {
        for code in &codes {
            lab.set(setting);
            let case = lab.case(code);
            assert_eq!(lab.check(&case), End::Stop);
        }
    }
}

/// LEA of RIP gives guest addresses.
#[test]
fn addresses_relative_to_rip() {
    let mut lab = Lab::new(44);
    for setting in SETTINGS {
        lab.set(setting);
        let mut case =
            lab.case(&code!("lea rax, [rip-0x7]", "lea rsp, [rip+0x1017f9]", "push rbx"));
        case.pointers_after |= set(&[RAX]);
        assert_eq!(lab.check(&case), End::Stop);
        let (outcome, ..) = lab.translated(&case);
        assert_eq!(outcome.state.regs[RAX], lab.code() + 0x40);
    }
}

/// Moves with a 64-bit absolute address in the instruction.
#[test]
fn absolute_addresses() {
    let mut lab = Lab::new(45);
    let forms: [&[u8]; 8] = [
        &[0xa0],
        &[0xa1],
        &[0x66, 0xa1],
        &[0x48, 0xa1],
        &[0xa2],
        &[0xa3],
        &[0x66, 0xa3],
        &[0x3e, 0x48, 0xa3],
    ];
    for setting in SETTINGS {
        for form in forms {
            lab.set(setting);
            let fold = lab.world.fold();
            let address = lab.data() + 0x123;
            let code = |address: u64| [form, &address.to_le_bytes(), &[0x0f, 0x0b]].concat();
            let guest = lab.case(&code(address));
            let native = Case { code: code(address.wrapping_add(fold)), ..guest.clone() };
            lab.check_like(&guest, &native, |_| ());
        }
        for form in [&[0x65, 0x48, 0xa1], &[0x65, 0x48, 0xa3]] {
            lab.set(setting);
            let code = [&form[..], &0x208_u64.to_le_bytes(), &[0x0f, 0x0b]].concat();
            let case = lab.case(&code);
            assert_eq!(lab.check(&case), End::Stop);
        }
    }
}

#[test]
fn table_lookup() {
    let mut lab = Lab::new(46);
    for setting in SETTINGS {
        for code in [code!("xlatb"), code!(".byte 0x3e, 0xd7", "mov rcx, 5")] {
            lab.set(setting);
            let mut case = lab.case(&code);
            case.state.regs[RBX] = lab.data() + 0x77;
            case.pointers |= set(&[RBX]);
            case.pointers_after = case.pointers;
            assert_eq!(lab.check(&case), End::Stop);
        }
        lab.set(setting);
        let mut case = lab.case(&code!(".byte 0x65, 0xd7"));
        case.state.regs[RBX] = 0x77;
        assert_eq!(lab.check(&case), End::Stop);
    }
}

/// 32-bit addressing reaches user memory only.
#[test]
fn short_addresses() {
    let codes = [
        code!("mov rax, [esi]", "add [edi+8], rax", "mov [esi+ecx*8-16], bl"),
        code!("lea rax, [esi+edi*2+7]", "lea ebx, [esi+ecx]", "movups xmm3, [edi+ecx]"),
        code!("vmovdqu ymm3, [esi+0x20]", "lock xadd [edi], rax"),
    ];
    all_settings(47, &codes, |lab, case| {
        // High halves do not count.
        case.state.regs[RSI] = (lab.user_data() + 0x200) | (0xabcd << 32);
        case.state.regs[RDI] = (lab.user_data() + 0x400) | (0x1234_5678 << 32);
        case.state.regs[RCX] = 6;
        case.pointers &= !set(&[RSI, RDI]);
        case.pointers_after = case.pointers;
    });
}

/// Operands learnt to be in user memory, mixed with kernel memory.
#[test]
fn user_memory_is_learnt() {
    let mut lab = Lab::new(48);
    let code = code!(
        "mov rax, [r14]",
        "add [r14+8], rcx",
        "mov rbx, [r15]",
        "vpxor ymm1, ymm2, [r14+r13*8+1]",
        "mov [r15+r13], al",
        "cmp r9, [r14+16]",
        "xchg [r14+24], rdx",
        "movntdq [r14+0x20], xmm3"
    );
    for setting in KERNEL {
        lab.set(setting);
        let mut case = lab.case(&code);
        case.state.regs[R13] = 3;
        case.state.regs[R14] = lab.user_data() + 0x800;
        case.pointers &= !set(&[R14]);
        case.pointers_after = case.pointers;
        assert_eq!(lab.check(&case), End::Stop);
        assert_eq!(lab.world.aware.len(), 6);
        // The same instructions later meet kernel memory.
        case.state.regs[R14] = lab.data() + 0x800;
        case.pointers |= set(&[R14]);
        case.pointers_after = case.pointers;
        assert_eq!(lab.check(&case), End::Stop);
        // And nothing at all.
        case.state.regs[R14] = lab.user_data() + 0x8000;
        case.pointers &= !set(&[R14]);
        case.pointers_after = case.pointers;
        let address = lab.user_data() + 0x8000;
        assert_eq!(lab.check(&case), End::PageFault { address, write: false });
    }
}

/// User addresses below 64 KiB fold to canonical ones; non-canonical addresses
/// are the guest's fault on both sides.
#[test]
fn odd_kernel_pointers() {
    let mut lab = Lab::new(49);
    let cases = [
        (0, Some(0)),
        (0x10, Some(0x10)),
        (0xfff8, Some(0xfff8)),
        (0x10000, Some(0x10000)),
        (0x7fff_0000_1000, Some(0x7fff_0000_1000)),
        (0x8000_0000_0000, None),
        (0xdead_0000_0000_0100, None),
        (0xffff_7fff_ffff_0000, None),
    ];
    for (pointer, address) in cases {
        lab.set(Setting::Far);
        let mut case = lab.case(&code!("mov rbx, [rax]"));
        case.state.regs[RAX] = pointer;
        let (outcome, ..) = lab.translated(&case);
        let end = match address {
            Some(address) => End::PageFault { address, write: false },
            None => End::Protection,
        };
        assert_eq!((outcome.end, outcome.state.regs), (end, case.state.regs), "{pointer:#x}");
    }
}

#[test]
fn bit_strings() {
    let codes = [
        code!("bt [rdi], rcx", "bts [rsi], rcx", "btr [r14], ecx", "lock btc [r15], cx"),
        code!("neg rcx", "bts [r14], rcx", "setc al", "btr qword ptr [r15], 63"),
    ];
    all_settings(50, &codes, |_, case| case.state.regs[RCX] = 3000);
}

#[test]
fn atomics() {
    let codes = [
        code!(
            "lock add [rdi], rax",
            "lock inc dword ptr [rsi]",
            "xchg [r14], cx",
            "lock xadd [r15], rbx"
        ),
        code!("cmpxchg8b [rdi]", "lock cmpxchg8b [rsi+8]", "lock cmpxchg16b [r14]"),
        code!("mov rax, [r14]", "mov rdx, [r14+8]", "lock cmpxchg16b [r14]", "setz [rdi]"),
        code!(
            "mov eax, [rsi]",
            "mov edx, [rsi+4]",
            "lock cmpxchg8b [rsi]",
            "lock cmpxchg [rdi], rcx"
        ),
    ];
    all_settings(51, &codes, |_, _| ());
}

#[test]
fn high_bytes() {
    let codes = [
        code!("mov ah, [rdi]", "add [rsi], bh", "xchg [rdi+2], ch", "cmpxchg [rdi], dh"),
        code!("movzx eax, bh", "mov bl, ah", "test [rsi], ah", "sub ch, [rdi+5]"),
        code!("movsx cx, byte ptr [rdi]", "imul byte ptr [rsi]", "crc32 ecx, bh", "mul dh"),
    ];
    all_settings(52, &codes, |_, _| ());
}

#[test]
fn gathers() {
    let codes = [
        code!("vpgatherdd ymm0, [rdi+ymm1*4], ymm2", "vgatherqpd ymm3, [rsi+ymm4*8+8], ymm5"),
        code!("vpgatherqq xmm0, [r14+xmm1*2], xmm2", "vgatherdps xmm3, [rsp+xmm4], xmm5"),
    ];
    let mut lab = Lab::new(53);
    for setting in SETTINGS {
        for code in &codes {
            for far in [false, true] {
                lab.set(setting);
                let mut case = lab.case(code);
                for ymm in [1, 4] {
                    for (i, byte) in case.state.ymm[ymm].iter_mut().enumerate() {
                        *byte = if i % 8 == 0 { i as u8 * 3 } else { 0 };
                    }
                }
                // The last element beyond the data.
                if far {
                    case.state.ymm[1][25] = 0x60;
                    case.state.ymm[1][9] = 0x60;
                    case.state.ymm[2] = [0xff; 32];
                }
                lab.check(&case);
            }
        }
    }
}

#[test]
fn cache_hints() {
    let codes = [
        code!("prefetcht0 [rdi]", "prefetchnta [rax]", "prefetchw [rbx+rcx*8]", "mov rax, [rdi]"),
        code!(
            "nop dword ptr [rax+rax]",
            "nop",
            "endbr64",
            "mov eax, 1",
            "nop word ptr cs:[rax+rax*1+0x200]"
        ),
        code!("clflush [rdi]", "clflushopt [rsi]", "clwb [r14]", "mfence", "sfence", "lfence"),
        code!("pause", "mov rax, [r15]", ".byte 0xf3, 0x0f, 0x1b, 0x00"),
    ];
    all_settings(54, &codes, |_, _| ());
}

#[test]
fn wide_vectors() {
    if !std::is_x86_feature_detected!("avx512f") || !std::is_x86_feature_detected!("avx512vl") {
        println!("no AVX-512 on this CPU: not run");
        return;
    }
    let codes = [
        code!("vaddps ymm1, ymm2, [rdi+0x40]", "vmovdqu32 [rsi+0x60], ymm1"),
        code!("vpternlogd ymm1, ymm2, [r14+r13*8+0x20], 0x96", "vpaddq ymm9, ymm10, [rdi]{{1to4}}"),
        code!("vmovdqu64 ymm3, [rip+0x100040]", "vpaddd ymm3, ymm3, [rsp+0x20]"),
    ];
    all_settings(55, &codes, |_, case| case.state.regs[R13] = 3);
}
