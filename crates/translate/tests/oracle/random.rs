//! Random sequences of random instructions, in every setting.

use crate::cpu::FLAGS;
use crate::generate::{Generator, is_data, jump_over, pointers};
use crate::lab::{Case, Lab, R13, R14, R15, RBP, RCX, RDI, RSI, SETTINGS, Setting, set};
use crate::place::{DATA_OFFSET, PAGE};
use crate::world::End;
use iced_x86::{Code, DecoderOptions, Instruction, Mnemonic, OpKind, Register};
use std::collections::BTreeMap;
use std::time::Instant;

/// Sequences of the test. `ORACLE_SEQUENCES` overrides it for longer runs, and
/// `ORACLE_SECONDS` runs as many as that time allows. They begin with seed
/// `ORACLE_SEED`, which may be `random`.
const SEQUENCES: u64 = 120_000;

/// Sequences run first, to find out what this CPU lacks. After them the set is
/// fixed, so that a seed alone makes a sequence again.
const CALIBRATION: u64 = 4000;

/// Where sequences start in the code pages.
const OFFSETS: [usize; 4] = [0x40, PAGE - 9, PAGE - 31, PAGE + 5];

fn setting_of(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn first_seed() -> u64 {
    let random = std::env::var("ORACLE_SEED").is_ok_and(|value| value == "random");
    let now = || std::time::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_nanos() as u64 >> 8);
    if random { now() } else { setting_of("ORACLE_SEED").unwrap_or(1_000_000) }
}

pub struct Sequences {
    lab: Lab,
    generator: Generator,
    ends: BTreeMap<String, u64>,
    instructions: u64,
    /// Instructions left to the monitor though the CPU has them: how often,
    /// and one of them.
    left: BTreeMap<u16, (u64, Vec<u8>)>,
    calibrating: bool,
    /// Which memory image is in use.
    image: u64,
}

impl Sequences {
    pub fn new(seed: u64) -> Sequences {
        let mut sequences = Sequences {
            lab: Lab::new(seed),
            generator: Generator::new(),
            ends: BTreeMap::new(),
            instructions: 0,
            left: BTreeMap::new(),
            calibrating: true,
            image: 0,
        };
        for seed in 0..CALIBRATION {
            sequences.run(seed);
        }
        sequences.calibrating = false;
        sequences.instructions = 0;
        sequences.ends.clear();
        sequences
    }

    /// One sequence from one seed.
    fn case(&mut self, seed: u64) -> Case {
        if self.image != seed / 64 + 1 {
            self.image = seed / 64 + 1;
            self.lab.rng.0 = self.image;
            self.lab.renew_memory();
        }
        self.lab.rng.0 = seed;
        let setting = self.lab.rng.pick(&SETTINGS);
        self.lab.set(setting);
        let offset = self.lab.rng.pick(&OFFSETS);
        let code = self.sequence(offset);
        let mut case = Case { offset, pointers: pointers(), ..self.lab.case(&code) };
        self.place_pointers(&mut case, setting);
        let rng = &mut self.lab.rng;
        case.state.regs[R13] = rng.below(64);
        if rng.one_in(2) {
            case.state.regs[RCX] = rng.below(40);
        }
        case.state.flags |= if rng.one_in(8) { 0x400 } else { 0 };
        case.pointers_after = case.pointers;
        self.lab.world.all_aware = rng.one_in(4);
        self.lab.world.limit = rng.pick(&[1, 3, 40, 40, 40]);
        case.flags = FLAGS;
        case
    }

    fn sequence(&mut self, offset: usize) -> Vec<u8> {
        let rng = &mut self.lab.rng;
        let mut parts: Vec<Vec<u8>> = Vec::new();
        let mut at = 0;
        for _ in 0..1 + rng.below(8) {
            self.generator.data_distance = DATA_OFFSET as i64 - offset as i64;
            let jump = rng.one_in(6);
            let ahead = if jump { 6 } else { 0 };
            let part = self.generator.instruction(rng, at + ahead);
            if jump {
                let mut over = jump_over(rng, part.len());
                // RIP-relative operands were made for the long form.
                while over.len() < ahead {
                    over.insert(0, 0x90);
                }
                at += over.len();
                parts.push(over);
            }
            at += part.len();
            parts.push(part);
            self.instructions += 1;
        }
        parts.push(vec![0x0f, 0x0b]);
        parts.concat()
    }

    /// Addresses anywhere in the data, at times near its end; in kernel mode
    /// some in user memory.
    fn place_pointers(&mut self, case: &mut Case, setting: Setting) {
        let (data, user) = (self.lab.data(), self.lab.user_data());
        let rng = &mut self.lab.rng;
        for register in [RBP, RSI, RDI, R14, R15] {
            let offset = match rng.below(10) {
                0 => 0x3ff0 + rng.below(32),
                1 => 0x4ff0 + rng.below(32),
                2 => rng.below(64),
                3..6 => 0x1000 + rng.below(0x2000),
                _ => 0x1000 + rng.below(0x200) * 16,
            };
            let own = setting == Setting::User || !rng.one_in(4);
            case.state.regs[register] = if own { data } else { user } + offset;
            if !own {
                case.pointers &= !set(&[register]);
            }
        }
        debug_assert!((0..16).any(is_data));
    }

