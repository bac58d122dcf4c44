//! Runs of MOVS and STOS that reach user memory through the tables of [`crate::UserTlb`].
//!
//! A run is cut where a user page ends. Each piece is made as it is by the processor, on pointers
//! moved to where the monitor sees the pages; what is left comes after it, from the instruction's
//! start. Kernel pointers are folded as everywhere. Downward runs, elements that cross a page's end
//! and pages that are not in the tables are left to the monitor.

use crate::block::{Builder, Guest};
use crate::emit::{Address, Emitter, Field, Gpr};
use crate::output::Fix;
use crate::string::Pointer;
use crate::user_tlb;
use iced_x86::{Instruction, Mnemonic};

/// None of these instructions uses them.
const DELTA_RDI: Gpr = Gpr(8);
const DELTA_RSI: Gpr = Gpr(9);
/// Bytes, later elements, that can be done in one piece.
const ROOM: Gpr = Gpr(10);
const SCRATCH: Gpr = Gpr(11);
const BORROWED: [Gpr; 4] = [DELTA_RDI, DELTA_RSI, ROOM, SCRATCH];

const PAGE: i32 = 4096;
/// Bytes of a piece that no user page ends; counts above it are left to the monitor.
const UNLIMITED: u64 = 1 << 33;

/// The logarithm of the element's size, if a run of this instruction can be cut into pieces.
pub(crate) fn element_of_run(instruction: &Instruction) -> Option<u8> {
    if !instruction.is_string_instruction() || !instruction.has_rep_prefix() {
        return None;
    }
    match instruction.mnemonic() {
        Mnemonic::Movsb | Mnemonic::Stosb => Some(0),
        Mnemonic::Movsw | Mnemonic::Stosw => Some(1),
        Mnemonic::Movsd | Mnemonic::Stosd => Some(2),
        Mnemonic::Movsq | Mnemonic::Stosq => Some(3),
        _ => None,
    }
}

