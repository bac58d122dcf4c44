//! The run loop: guest code until it needs the monitor, then what it needs.

use core::sync::atomic::Ordering;

use boundary::{inbox, vcpu_state};
use iced_x86::{Decoder, DecoderOptions, Mnemonic, OpKind, Register};

#[cfg(not(fuzzing))]
use crate::gate::enter_kernel;
#[cfg(fuzzing)]
use crate::harness::enter_kernel;

use crate::{
    code::NONE,
    event,
    gate::{self, context, gate, reason},
    layout::{PKRU_KERNEL, PKRU_KERNEL_NO_USER},
    proven::Masked,
    runner::ticks,
    signal::TRAP,
    space::local,
    state::{Fault, Monitor, page},
    sys,
    trap::in_user_mode,
};

/// RF: no breakpoint on execution at this instruction.
const RESUME: u64 = 0x1_0000;
/// DR6 without events (SDM vol. 3B 17.2.3), and its single-step bit.
const DR6: u64 = 0xffff_0ff0;
const DR6_STEP: u64 = 1 << 14;

/// Runs the vCPU in this space whenever it is its turn, for ever.
pub fn run(m: &mut Monitor) -> ! {
    page().vcpu_state.store(vcpu_state::RUNNING, Ordering::Relaxed);
    let mut link = NONE;
    loop {
        if m.ended {
            crate::crash::stop(m);
        }
        m.follow_base();
        if local().pending.take() {
            m.poll();
            link = NONE;
        }
        let rip = m.vcpu.rip;
        m.deliver_events();
        if m.vcpu.rip != rip {
            link = NONE;
        }
        let alone = m.vcpu.alone.take() == Some(m.vcpu.rip);
        if in_user_mode() && alone && m.runs_by_itself(m.vcpu.rip) {
            link = run_trap(m);
        } else if in_user_mode() && !alone && !m.runs_translated(m.vcpu.rip) {
            link = run_user(m, None);
        } else {
            link = run_translated(m, link);
        }
    }
}

impl Monitor {
    /// Timer and inbox.
    pub fn poll(&mut self) {
        self.poll_timer();
        let bits = page().inbox.swap(0, Ordering::Acquire);
        if bits & inbox::CONSOLE != 0 {
            self.raise(boundary::port::CONSOLE);
        }
        if bits & inbox::STORE != 0 {
            self.raise(boundary::port::STORE);
        }
        if bits & inbox::CHANNELS != 0 {
            self.attend_backends();
        }
        if bits & inbox::STATISTICS != 0 {
            crate::crash::log_statistics(self);
        }
        if bits & inbox::REGISTERS != 0 {
            crate::crash::snapshot(self);
        }
    }

    /// Must the return to user mode visit the monitor?
    fn needs_attention(&self) -> bool {
        self.vcpu.expected.is_some()
            || !self.user_half_is_loaded()
            || local().pending.is_raised()
            || self.is_unproven()
            || self.watches()
            || self.is_separate()
            || self.translates_user()
    }

    /// The translated system-call entry was at an address that was dropped (0 = any).
    pub fn forget_syscall_entry(&mut self, va: u64) {
        let entry = self.vcpu.callbacks.at(abi::callback::TYPE_SYSCALL.into()).address;
        if va == 0 || va == entry {
            gate().syscall_path = gate::syscall_slow();
        }
    }

    /// Opens the fast gate for system calls once their entry is translated.
    fn reopen_syscall_gate(&mut self) {
        let g = gate();
        if g.syscall_path == gate::syscall_fast() {
            return;
        }
        g.syscall_path = gate::syscall_slow();
        let cb = self.vcpu.callbacks.at(abi::callback::TYPE_SYSCALL.into());
        if cb.address == 0 {
            return;
        }
        if let Some(host) = self.code.published(cb.address, false) {
            g.syscall_entry = host;
            g.syscall_masks = u64::from(cb.flags & 1);
            g.syscall_path = gate::syscall_fast();
        }
    }

    /// Host FS and GS bases for both modes, from the guest's.
    pub fn update_bases(&mut self) {
        let g = gate();
        g.kernel_fs = kernel_base(self.vcpu.gs_kernel);
        g.user_fs = user_base(self.vcpu.fs_user);
        g.user_gs = user_base(self.vcpu.gs_user);
        g.kernel_stack = crate::guest::fold(self.vcpu.kernel_stack & !15);
    }
}