    /// Runs one case.
    fn run(&mut self, seed: u64) {
        let case = self.case(seed);
        match self.lab.compare(&case) {
            Ok(end) => {
                self.note_end(&case, end);
            }
            Err(report) => {
                if !self.left_alone(&case) {
                    let text = self.lab.describe(&case, &report);
                    panic!("ORACLE_SEED={seed} ORACLE_SEQUENCES=1 shows this again\n{text}");
                }
            }
        }
    }

    /// Steps through one case, as far as both runs go; returns the precise
    /// points seen.
    pub fn step(&mut self, seed: u64) -> usize {
        let mut case = self.case(seed);
        case.state.regs[RCX] &= 31;
        match self.lab.compare_steps(&case) {
            Ok(steps) => steps,
            Err(report) => {
                let text = self.lab.describe(&case, &report);
                panic!("seed {seed:#x}\n{text}");
            }
        }
    }

    fn note_end(&mut self, case: &Case, end: End) {
        let name = match end {
            End::PageFault { write, .. } => format!("page fault, write {write}"),
            other => format!("{other:?}"),
        };
        *self.ends.entry(name).or_default() += 1;
        if end == End::Stop {
            self.left_alone(case);
        }
    }

    /// Whether the sequence reached an instruction that the translator gives to
    /// the monitor, or that the CPU does not have.
    fn left_alone(&mut self, case: &Case) -> bool {
        let (outcome, ..) = self.lab.translated(case);
        let va = self.lab.code() + case.offset as u64;
        if outcome.end != End::Stop {
            return false;
        }
        let at = outcome.state.rip.wrapping_sub(va) as usize;
        let Some(rest) = case.code.get(at..) else { return false };
        let mut decoder = iced_x86::Decoder::with_ip(64, rest, 0, DecoderOptions::NONE);
        let instruction = decoder.decode();
        if instruction.code() == Code::Ud2 {
            return false;
        }
        let (native, ..) = self.lab.native(case);
        let fold = self.lab.world.fold();
        if native.end == End::Stop && native.state.rip.wrapping_sub(fold) == outcome.state.rip {
            if self.calibrating {
                self.generator.unusable.insert(instruction.code());
            }
        } else {
            let bytes = rest[..instruction.len()].to_vec();
            let setting = self.lab.setting;
            let expected = monitors(&instruction, setting, &bytes);
            assert!(expected, "{setting:?} left to the monitor: {bytes:02x?}");
            let (times, _) = self.left.entry(instruction.code() as u16).or_insert((0, bytes));
            *times += 1;
        }
        true
    }
}

/// Whether the translator documents that it leaves this to the monitor.
fn monitors(instruction: &Instruction, setting: Setting, bytes: &[u8]) -> bool {
    use Mnemonic as M;
    let kernel = setting != Setting::User;
    let by_pointer = instruction.is_string_instruction()
        || matches!(instruction.mnemonic(), M::Maskmovq | M::Maskmovdqu | M::Vmaskmovdqu);
    let short_string = by_pointer && bytes.contains(&0x67);
    let in_memory = instruction.op0_kind() == OpKind::Memory;
    match instruction.mnemonic() {
        M::Sldt
        | M::Str
        | M::Sgdt
        | M::Sidt
        | M::Smsw
        | M::Xgetbv
        | M::Rdpkru
        | M::Wrpkru
        | M::Monitorx
        | M::Mwaitx
        | M::Xend
        | M::Xabort
        | M::Xbegin
        | M::Xtest
        | M::Lar
        | M::Lsl
        | M::Rdpmc
        | M::Rdpru
        | M::Cpuid
        | M::Lss
        | M::Lfs
        | M::Lgs
        | M::Rdsspd
        | M::Rdsspq
        | M::Clui
        | M::Stui
        | M::Testui => true,
        M::Rdfsbase | M::Rdgsbase | M::Wrfsbase | M::Wrgsbase | M::Clzero | M::Movdir64b => kernel,
        M::Push | M::Pop => kernel && in_memory,
        _ => kernel && (short_string || instruction.segment_prefix() == Register::FS),
    }
}

#[test]
fn random_sequences() {
    let seconds = setting_of("ORACLE_SECONDS");
    let most = setting_of("ORACLE_SEQUENCES").unwrap_or(SEQUENCES);
    let most = if seconds.is_some() { u64::MAX } else { most };
    let first = first_seed();
    println!("sequences from seed {first}");
    let mut sequences = Sequences::new(first);
    let start = Instant::now();
    let mut count = 0;
    while count < most && seconds.is_none_or(|limit| start.elapsed().as_secs() < limit) {
        sequences.run(first.wrapping_add(count));
        count += 1;
    }
    println!(
        "{count} sequences from seed {first}, {} instructions of {} codes; ends: {:?}",
        sequences.instructions,
        sequences.generator.made.len(),
        sequences.ends
    );
    println!("{} codes not on this CPU", sequences.generator.unusable.len());
    for (code, (times, example)) in sequences.left.iter().filter(|_| seconds.is_none()) {
        let code = Code::try_from(usize::from(*code)).expect("a code");
        println!("left to the monitor: {code:?} {times} {example:02x?}");
    }
    assert!(sequences.generator.made.len() > 900 || count < SEQUENCES);
}
