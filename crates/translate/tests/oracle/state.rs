//! Saving and restoring extended state: what the guest gets, and that PKRU
//! stays out of it.

use crate::lab::{Case, KERNEL, Lab, R14, RAX, RCX, RDI, RDX, RSI, SETTINGS, Setting, set};
use crate::world::End;
use iced_x86::{Decoder, Mnemonic};

/// Offset of the area in the data, 64-byte aligned.
const AREA: usize = 0x1200;

/// An instruction pointer and an operand pointer of the x87 unit, and the
/// opcode before them: they show where code really runs.
const CODE_POINTERS: std::ops::Range<usize> = AREA + 6..AREA + 24;

#[test]
fn legacy_state() {
    let codes = [
        code!("fld1", "fldpi", "fxsave [r14]", "vpxor xmm1, xmm1, xmm1", "fninit", "fxrstor [r14]"),
        code!("fldl2e", "fxsave64 [r14]", "addps xmm3, xmm4", "fxrstor64 [r14]"),
        code!("fnstcw [r14]", "stmxcsr [r14+8]", "fldcw [r14]", "ldmxcsr [r14+8]"),
    ];
    let mut lab = Lab::new(60);
    for setting in SETTINGS {
        for code in &codes {
            for aware in [false, true] {
                lab.set(setting);
                lab.world.all_aware = aware;
                let mut case = lab.case(code);
                case.ignored.push(CODE_POINTERS);
                assert_eq!(lab.check(&case), End::Stop);
            }
        }
    }
}

/// A case whose area has a valid, empty header.
fn case_with_area(lab: &mut Lab, code: &[u8]) -> Case {
    lab.image()[AREA..AREA + 1024].fill(0);
    let mut case = lab.case(code);
    case.state.regs[R14] = lab.data() + AREA as u64;
    case.ignored.push(CODE_POINTERS);
    case
}

#[test]
fn extended_state() {
    let codes = [
        code!("mov eax, 7", "xor edx, edx", "xsave [r14]", "vzeroall", "xrstor [r14]"),
        code!("mov eax, 7", "xor edx, edx", "xsave64 [r14]", "vzeroupper", "xrstor64 [r14]"),
        code!("mov eax, 3", "xor edx, edx", "xsaveopt [r14]", "vzeroall", "xrstor [r14]"),
        code!("mov eax, 7", "xor edx, edx", "xsavec [r14]", "vzeroall", "xrstor [r14]"),
        code!("mov eax, 6", "xor edx, edx", "xsavec64 [r14]", "mov ecx, eax", "xor ecx, edx"),
        code!("mov eax, 4", "xor edx, edx", "fld1", "xsave [r14]", "xrstor [r14]"),
    ];
    let mut lab = Lab::new(61);
    for setting in SETTINGS {
        for code in &codes {
            for aware in [false, true] {
                lab.set(setting);
                lab.world.all_aware = aware;
                let case = case_with_area(&mut lab, code);
                assert_eq!(lab.check(&case), End::Stop);
            }
        }
    }
}

/// The area may be addressed with RAX itself, the mask register.
#[test]
fn state_area_in_rax() {
    let mut lab = Lab::new(62);
    for setting in SETTINGS {
        for (code, rax) in [
            (code!("xor edx, edx", "xsave [rax]", "vzeroall", "xrstor [rax]"), 0),
            (code!("xor edx, edx", "xsavec [r14+rax]"), 0x40),
            (code!("xor edx, edx", "xsave64 [rax*8+r14]"), 0x10),
        ] {
            lab.set(setting);
            let mut case = case_with_area(&mut lab, &code);
            case.state.regs[RAX] = rax;
            if rax == 0 {
                // Low bits of the address are the mask: 64-byte aligned, so none of the first six.
                case.state.regs[RAX] = lab.data() + AREA as u64;
                case.pointers |= set(&[RAX]);
                case.pointers_after = case.pointers;
            } else {
                case.ignored = vec![AREA + 0x40 + 6..AREA + 0x98, AREA + 0x80 + 6..AREA + 0x98];
            }
            // Natively the mask may hold PKRU's bit: the CPU would store it too.
            let (outcome, ..) = lab.translated(&case);
            assert_eq!(outcome.end, End::Stop);
            let mut expected = case.state.regs;
            expected[RDX] = 0;
            assert_eq!(outcome.state.regs, expected);
        }
    }
}

/// A fault in the save area shows the guest's own RAX.
#[test]
fn faults_are_precise() {
    let mut lab = Lab::new(63);
    for setting in SETTINGS {
        for code in [code!("xsave [rdi]"), code!("xrstor [rdi]"), code!("xsavec [rdi+rcx]")] {
            for aware in [false, true] {
                lab.set(setting);
                lab.world.all_aware = aware;
                let mut case = lab.case(&code);
                // Of the mask only what the translation leaves: some processors try the area's last byte first.
                case.state.regs[RAX] = 0xffff_ffff_0000_0007;
                case.state.regs[RCX] = 0x40;
                case.state.regs[RDI] = lab.data() + 0x8000;
                let end = lab.check(&case);
                assert!(matches!(end, End::PageFault { .. }), "{end:?}");
            }
        }
    }
    // Misaligned: #GP.
    lab.set(Setting::Top);
    let mut case = lab.case(&code!("xsave [rdi]"));
    case.state.regs[RDI] = lab.data() + AREA as u64 + 8;
    case.state.regs[RAX] = 7;
    assert_eq!(lab.check(&case), End::Protection);
}

