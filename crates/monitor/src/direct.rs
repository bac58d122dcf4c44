//! Direct execution of guest user code: patched system-call sites.
//!
//! A `syscall` instruction of user code raises SIGSYS. Sites seen at work are
//! patched, in a shadow copy of the code page that only the executable mapping
//! shows, to a 7-byte `jmp [abs32]` through a low table. The stub behind it
//! loads what the replaced instructions would have loaded and enters the gate.
//! Addresses inside a patched site that the guest kernel may return to are
//! found in the continuation table on every entry to user mode.

use alloc::vec::Vec;

use hashbrown::HashMap;

use crate::{
    code::{Hash, writable},
    gate,
    layout::{
        ARENA_RUNNERS, CONTINUE, CONTINUE_ENTRIES, RETURNS, RUNNER_RETURNS, RUNNER_SIZE,
        RUNNER_TARGETS, SITE_SLOTS, SITE_STUB, SITE_STUBS, at,
    },
    runner,
    state::{Frame, Monitor, is_separate},
};

/// Which instructions a site replaces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    /// `mov eax, imm32; syscall` (7 bytes).
    MovEax,
    /// `mov rax, simm32; syscall` (9 bytes): the first 7 are replaced.
    MovRax,
    /// `syscall; cmp rax, simm32` (8 bytes): the first 7 are replaced.
    Compare,
}

impl Form {
    /// Bytes from the start of the site to the return address of its system call.
    fn to_return(self) -> u64 {
        match self {
            Form::MovEax => 7,
            Form::MovRax => 9,
            Form::Compare => 2,
        }
    }
}

/// A patched site.
#[derive(Clone, Copy)]
struct Site {
    frame: u32,
    offset: u16,
    form: Form,
}

/// All sites of a domain; slots are never reused before the code cache's stubs are.
pub struct Sites {
    slots: Vec<Site>,
    by_frame: HashMap<u32, Vec<u16>, Hash>,
    /// Shadow copies dropped because programs read them, by frame.
    read: HashMap<u32, u8, Hash>,
}

/// After so many reads of its shadow copy a frame is not patched again.
const READS: u8 = 3;

impl Sites {
    /// None yet.
    pub fn new() -> Sites {
        Sites {
            slots: Vec::new(),
            by_frame: HashMap::with_hasher(Hash::default()),
            read: HashMap::with_hasher(Hash::default()),
        }
    }

    /// Slots in use.
    pub fn count(&self) -> usize {
        self.slots.len()
    }

    /// A slot's form, and where its site and the return from it lie with its
    /// frame mapped at `page`.
    fn at(&self, slot: u16, page: u64) -> (Form, u64, u64) {
        let s = self.slots[usize::from(slot)];
        let site = page + u64::from(s.offset);
        (s.form, site, site + s.form.to_return())
    }
}

/// What user code in one process needs of the patched sites, by slot.
#[derive(Clone, Copy)]
pub struct Tables {
    targets: u64,
    returns: u64,
}

impl Tables {
    /// Those of this space.
    fn own() -> Tables {
        Tables { targets: at::SITES, returns: RETURNS }
    }

    /// Those of a runner, seen through the arena.
    pub fn of_runner(runner: usize) -> Tables {
        let part = at::ARENA + ARENA_RUNNERS + runner as u64 * RUNNER_SIZE;
        Tables { targets: part + RUNNER_TARGETS, returns: part + RUNNER_RETURNS }
    }

    /// Jump targets.
    fn targets(&self) -> &'static mut [u64; SITE_SLOTS] {
        // SAFETY: mapped at start; one process at a time uses them.
        unsafe { &mut *(self.targets as *mut [u64; SITE_SLOTS]) }
    }

    /// Return addresses: where the call returns to, and where the code after
    /// the site goes on.
    fn returns(&self) -> &'static mut [[u64; 2]; SITE_SLOTS] {
        // SAFETY: as above.
        unsafe { &mut *(self.returns as *mut [[u64; 2]; SITE_SLOTS]) }
    }

    /// Empties the first `slots`.
    pub fn init(&self, slots: usize) {
        for (slot, target) in self.targets().iter_mut().enumerate().take(slots) {
            *target = unfilled(slot);
        }
    }
}

