//! Precise points: stepping through a translation shows, at each of its
//! entries, a state the guest's own instructions went through, in order.

use crate::lab::{KERNEL, Lab, R13, R14, RCX, SETTINGS, set};
use crate::random::Sequences;
use translate::Jump;

#[test]
fn curated_steps() {
    let mut lab = Lab::new(80);
    let codes = [
        code!("push rax", "mov [rsp-8], rcx", "call 2f", "jmp 3f", "2:", "ret", "3:", "pop rcx"),
        code!("mov ecx, 20", "rep movsb", "mov ecx, 3", "rep stosq", "lodsd"),
        code!("mov eax, 7", "xor edx, edx", "xsave [r14]", "add rax, rbx"),
        code!("mov rax, [rip+0x100040]", "vaddps ymm1, ymm2, [rip+0x100100]", "nop", "inc eax"),
        code!("xchg rax, [r14]", "mov r10, [rsp-8]", "cmp rcx, rax", "seta al", "mov rbx, rcx"),
        code!(
            "mov ecx, 3",
            "2:",
            "add rax, [r14+rcx*8]",
            "loop 2b",
            "test eax, eax",
            "js 3f",
            "nop",
            "3:"
        ),
    ];
    for setting in SETTINGS {
        for code in &codes {
            for aware in [false, true] {
                lab.set(setting);
                lab.world.all_aware = aware;
                let mut case = lab.case(code);
                case.state.regs[R13] = 1;
                case.ignored.push(0x1206..0x1218);
                let what = lab.compare_steps(&case);
                match what {
                    Ok(steps) => assert!(steps >= 3, "{steps} steps"),
                    Err(report) => panic!("{}", lab.describe(&case, &report)),
                }
            }
        }
    }
}

#[test]
fn steps_with_user_memory() {
    let mut lab = Lab::new(81);
    for setting in KERNEL {
        lab.set(setting);
        lab.world.all_aware = true;
        let code =
            code!("add [r14], rax", "mov rcx, 5", "rep stosb", "mov rbx, [r14+8]", "adc rax, rbx");
        let mut case = lab.case(&code);
        case.state.regs[R14] = lab.user_data() + 0x100;
        case.state.regs[RCX] = 5;
        case.pointers &= !set(&[R14]);
        case.pointers_after = case.pointers;
        let steps = lab.compare_steps(&case).expect("steps agree");
        assert!(steps >= 9, "{steps}");
    }
}

/// Interrupts may come at each step of a return: wherever it is, the guest's state is known.
#[test]
fn steps_of_jumps_through_the_tables() {
    for setting in SETTINGS {
        let mut lab = Lab::new(82);
        lab.set(setting);
        // Several places, so that some are found in the second table.
        let code = code!(
            "mov ebx, 3",
            "2:",
            "call 5f",
            "call 5f",
            "nop",
            "call 5f",
            "add ebx, -1",
            "jnz 2b",
            "push rcx",
            "call 3f",
            "jmp 4f",
            "3:",
            "ret 8",
            "5:",
            "lea rcx, [rcx+rax+1]",
            "lea rdx, [rdx+rcx]",
            "ret",
            "4:"
        );
        let mut case = lab.case(&code);
        case.ignored.push(0x17e0..0x1800);
        let steps = lab.compare_steps(&case);
        if let Err(report) = steps {
            panic!("{}", lab.describe(&case, &report));
        }
        let inline = [71, 64, 57, 51, 48, 45, 42, 35, 31, 28, 24, 22, 17, 10].map(Jump::Inline);
        let miss = [0, 3, 8, 14, 17, 20, 23, 30, 34, 37, 41, 43, 46, 51, 84, 91].map(Jump::Miss);
        for jump in inline.iter().chain(&miss).chain(&[Jump::Arriving(0, 0)]) {
            assert!(lab.world.jumps.contains(jump), "{setting:?}: {jump:?} was not seen");
        }
    }
}

#[test]
fn random_steps() {
    let count = 4000;
    let mut sequences = Sequences::new(0x57e9_0000);
    let mut steps = 0;
    for seed in 0x57e9_0000..0x57e9_0000 + count {
        steps += sequences.step(seed);
    }
    println!("{count} sequences stepped, {steps} precise points");
    assert!(steps > count as usize);
}
