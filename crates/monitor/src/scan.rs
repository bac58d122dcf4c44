//! What guest programs may not execute by themselves: WRPKRU and XRSTOR, which can
//! load PKRU and so open the guest's kernel and the monitor.
//!
//! Before a page of user code becomes executable it is looked through at every
//! byte, its borders with its neighbours too; the two instructions have the same
//! bytes in 64-bit and in compatibility mode. While it is executable it is mapped
//! writable nowhere, and no device writes to it: a backend that is about to has the monitor forget it, and
//! what is looked through meanwhile runs translated. Where the bytes are found, a shadow copy is executed instead,
//! in which the instruction that holds them is a breakpoint, and is emulated or run
//! by itself (`run::run_trap`). Where it is not certain which instruction holds
//! them, the whole page runs translated.
//!
//! XRSTORS, RDMSR and the like need no look: they are privileged. SYSENTER and
//! `int 0x80` enter the host's kernel, which sends them on as it does SYSCALL.

use alloc::{boxed::Box, vec::Vec};
use core::{
    ops::Range,
    sync::atomic::{Ordering, fence},
};

use hashbrown::HashMap;
use translate::forbidden::{find, instruction_at, straddles};

use crate::{
    code::Hash,
    layout::{at, key},
    state::{Frame, Monitor},
    tlb::{Installed, MapAccess as Access, UserAccess},
    user_signal::LONGEST,
};

/// Bytes of a page.
pub const PAGE: usize = 4096;
/// Most look-alikes in a page that are breakpoints; compiled code has one at most. With
/// more the page runs translated, and nothing is remembered of it.
const MOST_TRAPS: usize = 16;
/// INT3.
const BREAKPOINT: u8 = 0xcc;

/// Instructions of user code that are breakpoints in the shadow copies of their frames.
pub struct Traps {
    by_frame: HashMap<u32, Vec<u16>, Hash>,
    page: Box<[u8; PAGE]>,
    any_closed: bool,
}

impl Traps {
    /// None yet.
    pub fn new() -> Traps {
        Traps {
            by_frame: HashMap::with_hasher(Hash::default()),
            page: Box::new([0; PAGE]),
            any_closed: false,
        }
    }
}

impl Monitor {
    /// May the frame be executed at user page `page`, in its true form or as its
    /// shadow copy? It is protected from writes then, or already was. Only where
    /// programs run beside their kernel.
    pub fn may_execute(&mut self, page: u64, frame: u32) -> bool {
        let Some(facts) = self.frames.get(frame as usize) else { return false };
        if facts.0 & (Frame::EXECUTED | Frame::CLOSED) == 0 {
            self.scan(frame..frame + 1);
        }
        self.frames.get(frame as usize).is_some_and(|f| f.0 & Frame::EXECUTED != 0)
            && self.borders_are_clean(page, frame)
    }

    /// Is the frame executed as its shadow copy only?
    pub fn has_traps(&self, frame: u32) -> bool {
        self.traps.by_frame.contains_key(&frame)
    }

    /// Looks frames through and notes what may be done with them.
    pub fn scan(&mut self, frames: Range<u32>) {
        self.protect_frames(frames.clone(), Frame::EXECUTED);
        // A backend that writes from now on sees the flag and waits until it is gone; one that began before
        // is seen here (`boundary::holds`).
        fence(Ordering::SeqCst);
        frames.for_each(|frame| self.look_through(frame));
    }

    fn look_through(&mut self, frame: u32) {
        self.stats.scanned += 1;
        if crate::backends::is_held(frame) {
            return self.close(frame);
        }
        if find(self.bytes_of(frame), 0).is_none() {
            return;
        }
        // SAFETY: the caller knows that the frame exists.
        unsafe {
            core::ptr::copy_nonoverlapping(
                self.frame_ptr(frame),
                self.traps.page.as_mut_ptr(),
                PAGE,
            );
        }
        let page = &self.traps.page[..];
        let mut traps = Vec::new();
        let mut hit = find(page, 0);
        while let Some(at) = hit {
            let Some(start) = instruction_at(page, at).filter(|_| traps.len() < MOST_TRAPS) else {
                return self.close(frame);
            };
            traps.push((start as u16, at as u16));
            hit = find(page, at + 1);
        }
        if traps.is_empty() {
            return;
        }
        self.traps.by_frame.insert(frame, traps.iter().map(|t| t.0).collect());
        self.make_shadow(frame);
        let shadow = (at::SHADOW + (u64::from(frame) << 12)) as *mut u8;
        for (start, hit) in traps {
            // SAFETY: the shadow view holds the frame; both lie within it.
            unsafe {
                shadow.add(usize::from(start) & (PAGE - 1)).write(BREAKPOINT);
                shadow.add(usize::from(hit) & (PAGE - 1)).write(BREAKPOINT);
            }
        }
        // SAFETY: as above; guest code does not run now.
        let left = unsafe { core::slice::from_raw_parts(shadow, PAGE) };
        if find(left, 0).is_some() {
            self.close(frame);
        }
    }