/// This space's continuations: address, where to go instead. The gates look them
/// up, so an address has one entry; for runners the monitor does, in
/// `Space::continuations`.
fn continuations() -> &'static mut [[u64; 2]; CONTINUE_ENTRIES] {
    // SAFETY: mapped at start, private to the space.
    unsafe { &mut *(CONTINUE as *mut [[u64; 2]; CONTINUE_ENTRIES]) }
}

/// Prepares this space's tables.
pub fn init_tables() {
    Tables::own().init(SITE_SLOTS);
    continuations().fill([u64::MAX, 0]);
}

fn continue_slot(rip: u64) -> usize {
    ((rip >> 12) ^ rip) as usize & (CONTINUE_ENTRIES - 1)
}

/// The invalid instruction at the end of a slot's stub, where the slot leads in
/// spaces that have not filled it.
fn unfilled(slot: usize) -> u64 {
    stub(slot) + SITE_STUB - 2
}

fn stub(slot: usize) -> u64 {
    SITE_STUBS + slot as u64 * SITE_STUB
}

/// Offset in a stub of the code that goes on after a `Compare` site.
const AFTER: u64 = 16;

fn relative(from_end: u64, to: u64) -> [u8; 4] {
    (to.wrapping_sub(from_end) as u32).to_le_bytes()
}

/// The guest address that a host address in the second half of a `Compare`
/// stub stands for: there user code has left the gate and runs on.
pub fn behind_site(rip: u64) -> Option<u64> {
    let slot = usize::try_from(rip.checked_sub(SITE_STUBS)? / SITE_STUB).ok()?;
    // At the same address in a space and in a runner.
    let [ret, next] = *Tables::own().returns().get(slot)?;
    match rip - stub(slot) {
        AFTER => Some(ret),
        n if n == AFTER + 6 => Some(next),
        _ => None,
    }
}

/// Writes a slot's stub; false if it would hold what programs may not execute.
fn write_stub(slot: usize, form: Form, original: &[u8; 9], gate: u64) -> bool {
    let base = stub(slot);
    let out = writable((base - at::CODE) as u32, SITE_STUB as usize);
    let ret = RETURNS + slot as u64 * 16;
    let mut bytes = [0xccu8; SITE_STUB as usize];
    let mut n = 0;
    let mut put = |b: &[u8]| {
        bytes[n..n + b.len()].copy_from_slice(b);
        n += b.len();
        n as u64
    };
    put(&[0x48, 0x8b, 0x0d]); // mov rcx, [rip+…]: the return address
    put(&relative(base + 7, ret));
    let immediate: Option<[u8; 4]> = match form {
        Form::MovEax => original[1..5].try_into().ok(),
        Form::MovRax => original[3..7].try_into().ok(),
        Form::Compare => None,
    };
    if let Some(imm) = immediate {
        match form {
            // mov rax, simm32 sign-extends.
            Form::MovRax => {
                put(&[0x48, 0xc7, 0xc0]);
            }
            _ => {
                put(&[0xb8]);
            }
        }
        put(&imm);
    }
    let end = put(&[0xe9]) + 4;
    put(&relative(base + end, gate));
    if form == Form::Compare {
        let mut n = AFTER as usize;
        bytes[n..n + 6].copy_from_slice(&original[2..8]); // cmp rax, simm32
        n += 6;
        bytes[n..n + 2].copy_from_slice(&[0xff, 0x25]); // jmp [rip+…]
        bytes[n + 2..n + 6].copy_from_slice(&relative(base + n as u64 + 6, ret + 8));
    }
    bytes[SITE_STUB as usize - 2..].copy_from_slice(&[0x0f, 0x0b]);
    // It begins and ends with bytes that no such sequence has at its borders.
    if translate::forbidden::find(&bytes, 0).is_some() {
        return false;
    }
    out.copy_from_slice(&bytes);
    true
}

