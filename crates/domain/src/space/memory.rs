//! What all spaces of a domain share: four memfds, and the bells of its backends.

use crate::builder::{Built, TimeScale, time_zero};
use crate::isolation::Isolation;
use crate::sys::memory::{PrivateMemory, SharedMemory};
use boundary::{Backend, DOMAIN_PAGE_SIZE, PAGE, Setup, at};
use devices::guest::event_counter;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// How many descriptors a space is given.
pub(super) const DESCRIPTORS: usize = (boundary::fd::END - boundary::fd::RAM) as usize;

/// The memory of a domain.
#[derive(Debug)]
pub struct DomainMemory {
    /// Guest RAM and the monitor's frames.
    pub ram: SharedMemory,
    /// The arena; only the domain page is mapped here.
    pub arena: SharedMemory,
    code: SharedMemory,
    shadow: SharedMemory,
    /// By [`Backend`]: counts the guest's notifications.
    bells: [OwnedFd; Backend::COUNT],
    /// Counts notifications of a guest that runs.
    kick: OwnedFd,
    /// What was handed to the monitor: our own copy, which no guest can change.
    pub setup: Setup,
    /// What keeps guest programs from their kernel.
    pub isolation: Isolation,
}

impl DomainMemory {
    /// Makes the arena and what else a built guest needs; its system time starts now.
    /// `flags` are those of [`boundary::setup_flag`].
    ///
    /// # Errors
    /// When the host gives no memory.
    pub fn new(built: Built, scale: TimeScale, flags: u32) -> io::Result<Self> {
        let isolation = Isolation::choose(flags);
        let mut setup = built.setup;
        let mut arena = PrivateMemory::new(c"arena", at::ARENA_SIZE, DOMAIN_PAGE_SIZE)?;
        let code = PrivateMemory::new(c"code", at::CODE_SIZE, 0)?.share();
        let size = setup.nr_frames.saturating_mul(PAGE);
        let shadow = PrivateMemory::new(c"shadow", size, 0)?.share();
        setup.tsc_mul = scale.mul;
        setup.tsc_shift = scale.shift;
        setup.flags = flags | isolation.flag();
        setup.parent = rustix::process::getpid().as_raw_nonzero().get();
        setup.cpus = u32::try_from(super::usable_cpus().len()).unwrap_or(u32::MAX);
        (setup.tsc_start, setup.wall_sec, setup.wall_nsec) = time_zero();
        arena.write_domain_page(&setup)?;
        let bells = [event_counter()?, event_counter()?, event_counter()?];
        let (arena, kick) = (arena.share(), event_counter()?);
        Ok(Self { ram: built.ram, arena, code, shadow, bells, kick, setup, isolation })
    }

    /// What a backend's process hears the guest by.
    pub fn bell(&self, backend: Backend) -> BorrowedFd<'_> {
        let [block, net, channel] = &self.bells;
        match backend {
            Backend::Block => block.as_fd(),
            Backend::Net => net.as_fd(),
            Backend::Channel => channel.as_fd(),
        }
    }

    /// What backends have a running guest interrupted by.
    pub fn kick(&self) -> BorrowedFd<'_> {
        self.kick.as_fd()
    }

    /// The descriptors in the order of [`boundary::fd`].
    pub(super) fn descriptors(&self) -> [BorrowedFd<'_>; DESCRIPTORS] {
        let [ram, arena, code, shadow] =
            [&self.ram, &self.arena, &self.code, &self.shadow].map(AsFd::as_fd);
        let [block, net, channel] = Backend::ALL.map(|backend| self.bell(backend));
        [ram, arena, code, shadow, block, net, channel]
    }
}
