//! A monitor in miniature: translates on demand, links blocks, learns which
//! instructions meet user memory, and reads faults.

use crate::cpu::{self, Cpu, State, Trap};
use crate::place::{PAGE, Place, map_all};
use std::collections::{HashMap, HashSet};
use translate::output::MAX_INSTRUCTIONS;
use translate::{
    Context, Error, FOLD, FaultKind, Fix, Jump, LOOKUP_ENTRIES, LookupEntry, Mode, Output,
    PROLOGUE, Request, Targets, Translator, UserMemory, UserTlb, emit_lookup_miss, guest_fault,
    lookup_slots, repair, underway,
};

const CACHE: u64 = 0x600_0000_0000;
const USER_CONTEXT: u64 = CACHE + 0x1000;
const EXITS: u64 = CACHE + 0x2000;
const MISS: u64 = CACHE + 0x3000;
const USER_TLB: u64 = CACHE + 0x4000;
const KERNEL_LOOKUP: u64 = CACHE + 0x10_0000;
const USER_LOOKUP: u64 = CACHE + 0x20_0000;
const CODE: u64 = CACHE + 0x40_0000;
const STUBS: u64 = CACHE + 0x80_0000;
/// Table of aliases, all zero; the word before holds its mask.
const ALIASES: u64 = CACHE + 0x1000_0000;
const SIZE: usize = 0x1800_0000;
/// Code and stub space per block.
const BLOCK: usize = 16384;
const MAX_BLOCKS: usize = 256;
/// Rounds through the monitor before a test counts as stuck.
pub const PATIENCE: usize = 60_000;

/// How guest code came to an end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// An instruction the translator leaves to the monitor, or an invalid one.
    Stop,
    /// `syscall`; RIP is behind it.
    Syscall,
    /// Vector state is needed, and is elsewhere.
    NeedsState,
    PageFault {
        address: u64,
        write: bool,
    },
    Protection,
    /// Another trap, by number.
    Trap(i64),
}

/// Guest state at the end; RSP, FS and GS as the guest sees them.
pub struct Outcome {
    pub state: State,
    pub end: End,
}

/// What translated code came out with.
enum Arrival {
    /// On to this guest address.
    At(u64),
    /// The same instruction again, from this host state with the guest's RIP.
    Again(Box<State>),
    Done(Box<Outcome>),
}

struct Block {
    va: u64,
    host: u64,
    stubs: u64,
    output: Box<Output>,
}

/// Where guest bytes come from.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    pub va: u64,
    pub bytes: &'a [u8],
}

pub struct World {
    pub cpu: Cpu,
    pub mode: Mode,
    translator: Translator,
    blocks: Vec<Block>,
    by_va: HashMap<u64, usize>,
    used_slots: Vec<usize>,
    links: Vec<(usize, usize)>,
    /// Instructions known to meet user memory.
    pub aware: HashSet<u64>,
    /// Treat all instructions as such.
    pub all_aware: bool,
    /// Instructions per block.
    pub limit: usize,
    pub targets: Targets,
    /// How kernel code reaches user memory.
    pub user_memory: UserMemory,
    /// Vector state may be elsewhere.
    pub state_may_be_away: bool,
    /// Single steps: called with guest state at every precise point.
    pub stepping: bool,
    pub steps: Vec<State>,
    /// Where jumps through the tables were seen.
    pub jumps: HashSet<Jump>,
    /// Times the last run came back to the monitor.
    pub rounds: usize,
    fold: u64,
}

