//! The loop: connections, turns, and what has to be written down before anything is answered.

use std::fs::File;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use control::xenstore::{SERVED, StorePlace};
use control::{Log, PathError, Record, Registry, kill_point};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use store::{Domid, Store};

use crate::client::{Client, End, cpu_time};
use crate::domains::{admit, homes, make_first_nodes, retire};
use crate::doors::{listen, take, take_lock};
use crate::journal::{Journal, JournalError, Past};

/// Connections of each kind at a time, so that neither shuts the other out.
const MOST_CLIENTS: usize = 512;
/// How long the process stays when there is no domain and no client.
const LINGER: Duration = Duration::from_secs(5);
/// How often domains without a process are looked at.
const LOOK: Duration = Duration::from_millis(20);
/// The same, once a domain was without one for a while.
const LOOK_LATER: Duration = Duration::from_secs(1);

/// The store cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A file or directory.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Another process serves it.
    #[error("{} {} already", SERVED, .0)]
    Served(String),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// The store of one run-time directory, served.
pub struct Server {
    registry: Registry,
    place: StorePlace,
    store: Store,
    journal: Journal,
    hosts: UnixListener,
    domains: UnixListener,
    clients: Vec<Client>,
    log: Log,
    /// Whether the journal could not be written.
    is_unwritten: bool,
    /// Since when there is nobody.
    idle_since: Option<Instant>,
    /// Since when a domain has no process, and when that is looked at next.
    orphaned: Option<(Instant, Instant)>,
    /// Whose turn is first.
    first: usize,
    _lock: File,
    /// Held when the process ends; let go of last, so that the next one finds the other lock free.
    start_lock: Option<File>,
}

impl Server {
    /// Takes over the store of a registry's directories.
    ///
    /// # Errors
    /// When another process serves it, or a file cannot be used.
    pub fn new(registry: Registry) -> Result<Self, ServeError> {
        let dirs = registry.dirs();
        let place = StorePlace::new(dirs);
        place.create()?;
        let lock = place.lock_file()?;
        take_lock(&lock, &place)?;
        kill_point("xenstored.start.locked");
        let (mut log, _works_without) = Log::open(&dirs.state.join("xenstored.log"), "xenstored");
        let (mut journal, mut store, past) = Journal::open(&place.journal())?;
        kill_point("xenstored.start.restored");
        match past {
            Past::None => log.write(Record::info("started")),
            Past::GoesOn { lost } => {
                let domains = store.domains().count();
                log.write(Record::info("goes on where another left off").with("domains", domains));
                if lost > 0 {
                    let record = Record::warning("the end of the journal was not complete");
                    log.write(record.with("bytes", lost));
                }
            }
            Past::Unusable => {
                log.write(Record::error("the journal cannot be used; the store is empty"));
            }
        }
        make_first_nodes(&mut store);
        journal.write(&mut store)?;
        kill_point("xenstored.start.first-nodes");
        let hosts = listen(&place.socket())?;
        kill_point("xenstored.start.one-door");
        let domains = listen(&place.domains())?;
        let now = Instant::now();
        Ok(Self {
            registry,
            place,
            store,
            journal,
            hosts,
            domains,
            clients: Vec::new(),
            log,
            is_unwritten: false,
            idle_since: None,
            orphaned: Some((now, now)),
            first: 0,
            _lock: lock,
            start_lock: None,
        })
    }

    /// Logs a record.
    pub fn log(&mut self, record: Record) {
        self.log.write(record);
    }

    /// Serves until nobody needs the store any more.
    pub fn run(mut self) {
        while !self.may_end() {
            let now = Instant::now();
            let waits: Vec<Duration> =
                self.clients.iter_mut().map(|client| client.wait(now)).collect();
            let ready = self.poll(now, &waits);
            self.serve(&ready, &waits);
            self.admit();
            self.look_after_orphans(Instant::now());
            self.write_down();
            for client in &mut self.clients {
                client.flush(&mut self.store);
            }
            self.sweep();
            self.accept(&ready);
        }
    }

