//! String instructions: both sides of the fold, both directions, and faults in
//! the middle.

use crate::lab::{Lab, RCX, RDI, RSI, SETTINGS, Setting, set};
use crate::world::End;

fn codes() -> Vec<Vec<u8>> {
    vec![
        code!("movsb"),
        code!("movsq", "movsd", "movsw", "movsb"),
        code!("rep movsb"),
        code!("rep movsw"),
        code!("rep movsd"),
        code!("rep movsq", "mov eax, ecx"),
        code!("stosb", "stosq"),
        code!("rep stosb"),
        code!("rep stosq"),
        code!("lodsb", "lodsq", "lodsd"),
        code!("rep lodsw"),
        code!("scasb", "scasq"),
        code!("repne scasb"),
        code!("repe scasw"),
        code!("cmpsb", "cmpsq"),
        code!("repe cmpsb"),
        code!("repne cmpsd"),
        code!("std", "rep movsq", "cld"),
        code!("std", "rep stosd"),
        code!("cld", "repne cmpsb", "setz al"),
        code!(".byte 0x3e", "rep movsb"),
        code!("maskmovdqu xmm0, xmm1", "vmaskmovdqu xmm2, xmm3", "maskmovq mm0, mm1", "emms"),
    ]
}

/// Where in the data the pointers start: the middle, near either end.
const STARTS: [u64; 6] = [0x200, 0x1ff9, 0x3ff1, 0x4ff3, 3, 0x2f00];

#[test]
fn strings_on_all_sides() {
    let mut lab = Lab::new(20);
    let mut faults = 0;
    let mut runs = 0;
    for code in codes() {
        for setting in SETTINGS {
            for round in 0..24 {
                lab.set(setting);
                let mut case = lab.case(&code);
                let (data, user) = (lab.data(), lab.user_data());
                for (register, bit) in [(RSI, 1), (RDI, 2)] {
                    let own = setting == Setting::User || round & bit == 0;
                    let base = if own { data } else { user };
                    case.state.regs[register] = base + lab.rng.pick(&STARTS);
                    if !own {
                        case.pointers &= !set(&[register]);
                    }
                }
                case.pointers_after = case.pointers;
                case.state.regs[RCX] = lab.rng.pick(&[0, 1, 7, 100, 3000]);
                runs += 1;
                if matches!(lab.check(&case), End::PageFault { .. }) {
                    faults += 1;
                }
            }
        }
    }
    println!("{runs} string runs, {faults} with a page fault");
    assert!(faults > 100);
}

/// Equal strings, so that comparisons run on until a fault.
#[test]
fn comparisons_into_a_fault() {
    let mut lab = Lab::new(21);
    lab.image().fill(0x55);
    for setting in SETTINGS {
        for code in [code!("repe cmpsb"), code!("repe cmpsq"), code!("std", "repe cmpsw")] {
            for (source, destination) in [(0x4f00, 0x200), (0x200, 0x4f00), (0x80, 0x300)] {
                lab.set(setting);
                let mut case = lab.case(&code);
                case.state.regs[RSI] = lab.data() + source;
                case.state.regs[RDI] = lab.data() + destination;
                case.state.regs[RCX] = 5000;
                lab.check(&case);
            }
        }
    }
}

/// A user pointer for one side and a kernel pointer for the other, the fault
/// address must be that of the right one.
#[test]
fn comparisons_across_the_fold() {
    let mut lab = Lab::new(22);
    for (source_user, offset) in [(true, 0x8000), (false, 0x8000)] {
        lab.set(Setting::Top);
        let mut case = lab.case(&code!("cmpsb"));
        let (kernel, user) = (lab.data() + 0x100, lab.user_data() + offset);
        let (source, destination) = if source_user { (user, kernel) } else { (kernel, user) };
        case.state.regs[RSI] = source;
        case.state.regs[RDI] = destination;
        case.pointers &= !set(&[if source_user { RSI } else { RDI }]);
        case.pointers_after = case.pointers;
        let end = lab.check(&case);
        assert_eq!(end, End::PageFault { address: user, write: false });
    }
}

#[test]
fn non_canonical_strings() {
    let mut lab = Lab::new(23);
    for code in [code!("movsb"), code!("stosq"), code!("scasb"), code!("lodsb")] {
        for pointer in [0x8000_1234_0000_0000, 0x0001_0000_0000_0000] {
            lab.set(Setting::Top);
            let mut case = lab.case(&code);
            case.state.regs[RSI] = pointer;
            case.state.regs[RDI] = pointer;
            let (outcome, ..) = lab.translated(&case);
            assert_eq!(outcome.end, End::Protection);
            assert_eq!(outcome.state.regs, case.state.regs);
        }
    }
}

/// As Linux clears and copies pages: the destination is read before it is written.
#[test]
fn pages_filled_as_linux_does() {
    let mut lab = Lab::new(24);
    for code in [
        code!("mov ecx, 4096", "xor eax, eax", "rep stosb", "lea rdx, [rcx+1]"),
        code!("mov ecx, 512", "xor eax, eax", "rep stosq"),
        code!("mov ecx, 512", "rep movsq", "lea rdx, [rcx+1]"),
    ] {
        for setting in SETTINGS {
            // Whole pages, and one whose end is not there.
            for (source, destination) in [(0x1000, 0x2000), (0x3000, 0x1000), (0x1000, 0x4800)] {
                lab.set(setting);
                let mut case = lab.case(&code);
                case.state.regs[RSI] = lab.data() + source;
                case.state.regs[RDI] = lab.data() + destination;
                lab.check(&case);
            }
        }
        // Where nothing is mapped the read is what faults, with all registers as they were.
        lab.set(Setting::Top);
        let mut case = lab.case(&code);
        let absent = lab.data() + 0x8000;
        (case.state.regs[RSI], case.state.regs[RDI]) = (lab.data(), absent);
        let (outcome, ..) = lab.translated(&case);
        assert_eq!(outcome.end, End::PageFault { address: absent, write: false });
        assert_eq!(outcome.state.regs[RDI], absent);
        assert_eq!(outcome.state.regs[8], case.state.regs[8]);
    }
}
