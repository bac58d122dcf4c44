//! Runs machine code from a given register state until it traps, by way of the
//! signal frame: one trap loads the state, the next one takes it out again.

use std::arch::asm;
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, Once};

/// Bytes of a signal frame's extended state at most (AMX hosts have 11 KiB).
const FRAME_LIMIT: usize = 16384;
/// Offsets in the XSAVE area (Intel SDM vol. 1, 13.4).
const XMM: usize = 160;
const XSTATE_BV: usize = 512;
const YMM_HIGH: usize = 576;
/// State bits of AVX-512: masks, upper halves of ZMM0..15, ZMM16..31. The C library uses them too.
const AVX512: u8 = 7 << 5;
/// Length of the x87 and MXCSR part.
pub const LEGACY: usize = XMM;
/// CF, PF, AF, ZF, SF, DF, OF, AC, ID.
pub const FLAGS: u64 = 0x24_0cd5;

/// Trap numbers (Intel SDM vol. 3, 6.3.1).
pub const DEBUG: i64 = 1;
pub const INVALID: i64 = 6;
pub const STACK: i64 = 12;
pub const PROTECTION: i64 = 13;
pub const PAGE: i64 = 14;

/// Registers of one run.
#[derive(Clone, PartialEq, Eq)]
pub struct State {
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8..R15.
    pub regs: [u64; 16],
    pub rip: u64,
    pub flags: u64,
    pub fs: u64,
    pub gs: u64,
    pub ymm: [[u8; 32]; 16],
    /// AVX-512's mask registers.
    pub masks: [u64; 8],
    /// Upper halves of ZMM0..15, and ZMM16..31.
    pub wide: [[u8; 512]; 3],
    /// FXSAVE bytes 0..160: x87 and MXCSR.
    pub legacy: [u8; LEGACY],
}

impl State {
    /// All zero, with the control words of a fresh process.
    pub fn new() -> State {
        let mut legacy = [0; LEGACY];
        legacy[..2].copy_from_slice(&0x37f_u16.to_le_bytes());
        legacy[24..28].copy_from_slice(&0x1f80_u32.to_le_bytes());
        legacy[28..32].copy_from_slice(&0xffff_u32.to_le_bytes());
        State {
            regs: [0; 16],
            rip: 0,
            flags: 0x202,
            fs: 0,
            gs: 0,
            ymm: [[0; 32]; 16],
            masks: [0; 8],
            wide: [[0; 512]; 3],
            legacy,
        }
    }
}

/// How a run ended.
#[derive(Clone)]
pub struct Trap {
    pub state: State,
    pub number: i64,
    pub error: i64,
    /// CR2 of a page fault.
    pub address: u64,
}

struct Shared {
    load: State,
    trap: Option<Trap>,
    saved_regs: [i64; 23],
    saved_frame: [u8; FRAME_LIMIT],
    inside: bool,
    host_fs: u64,
    pkru: Option<u32>,
    /// Where AVX-512's components lie in the frame, if the CPU has them.
    avx512_at: Option<[usize; 3]>,
}

struct SharedCell(UnsafeCell<Option<Shared>>);
// SAFETY: only the holder of `LOCK` and the signals it raises itself touch it.
unsafe impl Sync for SharedCell {}

static SHARED: SharedCell = SharedCell(UnsafeCell::new(None));
static LOCK: Mutex<()> = Mutex::new(());
static ARMED: AtomicBool = AtomicBool::new(false);

/// Position of each register of [`State::regs`] in `gregs`.
const ORDER: [usize; 16] = [13, 14, 12, 11, 15, 10, 9, 8, 0, 1, 2, 3, 4, 5, 6, 7];
const RIP: usize = 16;
const EFLAGS: usize = 17;
const ERROR: usize = 19;
const NUMBER: usize = 20;
const CR2: usize = 22;

/// The right to run code; one at a time in the process.
pub struct Cpu {
    _guard: MutexGuard<'static, ()>,
}