impl World {
    pub fn new() -> World {
        let cpu = Cpu::new();
        static MAPPED: std::sync::Once = std::sync::Once::new();
        MAPPED.call_once(|| {
            map_all(CACHE, SIZE);
            // SAFETY: just mapped.
            unsafe { *((ALIASES - 0x1000) as *mut u64) = translate::ALIAS_MASK };
        });
        let targets = Targets {
            context: CACHE,
            user_context: USER_CONTEXT,
            kernel_lookup: KERNEL_LOOKUP,
            user_lookup: USER_LOOKUP,
            kernel_lookup_miss: MISS,
            user_lookup_miss: MISS + 128,
            exit_link: EXITS,
            exit_indirect: EXITS + 16,
            exit_emulate: EXITS + 32,
            exit_syscall: EXITS + 48,
            xsave_mask: 7,
            aliases: ALIASES,
            alias_mask: ALIASES - 0x1000,
            user_tlb: USER_TLB,
            exit_state: EXITS + 64,
        };
        let mut world = World {
            cpu,
            mode: Mode::Kernel,
            translator: Translator::new(targets),
            blocks: Vec::new(),
            by_va: HashMap::new(),
            used_slots: Vec::new(),
            links: Vec::new(),
            aware: HashSet::new(),
            all_aware: false,
            limit: MAX_INSTRUCTIONS,
            user_memory: UserMemory::Checked,
            state_may_be_away: false,
            targets,
            stepping: false,
            steps: Vec::new(),
            jumps: HashSet::new(),
            rounds: 0,
            fold: FOLD,
        };
        bytes_at(EXITS, 80).fill(0x0f);
        for exit in 0..5 {
            bytes_at(EXITS + 16 * exit, 2).copy_from_slice(&[0x0f, 0x0b]);
        }
        for (mode, at) in [(Mode::Kernel, MISS), (Mode::User, MISS + 128)] {
            let len = emit_lookup_miss(&targets, at, bytes_at(at, 128), mode).expect("miss fits");
            assert!(len <= 128);
        }
        for mode in [Mode::Kernel, Mode::User] {
            world.mode = mode;
            world.context().fold = FOLD;
            for (slot, entry) in world.table().iter_mut().enumerate() {
                *entry = LookupEntry::empty(slot);
            }
        }
        world
    }

    /// Forgets all translations and all that was learnt.
    pub fn reset(&mut self, mode: Mode) {
        self.flush();
        self.aware.clear();
        self.mode = mode;
        self.fold = if mode == Mode::Kernel { FOLD } else { 0 };
        self.limit = MAX_INSTRUCTIONS;
        self.all_aware = false;
        self.user_memory = UserMemory::Checked;
        self.state_may_be_away = false;
        self.stepping = false;
    }

    /// Forgets all translations, but not what was learnt.
    pub fn flush(&mut self) {
        for slot in std::mem::take(&mut self.used_slots) {
            self.table()[slot] = LookupEntry::empty(slot);
        }
        self.blocks.clear();
        self.by_va.clear();
        self.links.clear();
    }

    /// The tables of `UserMemory::LookedUp`.
    pub fn user_tlb(&mut self) -> &mut UserTlb {
        // SAFETY: mapped for good, and only this world uses it.
        unsafe { &mut *(USER_TLB as *mut UserTlb) }
    }

    pub fn context(&mut self) -> &mut Context {
        let at = if self.mode == Mode::Kernel { CACHE } else { USER_CONTEXT };
        // SAFETY: mapped for good, and only this world uses it while code is not running.
        unsafe { &mut *(at as *mut Context) }
    }

