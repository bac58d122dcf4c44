//! What goes to the monitor, what is done on the spot, what runs as it is.

use crate::lab::{Lab, R13, RAX, SETTINGS, Setting};
use crate::world::End;

/// Asserts that `code`'s first instruction leaves to the monitor with the state untouched.
#[track_caller]
fn left_to_monitor(lab: &mut Lab, setting: Setting, code: &[u8]) {
    lab.set(setting);
    let case = lab.case(code);
    let (outcome, data, _) = lab.translated(&case);
    assert_eq!(outcome.end, End::Stop, "{code:02x?}");
    assert_eq!(outcome.state.rip, lab.code() + 0x40, "{setting:?} {code:02x?}");
    assert_eq!(outcome.state.regs, case.state.regs);
    assert_eq!(data, lab.image());
}

#[test]
fn privileged_and_revealing() {
    let codes = [
        code!("cpuid"),
        code!(".byte 0x0f, 0x0b, 0x78, 0x65, 0x6e", "cpuid"),
        code!("rdmsr"),
        code!("wrmsr"),
        code!("rep insb"),
        code!("outsd"),
        code!("cli"),
        code!("sti"),
        code!("hlt"),
        code!("mov rax, cr0"),
        code!("mov cr3, rax"),
        code!("mov rax, dr7"),
        code!("mov dr7, rax"),
        code!("mov fs, eax"),
        code!("mov gs, eax"),
        code!("mov es, [rdi]"),
        code!("push fs"),
        code!("pop gs"),
        code!("lfs eax, [rdi]"),
        code!("lss rsp, [rdi]"),
        code!("sgdt [rdi]"),
        code!("sidt [rdi]"),
        code!("lgdt [rdi]"),
        code!("lidt [rdi]"),
        code!("sldt eax"),
        code!("lldt ax"),
        code!("str [rdi]"),
        code!("ltr ax"),
        code!("smsw eax"),
        code!("lmsw ax"),
        code!("clts"),
        code!("lar eax, ecx"),
        code!("lsl eax, ecx"),
        code!("invlpg [rdi]"),
        code!("wbinvd"),
        code!("invd"),
        code!("swapgs"),
        code!("rdpmc"),
        code!("xgetbv"),
        code!("xsetbv"),
        code!("rdpkru"),
        code!("wrpkru"),
        code!("xsaves [rdi]"),
        code!("xrstors [rdi]"),
        code!("xsaves64 [rdi]"),
        code!("xrstors64 [rdi]"),
        code!("iretq"),
        code!("iretd"),
        code!("int 0x80"),
        code!("int3"),
        code!(".byte 0xf1"),
        code!("ud2"),
        code!("ud1 eax, eax"),
        code!(".byte 0x0f, 0xff, 0xc0"),
        code!(".byte 0x06"),
        code!("sysenter"),
        code!("sysexit"),
        code!("sysretq"),
        code!(".byte 0x48, 0xff, 0x2f"),
        code!(".byte 0x48, 0xff, 0x1f"),
        code!("retf"),
        code!(".byte 0x66, 0xc3"),
        code!(".byte 0x66, 0xe8, 0, 0, 0, 0"),
        code!(".byte 0x66, 0xff, 0xe0"),
        code!("vmcall"),
        code!("vmmcall"),
        code!("vmlaunch"),
        code!("monitor"),
        code!("mwait"),
        code!("monitorx"),
        code!("mwaitx"),
        code!("tpause eax"),
        code!("umonitor rax"),
        code!(".byte 0x0f, 0x01, 0xcf"),
        code!(".byte 0x0f, 0x01, 0xd7"),
        code!("xbegin 2f", "2:"),
        code!("xend"),
        code!("xabort 1"),
        code!("rdsspq rax"),
        code!("incsspq rax"),
        code!("stui"),
        code!("uiret"),
        code!("enqcmd rax, [rdi]"),
        code!("invpcid rax, [rdi]"),
        code!("clac"),
        code!("stac"),
    ];
    let mut lab = Lab::new(70);
    for setting in SETTINGS {
        for code in &codes {
            left_to_monitor(&mut lab, setting, code);
        }
    }
}

#[test]
fn left_in_kernel_mode_only() {
    let codes = [
        code!("rdfsbase rax"),
        code!("rdgsbase rax"),
        code!("wrfsbase rax"),
        code!("wrgsbase rax"),
        code!("enter 16, 0"),
        code!("mov rax, fs:[0x10]"),
        code!("rep movsb es:[rdi], gs:[rsi]"),
        code!("movsb es:[edi], [esi]"),
        code!("clzero"),
        code!("movdir64b rax, [rdi]"),
        code!(".byte 0x66, 0xc9"),
        code!("mov rax, gs:[rsp]"),
        code!("mov rax, [esp]"),
    ];
    let mut lab = Lab::new(71);
    for code in &codes {
        left_to_monitor(&mut lab, Setting::Top, code);
        left_to_monitor(&mut lab, Setting::Far, code);
    }
    lab.set(Setting::User);
    let case = lab.case(&code!("enter 16, 0", "mov rax, fs:[0x10]", "leave"));
    assert_eq!(lab.check(&case), End::Stop);
}

