//! One sequence run twice: natively, which is the truth, and translated.
//!
//! In kernel mode the guest's addresses cannot exist natively. The native run
//! therefore uses the host addresses those fold to: registers and memory words
//! that hold kernel addresses are larger by the fold than in the guest, and
//! everything else must be equal. Which hold addresses, the case declares.

use crate::cpu::{FLAGS, State};
use crate::place::{CODE_PAGES, DATA, DATA_OFFSET, PAGE, Place, random_data};
use crate::rng::Rng;
use crate::world::{End, Outcome, PATIENCE, Source, World, run_native};
use std::fmt::Write;
use translate::Mode;

pub const RAX: usize = 0;
pub const RCX: usize = 1;
pub const RDX: usize = 2;
pub const RBX: usize = 3;
pub const RSP: usize = 4;
pub const RBP: usize = 5;
pub const RSI: usize = 6;
pub const RDI: usize = 7;
pub const R13: usize = 13;
pub const R14: usize = 14;
pub const R15: usize = 15;

pub const NAMES: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];

/// Bits of several registers.
pub fn set(registers: &[usize]) -> u16 {
    registers.iter().fold(0, |set, register| set | 1 << register)
}

/// Where the guest's code and data are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Setting {
    /// Kernel mode in the top 2 GiB, as the kernel image.
    Top,
    /// Kernel mode elsewhere.
    Far,
    /// User mode.
    User,
}

pub const SETTINGS: [Setting; 3] = [Setting::Top, Setting::Far, Setting::User];
pub const KERNEL: [Setting; 2] = [Setting::Top, Setting::Far];

/// A sequence to run both ways.
#[derive(Clone)]
pub struct Case {
    /// Code, ending in an instruction that stops both runs (`ud2`).
    pub code: Vec<u8>,
    /// Where in the code pages it starts.
    pub offset: usize,
    /// Guest state, RIP left out.
    pub state: State,
    /// Registers that hold kernel addresses at the start.
    pub pointers: u16,
    /// The same at the end.
    pub pointers_after: u16,
    /// Words of the data that hold kernel addresses at the start.
    pub words: Vec<(usize, u64)>,
    /// Offsets in the data of 8-byte words that hold kernel addresses at the end.
    pub slots: Vec<usize>,
    /// Offsets in the data of bytes not compared.
    pub ignored: Vec<std::ops::Range<usize>>,
    /// Flags compared.
    pub flags: u64,
}

pub struct Lab {
    pub world: World,
    pub rng: Rng,
    top: Place,
    far: Place,
    /// User memory for kernel mode.
    user: Place,
    pub setting: Setting,
    image: Vec<u8>,
    user_image: Vec<u8>,
}

impl Lab {
    pub fn new(seed: u64) -> Lab {
        let world = World::new();
        static PLACES: std::sync::OnceLock<[u64; 3]> = std::sync::OnceLock::new();
        let bases = PLACES.get_or_init(|| {
            // The stack may lie in the top 2 GiB: try several spots.
            let top = (0..100).map(|i| 0x7fff_80ff_0000 + i * 0x100_0000);
            [
                Place::new(top).base,
                Place::new([0x900_0000_0000]).base,
                // Below 4 GiB, for 32-bit addressing.
                Place::new((0..64).map(|i| 0x5000_0000 + i * 0x100_0000)).base,
            ]
        });
        let [top, far, user] = bases.map(|base| Place { base });
        let mut rng = Rng(seed);
        let (image, user_image) = (random_data(&mut rng), random_data(&mut rng));
        Lab { world, rng, top, far, user, setting: Setting::Top, image, user_image }
    }

    /// Chooses where and in which mode the next cases run; forgets translations.
    pub fn set(&mut self, setting: Setting) {
        self.setting = setting;
        self.world.reset(if setting == Setting::User { Mode::User } else { Mode::Kernel });
    }

    pub fn renew_memory(&mut self) {
        self.image = random_data(&mut self.rng);
        self.user_image = random_data(&mut self.rng);
    }

    /// Initial data of the guest's own place.
    pub fn image(&mut self) -> &mut [u8] {
        &mut self.image
    }

    fn place(&mut self) -> &mut Place {
        if self.setting == Setting::Top { &mut self.top } else { &mut self.far }
    }

    /// Guest address of the data.
    pub fn data(&mut self) -> u64 {
        self.code() + DATA_OFFSET
    }

    /// Guest address of the code pages.
    pub fn code(&mut self) -> u64 {
        let fold = self.world.fold();
        self.place().base.wrapping_sub(fold)
    }