    /// Waits for something to do. The result is in the order of clients, then the two listeners.
    fn poll(&self, now: Instant, waits: &[Duration]) -> Vec<PollFlags> {
        let mut timeout = self.timeout(now);
        let mut fds = Vec::with_capacity(self.clients.len() + 2);
        for (client, wait) in self.clients.iter().zip(waits) {
            let mut flags = PollFlags::empty();
            if wait.is_zero() {
                if client.reads() {
                    flags |= PollFlags::IN;
                }
                if client.has_more(&self.store) {
                    timeout = Some(Duration::ZERO);
                }
            } else {
                timeout = Some(timeout.map_or(*wait, |timeout| timeout.min(*wait)));
            }
            if client.is_full() {
                flags |= PollFlags::OUT;
            }
            fds.push(PollFd::new(client.stream(), flags));
        }
        let flags = |room: usize| if room > 0 { PollFlags::IN } else { PollFlags::empty() };
        let (hosts, domains) = self.room();
        fds.push(PollFd::new(&self.hosts, flags(hosts)));
        fds.push(PollFd::new(&self.domains, flags(domains)));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => fds.iter().map(PollFd::revents).collect(),
            Err(_) => vec![PollFlags::empty(); fds.len()],
        }
    }

    /// How long nothing has to be done if nobody asks.
    fn timeout(&self, now: Instant) -> Option<Duration> {
        let orphans = self.orphaned.map(|(_, next)| next.saturating_duration_since(now));
        let end = self.idle_since.map(|since| (since + LINGER).saturating_duration_since(now));
        orphans.into_iter().chain(end).min()
    }

    /// Gives each client that sent something its turn, another one first each time.
    fn serve(&mut self, ready: &[PollFlags], waits: &[Duration]) {
        let count = self.clients.len();
        for i in (0..count).map(|i| (self.first + i) % count) {
            let (Some(client), Some(flags), Some(wait)) =
                (self.clients.get_mut(i), ready.get(i), waits.get(i))
            else {
                continue;
            };
            let has_news = flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR);
            if wait.is_zero() && (has_news || client.has_more(&self.store)) {
                client.serve(&mut self.store, has_news);
            } else if flags.intersects(PollFlags::HUP | PollFlags::ERR) {
                client.finish(End::Closed);
            }
        }
        self.first = self.first.wrapping_add(1);
    }

    /// Lets domains in that said who they are.
    fn admit(&mut self) {
        let mut admitted: Vec<(usize, Domid)> = Vec::new();
        for (i, client) in self.clients.iter_mut().enumerate() {
            let Some(peer) = client.applicant().and_then(|link| link.peer()) else { continue };
            let may = admit(&self.registry, client.stream(), peer);
            let Some(link) = client.applicant() else { continue };
            let welcomed =
                may.and_then(|()| link.welcome(&mut self.store).map_err(|error| error.to_string()));
            match welcomed {
                Ok(()) => {
                    kill_point("xenstored.admitted");
                    admitted.push((i, peer.domid));
                }
                Err(why) => {
                    link.refuse(&why);
                    client.finish(End::Broken(why));
                }
            }
        }
        // A domain has one connection: the last.
        for (new, domid) in admitted {
            for (i, client) in self.clients.iter_mut().enumerate() {
                if i != new && client.domid() == Some(domid) {
                    client.finish(End::Closed);
                }
            }
        }
    }

    /// Writes down what changed. Only then anybody may hear of it.
    fn write_down(&mut self) {
        let start = cpu_time();
        let bytes = self.store.journal_length();
        if bytes > 0 {
            kill_point("xenstored.changed");
        }
        let mut result = self.journal.write(&mut self.store);
        if self.journal.is_long() || result.is_err() || self.is_unwritten {
            kill_point("xenstored.journal.long");
            result = self.journal.renew(&mut self.store);
        }
        let is_unwritten = result.is_err();
        if let Err(error) = result
            && !self.is_unwritten
        {
            // Going on without is better than to fail what has happened already.
            let record = Record::error("what changes now is lost if the process dies");
            self.log.write(record.with("error", error));
        }
        self.is_unwritten = is_unwritten;
        if bytes > 0 {
            kill_point("xenstored.written-down");
            let time = cpu_time().saturating_sub(start);
            self.clients.iter_mut().for_each(|client| client.pay_for_writing(time, bytes));
        }
    }

    /// Closes what has ended.
    fn sweep(&mut self) {
        let (ended, live) = std::mem::take(&mut self.clients)
            .into_iter()
            .partition::<Vec<_>, _>(|client| client.end().is_some());
        self.clients = live;
        for client in ended {
            if let Some(End::Broken(why)) = client.end() {
                self.log.write(Record::warning("a connection was closed").with("error", why));
            }
            // A domain's process writes its nodes as a client.
            let now = Instant::now();
            self.orphaned = Some((now, now));
            client.close(&mut self.store);
            kill_point("xenstored.client-gone");
        }
    }

    /// How many more clients and domains may connect.
    fn room(&self) -> (usize, usize) {
        let domains = self.clients.iter().filter(|client| client.is_domain()).count();
        let hosts = self.clients.len() - domains;
        (MOST_CLIENTS.saturating_sub(hosts), MOST_CLIENTS.saturating_sub(domains))
    }

    fn accept(&mut self, ready: &[PollFlags]) {
        let count = ready.len().saturating_sub(2);
        let is_ready = |i| ready.get(i).is_some_and(|flags: &PollFlags| !flags.is_empty());
        let (hosts, domains) = self.room();
        if is_ready(count) {
            for stream in std::iter::from_fn(|| take(&self.hosts)).take(hosts) {
                kill_point("xenstored.client-taken");
                self.clients.extend(Client::host(stream, &mut self.store));
            }
        }
        if is_ready(count + 1) {
            let streams = std::iter::from_fn(|| take(&self.domains)).take(domains);
            kill_point("xenstored.domain-taken");
            self.clients.extend(streams.flat_map(Client::domain));
        }
    }

    /// Releases domains whose process is gone.
    fn look_after_orphans(&mut self, now: Instant) {
        let connected: Vec<Domid> = self.clients.iter().filter_map(Client::domid).collect();
        let is_due = match self.orphaned {
            Some((_, next)) => next <= now,
            // One that a client introduced.
            None => self.store.domains().count() > connected.len(),
        };
        if !is_due {
            return;
        }
        let introduced = self.store.domains().map(|(domid, _)| domid);
        let mut orphans: Vec<Domid> = introduced.chain(homes(&self.store)).collect();
        orphans.retain(|domid| !connected.contains(domid));
        orphans.sort_unstable();
        orphans.dedup();
        let mut is_any_left = false;
        for domid in orphans {
            if self.registry.lives(u32::from(domid)) {
                is_any_left = true;
            } else {
                kill_point("xenstored.domain-missed");
                retire(&mut self.store, domid);
                kill_point("xenstored.domain-retired");
                self.log.write(Record::info("the domain is gone").about_number(domid.into()));
            }
        }
        self.orphaned = is_any_left.then(|| {
            let since = self.orphaned.map_or(now, |(since, _)| since);
            let is_new = now.saturating_duration_since(since) < LOOK_LATER;
            (since, now + if is_new { LOOK } else { LOOK_LATER })
        });
    }

    /// Whether there has been nobody for a while. Then no one can connect any more.
    fn may_end(&mut self) -> bool {
        if !self.clients.is_empty() || self.store.domains().next().is_some() {
            self.idle_since = None;
            return false;
        }
        let now = Instant::now();
        let since = *self.idle_since.get_or_insert(now);
        if now.saturating_duration_since(since) < LINGER {
            return false;
        }
        let is_needed = self.registry.list().is_ok_and(|domains| !domains.is_empty());
        if is_needed || !self.close_doors() {
            self.idle_since = Some(now);
            return false;
        }
        self.log.write(Record::info("ended: nobody needs it"));
        kill_point("xenstored.end.told");
        true
    }

    /// Takes the sockets away, unless somebody comes just now.
    fn close_doors(&mut self) -> bool {
        if !self.place.directory.exists() {
            // Somebody removed everything: nobody can come any more.
            return true;
        }
        // Whoever starts a store holds this lock until it has connected.
        let Ok(lock) = self.place.start_lock_file() else { return false };
        if lock.try_lock().is_err() {
            return false;
        }
        kill_point("xenstored.end.locked");
        for path in [self.place.socket(), self.place.domains()] {
            let _may_be_gone = std::fs::remove_file(path);
        }
        kill_point("xenstored.end.unbound");
        // Those who connected before the doors were closed are served yet.
        let late: Vec<UnixStream> = std::iter::from_fn(|| take(&self.hosts)).collect();
        let is_late = !late.is_empty();
        for stream in late {
            self.clients.extend(Client::host(stream, &mut self.store));
        }
        while let Some(stream) = take(&self.domains) {
            self.clients.extend(Client::domain(stream));
        }
        if !is_late && self.clients.is_empty() {
            self.start_lock = Some(lock);
            return true;
        }
        let doors = listen(&self.place.socket()).and_then(|hosts| {
            let domains = listen(&self.place.domains())?;
            Ok((hosts, domains))
        });
        match doors {
            Ok((hosts, domains)) => (self.hosts, self.domains) = (hosts, domains),
            Err(error) => {
                self.log.write(Record::error("the sockets are lost").with("error", error));
            }
        }
        false
    }
}