impl Monitor {
    /// Tables of the process that runs user code now.
    fn tables(&self) -> Tables {
        if self.is_separate() { Tables::of_runner(self.runners.loaded) } else { Tables::own() }
    }

    /// Where user code at `rip` really goes on.
    pub fn continuation(&self, rip: u64) -> u64 {
        if self.is_separate() {
            let space = &self.spaces.all[self.runners.loaded];
            return space.continuations.get(&rip).copied().unwrap_or(rip);
        }
        let e = continuations()[continue_slot(rip)];
        if e[0] == rip { e[1] } else { rip }
    }

    /// Can returns to `ret` be made to go on elsewhere?
    fn may_continue(&self, ret: u64) -> bool {
        let e = continuations()[continue_slot(ret)];
        self.is_separate() || e[0] == u64::MAX || e[0] == ret
    }

    fn continue_at(&mut self, ret: u64, target: u64) {
        if self.is_separate() {
            self.user_space().continuations.insert(ret, target);
        } else {
            continuations()[continue_slot(ret)] = [ret, target];
        }
    }

    /// A system call was made by signal at the instruction that ends at `rip`,
    /// with `rax`: patches its site if it has a known form.
    pub fn patch_site(&mut self, rip: u64, rax: u64) {
        if self.setup.flags & boundary::setup_flag::NO_PATCH != 0
            || self.sites.slots.len() >= SITE_SLOTS
        {
            return;
        }
        let page = rip.wrapping_sub(1) & !0xfff;
        let installed = self.user_space().user.get(page);
        if !installed.exec() || installed.write() || installed.is_at_shared_address() {
            return;
        }
        let frame = installed.frame();
        if self.sites.read.get(&frame).is_some_and(|n| *n >= READS) {
            return;
        }
        let Some((offset, form, original)) = self.recognise(frame, (rip - page) as usize, rax)
        else {
            return;
        };
        if !self.is_patched(frame, offset) {
            self.add_site(Site { frame, offset, form }, &original);
        }
        // The next fetch maps the copy with all its sites filled, or else the true page. A copy that is mapped
        // already shows the new site, into which the call that is under way returns.
        if self.fill_sites(page, frame) || installed.is_shadow() {
            self.unmap_user_page(page);
        }
    }

    fn is_patched(&self, frame: u32, offset: u16) -> bool {
        let slots = self.sites.by_frame.get(&frame);
        slots.is_some_and(|slots| {
            slots.iter().any(|slot| self.sites.slots[usize::from(*slot)].offset == offset)
        })
    }

    /// Patches a site in the shadow copy of its frame.
    fn add_site(&mut self, site: Site, original: &[u8; 9]) {
        let slot = self.sites.slots.len();
        let gate = if self.is_separate() { runner::syscall_gate() } else { gate::syscall() };
        if !write_stub(slot, site.form, original, gate) {
            // Another slot might do later, when programs that made this call are still within it.
            self.sites.read.insert(site.frame, READS);
            return;
        }
        for runner in 1..self.spaces.all.len() * usize::from(self.is_separate()) {
            Tables::of_runner(runner).targets()[slot] = unfilled(slot);
        }
        self.sites.slots.push(site);
        self.sites.by_frame.entry(site.frame).or_default().push(slot as u16);
        self.make_shadow(site.frame);
        let target = (at::SITES as u32 + slot as u32 * 8).to_le_bytes();
        let place = at::SHADOW + (u64::from(site.frame) << 12) + u64::from(site.offset);
        // SAFETY: the shadow view holds the frame; the site lies within the page.
        unsafe {
            let p = place as *mut u8;
            core::ptr::copy_nonoverlapping([0xff, 0x24, 0x25].as_ptr(), p, 3);
            core::ptr::copy_nonoverlapping(target.as_ptr(), p.add(3), 4);
        }
    }