    /// Guest address of the user data.
    pub fn user_data(&self) -> u64 {
        self.user.data()
    }

    /// A state with random registers, RSP in the middle of the data.
    pub fn random_state(&mut self) -> State {
        let mut state = State::new();
        for register in &mut state.regs {
            *register = self.rng.value();
        }
        for ymm in &mut state.ymm {
            for part in ymm.chunks_exact_mut(8) {
                part.copy_from_slice(&self.rng.value().to_le_bytes());
            }
        }
        if crate::cpu::has_avx512() {
            for mask in &mut state.masks {
                *mask = self.rng.value();
            }
            for part in state.wide.as_flattened_mut().chunks_exact_mut(8) {
                part.copy_from_slice(&self.rng.value().to_le_bytes());
            }
        }
        state.flags = self.rng.next() & 0x8d5;
        state.regs[RSP] = self.data() + 0x1800;
        state.gs = self.data();
        state.fs = if self.setting == Setting::User { self.data() + 64 } else { 0 };
        state
    }

    /// A case with RSP, RSI, RDI, R14 and R15 in the data and the rest random.
    pub fn case(&mut self, code: &[u8]) -> Case {
        let mut state = self.random_state();
        let data = self.data();
        state.regs[RSI] = data + 0x200;
        state.regs[RDI] = data + 0x400;
        state.regs[R14] = data + 0x1200;
        state.regs[R15] = data + 0x2600;
        let pointers = set(&[RSP, RSI, RDI, R14, R15]);
        Case {
            code: code.to_vec(),
            offset: 0x40,
            state,
            pointers,
            pointers_after: pointers,
            words: Vec::new(),
            slots: Vec::new(),
            ignored: Vec::new(),
            flags: FLAGS,
        }
    }

    pub fn clear_user(&mut self, range: std::ops::Range<usize>) {
        self.user_image[range].fill(0);
    }

    /// A word of the initial user data.
    pub fn user_word(&self, offset: usize) -> u64 {
        u64::from_le_bytes(self.user_image[offset..offset + 8].try_into().expect("8 bytes"))
    }

    /// Loads code and data, with kernel addresses in it moved by `fold`.
    fn load_memory(&mut self, case: &Case, fold: u64) {
        let (image, user_image) = (self.image.clone(), self.user_image.clone());
        self.user.data_bytes().copy_from_slice(&user_image);
        let place = self.place();
        place.data_bytes().copy_from_slice(&image);
        for (offset, value) in &case.words {
            let value = value.wrapping_add(fold).to_le_bytes();
            place.data_bytes()[*offset..*offset + 8].copy_from_slice(&value);
        }
        place.code_bytes()[case.offset..][..case.code.len()].copy_from_slice(&case.code);
    }

    /// Runs natively; the result is in native terms.
    pub fn native(&mut self, case: &Case) -> (Outcome, Vec<u8>, Vec<u8>) {
        let fold = self.world.fold();
        self.load_memory(case, fold);
        let mut state = case.state.clone();
        for (i, register) in state.regs.iter_mut().enumerate() {
            if case.pointers >> i & 1 != 0 {
                *register = register.wrapping_add(fold);
            }
        }
        state.gs = state.gs.wrapping_add(fold);
        state.rip = self.place().base + case.offset as u64;
        let base = self.place().base;
        let outcome = run_native(&mut self.world.cpu, &Place { base }, &state);
        (outcome, self.place().data_bytes().to_vec(), self.user.data_bytes().to_vec())
    }

    /// Runs translated.
    pub fn translated(&mut self, case: &Case) -> (Outcome, Vec<u8>, Vec<u8>) {
        self.load_memory(case, 0);
        let code = self.code();
        let mut state = case.state.clone();
        state.rip = code + case.offset as u64;
        self.world.flush();
        let bytes = self.place().code_bytes()[..CODE_PAGES * PAGE].to_vec();
        let outcome = self.world.run(Source { va: code, bytes: &bytes }, &state);
        (outcome, self.place().data_bytes().to_vec(), self.user.data_bytes().to_vec())
    }

    /// Runs both ways and says what differs.
    pub fn compare(&mut self, case: &Case) -> Result<End, String> {
        let (native, native_data, native_user) = self.native(case);
        let (guest, data, user) = self.translated(case);
        let expected = self.expected(case, &native);
        let mut report = String::new();
        difference(&mut report, case, &expected, &guest);
        let data_expected = self.expected_data(case, native_data);
        self.compare_memory(&mut report, "data", case, &data_expected, &data);
        let none = Case { ignored: Vec::new(), ..case.clone() };
        self.compare_memory(&mut report, "user data", &none, &native_user, &user);
        if report.is_empty() { Ok(guest.end) } else { Err(report) }
    }

