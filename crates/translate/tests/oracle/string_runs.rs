//! Runs of MOVS and STOS on user memory that is found in tables, page by page.

use crate::lab::{Case, KERNEL, Lab, RCX, RDI, RSI, set};
use crate::place::{DATA, DATA_PAGES, PAGE};
use crate::world::End;
use translate::{UserMemory, user_tlb_index};

/// Where the guest believes its user memory to be; nothing is mapped there.
const ELSEWHERE: u64 = 0x1234_5678_0000;

/// Code and the size of its elements.
fn codes() -> Vec<(Vec<u8>, u64)> {
    vec![
        (code!("rep movsb"), 1),
        (code!("rep movsw"), 2),
        (code!("rep movsd"), 4),
        (code!("rep movsq"), 8),
        (code!("rep stosb"), 1),
        (code!("rep stosw"), 2),
        (code!("rep stosd"), 4),
        (code!("rep stosq", "seta al"), 8),
    ]
}

fn show(lab: &mut Lab, va: u64, delta: u64, write: bool) {
    let tlb = lab.world.user_tlb();
    let table = if write { &mut tlb.write } else { &mut tlb.read };
    let i = user_tlb_index(va);
    (table.tags[i], table.deltas[i]) = ((va & !(PAGE as u64 - 1)).wrapping_neg(), delta);
}

/// All user pages at [`ELSEWHERE`], the page of number `i` being number `order[i]` of the host's.
fn show_all(lab: &mut Lab, order: [usize; DATA_PAGES]) {
    lab.world.user_tlb().init();
    for (page, shown) in order.into_iter().enumerate() {
        let va = ELSEWHERE + (page * PAGE) as u64;
        let delta = (lab.user_data() + (shown * PAGE) as u64).wrapping_sub(va);
        show(lab, va, delta, true);
        show(lab, va, delta, false);
    }
}

const ORDERS: [[usize; DATA_PAGES]; 4] = [[2, 0, 3, 1], [1, 2, 3, 0], [3, 2, 1, 0], [2, 3, 0, 1]];
const IN_ORDER: [usize; DATA_PAGES] = [0, 1, 2, 3];

fn looked_up(lab: &mut Lab, setting: crate::lab::Setting) {
    lab.set(setting);
    lab.world.all_aware = true;
    lab.world.user_memory = UserMemory::LookedUp;
}

/// Puts a pointer to offset `at` into the user memory where the native run has it.
fn to_user(lab: &Lab, case: &mut Case, register: usize, at: u64) {
    case.state.regs[register] = lab.user_data() + at;
    case.pointers &= !set(&[register]);
    case.pointers_after = case.pointers;
}

/// On pages that are shown, runs of any length and sides do as natively, and fault as there.
#[test]
fn runs_on_shown_pages() {
    let mut lab = Lab::new(90);
    let (mut faults, mut long) = (0, 0);
    for setting in KERNEL {
        for (code, size) in codes() {
            for round in 0..90 {
                looked_up(&mut lab, setting);
                show_all(&mut lab, IN_ORDER);
                let mut native = lab.case(&code);
                let mut room = u64::MAX;
                let on_user = [(RDI, round % 3 != 0), (RSI, round % 3 != 1)];
                for (register, on_user) in on_user {
                    // Whole elements to the user page's end; anything on the kernel's side.
                    let at = lab.rng.next() % DATA as u64;
                    if on_user {
                        let at = at / size * size;
                        to_user(&lab, &mut native, register, at);
                        room = room.min((DATA as u64 - at) / size);
                    } else {
                        native.state.regs[register] = lab.data() + at;
                    }
                }
                let count = lab.rng.pick(&[0, 1, 7, 100, 1000, 5000, 20_000]);
                native.state.regs[RCX] = u64::min(count, room);
                long += usize::from(native.state.regs[RCX] * size > 2 * PAGE as u64);
                let base = lab.user_data();
                let mut guest = native.clone();
                for (register, on_user) in on_user {
                    if on_user {
                        let at = &mut guest.state.regs[register];
                        *at = *at - base + ELSEWHERE;
                    }
                }
                lab.check_like(&guest, &native, |expected| {
                    faults += usize::from(expected.regs[RCX] != 0);
                    for (register, on_user) in on_user {
                        if on_user {
                            let at = &mut expected.regs[register];
                            *at = *at - base + ELSEWHERE;
                        }
                    }
                });
            }
        }
    }
    println!("{faults} runs with a fault, {long} over several pages");
    assert!(faults > 50 && long > 50);
}

/// Pages that follow each other for the guest may lie anywhere.
#[test]
fn pages_in_any_order() {
    let mut lab = Lab::new(91);
    for (setting, order) in KERNEL.into_iter().flat_map(|s| ORDERS.map(|order| (s, order))) {
        looked_up(&mut lab, setting);
        show_all(&mut lab, order);
        let mut case = lab.case(&code!("rep movsb"));
        case.state.regs[RDI] = ELSEWHERE + 0x123;
        case.state.regs[RCX] = 3 * PAGE as u64;
        case.pointers &= !set(&[RDI]);
        let image = lab.image().to_vec();
        let (outcome, _, user) = lab.translated(&case);
        assert_eq!(outcome.state.regs[RCX], 0);
        assert_eq!(outcome.state.regs[RDI], ELSEWHERE + 0x123 + 3 * PAGE as u64);
        for i in 0..3 * PAGE {
            let at = 0x123 + i;
            let shown = order[at / PAGE] * PAGE + at % PAGE;
            assert_eq!(user[shown], image[0x200 + i], "byte {i}");
        }
    }
}