    /// The form of the site whose `syscall` ends at `end` in the frame.
    fn recognise(&self, frame: u32, end: usize, rax: u64) -> Option<(u16, Form, [u8; 9])> {
        let mut page = [0u8; 4096];
        // SAFETY: an installed frame exists.
        unsafe { core::ptr::copy_nonoverlapping(self.frame_ptr(frame), page.as_mut_ptr(), 4096) };
        let take = |start: usize, len: usize| -> Option<[u8; 9]> {
            let mut b = [0u8; 9];
            b[..len].copy_from_slice(page.get(start..start + len)?);
            Some(b)
        };
        let number = |b: [u8; 4]| u64::from(u32::from_le_bytes(b));
        if let Some(b) = end.checked_sub(7).and_then(|s| take(s, 7)) {
            let imm = [b[1], b[2], b[3], b[4]];
            if b[0] == 0xb8 && b[5..7] == [0x0f, 0x05] && number(imm) == rax {
                return Some(((end - 7) as u16, Form::MovEax, b));
            }
        }
        if let Some(b) = end.checked_sub(9).and_then(|s| take(s, 9)) {
            let imm = [b[3], b[4], b[5], b[6]];
            // Unwinders recognise the signal return (number 15) by its bytes.
            if b[..3] == [0x48, 0xc7, 0xc0] && b[7..9] == [0x0f, 0x05] && number(imm) == rax {
                return Some(((end - 9) as u16, Form::MovRax, b));
            }
        }
        let b = end.checked_sub(2).and_then(|s| take(s, 8))?;
        (b[..4] == [0x0f, 0x05, 0x48, 0x3d]).then_some(((end - 2) as u16, Form::Compare, b))
    }

    /// Makes the shadow copy of a frame, with the patches it had.
    pub(crate) fn make_shadow(&mut self, frame: u32) {
        if self.frames[frame as usize].0 & Frame::SHADOW != 0 {
            return;
        }
        self.protect_frame(frame, Frame::SHADOW);
        // SAFETY: both views hold the frame.
        unsafe {
            core::ptr::copy_nonoverlapping(
                self.frame_ptr(frame),
                (at::SHADOW + (u64::from(frame) << 12)) as *mut u8,
                4096,
            );
        }
    }

    /// Fills this space's slots for the sites of a frame mapped at `page`.
    /// False if one of them is in use for another address here.
    pub fn fill_sites(&mut self, page: u64, frame: u32) -> bool {
        let traps = self.has_traps(frame);
        if self.sites.read.get(&frame).is_some_and(|n| *n >= READS) && !traps {
            return false;
        }
        let slots = match self.sites.by_frame.get(&frame).cloned() {
            None if !traps => return false,
            slots => slots.unwrap_or_default(),
        };
        let tables = self.tables();
        let (targets, returns) = (tables.targets(), tables.returns());
        let mapped = &self.spaces.all[self.user_index()].user;
        for &slot in &slots {
            let (form, _, ret) = self.sites.at(slot, page);
            let filled = targets[usize::from(slot)] != unfilled(usize::from(slot));
            if filled && returns[usize::from(slot)][0] != ret {
                let old = (returns[usize::from(slot)][0] - 1) & !0xfff;
                let installed = mapped.get(old);
                if installed.is_shadow() && installed.frame() == frame {
                    return false;
                }
            }
            if form == Form::Compare && !self.may_continue(ret) {
                return false;
            }
        }
        for &slot in &slots {
            let (form, site, ret) = self.sites.at(slot, page);
            returns[usize::from(slot)] = [ret, site + 8];
            targets[usize::from(slot)] = stub(usize::from(slot));
            if form == Form::Compare {
                self.continue_at(ret, stub(usize::from(slot)) + AFTER);
            }
        }
        true
    }

    /// Code of this space's user half was unmapped or replaced: continuations
    /// are built anew when its pages are mapped again.
    pub fn forget_continuations(&mut self) {
        let space = self.user_index();
        let space = &mut self.spaces.all[space];
        let mapped = &space.user;
        if is_separate() {
            return space.continuations.retain(|ret, _| mapped.get(ret & !0xfff).is_shadow());
        }
        for e in continuations() {
            if e[0] != u64::MAX && !mapped.get(e[0] & !0xfff).is_shadow() {
                *e = [u64::MAX, 0];
            }
        }
    }