/// The kernel saves state to user memory when it delivers signals.
#[test]
fn state_in_user_memory() {
    let mut lab = Lab::new(64);
    for setting in KERNEL {
        lab.set(setting);
        let code = code!("mov eax, 7", "xor edx, edx", "xsave64 [rsi]", "mov rbx, [rsi+0x200]");
        let mut case = lab.case(&code);
        case.state.regs[RSI] = lab.user_data() + AREA as u64;
        case.pointers &= !set(&[RSI]);
        case.pointers_after = case.pointers;
        lab.clear_user(AREA..AREA + 1024);
        let (native, _, native_user) = lab.native(&case);
        let (got, _, user) = lab.translated(&case);
        assert_eq!((got.end, got.state.regs[RAX]), (End::Stop, native.state.regs[RAX]));
        assert_eq!(user[AREA + 24..], native_user[AREA + 24..]);
        assert_eq!(got.state.ymm, native.state.ymm);
    }
}

/// With all ones in EDX:EAX the components stored are those of the monitor's
/// mask, and nothing beyond them is written.
#[test]
fn protection_keys_are_out_of_reach() {
    let mut lab = Lab::new(65);
    for setting in SETTINGS {
        for code in [
            code!("mov eax, -1", "mov edx, -1", "xsave [r14]"),
            code!("mov eax, 0x200", "xor edx, edx", "xsave [r14]"),
            code!("mov eax, -1", "mov edx, -1", "xsaveopt64 [r14]"),
        ] {
            lab.set(setting);
            let case = case_with_area(&mut lab, &code);
            let before = lab.image()[AREA + 832..].to_vec();
            let (outcome, data, _) = lab.translated(&case);
            assert_eq!(outcome.end, End::Stop);
            assert_eq!(data[AREA + 513] & 2, 0, "PKRU in XSTATE_BV");
            assert_eq!(data[AREA + 832..], before);
        }
        // An area that offers a PKRU value: it must not be loaded.
        lab.set(setting);
        let mut case = case_with_area(
            &mut lab,
            &code!("mov eax, -1", "mov edx, 0", "xrstor [r14]", "mov rbx, [rdi]"),
        );
        case.words.clear();
        lab.image()[AREA + 513] = 2;
        lab.image()[AREA + 24..AREA + 28].copy_from_slice(&0x1f80_u32.to_le_bytes());
        // Without keys: where others have them.
        let at = match std::arch::x86_64::__cpuid_count(0xd, 9).ebx {
            0 => AREA + 2432,
            offset => AREA + offset as usize,
        };
        lab.image()[at..at + 8].fill(0xff);
        let before = lab.world.pkru();
        let (outcome, ..) = lab.translated(&case);
        // A processor without protection keys refuses the component itself.
        let expected = if before.is_some() { End::Stop } else { End::Protection };
        assert_eq!(outcome.end, expected);
        assert_eq!(lab.world.pkru(), before);
    }
}

/// In every translation of an XSAVE or XRSTOR, EAX has gone through the mask
/// directly before, and no WRPKRU or XRSTORS comes out whatever goes in.
#[test]
fn no_unmasked_state_instruction() {
    let mut lab = Lab::new(66);
    let sources = [
        code!("xrstor [rdi]"),
        code!("xrstor64 [rax]"),
        code!("xsave [rsp+0x40]"),
        code!("wrpkru"),
        code!("xrstors [rdi]"),
        code!("xsaves [rdi]"),
        code!("rdpkru"),
    ];
    for setting in SETTINGS {
        for code in &sources {
            lab.set(setting);
            let va = lab.code();
            let (host, _) = lab.world.inspect(va, code);
            let instructions: Vec<_> = Decoder::new(64, &host, 0).into_iter().collect();
            for (i, instruction) in instructions.iter().enumerate() {
                match instruction.mnemonic() {
                    Mnemonic::Xrstor | Mnemonic::Xrstor64 | Mnemonic::Xsave => {
                        assert_eq!(instructions[i - 1].mnemonic(), Mnemonic::Pdep);
                        assert_eq!(instructions[i - 2].mnemonic(), Mnemonic::Pext);
                        assert_eq!(instructions[i - 3].immediate(1), 7);
                    }
                    Mnemonic::Wrpkru | Mnemonic::Rdpkru | Mnemonic::Xrstors | Mnemonic::Xsaves => {
                        panic!("{:?} came out", instruction.code())
                    }
                    _ => {}
                }
            }
        }
    }
}