impl Cpu {
    pub fn new() -> Cpu {
        let guard = LOCK.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        static HANDLERS: Once = Once::new();
        HANDLERS.call_once(install);
        alternate_stack();
        let host_fs: u64;
        // SAFETY: reads a register.
        unsafe { asm!("rdfsbase {}", out(reg) host_fs) };
        let shared = Shared {
            load: State::new(),
            trap: None,
            saved_regs: [0; 23],
            saved_frame: [0; FRAME_LIMIT],
            inside: false,
            host_fs,
            pkru: None,
            avx512_at: avx512_offsets(),
        };
        // SAFETY: the lock is held and no run is going on.
        unsafe { *SHARED.0.get() = Some(shared) };
        Cpu { _guard: guard }
    }

    /// PKRU in the last trap's frame.
    pub fn pkru(&self) -> Option<u32> {
        // SAFETY: the lock is held and no run is going on.
        unsafe { (*SHARED.0.get()).as_ref().and_then(|shared| shared.pkru) }
    }

    /// Runs from `state` to the next trap.
    pub fn run(&mut self, state: &State) -> Trap {
        // SAFETY: as above; the handler uses the same pointer while this
        // function holds no reference. The handler puts every register back.
        unsafe {
            let shared = SHARED.0.get();
            if let Some(shared) = &mut *shared {
                shared.load = state.clone();
                shared.trap = None;
            }
            ARMED.store(true, Ordering::SeqCst);
            asm!("ud2");
            ARMED.store(false, Ordering::SeqCst);
            (*shared).as_mut().and_then(|shared| shared.trap.take()).expect("a trap ends each run")
        }
    }
}

fn install() {
    // SAFETY: plain signal set-up; the handler follows the rules of `handle`.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handle as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigfillset(&mut action.sa_mask);
        for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP] {
            assert_eq!(libc::sigaction(signal, &action, std::ptr::null_mut()), 0);
        }
    }
}

/// A signal stack for this thread, large enough for any frame.
fn alternate_stack() {
    const SIZE: usize = 1 << 18;
    // SAFETY: fresh memory, given to the kernel for good.
    unsafe {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let memory = libc::mmap(std::ptr::null_mut(), SIZE, protection, flags, -1, 0);
        assert_ne!(memory, libc::MAP_FAILED);
        let stack = libc::stack_t { ss_sp: memory, ss_flags: 0, ss_size: SIZE };
        assert_eq!(libc::sigaltstack(&stack, std::ptr::null_mut()), 0);
    }
}

fn set_bases(fs: u64, gs: u64) {
    // SAFETY: the caller knows what the bases are for; non-canonical ones would fault.
    unsafe { asm!("wrfsbase {}", "wrgsbase {}", in(reg) fs, in(reg) gs) };
}

/// No TLS until the host's FS base is back: the trap may come from guest code.
extern "C" fn handle(_signal: i32, _info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid frame; `SHARED` belongs to the run that trapped.
    unsafe {
        let Some(shared) = &mut *SHARED.0.get() else { libc::_exit(101) };
        let (mut fs, mut gs) = (0_u64, 0_u64);
        asm!("rdfsbase {}", "rdgsbase {}", out(reg) fs, out(reg) gs);
        set_bases(shared.host_fs, 0);
        let machine = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext;
        let area = machine.fpregs.cast::<u8>();
        let size = area.add(468).cast::<u32>().read_unaligned() as usize;
        if !ARMED.load(Ordering::SeqCst) || size > FRAME_LIMIT {
            // A fault of the test program itself.
            let message = b"fault outside of a run\n";
            libc::write(2, message.as_ptr().cast(), message.len());
            libc::abort();
        }
        let frame = std::slice::from_raw_parts_mut(area, size);
        if shared.inside {
            let mut state = State { fs, gs, ..State::new() };
            read_state(&machine.gregs, frame, &mut state);
            read_avx512(frame, shared.avx512_at, &mut state);
            shared.pkru = read_pkru(frame);
            shared.trap = Some(Trap {
                state,
                number: machine.gregs[NUMBER],
                error: machine.gregs[ERROR],
                address: machine.gregs[CR2] as u64,
            });
            machine.gregs[..18].copy_from_slice(&shared.saved_regs[..18]);
            machine.gregs[RIP] += 2;
            frame.copy_from_slice(&shared.saved_frame[..size]);
            shared.inside = false;
        } else {
            shared.saved_regs = machine.gregs;
            shared.saved_frame[..size].copy_from_slice(frame);
            write_state(&mut machine.gregs, frame, &shared.load);
            write_avx512(frame, shared.avx512_at, &shared.load);
            shared.inside = true;
            set_bases(shared.load.fs, shared.load.gs);
        }
    }
}