    fn table(&mut self) -> &mut [LookupEntry] {
        let at = if self.mode == Mode::Kernel { KERNEL_LOOKUP } else { USER_LOOKUP };
        let len = 2 * LOOKUP_ENTRIES as usize;
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(at as *mut LookupEntry, len) }
    }

    /// Host bytes of the translation of `va` alone, and what came with them.
    pub fn inspect(&mut self, va: u64, bytes: &[u8]) -> (Vec<u8>, Box<Output>) {
        self.flush();
        let block = self.block(va, Source { va, bytes }).expect("translates");
        let block = &self.blocks[block];
        (bytes_at(block.host, block.output.code_len).to_vec(), block.output.clone_box())
    }

    fn block(&mut self, va: u64, source: Source) -> Option<usize> {
        if let Some(known) = self.by_va.get(&va) {
            return Some(*known);
        }
        let number = self.blocks.len();
        assert!(number < MAX_BLOCKS, "too many blocks");
        let host = CODE + (number * BLOCK) as u64;
        let stubs = STUBS + (number * BLOCK) as u64;
        let mut output = Box::new(Output::new());
        let at = usize::try_from(va.wrapping_sub(source.va)).ok()?;
        let rest = source.bytes.get(at..).filter(|rest| !rest.is_empty())?;
        let page_bytes = (PAGE - (va as usize & (PAGE - 1))).min(rest.len());
        let all = self.all_aware;
        let aware = &self.aware;
        let mut request = Request {
            mode: self.mode,
            va,
            code: &rest[..page_bytes],
            page_bytes,
            code_host: host,
            stub_host: stubs,
            first_tag: (number * 64 + 1) as u64,
            user_access: &|va| all || aware.contains(&va),
            user_memory: self.user_memory,
            state_may_be_away: self.state_may_be_away,
            restores_elsewhere: false,
            avoid: &|_| false,
            limit: self.limit,
        };
        let (code, stub) = (bytes_at(host, BLOCK), bytes_at(stubs, BLOCK));
        let mut done = self.translator.translate(&request, code, stub, &mut output);
        if done == Err(Error::NeedNextPage) {
            request.code = &rest[..(page_bytes + 16).min(rest.len())];
            done = self.translator.translate(&request, code, stub, &mut output);
        }
        done.expect("translates");
        self.check_output(&output, rest.len());
        self.blocks.push(Block { va, host, stubs, output });
        self.by_va.insert(va, number);
        Some(number)
    }

    fn check_output(&self, output: &Output, available: usize) {
        assert!(output.guest_len <= available);
        assert!(output.entries().iter().all(|entry| usize::from(entry.host) < output.code_len));
        assert!(output.entries().is_sorted_by(|a, b| a.host < b.host));
        assert!(output.entries().iter().all(|entry| usize::from(entry.guest) <= output.guest_len));
    }

    /// Runs guest code from `state` until something needs more than this monitor.
    pub fn run(&mut self, source: Source, state: &State) -> Outcome {
        self.steps.clear();
        let mut host = self.to_host(state);
        let mut next = state.rip;
        let mut inside = false;
        for round in 0..PATIENCE {
            self.rounds = round + 1;
            if !inside {
                let Some(block) = self.block(next, source) else {
                    host.rip = next;
                    return self.outcome(host, End::Stop);
                };
                host.rip = self.blocks[block].host + PROLOGUE;
            }
            host.flags |= if self.stepping { 0x100 } else { 0 };
            let trap = self.cpu.run(&host);
            host = trap.state.clone();
            inside = self.stepping && trap.number == cpu::DEBUG && !self.is_exit(host.rip);
            if inside {
                self.note_step(&host);
                continue;
            }
            host.flags &= !0x100;
            match self.arrival(trap, source) {
                Arrival::At(va) => next = va,
                Arrival::Again(state) => {
                    host = *state;
                    next = host.rip;
                }
                Arrival::Done(outcome) => return *outcome,
            }
        }
        panic!("guest code does not come to an end");
    }

    fn is_exit(&self, rip: u64) -> bool {
        let targets = &self.targets;
        [
            targets.exit_link,
            targets.exit_indirect,
            targets.exit_emulate,
            targets.exit_syscall,
            targets.exit_state,
        ]
        .contains(&rip)
    }

    /// What the code wants from the monitor.
    fn arrival(&mut self, trap: Trap, source: Source) -> Arrival {
        let mut host = trap.state.clone();
        host.flags &= !0x100;
        let rip = host.rip;
        if rip == self.targets.exit_link {
            return Arrival::At(self.follow_link(source));
        }
        if rip == self.targets.exit_indirect {
            let target = self.context().target;
            self.learn_target(target, source);
            return Arrival::At(target);
        }
        let end = match rip {
            rip if rip == self.targets.exit_emulate => End::Stop,
            rip if rip == self.targets.exit_syscall => End::Syscall,
            rip if rip == self.targets.exit_state => End::NeedsState,
            _ => return self.fault(trap),
        };
        host.rip = self.context().rip;
        Arrival::Done(Box::new(self.outcome(host, end)))
    }

    /// Guest registers to host registers.
    fn to_host(&self, state: &State) -> State {
        let mut host = state.clone();
        if self.mode == Mode::Kernel {
            host.regs[4] = host.regs[4].wrapping_add(FOLD);
            host.fs = state.gs.wrapping_add(FOLD);
            host.gs = FOLD;
        }
        host
    }

    fn to_guest(&self, mut host: State) -> State {
        if self.mode == Mode::Kernel {
            host.regs[4] = host.regs[4].wrapping_sub(FOLD);
            host.gs = host.fs.wrapping_sub(FOLD);
            host.fs = 0;
        }
        host
    }

    fn outcome(&self, host: State, end: End) -> Outcome {
        Outcome { state: self.to_guest(host), end }
    }

    fn follow_link(&mut self, source: Source) -> u64 {
        let (target, tag) = (self.context().target, self.context().argument);
        let (from, link) = ((tag - 1) as usize / 64, (tag - 1) as usize % 64);
        assert_eq!(self.blocks[from].output.links()[link].target, target);
        if let Some(to) = self.block(target, source) {
            let block = &self.blocks[from];
            let site = block.host + u64::from(block.output.links()[link].site);
            let distance = (self.blocks[to].host + PROLOGUE).wrapping_sub(site + 4) as i32;
            let stub = block.stubs + u64::from(block.output.links()[link].stub);
            let bytes = bytes_at(site, 4);
            assert_eq!(bytes, (stub.wrapping_sub(site + 4) as i32).to_le_bytes());
            bytes.copy_from_slice(&distance.to_le_bytes());
            self.links.push((from, link));
        }
        target
    }

    /// Puts a target into the tables: into the first if that place is free.
    fn learn_target(&mut self, va: u64, source: Source) {
        if let Some(block) = self.block(va, source) {
            let host = self.blocks[block].host;
            let [first, second] = lookup_slots(va);
            let taken = self.table()[first] != LookupEntry::empty(first);
            let slot = if taken || va & 4 != 0 { second } else { first };
            self.table()[slot] = LookupEntry::new(va, host);
            self.used_slots.push(slot);
        }
    }

    fn entry_at(&self, host: u64) -> Option<(u64, Fix)> {
        let number = usize::try_from(host.checked_sub(CODE)?).ok()? / BLOCK;
        let block = self.blocks.get(number)?;
        let offset = host - block.host;
        let entry = block.output.entries().iter().find(|entry| u64::from(entry.host) == offset)?;
        Some((block.va.wrapping_add(u64::from(entry.guest)), entry.fix))
    }

    /// What a fault means: an end, or a state to go on from.
    fn fault(&mut self, trap: Trap) -> Arrival {
        let mut host = trap.state;
        let Some((va, fix)) = self.entry_at(host.rip) else {
            panic!("trap {} at unlisted host pc {:#x}", trap.number, host.rip);
        };
        let page_fault = trap.number == cpu::PAGE;
        let write = trap.error & 2 != 0;
        let mode = self.mode;
        let kind =
            guest_fault(fix, &host.regs, self.context(), trap.address, page_fault, write, mode);
        repair(fix, &mut host.regs, self.context());
        host.rip = va;
        host.flags &= !0x100;
        let end = match (trap.number, kind) {
            (cpu::INVALID, _) => End::Stop,
            (cpu::PAGE | cpu::PROTECTION | cpu::STACK, FaultKind::Address(address)) => {
                End::PageFault { address, write }
            }
            (cpu::PAGE | cpu::PROTECTION | cpu::STACK, FaultKind::Protection) => End::Protection,
            (cpu::PAGE | cpu::PROTECTION | cpu::STACK, FaultKind::UserThroughGs) => {
                assert!(self.aware.insert(va), "an aware translation asked again");
                self.flush();
                return Arrival::Again(Box::new(host));
            }
            (other, _) => End::Trap(other),
        };
        Arrival::Done(Box::new(self.outcome(host, end)))
    }

    /// The jump through the tables that a host address lies in.
    fn jump_at(&self, host: u64) -> Option<Jump> {
        let miss = self.targets_miss();
        if (miss..miss + 128).contains(&host) {
            return Some(Jump::Miss(host - miss));
        }
        let block = self.blocks.get(usize::try_from(host.checked_sub(CODE)?).ok()? / BLOCK)?;
        let (from, to) = (host - block.host, block.output.code_len as u64 + block.host - host);
        match from {
            0..PROLOGUE => Some(Jump::Arriving(block.va, from)),
            _ => block.output.ends_in_lookup.then_some(Jump::Inline(to)),
        }
    }

    fn targets_miss(&self) -> u64 {
        if self.mode == Mode::Kernel { MISS } else { MISS + 128 }
    }

    /// The guest's state in such a jump; within 71 bytes of its end there must be one but right before the
    /// branch, and in the first half of the routine.
    fn underway(&mut self, host: &State) -> Option<(u64, Fix)> {
        let jump = self.jump_at(host.rip)?;
        let found = underway(jump, &host.regs);
        let must = match jump {
            Jump::Inline(to_end) => to_end <= 71 && to_end != 3,
            Jump::Miss(at) => at <= 51,
            Jump::Arriving(..) => true,
        };
        assert!(found.is_some() || !must, "no state at {jump:x?}");
        if found.is_some() {
            self.jumps.insert(match jump {
                Jump::Arriving(_, at) => Jump::Arriving(0, at),
                other => other,
            });
        }
        found
    }

    fn note_step(&mut self, host: &State) {
        if let Some((va, fix)) = self.entry_at(host.rip).or_else(|| self.underway(host)) {
            let mut state = host.clone();
            repair(fix, &mut state.regs, self.context());
            state.rip = va;
            let state = self.to_guest(state);
            if self.steps.last().is_none_or(|last| *last != state) {
                self.steps.push(state);
            }
        }
    }

    /// The protection-key register at the last trap, if the CPU has one.
    pub fn pkru(&self) -> Option<u32> {
        self.cpu.pkru()
    }

    /// How far kernel addresses are moved in the current mode.
    pub fn fold(&self) -> u64 {
        self.fold
    }
}

