//! The steps of an input.

use super::{
    check,
    guest::{self, FRAMES, FREE},
    host::host,
    input::Input,
};
use crate::{
    gate::{context, gate},
    guest::{fold, is_kernel},
    run,
    space::local,
    state::{Fault, Monitor},
    tlb::UserAccess,
};

/// Kinds of steps.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Bytes into a frame.
    Write,
    /// An entry into a table.
    Entry,
    /// A hypercall.
    Hypercall,
    /// One of the page-table hypercalls, in its right form.
    Update,
    /// A user address is touched.
    TouchUser,
    /// A kernel address is touched.
    TouchKernel,
    /// The kernel's translated code reaches for user memory.
    Reach,
    /// Flushes, and the comparison with the tables.
    Flush,
    /// Code is translated.
    Translate,
    /// Another address space.
    Base,
    /// A system call of a program: its site is patched.
    Patch,
    /// The host refuses one of the next mappings.
    Refuse,
    /// An instruction is emulated.
    Emulate,
    /// Registers.
    Registers,
    /// An exception or event.
    Inject,
    /// A runner's report.
    Report,
    /// Events, timer, idling.
    Poll,
}

use Kind::*;

/// Hypercalls with any arguments.
pub const HYPERCALLS: &[Kind] =
    &[Hypercall, Hypercall, Hypercall, Write, Entry, Update, TouchUser, Translate, Poll, Base];
/// Page tables, and what is mapped by them.
pub const TABLES: &[Kind] = &[
    Entry,
    Entry,
    Update,
    TouchUser,
    TouchUser,
    TouchKernel,
    Reach,
    Flush,
    Flush,
    Translate,
    Base,
    Patch,
    Refuse,
    Write,
];
/// Instructions, exceptions, and reports of runners.
pub const EMULATE: &[Kind] =
    &[Emulate, Emulate, Registers, Write, Inject, Report, Report, Poll, Hypercall, TouchUser, Base];

pub struct Steps<'a> {
    kinds: &'a [Kind],
}

