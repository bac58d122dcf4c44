//! Event channels: the two-level ABI (event_channel.h).
//!
//! The pending and mask bits lie in guest memory and are hostile; the port
//! table is the monitor's own.

use abi::{event, vcpu::shared};
use alloc::{boxed::Box, vec};

use crate::state::Monitor;

/// What a port is bound to.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Port {
    /// Nothing.
    #[default]
    Closed,
    /// Waits for a peer.
    Unbound {
        /// Who may bind it.
        remote: u16,
    },
    /// Domain-0's xenstore.
    Store,
    /// Domain-0's console.
    Console,
    /// A virtual interrupt.
    Virq(u32),
    /// An interrupt between vCPUs.
    Ipi,
}

/// The port table.
pub struct Events {
    ports: Box<[Port]>,
}

impl Events {
    /// Only the builder's ports are bound.
    pub fn new() -> Events {
        let mut ports = vec![Port::Closed; event::TWO_LEVEL_CHANNELS as usize].into_boxed_slice();
        for (port, to) in
            [(boundary::port::STORE, Port::Store), (boundary::port::CONSOLE, Port::Console)]
        {
            if let Some(p) = ports.get_mut(port as usize) {
                *p = to;
            }
        }
        Events { ports }
    }
    /// What a port is bound to.
    pub fn get(&self, port: u32) -> Port {
        self.ports.get(port as usize).copied().unwrap_or_default()
    }
    /// Binds the lowest free port.
    pub fn bind(&mut self, to: Port) -> Option<u32> {
        let mut ports = self.ports.iter_mut().enumerate().skip(1);
        let (i, free) = ports.find(|(_, p)| **p == Port::Closed)?;
        *free = to;
        Some(i as u32)
    }
    /// The port of a virtual interrupt.
    pub fn virq(&self, virq: u32) -> Option<u32> {
        self.ports.iter().position(|p| *p == Port::Virq(virq)).map(|i| i as u32)
    }
    /// Closes a port.
    pub fn close(&mut self, port: u32) {
        if let Some(p) = self.ports.get_mut(port as usize) {
            *p = Port::Closed;
        }
    }
    /// Closes all ports.
    pub fn reset(&mut self) {
        self.ports.fill(Port::Closed);
    }
}

/// First byte of `vcpu_info` where the gates see it. The guest kernel can write
/// the gates' own pointer, so the monitor takes its own.
pub fn info() -> *mut u8 {
    // SAFETY: the monitor is built; only a word of it is read.
    let offset = unsafe { (*crate::start::monitor()).vcpu.info_offset };
    (crate::layout::VCPU_PAGE + u64::from(offset)) as *mut u8
}

/// `evtchn_upcall_pending`.
pub fn upcall_pending() -> bool {
    // SAFETY: `vcpu_info` points into the page mapped for it (start and
    // register_vcpu_info check that the struct lies within the page).
    unsafe { info().read_volatile() != 0 }
}

/// `evtchn_upcall_mask`.
pub fn masked() -> bool {
    // SAFETY: as above.
    unsafe { info().add(1).read_volatile() != 0 }
}

/// Sets `evtchn_upcall_mask`.
pub fn set_masked(mask: bool) {
    // SAFETY: as above.
    unsafe { info().add(1).write_volatile(u8::from(mask)) };
}

/// Sets `arch.cr2`.
pub fn set_cr2(va: u64) {
    // SAFETY: as above.
    unsafe { info().add(16).cast::<u64>().write_volatile(va) };
}

/// `arch.cr2`.
pub fn cr2() -> u64 {
    // SAFETY: as above.
    unsafe { info().add(16).cast::<u64>().read_volatile() }
}

impl Monitor {
    fn shared_word(&self, offset: u64) -> *mut u64 {
        let frame = u32::try_from(self.setup.shared_info_mfn).unwrap_or(0);
        // SAFETY: offsets are below a page: PENDING/MASK plus 64 words.
        unsafe { self.frame_ptr(frame).add(offset as usize & 0xff8).cast::<u64>() }
    }

    /// Makes a port pending and notes the upcall if it is not masked.
    pub fn raise(&mut self, port: u32) {
        let (word, bit) = (u64::from(port / 64), 1u64 << (port % 64));
        if port >= event::TWO_LEVEL_CHANNELS {
            return;
        }
        let pending = self.shared_word(shared::PENDING + word * 8);
        let mask = self.shared_word(shared::MASK + word * 8);
        // SAFETY: within the shared_info page.
        unsafe {
            let old = pending.read_volatile();
            pending.write_volatile(old | bit);
            if mask.read_volatile() & bit == 0 {
                self.select(word);
            }
        }
    }

    /// Marks a word of the bitmap and the upcall.
    fn select(&mut self, word: u64) {
        // SAFETY: `vcpu_info` as above.
        unsafe {
            let selector = info().add(8).cast::<u64>();
            selector.write_volatile(selector.read_volatile() | 1 << word);
            info().write_volatile(1);
        }
    }

    /// Clears a port's mask bit and raises the upcall if it was pending.
    pub fn unmask(&mut self, port: u32) {
        let (word, bit) = (u64::from(port / 64), 1u64 << (port % 64));
        let pending = self.shared_word(shared::PENDING + word * 8);
        let mask = self.shared_word(shared::MASK + word * 8);
        // SAFETY: within the shared_info page.
        unsafe {
            mask.write_volatile(mask.read_volatile() & !bit);
            if pending.read_volatile() & bit != 0 {
                self.select(word);
            }
        }
    }

    /// Is a port pending?
    pub fn is_pending(&self, port: u32) -> bool {
        let word = self.shared_word(shared::PENDING + u64::from(port / 64) * 8);
        // SAFETY: within the shared_info page.
        unsafe { word.read_volatile() & 1 << (port % 64) != 0 }
    }
}