/// Runs the bytes of `place` natively.
pub fn run_native(cpu: &mut Cpu, _place: &Place, state: &State) -> Outcome {
    let trap = cpu.run(state);
    Outcome { end: native_end(&trap), state: trap.state }
}

fn native_end(trap: &Trap) -> End {
    match trap.number {
        cpu::PAGE => End::PageFault { address: trap.address, write: trap.error & 2 != 0 },
        cpu::PROTECTION | cpu::STACK => End::Protection,
        cpu::INVALID => End::Stop,
        other => End::Trap(other),
    }
}

trait CloneBox {
    fn clone_box(&self) -> Box<Output>;
}

impl CloneBox for Output {
    fn clone_box(&self) -> Box<Output> {
        let mut copy = Box::new(Output::new());
        copy.code_len = self.code_len;
        copy.stub_len = self.stub_len;
        copy.guest_len = self.guest_len;
        copy.entries = self.entries;
        copy.entry_count = self.entry_count;
        copy.links = self.links;
        copy.link_count = self.link_count;
        copy.ends_in_lookup = self.ends_in_lookup;
        copy
    }
}

fn bytes_at(at: u64, len: usize) -> &'static mut [u8] {
    // SAFETY: callers stay inside the cache, which is mapped for good; the
    // world is the only one to use it (it holds the CPU lock).
    unsafe { std::slice::from_raw_parts_mut(at as *mut u8, len) }
}
