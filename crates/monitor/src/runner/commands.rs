//! Changes of a runner's mappings: gathered here, carried out by the runner
//! before its program runs on.

use super::mailbox::{self, COMMANDS, Command, request};
use crate::{
    layout::at,
    state::Monitor,
    sys::{EXEC, READ},
    tlb::{HIGHEST, LOWEST, MapAccess},
};

/// For `Monitor::complain_once`.
const REFUSED: u64 = u64::MAX;

impl Monitor {
    fn command(&mut self, command: Command) {
        let runner = self.runners.loaded;
        self.settle(runner);
        if mailbox::orders_of(runner).count as usize >= COMMANDS {
            self.carry_out_commands();
        }
        let o = mailbox::orders_of(runner);
        if command.what == Command::MAP {
            // A page copied on write: what is mapped over need not be unmapped first.
            let replaced = |c: &&Command| c.what == Command::UNMAP && command.covers(c);
            while o.last().filter(replaced).is_some() {
                o.count -= 1;
            }
        }
        let n = o.count as usize;
        if let Some(slot) = o.commands.get_mut(n) {
            *slot = command;
            o.count = n as u32 + 1;
        }
    }

    /// Has the loaded runner carry out what was gathered.
    fn carry_out_commands(&mut self) {
        match self.take_turn(self.runners.loaded, request::MAP) {
            // A runner that says anything else is not one of ours any more.
            mailbox::Event::Done | mailbox::Event::Gone => {}
            _ => self.mapping_refused(),
        }
    }

    /// The host refused a mapping (vm.max_map_count, memory limit), says the loaded runner: the
    /// user half is dropped once, and found again page by page. Who says so again is not used any more.
    pub(super) fn mapping_refused(&mut self) {
        let runner = self.runners.loaded;
        if core::mem::replace(&mut self.runners.refused, true) {
            self.runners.refused = false;
            self.complain_once(
                REFUSED,
                format_args!(
                    "a guest program was ended: the host gave it no memory mapping \
                     (vm.max_map_count or memory limit?)"
                ),
            );
            return self.condemn(runner);
        }
        self.spaces.of_mut(runner).stale = true;
    }

    /// Maps `count` frames from `frame` on at a user address of the loaded runner.
    /// They are not populated: the host's own fault-around is cheaper.
    pub fn runner_map(&mut self, va: u64, frame: u32, count: u64, access: MapAccess) {
        self.stats.maps += 1;
        self.command(Command {
            what: Command::MAP,
            prot: access.protection(),
            start: va,
            len: count << 12,
            offset: u64::from(frame) << 12,
            file: access.file(),
        });
    }

    /// Unmaps pages of the loaded runner.
    pub fn runner_unmap(&mut self, va: u64, count: u64) {
        self.stats.unmaps += 1;
        self.command(Command {
            what: Command::UNMAP,
            start: va,
            len: count << 12,
            ..Command::default()
        });
    }

    /// Takes write access from pages of the loaded runner.
    pub fn runner_write_protect(&mut self, va: u64, count: u64, exec: bool) {
        self.command(Command {
            what: Command::PROTECT,
            prot: READ | if exec { EXEC } else { 0 },
            start: va,
            len: count << 12,
            ..Command::default()
        });
    }

    /// Unmaps the whole user half of a runner.
    pub(super) fn unmap_all_of(&mut self, runner: usize) {
        self.stats.unmaps += 1;
        let o = mailbox::orders_of(runner);
        let parts =
            [(LOWEST, at::SITES), (at::SITES + at::SITES_SIZE, at::START), (at::ALIASES, HIGHEST)];
        // What was to be mapped need not be.
        for (slot, (start, end)) in o.commands.iter_mut().zip(parts) {
            *slot = Command { what: Command::UNMAP, start, len: end - start, ..Command::default() };
        }
        o.count = parts.len() as u32;
    }

    /// Unmaps the whole user half of the loaded runner.
    pub fn runner_unmap_all(&mut self) {
        self.unmap_all_of(self.runners.loaded);
    }

    /// A runner whose address space is gone unmaps it, while the space goes on.
    pub(super) fn clean_runner(&mut self, runner: usize) {
        self.settle(runner);
        let space = self.spaces.of_mut(runner);
        space.stale = false;
        space.user.regions.clear();
        space.continuations.clear();
        self.unmap_all_of(runner);
        self.post_turn(runner);
    }
}
