//! One device and how far its handshake with the guest has come (io/xenbus.h).

use super::nodes::{Place, State};
use super::opened::Opened;
use devices::wire::Nodes;
use std::time::{Duration, Instant};

/// How far a device has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its backend opens it.
    Attaching,
    /// The backend waits for the frontend.
    Waiting,
    /// The backend maps the frontend's rings.
    Connecting,
    /// In use.
    Connected,
    /// The backend forgets the rings; the frontend was at this state.
    Disconnecting(State),
    /// The frontend has closed it, or broke its rules.
    Closed,
}

/// What a device does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Stay,
    /// Have the backend connect.
    Connect,
    /// Have the backend disconnect.
    Disconnect,
    /// Show the backend's state.
    Show(State),
    /// The guest has let go of it: remove it.
    Remove,
}

/// Someone who waits for a device to come or go.
#[derive(Debug)]
pub struct Waiter<A> {
    /// Who.
    pub asker: A,
    /// Until when.
    pub until: Instant,
}

/// A disk whose image becomes longer.
#[derive(Debug)]
pub struct Growth<A> {
    /// Its size then. A backend that follows one that died is told again.
    pub bytes: u64,
    /// Backends that died meanwhile.
    pub deaths: u32,
    /// Who waits for it, unless for too long.
    pub waiter: Option<Waiter<A>>,
}

/// A network interface's ways out, which may end again and again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Relinks {
    last: Option<Instant>,
    /// Tries in a row that failed.
    failures: u32,
    /// When the next one is to be made.
    pub due: Option<Instant>,
}

impl Relinks {
    /// The shortest time between two: the guest itself may be the cause.
    const PAUSE: Duration = Duration::from_secs(1);
    /// It doubles with each failure, up to so many times.
    const DOUBLINGS: u32 = 6;

    /// The way out is gone.
    pub fn ask(&mut self, now: Instant) {
        let pause = Self::PAUSE * (1 << self.failures.min(Self::DOUBLINGS));
        let earliest = self.last.map_or(now, |last| last + pause);
        self.due = Some(earliest.max(now));
    }

    /// Whether it is time for another one, which is then made.
    pub fn take(&mut self, now: Instant) -> bool {
        let is_time = self.due.is_some_and(|due| due <= now);
        if is_time {
            *self = Self { last: Some(now), due: None, ..*self };
        }
        is_time
    }

    /// Another one was made.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Another one could not be made: it is tried again later.
    pub fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        self.ask(now);
    }
}

/// What follows a device that leaves.
#[derive(Debug)]
pub enum Successor {
    /// The same drive with another medium, of this specification.
    Medium(Box<Opened>, Box<config::Disk>),
    /// The same again.
    Itself,
}

/// A drive that comes again, until the guest has taken it.
#[derive(Debug, Default)]
pub struct Presented {
    /// The medium before, in case the new one is of no use.
    pub old: Option<Opened>,
    /// What the medium is, if it is another.
    pub disk: Option<Box<config::Disk>>,
    /// How often it came before.
    pub turns: u32,
    /// When to look whether the guest has noticed.
    pub look: Option<Instant>,
}

/// A device.
#[derive(Debug)]
pub struct Device<A> {
    /// What it is, and its files.
    pub opened: Opened,
    /// Where its nodes are.
    pub place: Place,
    /// How far it is.
    pub phase: Phase,
    /// The frontend's nodes, for a backend that starts anew.
    pub frontend: Nodes,
    /// It is to go.
    pub leaving: bool,
    /// Even if the guest does not let go of it.
    pub forced: bool,
    /// What follows when it has left.
    pub successor: Option<Successor>,
    /// It came again, and the guest is to notice.
    pub presented: Option<Presented>,
    /// The guest has seen its backend's nodes.
    pub shown: bool,
    /// The backend's state that the guest sees.
    pub state: State,
    /// The guest has seen that it is connected.
    pub connected: bool,
    /// When its way out was made anew last, and is to be.
    pub relinks: Relinks,
    /// Its image becomes longer.
    pub growth: Option<Growth<A>>,
    /// Who waits for it to come or go.
    pub waiters: Vec<Waiter<A>>,
}

impl<A> Device<A> {
    /// A device that no backend knows yet.
    pub fn new(opened: Opened, place: Place) -> Self {
        let frontend = Nodes::new();
        Self {
            opened,
            place,
            phase: Phase::Attaching,
            frontend,
            leaving: false,
            forced: false,
            successor: None,
            presented: None,
            shown: false,
            state: State::Initialising,
            connected: false,
            relinks: Relinks::default(),
            growth: None,
            waiters: Vec::new(),
        }
    }

    /// The backend has forgotten the frontend's rings.
    pub fn forget_frontend(&mut self) {
        self.frontend.clear();
        self.phase = Phase::Closed;
        self.connected = false;
    }

