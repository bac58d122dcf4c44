//! A domain's devices: what the guest and the tools see of them in xenstore, and the processes that
//! serve them (crate `devices`).
//!
//! A thread of its own does all of it, since it waits for the store, for files and for helpers. The
//! main loop gives it orders and takes its news; the guest's disks and packets pass by both, between
//! the spaces and the backends.
//!
//! ```text
//!           orders, news            packets on a socket             rings, grants, event channels
//! main loop ------------ [Manager] --------------------- xenblock, xennet, xenchannel - spaces
//!                           |  xenstore
//!                       xenstored
//! ```

mod backend;
mod channel;
mod device;
mod events;
mod manager;
mod nodes;
mod open;
mod opened;
mod revival;
mod statistics;

pub use channel::open_channel;
pub use open::open;
pub use opened::{Class, Opened};
pub use statistics::DeviceCounters;

use crate::space::DomainMemory;
use control::{Dirs, Failure, Record};
use manager::Manager;
use rustix::event::PollFd;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

/// What the thread is asked to do.
#[derive(Debug)]
pub enum Wish<A> {
    /// Bring in a device. Answer: nothing, once it waits for the guest's frontend.
    Attach(Box<Opened>, A),
    /// Take one away. Answer: once the guest has let go of it, or at once if `force`.
    Detach {
        /// Kind of device.
        class: Class,
        /// Its number.
        number: u32,
        /// Whatever the guest says.
        force: bool,
        /// Who asked.
        asker: A,
    },
    /// Put another medium into a drive. Answer: once the guest has taken it.
    Change {
        /// The medium, with the drive's number.
        opened: Box<Opened>,
        /// Its specification.
        disk: Box<config::Disk>,
        /// Who asked.
        asker: A,
    },
    /// Look at a disk's size again.
    Refresh {
        /// Its number.
        number: u32,
        /// Who asked.
        asker: A,
    },
    /// Make a disk's image longer. Answer: once the guest can see it.
    Resize {
        /// Its number.
        number: u32,
        /// How long.
        size: control::DiskSize,
        /// Who asked.
        asker: A,
    },
    /// Have a tool speak with the guest's agent; the domain gets a channel if it has none.
    Talk(A),
    /// Tell the counters of all devices.
    Count(A),
    /// Disks that found the host full may try again.
    Retry,
    /// No more: the guest is gone.
    End,
}

/// What the thread tells.
#[derive(Debug)]
pub enum News<A> {
    /// Something for the log.
    Record(Record),
    /// A wish was granted or not.
    Answer(A, Result<(), Failure>),
    /// A drive has another medium.
    Medium(Box<config::Disk>),
    /// A socket, to a wish to talk.
    Channel(A, OwnedFd),
    /// Counters, to a wish for them.
    Counters(A, DeviceCounters),
    /// A backend ended: it may have left a notification of the guest half done.
    Ended,
    /// The host has no room for what the guest writes: the domain is to be paused.
    Full(String),
}

/// The main loop's end.
#[derive(Debug)]
pub struct Devices<A> {
    wishes: Sender<Wish<A>>,
    news: Receiver<News<A>>,
    /// Counts wishes.
    wake: Arc<OwnedFd>,
    /// Counts news.
    told: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

/// The domain as its devices see it.
#[derive(Clone, Debug)]
pub struct Owner {
    /// Files and directories.
    pub dirs: Dirs,
    /// Its number.
    pub domid: u32,
    /// Its name at start.
    pub name: String,
    /// Its memory.
    pub memory: Arc<DomainMemory>,
}

impl<A: Send + 'static> Devices<A> {
    /// Starts to serve the devices that the domain begins with. Their nodes are in the store when
    /// this returns; their backends start meanwhile.
    ///
    /// # Errors
    /// When the store cannot be reached, or the host gives no thread.
    pub fn start(owner: Owner, opened: Vec<Opened>) -> Result<Self, Failure> {
        let host = |error: io::Error| {
            Failure::new(control::ErrorCode::Host, format!("Cannot serve devices: {error}"))
        };
        let wake = Arc::new(devices::guest::event_counter().map_err(host)?);
        let told = Arc::new(devices::guest::event_counter().map_err(host)?);
        for backend in boundary::Backend::ALL {
            if opened.iter().any(|device| device.class.backend() == backend) {
                backend::find(backend).map_err(|error| missing(&error))?;
            }
        }
        let (wishes, orders) = channel();
        let (teller, news) = channel();
        let teller = Teller { news: teller, told: told.clone() };
        let mut manager = Manager::new(owner, orders, wake.clone(), teller);
        manager.introduce(opened)?;
        let thread = std::thread::Builder::new()
            .name("devices".into())
            .spawn(move || manager.run())
            .map_err(host)?;
        Ok(Self { wishes, news, wake, told, thread: Some(thread) })
    }

    /// Gives an order.
    pub fn wish(&self, wish: Wish<A>) {
        let _gone_at_the_end = self.wishes.send(wish);
        count_up(&self.wake);
    }

    /// Is readable when there is news.
    pub fn poll_fd(&self) -> PollFd<'_> {
        PollFd::new(&*self.told, rustix::event::PollFlags::IN)
    }

    /// News since the last call.
    pub fn take_news(&self) -> Vec<News<A>> {
        let mut count = [0; 8];
        let _was_clear = rustix::io::read(&*self.told, &mut count);
        self.news.try_iter().collect()
    }

    /// Ends backends and closes all files, so that others can have them.
    pub fn end(&mut self) {
        self.wish(Wish::End);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

impl<A> Drop for Devices<A> {
    fn drop(&mut self) {
        let _gone_at_the_end = self.wishes.send(Wish::End);
        count_up(&self.wake);
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}

fn missing(error: &control::LaunchError) -> Failure {
    use control::Hint;
    let failure = Failure::new(control::ErrorCode::Host, error.to_string());
    match error.hint() {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    }
}

/// The thread's way to tell.
struct Teller<A> {
    news: Sender<News<A>>,
    told: Arc<OwnedFd>,
}

impl<A> Teller<A> {
    fn tell(&self, news: News<A>) {
        let _gone_at_the_end = self.news.send(news);
        count_up(&self.told);
    }

    fn log(&self, record: Record) {
        self.tell(News::Record(record));
    }
}

fn count_up(event: &OwnedFd) {
    let _full_is_enough = rustix::io::write(event, &1u64.to_ne_bytes());
}
