//! Where the guest's vector state is.
//!
//! It stays in the registers of the runner whose program used it last. The
//! guest kernel seldom needs it: translated code asks before the first
//! instruction that does (`Context::state_away`), and only then is it fetched.

use super::mailbox::{self, Event, Mailbox, request};
use crate::{
    gate::context,
    space::{COMPONENTS, Vector, restore_vector, save_vector},
    state::Monitor,
};

/// Low halves of the vector registers in an XSAVE area, and its state bits
/// (SDM vol. 1 13.4).
const XMM: usize = 160;
const STATE_BITS: usize = 512;
const SSE: u64 = 2;
/// What follows the state bits in the header: the format, and bytes that must be 0.
const FORMAT: core::ops::Range<usize> = STATE_BITS + 8..STATE_BITS + 64;
/// MXCSR, and the bits that every processor with AVX has (SDM vol. 1 10.2.3).
const MXCSR: usize = 24;
const MXCSR_BITS: u32 = 0xffff;

/// The state that a processor starts with: no component is in use. MXCSR's
/// initial value lies at 24.
static INITIAL: Vector = {
    let mut area = [0; 8192];
    area[24] = 0x80;
    area[25] = 0x1f;
    Vector(area)
};

impl Monitor {
    /// Guest kernel code needs the vector state at `vcpu.rip`.
    pub fn need_state(&mut self) {
        if self.replaces_state() {
            // What it would replace is not fetched. Should it fault, the state is
            // the initial one, and nobody else's.
            self.start_state();
        } else {
            self.fetch_state();
        }
    }

    /// Loads the initial state; what was is nobody's.
    pub(super) fn start_state(&mut self) {
        self.runners.has_state = None;
        context().xmm = [0; 16];
        restore_vector(&INITIAL);
        context().state_away = 0;
    }

    /// Is the instruction at `vcpu.rip` an XRSTOR of all that programs have?
    fn replaces_state(&mut self) -> bool {
        let all = crate::cpuid::program_xcr0();
        let c = context();
        let (bytes, n) = self.fetch(self.vcpu.rip);
        // 0F AE /5 with a memory operand, REX before it or not (SDM vol. 2, XRSTOR).
        let xrstor = match bytes {
            [0x40..=0x4f, 0x0f, 0xae, operand, ..] | [0x0f, 0xae, operand, ..] => {
                n > 4 && matches!(operand >> 3, 5 | 13 | 21)
            }
            _ => false,
        };
        xrstor && c.regs[0] & all == all
    }

    /// Brings the vector state into this process's registers.
    pub fn fetch_state(&mut self) {
        let Some(runner) = self.runners.has_state.take() else { return };
        self.stats.states += 1;
        if self.take_turn(runner, request::SAVE) == Event::Gone {
            return self.start_state();
        }
        self.take_state(runner);
    }

    /// Loads what lies in a runner's mailbox.
    pub(super) fn take_state(&mut self, runner: usize) {
        self.runners.has_state = None;
        let b = mailbox::of(runner);
        b.load_state = 0;
        let state = &mut *self.spaces.vector;
        state.0.copy_from_slice(&b.vector.0);
        make_loadable(state);
        take_low_halves(state);
        restore_vector(state);
        context().state_away = 0;
    }

    /// Sees to it that `runner` has the vector state; whether it was given now.
    pub(super) fn give_state(&mut self, runner: usize) -> bool {
        if self.runners.has_state == Some(runner) {
            return false;
        }
        self.fetch_state();
        let b = mailbox::of(runner);
        save_vector(&mut b.vector);
        // XSAVE leaves of the header what an earlier program wrote there.
        make_loadable(&mut b.vector);
        put_low_halves(b);
        b.load_state = 1;
        self.runners.has_state = Some(runner);
        context().state_away = 1;
        true
    }
}

/// The monitor's own code uses the low halves; the guest's wait in the context,
/// and in a runner in the mailbox.
fn put_low_halves(b: &mut Mailbox) {
    b.low = context().xmm;
    let area = &mut b.vector.0;
    // SAFETY: the registers are plain bytes; the area is larger than 520 bytes.
    unsafe {
        let from = b.low.as_ptr().cast::<u8>();
        core::ptr::copy_nonoverlapping(from, area.as_mut_ptr().add(XMM), 256);
        let bits = area.as_mut_ptr().add(STATE_BITS).cast::<u64>();
        bits.write(bits.read() | SSE);
    }
}

/// A program may have written its state itself. XRSTOR refuses bits that the processor does not
/// know, and another format (SDM vol. 1 13.8.1).
fn make_loadable(state: &mut Vector) {
    let known = crate::cpuid::host_xcr0() & u64::from(COMPONENTS);
    let area = &mut state.0;
    // SAFETY: both lie in the area, which is aligned.
    unsafe {
        let bits = area.as_mut_ptr().add(STATE_BITS).cast::<u64>();
        bits.write(bits.read() & known);
        let control = area.as_mut_ptr().add(MXCSR).cast::<u32>();
        control.write(control.read() & MXCSR_BITS);
    }
    area.get_mut(FORMAT).unwrap_or_default().fill(0);
}

fn take_low_halves(state: &Vector) {
    let area = &state.0;
    // SAFETY: as in `put_low_halves`.
    unsafe {
        let to = context().xmm.as_mut_ptr().cast::<u8>();
        if area.as_ptr().add(STATE_BITS).cast::<u64>().read() & SSE != 0 {
            core::ptr::copy_nonoverlapping(area.as_ptr().add(XMM), to, 256);
        } else {
            core::ptr::write_bytes(to, 0, 256);
        }
    }
}
