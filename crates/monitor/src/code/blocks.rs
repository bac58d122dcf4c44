//! Finding and making blocks.

use alloc::{boxed::Box, vec::Vec};

use hashbrown::{HashMap, HashSet};
use translate::{
    Error, Fix, Jump, MOST_CODE, Mode, Output, PROLOGUE, Request, Translator, UserMemory,
    forbidden, output::MAX_INSTRUCTIONS, underway,
};

use super::{
    Block, CODE_END, CODE_START, Code, Hash, LinkRecord, NO_BLOCK, NONE, STUB_END,
    lookup::Freshness, targets, user_targets, writable,
};
use crate::{
    layout::at,
    proven::Masked,
    state::{Frame, Monitor},
    tlb::Half,
};

/// An instruction fetch that the guest's tables forbid.
#[derive(Clone, Copy, Debug)]
pub struct FetchFault {
    /// The address.
    pub va: u64,
    /// #PF error code.
    pub code: u32,
}

/// What a block is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Guest kernel code.
    Kernel,
    /// Guest user code.
    User,
    /// One instruction of the guest kernel on user memory (`Monitor::run_aliased`).
    Alone,
}

impl Kind {
    fn of(user: bool) -> Kind {
        if user { Kind::User } else { Kind::Kernel }
    }
}

/// Blocks that the records have room for at once: about what the code cache
/// holds. The arena is sparse, so room costs nothing until it is used, while
/// growing would leave the old records behind.
const BLOCKS: usize = 1 << 20;

/// Most bytes of a block, and of its stubs.
const BLOCK: u32 = 16384;

/// After so many tries at other places a block is cut to one instruction; after one
/// more that goes to the monitor.
const SINGLE: u32 = 4;

/// Most instructions remembered that go to the monitor for their bytes.
const MOST_AVOIDED: usize = 4096;

/// Where in the `len` bytes of the cache at `offset`, with those around, what programs may not execute
/// begins, counted from `offset`.
fn forbidden_in(offset: u32, len: usize) -> Option<u32> {
    let around = forbidden::LENGTH as u32 - 1;
    let from = offset.saturating_sub(around);
    let len = len + (offset - from + around) as usize;
    let len = len.min((at::CODE_SIZE - u64::from(from)) as usize);
    let found = forbidden::find(writable(from, len), 0)?;
    Some((from + found as u32).saturating_sub(offset))
}

/// Do they hold any?
pub(super) fn holds(offset: u32, len: usize) -> bool {
    forbidden_in(offset, len).is_some()
}

/// The page behind that of `va`; behind the last one comes the first.
fn next_page(va: u64) -> u64 {
    (va & !0xfff).wrapping_add(4096)
}

/// Bytes of the code cache of which it is known which block is the first to begin there.
const PART: u32 = 4096;

/// Fetch bit of a page-fault error code.
const FETCH: u32 = 16;

impl Code {
    /// An empty cache: the lookup routines are emitted, the tables emptied.
    pub fn new() -> Code {
        let mut t = targets();
        let mut at_offset = 64usize;
        for mode in [Mode::Kernel, Mode::User] {
            let host = at::CODE + at_offset as u64;
            let with = if mode == Mode::User { user_targets(t) } else { t };
            let len =
                translate::emit_lookup_miss(&with, host, writable(at_offset as u32, 1024), mode)
                    .unwrap_or(0);
            match mode {
                Mode::Kernel => t.kernel_lookup_miss = host,
                Mode::User => t.user_lookup_miss = host,
            }
            at_offset = (at_offset + len + 63) & !63;
        }
        assert!(at_offset <= CODE_START as usize);
        let code = Code {
            translator: Translator::new(t),
            user_translator: Translator::new(user_targets(t)),
            misses: [t.kernel_lookup_miss, t.user_lookup_miss],
            output: Box::new(Output::new()),
            blocks: Vec::with_capacity(BLOCKS),
            parts: Vec::new(),
            links: Vec::with_capacity(2 * BLOCKS),
            entries: Vec::with_capacity(8 * BLOCKS),
            index: HashMap::with_capacity_and_hasher(BLOCKS / 20, Hash::default()),
            by_frame: HashMap::with_hasher(Hash::default()),
            alone: HashMap::with_hasher(Hash::default()),
            user_access: HashSet::with_hasher(Hash::default()),
            avoided: HashSet::with_hasher(Hash::default()),
            freshness: Freshness::new(),
            pages: Half::default(),
            next_code: CODE_START,
            next_stub: CODE_END,
            generation: 0,
            recent: [0; boundary::LAST_BLOCKS],
            recent_next: 0,
        };
        code.clear_lookup();
        code
    }