/// A base that WRFSBASE accepts, folded. The kernel's own lies in its half; one in the user
/// half has no place once folded and counts as 0.
fn kernel_base(base: u64) -> u64 {
    let host = crate::guest::fold(base);
    if host >> 47 == 0 { host } else { crate::guest::fold(0) }
}

/// A base that WRFSBASE accepts: canonical.
fn user_base(base: u64) -> u64 {
    if base >> 47 == 0 { base } else { 0 }
}

/// Guest user code, directly. Returns a link as `run_translated` does: the
/// fast gates may have gone on to the guest kernel. `one`: one instruction of so many
/// bytes, from the page's true form.
fn run_user(m: &mut Monitor, one: Option<u64>) -> u32 {
    if !m.user_half_is_loaded() {
        // Another space may run meanwhile: look at everything anew.
        m.need_user_half();
        return NONE;
    }
    m.note_program();
    let rip = m.vcpu.rip;
    if rip >> 47 != 0 {
        m.inject(Fault::Vector { vector: 13, code: Some(0) });
        return NONE;
    }
    let c = context();
    let guest_steps = c.rflags & TRAP != 0;
    let mut hits = 0;
    if m.watches() {
        let (execution, data) = m.hits();
        if execution != 0 && c.rflags & RESUME == 0 {
            m.vcpu.debug[6] = DR6 | execution;
            m.inject(Fault::Vector { vector: 1, code: None });
            return NONE;
        }
        hits = data;
    }
    let stepped = guest_steps || one.is_some() || m.watches();
    if stepped {
        c.rflags |= TRAP;
        m.replace_shadow(rip);
    }
    if let Some(length) = one {
        m.open_true_pages(rip, length);
    }
    if m.is_separate() {
        m.update_bases();
        let start = m.continuation(rip);
        m.run_program(start);
    } else {
        run_beside_kernel(m, rip, stepped);
    }
    if let Some(length) = one {
        m.close_true_pages(rip, length);
    }
    if stepped && !guest_steps {
        end_of_step(m, rip, hits);
    } else if hits != 0 && is_step(m) {
        m.vcpu.debug[6] |= hits;
    }
    after(m)
}

/// Runs user code in this space, behind its keys.
fn run_beside_kernel(m: &mut Monitor, rip: u64, stepped: bool) {
    if stepped {
        gate().syscall_path = gate::syscall_slow();
    } else {
        m.reopen_syscall_gate();
    }
    prepare(m);
    // Where the program is if the gate finds that somebody asked for attention just now.
    context().rip = rip;
    context().enter = m.continuation(rip);
    gate().user_rip = rip;
    local().user_step = stepped;
    // SAFETY: the gates keep the monitor's state; guest user code runs with
    // only its own keys open.
    unsafe {
        if stepped {
            gate::enter_user_stepping();
        } else {
            gate::enter_user();
        }
    }
    local().user_step = false;
}

/// The monitor stepped from `rip` for the guest's debug registers: only hits are told.
fn end_of_step(m: &mut Monitor, rip: u64, hits: u64) {
    let c = context();
    let trap = if is_step(m) { m.hide_trap_flag(rip) } else { 0 };
    c.rflags = c.rflags & !TRAP | trap;
    if is_step(m) {
        m.vcpu.debug[6] = DR6 | hits;
        if hits == 0 {
            c.reason = reason::ATTENTION;
        }
    }
}

/// Did user code leave because a single step ended?
fn is_step(m: &Monitor) -> bool {
    context().reason == reason::FAULT
        && m.vcpu.fault == Fault::Vector { vector: 1, code: None }
        && m.vcpu.debug[6] & DR6_STEP != 0
}

/// What the gates need to know before guest code runs.
fn prepare(m: &mut Monitor) {
    let attention = m.needs_attention();
    let g = gate();
    g.attention = u32::from(attention);
    g.pkru_kernel = if m.user_half_is_loaded() { PKRU_KERNEL } else { PKRU_KERNEL_NO_USER };
    m.update_bases();
}