    /// Runs translated code that has RSP where the native code has `twin`:
    /// there RSP's guest value is an ordinary number, so results must be equal
    /// bit by bit. Both stop at their last instruction.
    #[track_caller]
    pub fn check_stack_pointer(&mut self, guest: &Case, native: &[u8], twin: usize) {
        let mut native = Case { code: native.to_vec(), ..guest.clone() };
        native.state.regs[twin] = guest.state.regs[RSP];
        native.state.regs[RSP] = self.data() + 0x1800;
        native.pointers = native.pointers & !set(&[twin]) | set(&[RSP]);
        native.pointers_after = native.pointers;
        self.check_like(guest, &native, |expected| {
            expected.regs[RSP] = expected.regs[twin];
            expected.regs[twin] = guest.state.regs[twin];
        });
    }

    /// Checks translated code against other native code that does the same,
    /// except for RIP and what `change` makes of the native state.
    #[track_caller]
    pub fn check_like(&mut self, guest: &Case, native: &Case, change: impl FnOnce(&mut State)) {
        let (truth, native_data, native_user) = self.native(native);
        let mut expected = self.expected(native, &truth);
        let (got, data, user) = self.translated(guest);
        change(&mut expected.state);
        expected.state.rip = got.state.rip;
        let mut report = String::new();
        difference(&mut report, guest, &expected, &got);
        self.compare_memory(&mut report, "data", guest, &native_data, &data);
        self.compare_memory(&mut report, "user data", guest, &native_user, &user);
        if !report.is_empty() {
            panic!("{}", self.describe(guest, &report));
        }
    }

    /// A native outcome in guest terms.
    fn expected(&mut self, case: &Case, native: &Outcome) -> Outcome {
        let fold = self.world.fold();
        let base = self.place().base;
        let mut state = native.state.clone();
        for (i, register) in state.regs.iter_mut().enumerate() {
            if case.pointers_after >> i & 1 != 0 {
                *register = register.wrapping_sub(fold);
            }
        }
        state.rip = state.rip.wrapping_sub(fold);
        state.gs = state.gs.wrapping_sub(fold);
        let own = base - DATA_OFFSET..base + 2 * DATA_OFFSET;
        let end = match native.end {
            End::PageFault { address, write } if own.contains(&address) => {
                End::PageFault { address: address.wrapping_sub(fold), write }
            }
            other => other,
        };
        Outcome { state, end }
    }

    fn expected_data(&self, case: &Case, mut data: Vec<u8>) -> Vec<u8> {
        for slot in &case.slots {
            let word = &mut data[*slot..slot + 8];
            let value = u64::from_le_bytes(word.try_into().expect("8 bytes"));
            word.copy_from_slice(&value.wrapping_sub(self.world.fold()).to_le_bytes());
        }
        data
    }

    fn compare_memory(&self, report: &mut String, name: &str, case: &Case, a: &[u8], b: &[u8]) {
        if a == b {
            return;
        }
        let ignored = |at: &usize| case.ignored.iter().any(|range| range.contains(at));
        let first = (0..DATA).find(|at| a[*at] != b[*at] && !ignored(at));
        if let Some(at) = first {
            let at = (at & !7).min(DATA - 8);
            let _ = writeln!(
                report,
                "{name}+{at:#x}: native {:02x?} translated {:02x?}",
                &a[at..at + 8],
                &b[at..at + 8]
            );
        }
    }

    /// Runs both ways; panics with everything one needs if they differ.
    #[track_caller]
    pub fn check(&mut self, case: &Case) -> End {
        match self.compare(case) {
            Ok(end) => end,
            Err(report) => panic!("{}", self.describe(case, &report)),
        }
    }

    /// A report with the code and its translation.
    pub fn describe(&mut self, case: &Case, report: &str) -> String {
        let mut text = format!("{:?}, guest code:\n", self.setting);
        let va = self.code() + case.offset as u64;
        list(&mut text, va, &case.code);
        let (host, _) = self.world.inspect(va, &case.code);
        let _ = writeln!(text, "first block translated:");
        list(&mut text, 0x600_0040_0000, &host);
        let _ = writeln!(text, "start:");
        for (name, value) in NAMES.iter().zip(case.state.regs) {
            let _ = write!(text, "{name}={value:x} ");
        }
        let _ = writeln!(text, "flags={:x}\n{report}", case.state.flags);
        text
    }