    /// A block by its number.
    pub fn block(&self, number: u32) -> &Block {
        self.blocks.get(number as usize).unwrap_or(&NO_BLOCK)
    }

    /// The block that holds a host address.
    pub fn block_at(&self, host: u64) -> Option<u32> {
        let offset = u32::try_from(host.checked_sub(at::CODE)?).ok()?;
        // There are tens of thousands; a search through all of them would find none in the cache.
        let part = (offset / PART) as usize;
        let first_of = |part| self.parts.get(part).map_or(self.blocks.len(), |id| *id as usize);
        // The one before may reach into it.
        let first = first_of(part).saturating_sub(1);
        let near = self.blocks.get(first..first_of(part + 1))?;
        let i = near.partition_point(|b| b.host <= offset).checked_sub(1)?;
        let b = near.get(i)?;
        (offset < b.host + u32::from(b.host_len)).then_some((first + i) as u32)
    }

    /// Notes the part of the cache that a new block, `id`, begins in.
    fn note_part(&mut self, host: u32, id: u32) {
        while self.parts.len() <= (host / PART) as usize {
            self.parts.push(id);
        }
    }

    /// The precise guest state at a host address, if there is one: block,
    /// guest address, repairs.
    pub fn entry_at(&self, host: u64) -> Option<(u32, u64, Fix)> {
        let index = self.block_at(host)?;
        let (rip, fix) = self.entry_of(index, host)?;
        Some((index, rip, fix))
    }

    fn entry_of(&self, block: u32, host: u64) -> Option<(u64, Fix)> {
        let b = self.block(block);
        let offset = u16::try_from(host - at::CODE - u64::from(b.host)).ok()?;
        let entries = self.entries.get(b.entries as usize..)?.get(..b.entry_count.into())?;
        let i = entries.partition_point(|e| e.host <= offset).checked_sub(1)?;
        let e = entries.get(i)?;
        (e.host == offset).then(|| (b.va.wrapping_add(u64::from(e.guest)), e.fix))
    }

    /// The same where a jump through the tables may be under way, with the registers there: whether it is
    /// a program's, guest address, repairs.
    pub fn precise_at(&self, host: u64, regs: &[u64; 16]) -> Option<(bool, u64, Fix)> {
        let Some(index) = self.block_at(host) else {
            let routine = |start: &u64| (*start..*start + 128).contains(&host);
            let mode = self.misses.iter().position(routine)?;
            let (rip, fix) = underway(Jump::Miss(host - self.misses.get(mode)?), regs)?;
            return Some((mode == 1, rip, fix));
        };
        let b = self.block(index);
        let (rip, fix) = self.entry_of(index, host).or_else(|| {
            let from = host - at::CODE - u64::from(b.host);
            let to_end = u64::from(b.host_len) - from;
            match from {
                0..PROLOGUE => underway(Jump::Arriving(b.va, from), regs),
                _ if b.ends_in_lookup => underway(Jump::Inline(to_end), regs),
                _ => None,
            }
        })?;
        Some((b.user, rip, fix))
    }

    /// Host address at which the monitor enters a block.
    pub fn enter_address(&self, block: u32) -> u64 {
        at::CODE + u64::from(self.block(block).host) + PROLOGUE
    }

    /// Instruction `va` goes to the monitor from now on.
    fn avoid(&mut self, va: u64) {
        // They are found anew: what a guest can have remembered is bounded.
        if self.avoided.len() >= MOST_AVOIDED {
            self.avoided.clear();
        }
        self.avoided.insert(va);
    }