    /// The state to show instead of this one. A disk that begins to close never seems connected again:
    /// Linux' frontend, which has let go of it by then, takes that for an invitation and stops at a
    /// BUG, since it finds its rings still there (xen-blkfront, `negotiate_mq`).
    pub fn state_for(&self, state: State) -> State {
        let closes = self.leaving || (self.state >= State::Closing && state == State::Connected);
        if closes && state < State::Closing { self.state.max(State::Closing) } else { state }
    }

    /// How far it is when it shows a state that the frontend's state asks for.
    pub fn phase_showing(&self, state: State) -> Phase {
        match (self.phase, state) {
            // A frontend that gave up before it was connected has nothing of ours.
            (Phase::Waiting, State::Closing) | (_, State::InitWait) => Phase::Waiting,
            _ => Phase::Closed,
        }
    }

    /// Whether it comes again when it has left.
    pub fn comes_again(&self) -> bool {
        self.successor.is_some()
            || self.presented.as_ref().is_some_and(|presented| presented.old.is_some())
    }

    /// Whether somebody wants it to go and not to come again.
    pub fn goes_for_good(&self) -> bool {
        self.leaving && !self.comes_again()
    }

    /// Whether it goes once the guest has closed it.
    fn goes_when_closed(&self) -> bool {
        self.leaving || matches!(self.successor, Some(Successor::Itself))
    }