/// Translated code. Returns the link through which the next block is wanted.
fn run_translated(m: &mut Monitor, link: u32) -> u32 {
    let user = in_user_mode();
    if user && !m.user_half_is_loaded() {
        m.need_user_half();
        return NONE;
    }
    if user {
        m.note_program();
    }
    let rip = m.vcpu.rip;
    let generation = m.code.generation;
    let published = if link == NONE { m.code.published(rip, user) } else { None };
    let enter = match published {
        Some(host) => host,
        None => {
            let block = match m.find_block(rip, user) {
                Ok(b) => b,
                Err(f) => {
                    m.inject(Fault::Page { address: f.va, code: f.code });
                    return NONE;
                }
            };
            if link != NONE {
                if generation == m.code.generation {
                    m.connect_link(link, block, rip, user);
                }
            } else if !user {
                // User addresses mean something else in every address space.
                m.code.publish(block);
            }
            m.code.enter_address(block)
        }
    };
    m.code.note(rip);
    enter_block(m, enter, user);
    after(m)
}

/// Runs translated code at host address `enter`.
fn enter_block(m: &mut Monitor, enter: u64, user: bool) {
    let c = context();
    c.rip = m.vcpu.rip;
    c.enter = enter;
    c.argument = 0;
    c.rflags &= !TRAP;
    if user {
        let u = gate::user_context();
        (u.argument, u.fold) = (0, translate::FOLD);
        gate().user_rip = m.vcpu.rip;
        (local().user_step, local().user_translated) = (false, true);
    }
    prepare(m);
    // SAFETY: the block was made by the translator; its memory accesses are
    // confined by fold and keys.
    unsafe {
        if user {
            gate::enter_user();
        } else {
            enter_kernel();
        }
    }
    local().user_translated = false;
}

/// The user instruction at a breakpoint of ours (`crate::scan`). If only its bytes
/// are those of another, it is run as it is: by a single step, after which the page
/// is closed again, nothing else is executed.
fn run_trap(m: &mut Monitor) -> u32 {
    m.stats.alone += 1;
    let (bytes, n) = m.fetch(m.vcpu.rip);
    let ins =
        Decoder::with_ip(64, bytes.get(..n).unwrap_or_default(), m.vcpu.rip, DecoderOptions::NONE)
            .decode();
    match ins.mnemonic() {
        Mnemonic::Xrstor | Mnemonic::Xrstor64 | Mnemonic::Wrpkru => m.emulate(),
        // A load of SS puts the step off by one instruction.
        _ if ins.op0_kind() == OpKind::Register && ins.op0_register() == Register::SS => {
            m.inject(Fault::Vector { vector: 13, code: Some(0) });
        }
        _ => return run_user(m, Some(ins.len() as u64)),
    }
    NONE
}

impl Monitor {
    /// Runs one kernel instruction by itself; see `Monitor::run_aliased`.
    pub fn run_alone(&mut self, rip: u64) -> Result<Option<u64>, Fault> {
        let block =
            self.find_alone(rip).map_err(|f| Fault::Page { address: f.va, code: f.code })?;
        let c = context();
        c.rip = rip;
        c.enter = self.code.enter_address(block);
        c.rflags &= !TRAP;
        prepare(self);
        // SAFETY: as in `run_translated`.
        unsafe { enter_kernel() };
        let c = context();
        match c.reason {
            reason::LINK | reason::INDIRECT => Ok(Some(c.target)),
            reason::FAULT => Err(self.vcpu.fault),
            // Not a form that can be translated.
            reason::EMULATE => Err(Fault::Vector { vector: 6, code: None }),
            _ => Ok(Some(c.rip)),
        }
    }
}

/// Serves the exit that just happened.
pub fn after(m: &mut Monitor) -> u32 {
    let c = context();
    if !in_user_mode() {
        c.rflags &= !TRAP;
    }
    if c.reason == reason::USER_EXIT {
        c.reason = gate::user_exit();
    }
    match c.reason {
        reason::LINK => {
            m.vcpu.rip = c.target;
            (c.argument as u32).wrapping_sub(1)
        }
        reason::INDIRECT => {
            m.vcpu.rip = c.target;
            NONE
        }
        _ => {
            m.vcpu.rip = c.rip;
            dispatch(m);
            NONE
        }
    }
}