    /// The frame is never executed directly.
    fn close(&mut self, frame: u32) {
        self.traps.by_frame.remove(&frame);
        self.traps.any_closed = true;
        if let Some(facts) = self.frames.get_mut(frame as usize) {
            facts.0 = facts.0 & !Frame::EXECUTED | Frame::CLOSED;
        }
    }

    /// Is there nothing forbidden across the borders of `frame` at `page` and the
    /// executable pages beside it?
    fn borders_are_clean(&mut self, page: u64, frame: u32) -> bool {
        let user = &self.user_space().user;
        let (before, after) = (user.get(page.wrapping_sub(4096)), user.get(page + 4096));
        let clean = |left: u32, right: u32| !straddles(self.bytes_of(left), self.bytes_of(right));
        (!before.exec() || clean(before.frame(), frame))
            && (!after.exec() || clean(frame, after.frame()))
    }

    /// May two frames lie side by side as executable pages?
    pub fn may_follow(&self, left: u32, right: u32) -> bool {
        !straddles(self.bytes_of(left), self.bytes_of(right))
    }

    /// A frame's bytes.
    fn bytes_of(&self, frame: u32) -> &[u8] {
        // SAFETY: installed frames exist; the guest does not run while these are read.
        unsafe { core::slice::from_raw_parts(self.frame_ptr(frame), PAGE) }
    }

    /// Is a breakpoint of ours at user address `rip`? Then the instruction there is
    /// to be run by itself.
    pub fn is_trap(&mut self, rip: u64) -> bool {
        let installed = self.user_space().user.get(rip & !0xfff);
        let offsets = self.traps.by_frame.get(&installed.frame());
        installed.is_some()
            && offsets.is_some_and(|o| o.iter().any(|at| u64::from(*at) == rip & 0xfff))
    }

    /// Is the user instruction at `rip` one that neither runs as it is nor translated?
    pub fn runs_by_itself(&mut self, rip: u64) -> bool {
        self.is_trap(rip) || self.code.avoided.contains(&rip)
    }

    /// Maps the true form of the pages of the instruction of `length` bytes at `rip`, for one single step.
    /// A page that is not mapped would be, at a fault in the step, and closed again with the others behind
    /// it: the instruction would never be done.
    pub fn open_true_pages(&mut self, rip: u64, length: u64) {
        for page in pages_of(rip, length) {
            if !self.user_space().user.get(page).is_some() {
                let fetch = UserAccess { write: false, fetch: true, from_user: true };
                // The guest hears of what its tables do not allow from the step itself.
                let _found_by_the_step = self.resolve_user(page, fetch);
            }
        }
        for page in pages_of(rip, length) {
            self.replace_shadow(page);
            let frame = self.user_space().user.get(page);
            let allowed = self.walk(page).is_some_and(|l| l.user() && l.executable());
            if frame.is_some() && allowed {
                let access = Access { write: false, exec: true, key: key::USER, shadow: false };
                self.user_map(page, frame.frame(), 1, access);
                self.user_space().user.set(page, Installed::new(frame.frame(), false, true));
            }
        }
    }

    /// The step is over: the pages are looked at anew when they are used again.
    pub fn close_true_pages(&mut self, rip: u64, length: u64) {
        for page in pages_of(rip, length) {
            self.unmap_user_page(page);
        }
    }

    /// Forgets what was found in a frame: it is about to be written.
    pub fn forget_scan(&mut self, frame: u32) {
        self.traps.by_frame.remove(&frame);
    }

    /// Must user code at `rip` run translated?
    pub fn runs_translated(&mut self, rip: u64) -> bool {
        if self.translates_user() || !self.traps.any_closed {
            return self.translates_user();
        }
        let installed = self.user_space().user.get(rip & !0xfff);
        !installed.exec()
            && installed.is_some()
            && self.frames.get(installed.frame() as usize).is_some_and(|f| f.0 & Frame::CLOSED != 0)
    }
}

/// The pages in which the `length` bytes at `rip` lie: at least one, at most two.
fn pages_of(rip: u64, length: u64) -> impl Iterator<Item = u64> {
    let (first, last) = (rip & !0xfff, (rip + length.clamp(1, LONGEST) - 1) & !0xfff);
    core::iter::once(first).chain((last != first).then_some(last))
}