    /// What follows from the frontend's state.
    pub fn step(&self, frontend: State) -> Step {
        match (self.phase, frontend) {
            (Phase::Attaching | Phase::Connecting | Phase::Disconnecting(_), _) => Step::Stay,
            (Phase::Waiting, State::Initialised | State::Connected) if !self.leaving => {
                Step::Connect
            }
            (Phase::Connected, State::Closing | State::Closed | State::Unknown) => Step::Disconnect,
            // A kernel that another one started (kexec) begins anew.
            (Phase::Connected, State::Initialising) => Step::Disconnect,
            (_, State::Closed | State::Unknown) if self.goes_when_closed() => Step::Remove,
            // Nobody uses it.
            (Phase::Waiting | Phase::Closed, State::Initialising) if self.leaving => Step::Remove,
            // Linux could not even begin with it, and has nothing to close.
            (Phase::Waiting, State::Closing) if self.leaving => Step::Remove,
            (Phase::Waiting | Phase::Closed, State::Closing) => Step::Show(State::Closing),
            (Phase::Waiting | Phase::Closed, State::Closed) => Step::Show(State::Closed),
            (Phase::Closed, State::Initialising) => Step::Show(State::InitWait),
            _ => Step::Stay,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::Class;
    use devices::wire::{BlockConfig, BlockFormat, DeviceConfig};

    fn device(phase: Phase) -> Device<()> {
        let config = DeviceConfig::Block(BlockConfig {
            format: BlockFormat::Raw,
            writable: true,
            shared: false,
            cdrom: false,
            discard: true,
            persistent: true,
            backing: Vec::new(),
        });
        let opened = Opened {
            class: Class::Vbd,
            number: 51712,
            name: "xvda".into(),
            config,
            files: Vec::new(),
            frontend: Nodes::new(),
            backend: Nodes::new(),
            warnings: Vec::new(),
            support: Box::new(None::<devices::block::lock::Record>),
        };
        let place = Place::new(3, Class::Vbd, 51712);
        Device { phase, ..Device::new(opened, place) }
    }

    #[test]
    fn frontends_are_followed() {
        let step = |phase, state| device(phase).step(state);
        assert_eq!(step(Phase::Attaching, State::Initialised), Step::Stay);
        assert_eq!(step(Phase::Waiting, State::Initialising), Step::Stay);
        assert_eq!(step(Phase::Waiting, State::Initialised), Step::Connect);
        assert_eq!(step(Phase::Waiting, State::Connected), Step::Connect, "as netfront does");
        assert_eq!(step(Phase::Connected, State::Connected), Step::Stay);
        assert_eq!(step(Phase::Connected, State::Closing), Step::Disconnect);
        assert_eq!(step(Phase::Connected, State::Initialising), Step::Disconnect);
        assert_eq!(step(Phase::Closed, State::Closing), Step::Show(State::Closing));
        assert_eq!(step(Phase::Closed, State::Closed), Step::Show(State::Closed));
        assert_eq!(step(Phase::Waiting, State::Closed), Step::Show(State::Closed));
        assert_eq!(step(Phase::Closed, State::Initialising), Step::Show(State::InitWait));
    }

    #[test]
    fn a_device_that_leaves_goes_when_the_guest_has_closed_it() {
        let step = |phase, state| Device { leaving: true, ..device(phase) }.step(state);
        assert_eq!(step(Phase::Connected, State::Connected), Step::Stay);
        assert_eq!(step(Phase::Connected, State::Closing), Step::Disconnect);
        assert_eq!(step(Phase::Closed, State::Closed), Step::Remove);
        assert_eq!(step(Phase::Waiting, State::Initialising), Step::Remove, "no frontend");
        assert_eq!(step(Phase::Closed, State::Initialising), Step::Remove, "no frontend any more");
        assert_eq!(step(Phase::Waiting, State::Initialised), Step::Stay);
        assert_eq!(step(Phase::Waiting, State::Closing), Step::Remove, "it never began");
        assert_eq!(step(Phase::Closed, State::Closing), Step::Show(State::Closing), "in use");
        assert_eq!(step(Phase::Closed, State::Unknown), Step::Remove, "its nodes are gone");
    }

    #[test]
    fn a_frontend_that_gave_up_has_nothing_to_let_go_of() {
        let before = device(Phase::Waiting);
        assert_eq!(before.step(State::Closing), Step::Show(State::Closing));
        let phase = before.phase_showing(State::Closing);
        assert_eq!(Device { leaving: true, ..device(phase) }.step(State::Closing), Step::Remove);
        assert_eq!(device(Phase::Closed).phase_showing(State::Closing), Phase::Closed);
        assert_eq!(device(Phase::Closed).phase_showing(State::InitWait), Phase::Waiting);
    }

    #[test]
    fn a_device_that_closes_does_not_seem_connected_again() {
        let device = |leaving, state| Device { leaving, state, ..device(Phase::Connecting) };
        let shown = |leaving, before, state| device(leaving, before).state_for(state);
        // The backend's answer comes when it is to go already.
        assert_eq!(shown(true, State::Closing, State::Connected), State::Closing);
        assert_eq!(shown(true, State::Closed, State::Connected), State::Closed);
        assert_eq!(shown(true, State::Initialising, State::InitWait), State::Closing);
        assert_eq!(shown(true, State::Closing, State::Closed), State::Closed);
        // It was to go, and stays.
        assert_eq!(shown(false, State::Closing, State::Connected), State::Closing);
        // A frontend that begins anew.
        assert_eq!(shown(false, State::Closed, State::InitWait), State::InitWait);
        assert_eq!(shown(false, State::InitWait, State::Connected), State::Connected);
        assert_eq!(shown(false, State::Connected, State::Connected), State::Connected);
    }

    #[test]
    fn a_drive_that_kept_its_medium_serves_on_and_comes_again_if_it_is_closed() {
        let step = |phase, state| {
            let successor = Some(Successor::Itself);
            Device { successor, ..device(phase) }.step(state)
        };
        assert_eq!(step(Phase::Connected, State::Connected), Step::Stay);
        assert_eq!(step(Phase::Waiting, State::Initialising), Step::Stay);
        assert_eq!(step(Phase::Waiting, State::Initialised), Step::Connect);
        assert_eq!(step(Phase::Connected, State::Closing), Step::Disconnect);
        assert_eq!(step(Phase::Closed, State::Closed), Step::Remove);
        assert!(
            Device { successor: Some(Successor::Itself), ..device(Phase::Closed) }.comes_again()
        );
        assert!(!device(Phase::Closed).comes_again());
    }

    #[test]
    fn a_device_that_is_detached_goes_for_good() {
        let mut device = device(Phase::Connected);
        assert!(!device.goes_for_good());
        device.leaving = true;
        assert!(device.goes_for_good());
        device.successor = Some(Successor::Itself);
        assert!(!device.goes_for_good(), "a drive whose medium is changed");
    }

    #[test]
    fn ways_out_are_made_once_a_second() {
        let mut relinks = Relinks::default();
        let start = Instant::now();
        assert!(!relinks.take(start), "nobody asked");
        relinks.ask(start);
        assert!(relinks.take(start) && !relinks.take(start));
        relinks.ask(start);
        assert!(!relinks.take(start) && relinks.take(start + Relinks::PAUSE));
        // Those that fail are tried again, after pauses that grow.
        let (mut now, mut pauses) = (start + Relinks::PAUSE, Vec::new());
        for _ in 0..8 {
            relinks.failed(now);
            let due = relinks.due.unwrap();
            pauses.push((due - now).as_secs());
            now = due;
            assert!(relinks.take(now));
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 64, 64]);
        relinks.succeeded();
        relinks.ask(now);
        assert_eq!(relinks.due, Some(now + Relinks::PAUSE));
    }

    #[test]
    fn states_are_single_digits() {
        assert_eq!(State::parse(Some(b"4")), State::Connected);
        for nonsense in [None, Some(b"".as_slice()), Some(b"44"), Some(b"7"), Some(b"x")] {
            assert_eq!(State::parse(nonsense), State::Unknown);
        }
    }
}