impl Monitor {
    fn connect_link(&mut self, link: u32, block: u32, target: u64, user: bool) {
        let Some(l) = self.code.links.get(link as usize).copied() else { return };
        let Some(from) = self.code.blocks.get(l.from as usize).copied() else { return };
        // User translations across pages are not linked: the mapping may change.
        let near = !user || (from.va ^ target) >> 12 == 0 && from.frame2 == NONE;
        if l.target == target && from.valid && from.user == user && near {
            self.code.connect(link, block);
        }
    }
}

/// Serves an exit; `vcpu.rip` is set.
fn dispatch(m: &mut Monitor) {
    let c = context();
    match c.reason {
        reason::SYSCALL => {
            gate().user_mode = 1;
            m.stats.slow_syscalls += 1;
            m.enter_syscall();
        }
        reason::HYPERCALL if !in_user_mode() => {
            m.stats.hypercalls += 1;
            m.hypercall();
        }
        reason::HYPERCALL => m.enter_syscall(),
        reason::EMULATE => {
            m.stats.emulated += 1;
            m.emulate();
        }
        reason::FAULT => m.inject(m.vcpu.fault),
        reason::SWITCH => m.need_user_half(),
        reason::STATE => m.need_state(),
        reason::ATTENTION | reason::RETRANSLATE => {}
        other => crate::crash::end_with(m, |w| {
            use core::fmt::Write;
            let _ = write!(w, "guest code left for an unknown reason {other}");
        }),
    }
}

impl Monitor {
    /// Waits until an event is pending or the timer fires.
    pub fn idle(&mut self) {
        if self.is_separate() {
            self.clean_runners();
        }
        loop {
            local().pending.take();
            let seen = page().wake.load(Ordering::Acquire);
            self.poll();
            if event::upcall_pending() || self.ended {
                return;
            }
            if self.halted.expects_soon() && self.look_around() {
                continue;
            }
            let wait = match self.timer.deadline {
                0 => None,
                d => Some(d.saturating_sub(self.now())),
            };
            page().vcpu_state.store(vcpu_state::BLOCKED, Ordering::Release);
            let before = ticks();
            sys::futex_wait(&page().wake, seen, wait);
            page().vcpu_state.store(vcpu_state::RUNNING, Ordering::Release);
            self.halted.note(ticks().wrapping_sub(before));
        }
    }

    /// Stays awake for a while, since the last waits were short. True if there is something to do.
    fn look_around(&mut self) -> bool {
        if self.setup.cpus < 2 {
            return false;
        }
        page().vcpu_state.store(vcpu_state::BLOCKED, Ordering::Release);
        let before = ticks();
        let came = loop {
            if page().inbox.load(Ordering::Acquire) != 0 || local().pending.is_raised() {
                break true;
            }
            if ticks().wrapping_sub(before) > Halts::AWAKE {
                break false;
            }
            core::hint::spin_loop();
        };
        page().vcpu_state.store(vcpu_state::RUNNING, Ordering::Release);
        if came {
            self.halted.note(ticks().wrapping_sub(before));
        }
        came
    }
}

/// How long the guest was idle lately. After short waits it does not sleep at once: being woken costs
/// more than they last.
#[derive(Clone, Copy, Default)]
pub struct Halts(u8);

impl Halts {
    /// How long to stay awake, in ticks of the TSC: some 20 to 50 microseconds.
    const AWAKE: u64 = 100_000;
    /// How sure one must be, and can be.
    const SURE: u8 = 4;
    const SUREST: u8 = 8;

    fn expects_soon(self) -> bool {
        self.0 >= Self::SURE
    }

    fn note(&mut self, took: u64) {
        // Being woken is part of it.
        self.0 = if took < 2 * Self::AWAKE { (self.0 + 1).min(Self::SUREST) } else { self.0 / 2 };
    }
}

impl Monitor {
    /// Waits once, until something may have happened or `until` (system time,
    /// 0 = no limit) has come.
    pub fn wait_until(&mut self, until: u64) {
        let seen = page().wake.load(Ordering::Acquire);
        self.poll();
        let wait = (until != 0).then(|| until.saturating_sub(self.now()));
        if wait != Some(0) && page().inbox.load(Ordering::Relaxed) == 0 {
            page().vcpu_state.store(vcpu_state::BLOCKED, Ordering::Release);
            sys::futex_wait(&page().wake, seen, wait);
            page().vcpu_state.store(vcpu_state::RUNNING, Ordering::Release);
        }
        self.poll();
    }
}