/// PKRU lies at an offset CPUID tells (leaf 0xd, sub-leaf 9).
fn read_pkru(frame: &[u8]) -> Option<u32> {
    let leaf = std::arch::x86_64::__cpuid_count(0xd, 9);
    // Four bytes on some processors, padded to eight on others.
    if leaf.eax < 4 || frame[XSTATE_BV + 1] & 2 == 0 {
        return None;
    }
    let at = leaf.ebx as usize;
    Some(u32::from_le_bytes(frame.get(at..at + 4)?.try_into().ok()?))
}

/// They lie at offsets CPUID tells (leaf 0xd, sub-leaves 5 to 7).
fn avx512_offsets() -> Option<[usize; 3]> {
    let leaves = [5, 6, 7].map(|component| std::arch::x86_64::__cpuid_count(0xd, component));
    let sizes = leaves.map(|leaf| leaf.eax);
    (sizes == [64, 512, 1024]).then(|| leaves.map(|leaf| leaf.ebx as usize))
}

/// Where it is missing its part of a [`State`] stays as it is at the start.
pub fn has_avx512() -> bool {
    avx512_offsets().is_some()
}

fn read_avx512(frame: &[u8], at: Option<[usize; 3]>, state: &mut State) {
    let Some([masks, upper, high]) = at else { return };
    let present = |component: u8| frame[XSTATE_BV] & 1 << component != 0;
    if present(5) {
        for (mask, bytes) in state.masks.iter_mut().zip(frame[masks..].as_chunks().0) {
            *mask = u64::from_le_bytes(*bytes);
        }
    }
    if present(6) {
        state.wide[0].copy_from_slice(&frame[upper..][..512]);
    }
    if present(7) {
        state.wide.as_flattened_mut()[512..].copy_from_slice(&frame[high..][..1024]);
    }
}

fn write_avx512(frame: &mut [u8], at: Option<[usize; 3]>, state: &State) {
    let Some([masks, upper, high]) = at else { return };
    for (mask, bytes) in state.masks.iter().zip(frame[masks..].as_chunks_mut().0) {
        *bytes = mask.to_le_bytes();
    }
    frame[upper..][..512].copy_from_slice(&state.wide[0]);
    frame[high..][..1024].copy_from_slice(&state.wide.as_flattened()[512..]);
    frame[XSTATE_BV] |= AVX512;
}

fn read_state(gregs: &[i64; 23], frame: &[u8], state: &mut State) {
    for (register, from) in state.regs.iter_mut().zip(ORDER) {
        *register = gregs[from] as u64;
    }
    state.rip = gregs[RIP] as u64;
    state.flags = gregs[EFLAGS] as u64;
    let present = frame[XSTATE_BV];
    if present & 1 != 0 {
        state.legacy[..24].copy_from_slice(&frame[..24]);
        state.legacy[32..].copy_from_slice(&frame[32..LEGACY]);
    }
    state.legacy[24..32].copy_from_slice(&frame[24..32]);
    for (i, ymm) in state.ymm.iter_mut().enumerate() {
        if present & 2 != 0 {
            ymm[..16].copy_from_slice(&frame[XMM + 16 * i..][..16]);
        }
        if present & 4 != 0 {
            ymm[16..].copy_from_slice(&frame[YMM_HIGH + 16 * i..][..16]);
        }
    }
}

fn write_state(gregs: &mut [i64; 23], frame: &mut [u8], state: &State) {
    for (register, to) in state.regs.iter().zip(ORDER) {
        gregs[to] = *register as i64;
    }
    gregs[RIP] = state.rip as i64;
    gregs[EFLAGS] = (state.flags & (FLAGS | 0x100) | 0x202) as i64;
    frame[..LEGACY].copy_from_slice(&state.legacy);
    frame[XSTATE_BV] |= 7;
    for (i, ymm) in state.ymm.iter().enumerate() {
        frame[XMM + 16 * i..][..16].copy_from_slice(&ymm[..16]);
        frame[YMM_HIGH + 16 * i..][..16].copy_from_slice(&ymm[16..]);
    }
}