impl<'a> Steps<'a> {
    pub fn new(kinds: &'a [Kind]) -> Steps<'a> {
        Steps { kinds }
    }

    pub fn step(&mut self, m: &mut Monitor, input: &mut Input) {
        let kind = self.kinds[usize::from(input.byte()) % self.kinds.len()];
        match kind {
            Write => {
                let (frame, offset, len) = (input.frame(), input.half(), input.byte() & 63);
                let bytes = input.bytes(len.into());
                if frame < FRAMES {
                    // As translated code or a program would: after the monitor gave the page.
                    m.before_write(frame as u32);
                    guest::write(frame, offset.into(), bytes);
                }
            }
            Entry => {
                let (table, index, entry) = (input.frame(), index(input), entry(input));
                if table < FRAMES {
                    m.before_write(table as u32);
                    guest::set(table, index, entry);
                }
            }
            Hypercall => {
                let number = u64::from(input.byte() % 42);
                let args = [(); 5].map(|()| input.number());
                hypercall(m, number, args);
            }
            Update => update(m, input),
            TouchUser => {
                let (va, bits) = (input.address(), input.byte());
                let access = UserAccess {
                    write: bits & 1 != 0,
                    fetch: bits & 2 != 0,
                    from_user: bits & 4 != 0,
                };
                if !is_kernel(va) {
                    m.load_user_half();
                    if !m.ended {
                        touch_user(m, va, access);
                    }
                }
            }
            TouchKernel => {
                let (va, write) = (input.address(), input.byte() & 1 != 0);
                if is_kernel(va) {
                    let _ = m.resolve_kernel(va, write);
                }
            }
            Reach => reach(m, input),
            Flush => flush(m, input),
            Translate => {
                let (va, user) = (input.address(), input.byte() & 7 == 0);
                if m.translates_user() || !user {
                    let _ = m.find_block(va, user);
                }
            }
            Base => base(m, input),
            Patch => {
                let (rip, rax) = (input.address(), input.byte());
                if !is_kernel(rip) && rip >> 47 == 0 && m.user_half_is_loaded() {
                    m.patch_site(rip, rax.into());
                    let access = UserAccess { write: false, fetch: true, from_user: true };
                    touch_user(m, rip, access);
                    let _ = (m.continuation(rip), m.fill_late(rip), m.is_site_rest(rip));
                }
            }
            Refuse => host().refuse = u32::from(input.byte() & 7),
            Emulate => emulate(m, input),
            Registers => registers(m, input),
            Inject => inject(m, input),
            Report => report(m, input),
            Poll => match input.byte() & 3 {
                0 => m.poll(),
                1 => m.deliver_events(),
                2 => m.need_state(),
                _ => local().pending.raise(),
            },
        }
    }
}

/// Mostly the first entries, which are in use.
fn index(input: &mut Input) -> u64 {
    match input.byte() {
        n @ 0..224 => u64::from(n) % FRAMES,
        n => u64::from(n) << 1 | 1,
    }
}

/// A present entry of a guest's frame, or any.
fn entry(input: &mut Input) -> u64 {
    let bits = input.byte();
    if bits == 255 {
        return input.word();
    }
    let nx = if bits & 0x10 != 0 { 1 << 63 } else { 0 };
    let dirty = if bits & 0x08 != 0 { 0x60 } else { 0 };
    let large = if bits & 0xe0 == 0xe0 { 0x80 } else { 0 };
    input.frame() << 12 & 0xf_ffff_ffff_f000 | u64::from(bits & 7) | dirty | large | nx
}

/// The call as the gate hands it over; kernel mode.
fn hypercall(m: &mut Monitor, number: u64, args: [u64; 5]) {
    gate().user_mode = 0;
    let c = context();
    c.regs[0] = number;
    for (register, value) in [7, 6, 2, 10, 8].into_iter().zip(args) {
        c.regs[register] = value;
    }
    let any = matches!(number, abi::hypercall::GET_DEBUGREG | abi::hypercall::IRET);
    m.hypercall();
    let answer = context().regs[0] as i64;
    assert!(any || answer >= -4095, "hypercall {number} answers {answer:#x}");
}

/// Bytes of a structure in the guest's memory, and where.
fn place(m: &mut Monitor, frame: u64, words: &[u64]) -> u64 {
    m.before_write(frame as u32);
    for (i, word) in words.iter().enumerate() {
        guest::set(frame, i as u64, *word);
    }
    crate::guest::DIRECT_MAP + (frame << 12)
}

fn update(m: &mut Monitor, input: &mut Input) {
    use abi::{hypercall as nr, mmu};
    let frame = FREE + u64::from(input.byte() & 7);
    match input.byte() & 3 {
        0 => {
            let (table, index) = (input.frame(), index(input));
            let kind = u64::from(input.byte() & 3);
            let value = entry(input);
            let list = place(m, frame, &[table << 12 | index << 3 | kind, value]);
            hypercall(m, nr::MMU_UPDATE, [list, 1, 0, abi::DOMID_SELF.into(), 0]);
        }
        1 => {
            let (va, value, flags) = (input.address(), entry(input), input.byte() & 7);
            hypercall(m, nr::UPDATE_VA_MAPPING, [va, value, flags.into(), 0, 0]);
            if context().regs[0] == 0 {
                let whole = u64::from(flags) & mmu::UVMF_MASK == mmu::UVMF_TLB_FLUSH;
                check::against_tables(m, (!whole).then_some(va & !0xfff));
            }
        }
        2 => {
            let command = u64::from(input.byte() & 31);
            let (first, second) = (input.number(), input.number());
            let list = place(m, frame, &[command, first, second]);
            hypercall(m, nr::MMUEXT_OP, [list, 1, 0, abi::DOMID_SELF.into(), 0]);
        }
        _ => {
            let call = u64::from(input.byte() % 42);
            let mut words = [0; 16];
            for word in &mut words[2..7] {
                *word = input.number();
            }
            words[0] = call;
            words[8] = nr::MMUEXT_OP;
            let list = place(m, frame, &words);
            hypercall(m, nr::MULTICALL, [list, 2, 0, 0, 0]);
        }
    }
}

/// Touches a page, and sees whether it is there now as far as it may be.
fn touch_user(m: &mut Monitor, va: u64, access: UserAccess) {
    let root = u64::from(m.vcpu.kernel_root);
    let now = guest::walk(root, va);
    let may = now.as_ref().is_some_and(|now| {
        (now.user || !access.from_user)
            && (now.write || !access.write)
            && (now.exec || !access.fetch)
    });
    let given = m.resolve_user(va, access).is_ok();
    assert!(may || !given, "{va:#x} was given for {access:?}");
    // Pages of the kernel's alone are reached otherwise, but where a key guards them.
    let guarded = !m.is_separate() && !crate::tlb::is_aliased(va);
    let there = now.is_some_and(|now| now.user || guarded) && crate::tlb::is_available(va);
    assert!(given || !may || !there, "{va:#x} was not given for {access:?}");
}

fn reach(m: &mut Monitor, input: &mut Input) {
    let (va, write) = (input.address(), input.byte() & 1 != 0);
    let root = u64::from(m.vcpu.kernel_root);
    if let Ok(frame) = m.frame_for(va, write) {
        let now = guest::walk(root, va).expect("given, but not there");
        assert!(now.frame == u64::from(frame));
        assert!(!write || now.write || is_kernel(va));
    }
    if m.is_separate() {
        // mov rax, [r14] or mov [r14], rax.
        let code = [0x49, if write { 0x89 } else { 0x8b }, 0x06];
        context().regs[14] = va;
        let ins = iced_x86::Decoder::with_ip(64, &code, guest::USER, 0).decode();
        host().leaving = (crate::gate::reason::INDIRECT, guest::USER);
        let _ = m.run_on_user(&ins);
    }
}

fn flush(m: &mut Monitor, input: &mut Input) {
    match input.byte() & 3 {
        0 => {
            m.flush_all();
            check::against_tables(m, None);
        }
        1 => {
            let va = input.address();
            m.flush_page(va);
            check::against_tables(m, Some(va & !0xfff));
        }
        2 => {
            let va = input.address() & !0xfff;
            if !is_kernel(va) && m.user_half_is_loaded() {
                m.unmap_user_page(va);
            }
        }
        _ => {
            if m.user_half_is_loaded() {
                m.drop_user_half();
            }
        }
    }
}

/// Loads another top-level table, and perhaps its user half at once. What was not flushed while the
/// half lay idle is found out then.
fn base(m: &mut Monitor, input: &mut Input) {
    let bits = input.byte();
    let root = match bits & 3 {
        0 => 0,
        1 => guest::SECOND_ROOT,
        2 => u64::from(m.vcpu.kernel_root),
        _ => input.frame(),
    };
    if bits & 4 != 0 && root < FRAMES {
        m.spaces.retire(root as u32);
    }
    let list = place(m, FREE, &[abi::mmu::NEW_BASEPTR.into(), root, 0]);
    // The guest may have mapped another frame where its direct map has this one.
    let seen = m.read_value(list) == Ok([u64::from(abi::mmu::NEW_BASEPTR), root]);
    hypercall(m, abi::hypercall::MMUEXT_OP, [list, 1, 0, abi::DOMID_SELF.into(), 0]);
    if bits & 8 != 0 {
        let compared = (seen && context().regs[0] == 0) || !m.user_half_is_loaded();
        m.load_user_half();
        if !m.ended && compared {
            user_half_is_fresh(m);
        }
    }
}

/// A loaded user half was compared with its tables; the kernel half need not be.
fn user_half_is_fresh(m: &mut Monitor) {
    assert!(m.user_half_is_loaded());
    let regions: alloc::vec::Vec<u64> = m.user_space().user.regions.keys().copied().collect();
    for region in regions {
        for page in 0..512 {
            let va = region << 21 | page << 12;
            if m.user_space().user.get(va).is_some() {
                check::against_tables(m, Some(va));
            }
        }
    }
}

fn registers(m: &mut Monitor, input: &mut Input) {
    let c = context();
    for _ in 0..1 + (input.byte() & 7) {
        let (register, value) = (usize::from(input.byte() & 15), input.number());
        c.regs[register] = if register == 4 { fold(value) } else { value };
    }
    c.rflags = u64::from(input.half()) << 4;
    m.vcpu.rip = input.address();
    gate().user_mode = u64::from(input.byte() & 1);
}

fn emulate(m: &mut Monitor, input: &mut Input) {
    let bits = input.byte();
    let frame = FREE + u64::from(bits & 15);
    let offset = if bits & 16 != 0 { 0xff8 } else { 0x100 };
    let len = input.byte() & 15;
    let bytes = input.bytes(len.into());
    m.before_write(frame as u32);
    guest::write(frame, offset, bytes);
    gate().user_mode = u64::from(bits & 32 != 0);
    let base = if bits & 32 != 0 { guest::USER } else { crate::guest::IMAGE_MAP };
    m.vcpu.rip = base + (frame << 12) + offset as u64;
    if bits & 64 != 0 {
        m.code.user_access.insert(m.vcpu.rip);
    }
    host().leaving = (u64::from(input.byte() & 15), input.address());
    m.emulate();
}

fn fault(input: &mut Input) -> Fault {
    let (vector, code) = (input.byte(), u32::from(input.byte()));
    if vector == 14 {
        return Fault::Page { address: input.address(), code };
    }
    Fault::Vector { vector, code: (code & 1 != 0).then_some(code) }
}

fn inject(m: &mut Monitor, input: &mut Input) {
    let vector = usize::from(input.byte());
    m.vcpu.traps[vector].address = input.address();
    m.vcpu.traps[vector].flags = input.byte();
    m.vcpu.kernel_stack = input.address();
    match input.byte() & 3 {
        0 => m.iret(),
        1 => m.enter_syscall(),
        _ => m.inject(fault(input)),
    }
}

/// A program ran in a runner, which now says anything; or in this space, and met a signal.
fn report(m: &mut Monitor, input: &mut Input) {
    let r = &mut host().report;
    r.event = u32::from(input.byte() % 6);
    for _ in 0..input.byte() & 3 {
        r.regs[usize::from(input.byte() & 15)] = input.number();
    }
    (r.rip, r.rsp) = (input.address(), input.address());
    r.rflags = u64::from(input.half());
    r.signal.number = match input.byte() {
        n @ 0..128 => u32::from(n) & 31,
        n => [4, 5, 7, 8, 10, 11, 14, 31][usize::from(n & 7)],
    };
    r.signal.code = u32::from(input.byte() & 7);
    r.signal.call = input.address();
    r.signal.arch = if input.byte() & 1 != 0 { 0xc000_003e } else { 0x4000_0003 };
    r.signal.trap = u32::from(input.byte() & 31);
    r.signal.error = u64::from(input.byte());
    r.signal.address = input.address();
    m.load_user_half();
    if m.ended {
        return;
    }
    gate().user_mode = 1;
    if m.is_separate() {
        m.vcpu.rip = input.address();
        m.update_bases();
        let start = m.continuation(m.vcpu.rip);
        m.run_program(start);
    } else {
        let report = host().report;
        let c = context();
        (c.regs, c.rip, c.rflags, c.regs[4]) = (report.regs, report.rip, report.rflags, report.rsp);
        c.reason = crate::gate::reason::ATTENTION;
        m.user_signal(&report.signal);
    }
    if !m.ended {
        run::after(m);
    }
}