/// Prefixes that would make an instruction longer than the CPU takes.
#[test]
fn longest_instructions() {
    let mut lab = Lab::new(72);
    let mov = code!("mov dword ptr [rdi+0x100], 0x12345678");
    let padded = |prefixes: &[u8]| [prefixes, &mov[..]].concat();
    assert_eq!(mov.len() - 2, 10);
    for setting in [Setting::Top, Setting::Far] {
        // Too long to begin with.
        left_to_monitor(&mut lab, setting, &padded(&[0xf3; 7]));
        lab.set(setting);
        // With GS added one byte too many, unless the operand becomes shorter.
        for count in [4, 5] {
            let case = lab.case(&padded(&[0xf3; 5][..count]));
            assert_eq!(lab.check(&case), End::Stop);
        }
        // A void segment prefix makes room for the one that counts.
        let case = lab.case(&padded(&[0x3e, 0xf3, 0xf3, 0xf3, 0xf3]));
        assert_eq!(lab.check(&case), End::Stop);
    }
    lab.set(Setting::User);
    let case = lab.case(&padded(&[0xf3; 5]));
    assert_eq!(lab.check(&case), End::Stop);
}

/// Reads of ports that are not there give all bits set; programs may not try.
#[test]
fn ports_in_kernel_mode() {
    let mut lab = Lab::new(77);
    for setting in [Setting::Top, Setting::Far] {
        for (code, native) in [
            (code!("in al, dx"), code!("mov al, 0xff")),
            (code!("in al, 0x64"), code!("mov al, 0xff")),
            (code!("in ax, dx"), code!("mov ax, 0xffff")),
            (code!("in ax, 0x71"), code!("mov ax, 0xffff")),
            (code!("in eax, dx"), code!("mov eax, 0xffffffff")),
            (code!("in eax, 0x71"), code!("mov eax, 0xffffffff")),
            (code!("out 0x80, al", "out dx, ax", "out dx, eax"), code!("nop")),
        ] {
            lab.set(setting);
            let case = lab.case(&code);
            let native = crate::lab::Case { code: native, ..case.clone() };
            lab.check_like(&case, &native, |_| ());
        }
    }
    for code in [code!("in al, dx"), code!("in eax, 0x71"), code!("out 0x80, al")] {
        left_to_monitor(&mut lab, Setting::User, &code);
    }
}

/// Segment moves a PV kernel makes all the time.
#[test]
fn segment_moves_in_kernel_mode() {
    let mut lab = Lab::new(73);
    let expect = [
        (code!("mov eax, cs"), 0xe033),
        (code!("mov rax, ss"), 0xe02b),
        (code!("mov eax, ds"), 0),
        (code!("mov rax, es"), 0),
        (code!("mov eax, fs"), 0),
        (code!("mov eax, gs"), 0),
    ];
    for setting in [Setting::Top, Setting::Far] {
        for (code, value) in &expect {
            lab.set(setting);
            let case = lab.case(code);
            let (outcome, ..) = lab.translated(&case);
            assert_eq!(outcome.state.regs[RAX], *value);
            assert_eq!(outcome.state.rip, lab.code() + 0x40 + code.len() as u64 - 2);
        }
        // Stores of null selectors, checked against plain stores, and reads that keep the other 48 bits.
        for (code, native) in [
            (code!(".byte 0x66, 0x8c, 0xc8"), code!("mov ax, 0xe033")),
            (code!(".byte 0x66, 0x8c, 0xd2"), code!("mov dx, 0xe02b")),
            (code!(".byte 0x66, 0x8c, 0xd8"), code!("mov ax, 0")),
            (code!(".byte 0x66, 0x41, 0x8c, 0xc5"), code!("mov r13w, 0")),
            (code!(".byte 0x66, 0x8c, 0xe5"), code!("mov bp, 0")),
            (code!(".byte 0x66, 0x41, 0x8c, 0xec"), code!("mov r12w, 0")),
            (code!("mov [rdi+8], ds"), code!("mov word ptr [rdi+8], 0")),
            (code!("mov [r14+r13*8], es"), code!("mov word ptr [r14+r13*8], 0")),
            (code!("mov word ptr gs:[0x20], fs"), code!("mov word ptr gs:[0x20], 0")),
            (code!("mov [rsp+8], gs"), code!("mov word ptr [rsp+8], 0")),
        ] {
            for aware in [false, true] {
                lab.set(setting);
                lab.world.all_aware = aware;
                let mut case = lab.case(&code);
                case.state.regs[R13] = 3;
                let native = crate::lab::Case { code: native.clone(), ..case.clone() };
                lab.check_like(&case, &native, |_| ());
            }
        }
        lab.set(setting);
        let case = lab.case(&code!("mov ds, eax", "mov es, ecx", "mov ss, edx"));
        let (outcome, ..) = lab.translated(&case);
        assert_eq!(outcome.state.rip, lab.code() + 0x46);
        left_to_monitor(&mut lab, setting, &code!("mov esp, ds"));
        left_to_monitor(&mut lab, setting, &code!("mov [rdi], cs"));
    }
    for code in [code!("mov eax, cs"), code!("mov eax, ds"), code!("mov ds, eax")] {
        left_to_monitor(&mut lab, Setting::User, &code);
    }
}

