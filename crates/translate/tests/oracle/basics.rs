//! Moves and arithmetic on registers and memory.

use crate::lab::{Lab, SETTINGS};
use crate::world::End;

#[test]
fn moves_and_arithmetic() {
    let mut lab = Lab::new(1);
    let codes = [
        code!("mov rax, [rdi]", "add [rsi+8], rax", "mov byte ptr [r14], 7"),
        code!("xor ecx, ecx", "mov rax, [r14+rcx*2-0x10]", "nop"),
        code!("lea rax, [rdx+rcx*8+5]", "adc rax, rcx", "sbb [r15], eax"),
        code!("mov ah, [rdi]", "mov [rsi], bh", "xchg [rdi], rcx", "imul rdx, [rsi], 77"),
    ];
    for setting in SETTINGS {
        for code in &codes {
            lab.set(setting);
            let case = lab.case(code);
            let end = lab.check(&case);
            println!("{end:?}");
        }
    }
}

#[test]
fn page_fault() {
    let mut lab = Lab::new(2);
    for setting in SETTINGS {
        lab.set(setting);
        let case = lab.case(&code!("mov [rdi+0x4000], eax"));
        let end = lab.check(&case);
        assert!(matches!(end, End::PageFault { write: true, .. }));
    }
}