    /// Does what was just translated hold what programs may not execute? Then it leaves out its place.
    fn leave_forbidden(&mut self) -> bool {
        let out = &self.output;
        let in_code = forbidden_in(self.next_code, out.code_len);
        let in_stubs = forbidden_in(self.next_stub, out.stub_len);
        if in_code.is_none() && in_stubs.is_none() {
            return false;
        }
        self.next_code += forbidden::way_beyond(in_code.unwrap_or(0));
        // Stubs begin anywhere: by an odd number each byte of a distance changes.
        self.next_stub += forbidden::way_beyond(in_stubs.unwrap_or(0)) + 1;
        true
    }

    /// Notes a block entered from the monitor, for crash reports.
    pub fn note(&mut self, va: u64) {
        *self.recent.at_mut(self.recent_next) = va;
        self.recent_next = (self.recent_next + 1) % self.recent.len();
    }
}

impl Monitor {
    /// The frame that an instruction at `va` is fetched from.
    fn fetch_frame(&mut self, va: u64, user: bool) -> Result<u32, FetchFault> {
        let base = FETCH | if user { 4 } else { 0 };
        let Some(leaf) = self.walk(va) else { return Err(FetchFault { va, code: base }) };
        if user && (!leaf.user() || !leaf.executable()) {
            return Err(FetchFault { va, code: base | 1 });
        }
        self.mark_entry(leaf.table, leaf.index, abi::mmu::PTE_ACCESSED);
        Ok(leaf.frame())
    }

    /// The block at `va`, translated now if need be.
    pub fn find_block(&mut self, va: u64, user: bool) -> Result<u32, FetchFault> {
        let frame = self.fetch_frame(va, user)?;
        if let Some(&b) = self.code.index.get(&(va, frame | u32::from(user) << 31)) {
            let second = self.code.blocks.get(b as usize).map_or(NONE, |b| b.frame2);
            if second == NONE || self.fetch_frame(next_page(va), user)? == second {
                return Ok(b);
            }
            self.invalidate_block(b);
        }
        self.translate_block(va, frame, Kind::of(user))
    }

    fn translate_block(&mut self, va: u64, frame: u32, kind: Kind) -> Result<u32, FetchFault> {
        let user = kind == Kind::User;
        // Of the largest block, in as many places as are tried.
        const ROOM: u32 = (SINGLE + 2) * (BLOCK + 512);
        if self.code.next_code + ROOM > CODE_END || self.code.next_stub + ROOM > STUB_END {
            self.flush_code();
        }
        if !user {
            self.note_code_page(va, frame);
        }
        self.protect_frame(frame, Frame::CODE);
        let offset = (va & 0xfff) as usize;
        let page_bytes = (4096 - offset).min(MOST_CODE);
        let mut bytes = [0u8; MOST_CODE + 16];
        // SAFETY: the frame exists (a walk found it); `bytes` has room for so many of its bytes.
        unsafe {
            core::ptr::copy_nonoverlapping(
                self.frame_ptr(frame).add(offset),
                bytes.as_mut_ptr(),
                page_bytes,
            );
        }
        let mut len = page_bytes;
        let mut frame2 = NONE;
        let mut tries = 0;
        loop {
            let code = bytes.get(..len).unwrap_or_default();
            match self.run_translator(va, kind, code, page_bytes, tries) {
                // Programs can jump into it.
                Ok(()) if !self.is_separate() && self.code.leave_forbidden() => {
                    tries += 1;
                    if tries > SINGLE {
                        self.code.avoid(va);
                    }
                }
                Ok(()) => return Ok(self.add_block(va, kind, frame, frame2)),
                Err(Error::NeedNextPage) if frame2 == NONE => {
                    frame2 = self.fetch_frame(next_page(va), user)?;
                    if !user {
                        self.note_code_page(next_page(va), frame2);
                    }
                    self.protect_frame(frame2, Frame::CODE);
                    // SAFETY: as above.
                    unsafe {
                        core::ptr::copy_nonoverlapping(
                            self.frame_ptr(frame2),
                            bytes.as_mut_ptr().add(page_bytes),
                            16,
                        );
                    }
                    len = page_bytes + 16;
                }
                Err(_) => self.flush_code(),
            }
        }
    }