/// At a page that is not shown, also in the middle of an element, the run is left where it is.
#[test]
fn left_where_it_got_to() {
    let mut lab = Lab::new(92);
    // Code, offset of the destination, pages shown there, elements done of 3000.
    let cases = [
        (code!("rep movsb"), 0x800, 1, 0x800),
        (code!("rep movsb"), 0x801, 2, 0x17ff),
        (code!("rep stosb"), 0x3ff, 1, 0xc01),
        (code!("rep stosd"), 0x1000, 1, 0),
        (code!("rep stosq"), 0x804, 2, 0x2ff),
        (code!("rep stosq"), 0x804, 1, 0xff),
        (code!("rep movsq"), 0xffc, 2, 0x200),
        (code!("rep movsq"), 0xffc, 1, 0),
    ];
    for setting in KERNEL {
        for (code, at, shown, done) in &cases {
            looked_up(&mut lab, setting);
            lab.world.user_tlb().init();
            for page in 0..*shown {
                let va = ELSEWHERE + page * PAGE as u64;
                let delta = lab.user_data().wrapping_sub(ELSEWHERE);
                show(&mut lab, va, delta, true);
            }
            let mut case = lab.case(code);
            let total = 10_000;
            case.state.regs[RSI] = lab.data();
            case.state.regs[RDI] = ELSEWHERE + at;
            case.state.regs[RCX] = total;
            case.pointers &= !set(&[RDI]);
            assert_left(&mut lab, &case, *done);
        }
    }
}

/// Downward runs and those whose end is out of sight are left at once.
#[test]
fn left_at_once() {
    let mut lab = Lab::new(93);
    for setting in KERNEL {
        for (flags, count) in [(0x400, 5), (0, 1 << 32), (0, u64::MAX)] {
            for code in [code!("rep movsb"), code!("rep stosq")] {
                looked_up(&mut lab, setting);
                show_all(&mut lab, IN_ORDER);
                let mut case = lab.case(&code);
                case.state.flags |= flags;
                case.state.regs[RDI] = ELSEWHERE + 0x800;
                case.state.regs[RCX] = count;
                case.pointers &= !set(&[RDI]);
                assert_left(&mut lab, &case, 0);
            }
        }
    }
}

/// The instruction is to be gone on with after `done` elements, all else being the guest's.
fn assert_left(lab: &mut Lab, case: &Case, done: u64) {
    let (outcome, ..) = lab.translated(case);
    assert_eq!(outcome.end, End::Stop);
    assert_eq!(outcome.state.rip, lab.code() + case.offset as u64);
    let moves = case.code[case.code.len() - 3] & !1 == 0xa4;
    let size = element_size(case);
    for (i, register) in outcome.state.regs.iter().enumerate() {
        let before = case.state.regs[i];
        let expected = match i {
            RCX => before - done,
            RDI => before + done * size,
            RSI if moves => before + done * size,
            _ => before,
        };
        assert_eq!(*register, expected, "register {i}");
    }
    assert_eq!(outcome.state.flags & 0xcd5, case.state.flags & 0xcd5);
}

fn element_size(case: &Case) -> u64 {
    match case.code[..case.code.len() - 2] {
        [0xf3, 0xa4 | 0xaa] => 1,
        [0xf3, 0x48, 0xa5 | 0xab] => 8,
        [0xf3, 0xa5 | 0xab] => 4,
        _ => panic!("an unknown instruction: {:02x?}", case.code),
    }
}

/// Every precise point within a run shows a state that the guest went through.
#[test]
fn steps_of_runs() {
    let mut lab = Lab::new(94);
    for setting in KERNEL {
        for code in [
            code!("mov ecx, 9000", "rep movsb", "lea rdx, [rcx+1]"),
            code!("mov ecx, 1100", "rep stosq", "mov rbx, [rdi]"),
        ] {
            looked_up(&mut lab, setting);
            lab.world.user_tlb().init();
            let user = lab.user_data();
            for page in 0..DATA_PAGES {
                show(&mut lab, user + (page * PAGE) as u64, 0, true);
                show(&mut lab, user + (page * PAGE) as u64, 0, false);
            }
            let mut case = lab.case(&code);
            to_user(&lab, &mut case, RDI, 0x700);
            let steps = lab.compare_steps(&case).expect("steps agree");
            assert!(steps >= 6, "{steps}");
        }
    }
}

/// The longest translation of one instruction, far from its context, fits the room kept for one.
#[test]
fn the_longest_fits() {
    let mut lab = Lab::new(95);
    for setting in KERNEL {
        looked_up(&mut lab, setting);
        lab.world.limit = 1;
        let at = lab.code();
        let (code, _) = lab.world.inspect(at, &code!("rep movsq"));
        assert!(code.len() < 900);
    }
}
