//! Dropping translations.

use alloc::vec::Vec;

use super::{CODE_END, CODE_START, Code, NONE, blocks::holds, writable};
use crate::{
    layout::at,
    state::{Frame, Monitor, is_separate},
    user_signal::LONGEST,
};

/// Guest bytes that a block can cover.
const MOST_GUEST_BYTES: u64 = translate::output::MAX_INSTRUCTIONS as u64 * LONGEST;

impl Code {
    /// Writes a link's displacement so that it leads to `host`.
    fn set_link(&mut self, link: u32, host: u64) {
        let Some(l) = self.links.get(link as usize) else { return };
        let after = at::CODE + u64::from(l.site) + 4;
        let displacement = host.wrapping_sub(after) as u32;
        writable(l.site, 4).copy_from_slice(&displacement.to_le_bytes());
    }

    /// Links a branch to a block.
    pub fn connect(&mut self, link: u32, block: u32) {
        let host = self.enter_address(block);
        let Some(before) = self.links.get(link as usize).copied().filter(|l| !l.linked) else {
            return;
        };
        self.set_link(link, host);
        if !is_separate() && holds(before.site, 4) {
            // It leads there by way of the monitor.
            return self.set_link(link, at::CODE + u64::from(before.stub));
        }
        let to = self.blocks.get_mut(block as usize);
        if let (Some(l), Some(to)) = (self.links.get_mut(link as usize), to) {
            l.linked = true;
            l.next = core::mem::replace(&mut to.incoming, link);
        }
    }

    /// Sends all branches that lead to a block back to their exit stubs.
    fn disconnect_incoming(&mut self, block: u32) {
        let Some(to) = self.blocks.get_mut(block as usize) else { return };
        let mut link = core::mem::replace(&mut to.incoming, NONE);
        while let Some(record) = self.links.get_mut(link as usize) {
            let stub = at::CODE + u64::from(record.stub);
            record.linked = false;
            let next = core::mem::replace(&mut record.next, NONE);
            self.set_link(link, stub);
            link = next;
        }
    }
}

impl Monitor {
    /// Drops one block.
    pub fn invalidate_block(&mut self, block: u32) {
        let Some(b) = self.code.blocks.get_mut(block as usize) else { return };
        if !core::mem::replace(&mut b.valid, false) {
            return;
        }
        let b = *b;
        self.code.disconnect_incoming(block);
        let key = (b.va, b.frame | u32::from(b.user) << 31);
        if self.code.index.get(&key) == Some(&block) {
            self.code.index.remove(&key);
        }
        self.code.remove_lookup(b.va, b.user);
        self.forget_syscall_entry(b.va);
    }

    /// Drops the kernel's blocks that an instruction lies in.
    pub fn invalidate_code_at(&mut self, ip: u64) {
        let Some(leaf) = self.walk(ip) else { return };
        let of_frame = self.code.by_frame.get(&leaf.frame());
        let hold = |block: &&u32| {
            self.code
                .blocks
                .get(**block as usize)
                .is_some_and(|b| b.valid && !b.user && ip.wrapping_sub(b.va) < MOST_GUEST_BYTES)
        };
        let found: Vec<u32> = of_frame.into_iter().flatten().filter(hold).copied().collect();
        for block in found {
            self.invalidate_block(block);
        }
    }

    /// Drops everything made from a frame: it is about to be written.
    pub fn invalidate_frame(&mut self, frame: u32) {
        self.stats.invalidations += 1;
        self.code.avoided.clear();
        if let Some(f) = self.frames.get_mut(frame as usize) {
            let executed = f.0 & (Frame::SHADOW | Frame::EXECUTED) != 0;
            f.0 &= !(Frame::CODE | Frame::SHADOW | Frame::EXECUTED | Frame::CLOSED);
            if executed {
                self.forget_scan(frame);
                self.drop_executable(frame);
            }
        }
        for b in self.code.by_frame.remove(&frame).unwrap_or_default() {
            self.invalidate_block(b);
        }
    }

    /// Drops all translations (the cache is full).
    pub fn flush_code(&mut self) {
        self.stats.flushes += 1;
        let code = &mut self.code;
        code.generation += 1;
        code.blocks.clear();
        code.parts.clear();
        code.links.clear();
        code.entries.clear();
        code.index.clear();
        code.alone.clear();
        code.by_frame.clear();
        // Nothing is left that relies on them: they are learnt anew.
        code.user_access.clear();
        code.clear_pages();
        code.next_code = CODE_START;
        code.next_stub = CODE_END;
        code.clear_lookup();
        for f in &mut self.frames {
            f.0 &= !Frame::CODE;
        }
        self.forget_syscall_entry(0);
    }
}