    fn run_translator(
        &mut self,
        va: u64,
        kind: Kind,
        bytes: &[u8],
        page_bytes: usize,
        tries: u32,
    ) -> Result<(), Error> {
        let separate = self.is_separate();
        let code = &mut self.code;
        let (c, s) = (code.next_code, code.next_stub);
        let (learnt, avoided) = (&code.user_access, &code.avoided);
        let user_memory = match kind {
            Kind::Alone => UserMemory::Displaced,
            _ if separate => UserMemory::LookedUp,
            _ => UserMemory::Checked,
        };
        let request = Request {
            mode: if kind == Kind::User { Mode::User } else { Mode::Kernel },
            va,
            code: bytes,
            page_bytes,
            code_host: at::CODE + u64::from(c),
            stub_host: at::CODE + u64::from(s),
            first_tag: code.links.len() as u64 + 1,
            user_access: &|va| kind == Kind::Alone || learnt.contains(&va),
            user_memory,
            state_may_be_away: separate,
            restores_elsewhere: !separate,
            avoid: &|va| avoided.contains(&va),
            limit: if kind == Kind::Alone || tries >= SINGLE { 1 } else { MAX_INSTRUCTIONS },
        };
        let room = |from: u32, end: u32| end.saturating_sub(from).min(BLOCK) as usize;
        let translator =
            if kind == Kind::User { &mut code.user_translator } else { &mut code.translator };
        translator.translate(
            &request,
            writable(c, room(c, CODE_END)),
            writable(s, room(s, STUB_END)),
            &mut code.output,
        )
    }

    fn add_block(&mut self, va: u64, kind: Kind, frame: u32, frame2: u32) -> u32 {
        let user = kind == Kind::User;
        let code = &mut self.code;
        let id = code.blocks.len() as u32;
        let out = &code.output;
        let block = Block {
            va,
            frame,
            frame2,
            host: code.next_code,
            host_len: out.code_len as u16,
            user,
            valid: true,
            ends_in_lookup: out.ends_in_lookup,
            entries: code.entries.len() as u32,
            entry_count: out.entry_count as u16,
            incoming: NONE,
        };
        code.entries.extend_from_slice(out.entries());
        for l in out.links() {
            code.links.push(LinkRecord {
                site: block.host + u32::from(l.site),
                stub: code.next_stub + u32::from(l.stub),
                target: l.target,
                from: id,
                next: NONE,
                linked: false,
            });
        }
        self.stats.blocks += 1;
        self.stats.instructions += out.entry_count as u64;
        code.note_part(block.host, id);
        let out = &code.output;
        code.next_code += out.code_len as u32;
        code.next_stub += out.stub_len as u32;
        code.blocks.push(block);
        if kind == Kind::Alone {
            code.alone.insert((va, frame), id);
        } else {
            code.index.insert((va, frame | u32::from(user) << 31), id);
        }
        code.by_frame.entry(frame).or_default().push(id);
        if frame2 != NONE && frame2 != frame {
            code.by_frame.entry(frame2).or_default().push(id);
        }
        id
    }

    /// Is guest user code translated instead of run directly? Not in runners,
    /// which have no translator.
    pub fn translates_user(&self) -> bool {
        self.setup.flags & boundary::setup_flag::TRANSLATE_USER != 0 && !self.is_separate()
    }

    /// The block of the one kernel instruction at `va`.
    pub fn find_alone(&mut self, va: u64) -> Result<u32, FetchFault> {
        let frame = self.fetch_frame(va, false)?;
        match self.code.alone.get(&(va, frame)) {
            Some(&b) if self.code.block(b).valid => Ok(b),
            _ => self.translate_block(va, frame, Kind::Alone),
        }
    }
}