    /// A frame may no longer be executed as it was: its sites die with that.
    pub fn drop_executable(&mut self, frame: u32) {
        self.sites.by_frame.remove(&frame);
        let mut found = Vec::new();
        for (key, region) in &self.user_space().user.regions {
            for i in region.indices() {
                let p = region.pages[i];
                if p.exec() && p.frame() == frame && (p.is_shadow() || !is_separate()) {
                    found.push((key << 21) + ((i as u64) << 12));
                }
            }
        }
        for page in found {
            self.unmap_user_page(page);
        }
    }

    /// User code read a shadow copy: from now on it sees the true page.
    pub fn shadow_was_read(&mut self, va: u64) -> bool {
        let frame = self.user_space().user.get(va).frame();
        if !self.replace_shadow(va) {
            return false;
        }
        let n = self.sites.read.entry(frame).or_insert(0);
        *n = n.saturating_add(1);
        true
    }

    /// The system call that a stub is about to make, if `rip` is that of an instruction
    /// in its first half: the address behind it, and its number where the stub sets it.
    pub fn call_of_stub(&self, rip: u64) -> Option<(u64, Option<u64>)> {
        /// Bytes of `mov rcx, [rip+…]`, `mov eax, imm32` and `mov rax, simm32`.
        const LOAD: u64 = 7;
        const SHORT: u64 = 5;
        const LONG: u64 = 7;
        let slot = usize::try_from(rip.checked_sub(SITE_STUBS)? / SITE_STUB).ok()?;
        let form = self.sites.slots.get(slot)?.form;
        let tables = self.tables();
        let [ret, _] = *tables.returns().get(slot)?;
        let immediate = |at: u64| {
            let at = (stub(slot) - at::CODE + at) as u32;
            let bytes: [u8; 4] = writable(at, 4).try_into().unwrap_or_default();
            u32::from_le_bytes(bytes)
        };
        let (jump, number) = match form {
            Form::MovEax => (LOAD + SHORT, Some(immediate(LOAD + 1).into())),
            Form::MovRax => (LOAD + LONG, Some(i64::from(immediate(LOAD + 3) as i32) as u64)),
            Form::Compare => (LOAD, None),
        };
        let filled = *tables.targets().get(slot)? == stub(slot);
        let boundary = [0, LOAD, jump].contains(&(rip - stub(slot)));
        (filled && boundary).then_some((ret, number))
    }

    /// User code came to a slot that this space has not filled: its page was
    /// mapped before the site was patched. The site's address, which is to be run
    /// again; `None` = not a patched site there.
    pub fn fill_late(&mut self, rip: u64) -> Option<u64> {
        let slot = usize::try_from(rip.checked_sub(SITE_STUBS)? / SITE_STUB).ok()?;
        if rip != unfilled(slot) {
            return None;
        }
        let site = *self.sites.slots.get(slot)?;
        let mut found = None;
        for (key, region) in &self.user_space().user.regions {
            for i in region.indices() {
                let p = region.pages[i];
                if p.is_shadow() && p.frame() == site.frame {
                    found = Some((key << 21) + ((i as u64) << 12));
                }
            }
        }
        let page = found?;
        if !self.fill_sites(page, site.frame) {
            self.replace_shadow(page);
        }
        Some(page + u64::from(site.offset))
    }

    /// An invalid instruction at `rip` of user code: is it the rest of a patched
    /// site, entered in its middle? Then it stands for `syscall`.
    pub fn is_site_rest(&mut self, rip: u64) -> bool {
        let page = rip & !0xfff;
        let installed = self.user_space().user.get(page);
        if !installed.is_shadow() {
            return false;
        }
        let sites = &self.sites;
        sites.by_frame.get(&installed.frame()).is_some_and(|slots| {
            slots.iter().any(|s| {
                let s = sites.slots[usize::from(*s)];
                s.form == Form::MovEax && u64::from(s.offset) + 5 == rip & 0xfff
            })
        })
    }
}