/// These run on the CPU itself.
#[test]
fn run_as_they_are() {
    let mut lab = Lab::new(74);
    for setting in SETTINGS {
        lab.set(setting);
        let code = code!(
            "rdtsc",
            "rdtscp",
            "rdrand rax",
            "rdseed ecx",
            "pause",
            "lfence",
            "mfence",
            "sfence",
            "cld",
            "std",
            "cld",
            "clc",
            "cmc",
            "lahf",
            "fwait",
            "emms",
            "verw [rdi]"
        );
        // RDPID (CPUID leaf 7, ECX bit 22) is not on all processors.
        let has_rdpid = std::arch::x86_64::__cpuid_count(7, 0).ecx & 1 << 22 != 0;
        let rdpid = if has_rdpid { code!("rdpid rbx") } else { code!("nop") };
        for code in [code, rdpid] {
            let case = lab.case(&code);
            let (outcome, ..) = lab.translated(&case);
            assert_eq!(outcome.end, End::Stop);
            assert_eq!(outcome.state.rip, lab.code() + 0x40 + code.len() as u64 - 2);
        }
    }
}

#[test]
fn arithmetic_faults() {
    let mut lab = Lab::new(75);
    let codes = [
        code!("xor ecx, ecx", "div rcx"),
        code!("mov eax, -1", "mov edx, -1", "mov ecx, 1", "div ecx"),
        code!("mov rax, 1", "shl rax, 63", "cqo", "mov rcx, -1", "idiv rcx"),
        code!("mov byte ptr [rdi], 0", "div byte ptr [rdi]"),
        code!(
            "xor eax, eax",
            "xor edx, edx",
            "idiv dword ptr [rsi+rax]",
            "xor ecx, ecx",
            "idiv cx"
        ),
        code!("xor r15d, r15d", "mov rbx, rdi", "div r15"),
    ];
    for setting in SETTINGS {
        for (i, code) in codes.iter().enumerate() {
            for aware in [false, true] {
                lab.set(setting);
                lab.world.all_aware = aware;
                let mut case = lab.case(code);
                if i == 5 {
                    case.pointers_after = case.pointers & !(1 << 15) | 1 << 3;
                }
                assert_eq!(lab.check(&case), End::Trap(0));
            }
        }
    }
    // Unmasked vector exceptions: #XM at the instruction.
    for setting in SETTINGS {
        lab.set(setting);
        let code = code!(
            "mov dword ptr [rdi], 0x1d80",
            "ldmxcsr [rdi]",
            "xorps xmm1, xmm1",
            "divps xmm0, xmm1"
        );
        let mut case = lab.case(&code);
        case.state.ymm[0] = std::array::from_fn(|i| [0, 0, 0x80, 0x3f][i % 4]);
        assert_eq!(lab.check(&case), End::Trap(19));
    }
}

/// Accesses that begin on one page and end on the next.
#[test]
fn faults_across_pages() {
    let mut lab = Lab::new(76);
    let codes = [
        code!("mov rax, [rdi]"),
        code!("mov [rdi], rax"),
        code!("add [rdi], rcx"),
        code!("vmovdqu ymm1, [rdi]"),
        code!("vmovdqu [rdi], ymm1"),
        code!("fstp tbyte ptr [rdi]"),
        code!("xchg [rdi], rbx"),
        code!("movups xmm1, [rdi]", "movups [rdi], xmm1"),
        code!("cmpxchg8b [rdi]"),
        code!("vmaskmovps [rdi], ymm1, ymm2"),
    ];
    for setting in SETTINGS {
        for code in &codes {
            for end in [0x4000, 0x5000] {
                for before in [1, 3, 4, 7, 8, 9, 15, 31] {
                    for aware in [false, true] {
                        lab.set(setting);
                        lab.world.all_aware = aware;
                        let mut case = lab.case(code);
                        case.state.regs[7] = lab.data() + end - before;
                        lab.check(&case);
                    }
                }
            }
        }
    }
}