    /// Steps through natively and translated: at every precise point of the
    /// translation the state must be one the native run went through, in order.
    pub fn compare_steps(&mut self, case: &Case) -> Result<usize, String> {
        let native = self.native_steps(case);
        self.world.stepping = true;
        let _ = self.translated(case);
        self.world.stepping = false;
        let steps = std::mem::take(&mut self.world.steps);
        let mut at = 0;
        for step in &steps {
            let found = native[at..].iter().position(|state| same_step(case, state, step));
            match found {
                Some(further) => at += further,
                None => {
                    let rip = step.rip;
                    let near = native.iter().find(|state| state.rip == rip);
                    let mut report = format!("no native step like that at {rip:#x}\n");
                    if let Some(state) = near {
                        let expected = Outcome { state: state.clone(), end: End::Stop };
                        let got = Outcome { state: step.clone(), end: End::Stop };
                        difference(&mut report, case, &expected, &got);
                    }
                    return Err(report);
                }
            }
        }
        Ok(steps.len())
    }

    /// Guest states before each instruction of the native run, in guest terms.
    fn native_steps(&mut self, case: &Case) -> Vec<State> {
        let fold = self.world.fold();
        self.load_memory(case, fold);
        let mut state = case.state.clone();
        for (i, register) in state.regs.iter_mut().enumerate() {
            if case.pointers >> i & 1 != 0 {
                *register = register.wrapping_add(fold);
            }
        }
        state.gs = state.gs.wrapping_add(fold);
        state.rip = self.place().base + case.offset as u64;
        let mut steps = Vec::new();
        for _ in 0..PATIENCE {
            let outcome = Outcome { state: state.clone(), end: End::Stop };
            steps.push(self.expected(case, &outcome).state);
            state.flags |= 0x100;
            let trap = self.world.cpu.run(&state);
            state = trap.state;
            if trap.number != crate::cpu::DEBUG {
                break;
            }
        }
        steps
    }
}

fn same_step(case: &Case, a: &State, b: &State) -> bool {
    a.regs == b.regs
        && a.rip == b.rip
        && (a.flags ^ b.flags) & case.flags == 0
        && a.ymm == b.ymm
        && a.masks == b.masks
        && a.wide == b.wide
}

fn difference(report: &mut String, case: &Case, expected: &Outcome, got: &Outcome) {
    if expected.end != got.end {
        let _ = writeln!(report, "end: native {:x?} translated {:x?}", expected.end, got.end);
    }
    let (a, b) = (&expected.state, &got.state);
    let words = [
        ("rip", a.rip, b.rip),
        ("flags", a.flags & case.flags, b.flags & case.flags),
        ("gs", a.gs, b.gs),
    ];
    let registers = (0..16).map(|i| (NAMES[i], a.regs[i], b.regs[i]));
    for (name, native, translated) in registers.chain(words) {
        if native != translated {
            let _ = writeln!(
                report,
                "{name}: native {native:#x} translated {translated:#x} (difference {:#x})",
                native.wrapping_sub(translated)
            );
        }
    }
    for i in 0..16 {
        if a.ymm[i] != b.ymm[i] {
            let _ =
                writeln!(report, "ymm{i}: native {:02x?} translated {:02x?}", a.ymm[i], b.ymm[i]);
        }
    }
    if a.masks != b.masks {
        let _ = writeln!(report, "masks: native {:x?} translated {:x?}", a.masks, b.masks);
    }
    for (i, (native, translated)) in a.wide.iter().zip(&b.wide).enumerate() {
        if let Some(at) = (0..512).find(|at| native[*at] != translated[*at]) {
            let _ = writeln!(report, "AVX-512 state {i} differs from byte {at} on");
        }
    }
    // Without the last x87 opcode and pointers: they show where code really runs.
    if a.legacy[..6] != b.legacy[..6] || a.legacy[24..] != b.legacy[24..] {
        let _ = writeln!(report, "x87: native {:02x?} translated {:02x?}", a.legacy, b.legacy);
    }
}

/// Lists instructions.
pub fn list(text: &mut String, va: u64, bytes: &[u8]) {
    let mut decoder = iced_x86::Decoder::with_ip(64, bytes, va, 0);
    while decoder.can_decode() {
        let at = decoder.position();
        let instruction = decoder.decode();
        let raw = &bytes[at..at + instruction.len()];
        let _ = writeln!(text, "  {:x}: {:?} {raw:02x?}", instruction.ip(), instruction.code());
    }
}