impl Builder<'_> {
    /// Translates a run whose elements have `1 << shift` bytes.
    pub fn string_run(
        &mut self,
        guest: &Guest,
        shift: u8,
        destination: Pointer,
        source: Option<Pointer>,
    ) {
        let head = self.code.here();
        for (slot, register) in BORROWED.into_iter().enumerate() {
            self.code.save(register, Field::spill(slot));
        }
        self.code.save(Gpr::RCX, Field::LOOKUP_RCX);
        let leave = self.stub_that_leaves(guest);
        self.leave_if_downward(leave);
        self.leave_if_long(leave);
        self.code.constant(ROOM, UNLIMITED);
        self.find_piece(Gpr::RDI, DELTA_RDI, true, leave);
        if source.is_some() {
            self.find_piece(Gpr::RSI, DELTA_RSI, false, leave);
        }
        self.count_elements(shift, leave);
        let moved: [(Pointer, Gpr); 2] =
            [(destination, DELTA_RDI), (source.unwrap_or(destination), DELTA_RSI)];
        let moved = moved.get(..if source.is_some() { 2 } else { 1 }).unwrap_or_default();
        let mut fix = Fix::COUNT;
        for (slot, register) in BORROWED.into_iter().enumerate() {
            fix = fix.with(Fix::spilled(slot, register.0));
        }
        for ((register, field, flag), delta) in moved {
            self.code.save(*delta, *field);
            self.code.lea(*register, Address::sum(*register, *delta));
            fix = fix.with(*flag);
        }
        self.code.copy(Gpr::RCX, ROOM);
        self.mark(guest, fix);
        self.code.bytes(guest.bytes);
        for ((register, field, _), delta) in moved {
            self.code.restore(*delta, *field);
            subtract(&mut self.code, *register, *register, *delta);
        }
        give_back(&mut self.code);
        self.code.restore(Gpr::RCX, Field::COUNT_LEFT);
        let done = self.code.jump_if_rcx_zero();
        self.code.jump(head);
        self.code.land(done);
    }

    /// A stub that leaves the instruction to the monitor; its host address.
    fn stub_that_leaves(&mut self, guest: &Guest) -> u64 {
        let stub = self.stubs.here();
        give_back(&mut self.stubs);
        self.stubs.restore(Gpr::RCX, Field::LOOKUP_RCX);
        self.stubs.save_constant(Field::RIP, guest.instruction.ip());
        self.stubs.jump(self.targets.exit_emulate);
        stub
    }

    /// Leaves if DF is set. The flags pass through a field of the context, since below the guest's
    /// stack pointer is the guest's memory.
    fn leave_if_downward(&mut self, leave: u64) {
        self.code.copy(SCRATCH, Gpr::RSP);
        self.code.lea_behind_field(Gpr::RSP, Field::DELTA_RSI);
        self.code.push_flags();
        self.code.pop(Gpr::RCX);
        self.code.copy(Gpr::RSP, SCRATCH);
        let mask = user_tlb::place_of_direction_mask(self.targets);
        self.code.extract_at(Gpr::RCX, Gpr::RCX, mask);
        self.leave_unless_rcx_zero(leave);
    }

    /// Leaves if the count needs more than 32 bits.
    fn leave_if_long(&mut self, leave: u64) {
        self.code.restore(Gpr::RCX, Field::LOOKUP_RCX);
        self.code.constant(SCRATCH, 32);
        self.code.shift_right(Gpr::RCX, Gpr::RCX, SCRATCH);
        self.leave_unless_rcx_zero(leave);
    }

    fn leave_unless_rcx_zero(&mut self, leave: u64) {
        let on = self.code.jump_if_rcx_zero();
        self.code.jump(leave);
        self.code.land(on);
    }

    /// Puts into `delta` how far from `pointer` the host has that memory, and bounds [`ROOM`] by
    /// the bytes that lie there.
    fn find_piece(&mut self, pointer: Gpr, delta: Gpr, write: bool, leave: u64) {
        self.code.constant(Gpr::RCX, 63);
        self.code.shift_right_signed(Gpr::RCX, pointer, Gpr::RCX);
        let user = self.code.jump_if_rcx_zero();
        self.code.restore(delta, Field::FOLD);
        let found = self.code.jump_far();
        self.code.land(user);
        self.find_entry(pointer, 0, delta, write);
        self.leave_unless_rcx_zero(leave);
        self.code.load(delta, Address { disp: user_tlb::DELTAS, ..Address::base(delta) });
        // Does the next page lie behind this one there too? Buffers seldom begin with a page.
        self.find_entry(pointer, PAGE, SCRATCH, write);
        let known = self.code.jump_if_rcx_zero();
        let unknown = self.code.jump_short();
        self.code.land(known);
        self.code.load(Gpr::RCX, Address { disp: user_tlb::DELTAS, ..Address::base(SCRATCH) });
        self.code.copy(SCRATCH, delta);
        subtract(&mut self.code, Gpr::RCX, Gpr::RCX, SCRATCH);
        let behind = self.code.jump_if_rcx_zero();
        let elsewhere = self.code.jump_short();
        self.code.land(behind);
        self.bytes_to_page_end(pointer, PAGE);
        let counted = self.code.jump_short();
        self.code.land(unknown);
        self.code.land(elsewhere);
        self.bytes_to_page_end(pointer, 0);
        self.code.land(counted);
        self.bound_room();
        self.code.land_far(found);
    }

    /// Puts into `entry` where the tables hold the page `ahead` bytes after that of `pointer`; RCX
    /// is zero if they do.
    fn find_entry(&mut self, pointer: Gpr, ahead: i32, entry: Gpr, write: bool) {
        let masks = self.targets;
        self.code.lea_place(entry, user_tlb::place_of_table(masks, write));
        self.code.lea(Gpr::RCX, Address { disp: ahead, ..Address::base(pointer) });
        self.code.extract_at(Gpr::RCX, Gpr::RCX, user_tlb::place_of_index_mask(masks));
        let found = Address { base: Some(entry), index: Some((Gpr::RCX, 3)), disp: 0 };
        self.code.lea(entry, found);
        self.code.load(Gpr::RCX, Address::base(entry));
        self.code.lea(Gpr::RCX, Address { disp: ahead, ..Address::sum(Gpr::RCX, pointer) });
        self.code.extract_at(Gpr::RCX, Gpr::RCX, user_tlb::place_of_page_mask(masks));
    }

    /// Puts into RCX how many bytes there are from `pointer` to its page's end, and `more`.
    fn bytes_to_page_end(&mut self, pointer: Gpr, more: i32) {
        self.code.copy(Gpr::RCX, pointer);
        self.code.not(Gpr::RCX);
        let offset = user_tlb::place_of_offset_mask(self.targets);
        self.code.extract_at(Gpr::RCX, Gpr::RCX, offset);
        self.code.lea(Gpr::RCX, Address { disp: 1 + more, ..Address::base(Gpr::RCX) });
    }

    /// `ROOM = min(ROOM, RCX)`; both are far from the sign. Changes RCX.
    fn bound_room(&mut self) {
        let code = &mut self.code;
        subtract(code, SCRATCH, ROOM, Gpr::RCX);
        code.save(Gpr::RCX, Field::COUNT_LEFT);
        code.constant(Gpr::RCX, 63);
        code.shift_right_signed(Gpr::RCX, SCRATCH, Gpr::RCX);
        // The difference if it is negative, else zero.
        code.deposit_register(Gpr::RCX, Gpr::RCX, SCRATCH);
        code.restore(ROOM, Field::COUNT_LEFT);
        code.lea(ROOM, Address::sum(ROOM, Gpr::RCX));
    }

    /// Makes of the bytes in [`ROOM`] the elements to do now, and notes how many come later.
    fn count_elements(&mut self, shift: u8, leave: u64) {
        if shift > 0 {
            self.code.constant(Gpr::RCX, shift.into());
            self.code.shift_right(ROOM, ROOM, Gpr::RCX);
            self.code.copy(Gpr::RCX, ROOM);
            // Not one whole element.
            let none = self.code.jump_if_rcx_zero();
            let some = self.code.jump_short();
            self.code.land(none);
            self.code.jump(leave);
            self.code.land(some);
        }
        self.code.restore(Gpr::RCX, Field::LOOKUP_RCX);
        self.bound_room();
        self.code.restore(Gpr::RCX, Field::LOOKUP_RCX);
        subtract(&mut self.code, Gpr::RCX, Gpr::RCX, ROOM);
        self.code.save(Gpr::RCX, Field::COUNT_LEFT);
    }
}

fn give_back(code: &mut Emitter) {
    for (slot, register) in BORROWED.into_iter().enumerate() {
        code.restore(register, Field::spill(slot));
    }
}

/// `to = from - by`.
fn subtract(code: &mut Emitter, to: Gpr, from: Gpr, by: Gpr) {
    // from + !by + 1
    let not = if to == from { by } else { to };
    if not != by {
        code.copy(not, by);
    }
    code.not(not);
    code.lea(to, Address { base: Some(from), index: Some((not, 0)), disp: 1 });
    if not == by {
        code.not(by);
    }
}
