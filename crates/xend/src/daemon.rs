//! What the daemon knows.

use crate::journal::Journal;
use crate::register::{Change, Content, Kept, MOST_HISTORY, Register, Seen};
use api::types::{Event, Happening, Past, Who};
use control::{
    Dirs, Ended, Entry, Hint, Line, Log, PathError, Record, Registry, RegistryError, Uuid, tail,
};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, broadcast};

/// Events that a slow client may be behind.
const BACKLOG: usize = 1024;

/// The daemon could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The registry of running domains.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A file.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Something of the host.
    #[error("Cannot {what}: {source}")]
    Host {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

impl Hint for StartError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Registry(error) => error.hint(),
            Self::Path(error) => error.hint(),
            Self::Host { .. } => None,
        }
    }
}

/// A domain that runs.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    /// Its place in the registry.
    pub entry: Entry,
    /// Whether a task waits for its end.
    pub watched: bool,
    /// Whether it has ever answered.
    pub up: bool,
    /// What it said of its end.
    pub last: Option<Ended>,
    /// Who it was before it was set aside for a new one (`rename-restart`).
    pub before: Option<Entry>,
    /// Told when it has left the registry.
    pub forgotten: Arc<Notify>,
}

impl Running {
    /// A domain that nobody has watched yet.
    pub fn new(entry: Entry) -> Self {
        Self {
            entry,
            watched: false,
            up: false,
            last: None,
            before: None,
            forgotten: Arc::default(),
        }
    }
}

/// A domain that this daemon is starting.
#[derive(Debug)]
pub(crate) struct Starting {
    pub name: String,
    pub uuid: Uuid,
    pub mib: u64,
    /// Calls the start off.
    pub cancel: Notify,
}

/// What changes.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub running: BTreeMap<u32, Running>,
    pub starting: Vec<Arc<Starting>>,
    pub managed: Vec<Kept>,
    pub history: VecDeque<Past>,
    /// Our children among the domains' processes, and how they ended.
    pub children: HashMap<u32, Option<ExitStatus>>,
}

/// The daemon.
pub struct Daemon {
    pub(crate) registry: Registry,
    pub(crate) journal: Journal,
    /// Held while a name is checked and taken.
    pub(crate) names: tokio::sync::Mutex<()>,
    /// Something changed that the main loop may wait for.
    pub(crate) changed: Notify,
    state: Mutex<State>,
    events: broadcast::Sender<Event>,
    log: Arc<Mutex<Log>>,
    pub(crate) boot: String,
    /// Memory that no domain gets, in MiB.
    pub(crate) reserve_mib: u64,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Seconds since the epoch.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Daemon {
    /// Opens the register and finds the domains that run. What ended while no daemon ran is
    /// reported as gone.
    ///
    /// # Errors
    /// When the registry or the register cannot be used.
    pub fn open(registry: Registry, reserve_mib: u64) -> Result<Arc<Self>, StartError> {
        let dirs = registry.dirs().clone();
        let (mut log, _works_without) = Log::open(&dirs.state.join("xend.log"), "xend");
        log.join_journal();
        let log = Arc::new(Mutex::new(log));
        let register = Register::open(&kept(&dirs))?;
        control::kill_point("xend.start.registered");
        let content = register.load()?;
        control::kill_point("xend.start.loaded");
        let complaints = Arc::clone(&log);
        let complain =
            move |error: &PathError| locked(&complaints).write(Record::error(error.to_string()));
        let journal = Journal::start(register, complain)
            .map_err(|source| StartError::Host { what: "start a thread", source })?;
        let daemon = Arc::new(Self {
            registry,
            journal,
            names: tokio::sync::Mutex::new(()),
            changed: Notify::new(),
            state: Mutex::new(State::default()),
            events: broadcast::channel(BACKLOG).0,
            log,
            boot: boot_id(),
            reserve_mib,
        });
        daemon.log(Record::info("started").with("pid", std::process::id()));
        daemon.take_over(content)?;
        Ok(daemon)
    }

    /// Takes what an earlier daemon left, and reports what it did not live to see.
    fn take_over(self: &Arc<Self>, content: Content) -> Result<(), StartError> {
        let live = self.registry.list()?;
        {
            let mut state = self.state();
            state.managed = content.managed;
            state.history = content.history.into();
        }
        for seen in content.running {
            let is_same = |entry: &&Entry| {
                (entry.domid, entry.pid, entry.started)
                    == (seen.entry.domid, seen.entry.pid, seen.entry.started)
            };
            if let Some(entry) = live.iter().find(is_same) {
                // It was up: whatever becomes of it is told.
                let running = Running { up: true, ..Running::new(entry.clone()) };
                self.state().running.insert(entry.domid, running);
            } else {
                control::kill_point("xend.start.missed");
                let how = self.how_unseen(&seen);
                let heir = live.iter().find(|entry| entry.uuid == seen.entry.uuid);
                self.gone(&seen.entry, None, heir.map(|entry| entry.domid), how);
            }
        }
        control::kill_point("xend.start.reported");
        self.catch_up_on_names(&live);
        Ok(())
    }

    /// How a domain ended that nobody watched: its own log may tell.
    fn how_unseen(&self, seen: &Seen) -> String {
        if seen.boot != self.boot {
            return "the host was started anew".to_owned();
        }
        let entry = &seen.entry;
        let path = self.registry.dirs().log(&entry.name);
        let end = tail(&path, 16 << 10).unwrap_or_default();
        let end = String::from_utf8_lossy(&end);
        let mut lines = end.lines().rev().filter_map(Line::parse);
        match lines.find(|line| line.domid == Some(entry.domid)) {
            Some(line) => format!("while xend did not run; its log ends with: {}", line.words()),
            None => "while xend did not run".to_owned(),
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// Logs a record.
    pub fn log(&self, record: Record) {
        locked(&self.log).write(record);
    }

    /// The log's file.
    pub fn log_path(&self) -> PathBuf {
        locked(&self.log).path().to_path_buf()
    }

    /// Tells everybody who listens.
    pub(crate) fn tell(&self, what: Happening) {
        let _nobody_listens = self.events.send(Event { at: now(), what });
    }

    pub(crate) fn listen(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Records and tells that a domain's process is gone.
    pub(crate) fn gone(
        &self,
        entry: &Entry,
        reason: Option<control::ShutdownReason>,
        successor: Option<u32>,
        how: String,
    ) {
        self.log(
            Record::info("the domain is gone")
                .about(&entry.name)
                .about_number(entry.domid)
                .with("how", &how),
        );
        let past = Past {
            name: entry.name.clone(),
            uuid: entry.uuid,
            domid: entry.domid,
            started: entry.started,
            ended: now(),
            reason,
            successor,
            how,
        };
        control::kill_point("xend.gone.unrecorded");
        let _written_in_its_time = self.journal.write(Change::Ended(past.clone()));
        control::kill_point("xend.gone.ordered");
        let mut state = self.state();
        state.running.remove(&entry.domid);
        state.children.remove(&entry.pid);
        state.history.push_back(past.clone());
        while state.history.len() as u64 > MOST_HISTORY {
            state.history.pop_front();
        }
        drop(state);
        self.tell(Happening::Gone(past));
        control::kill_point("xend.gone.told");
        self.changed.notify_one();
    }

    /// Records and tells that a domain is up.
    pub(crate) fn up(&self, entry: &Entry) {
        if let Some(running) = self.state().running.get_mut(&entry.domid) {
            running.up = true;
        }
        self.log(Record::info("the domain is up").about(&entry.name).about_number(entry.domid));
        control::kill_point("xend.up.unrecorded");
        let seen = Seen { entry: entry.clone(), boot: self.boot.clone() };
        let _written_in_its_time = self.journal.write(Change::Saw(seen));
        self.tell(Happening::Up(Who::running(entry)));
        control::kill_point("xend.up.told");
    }

    /// Waits until what it knows is in the register.
    pub async fn settle(&self) {
        self.journal.flush().await;
    }

    /// Whether there is nothing that an end of the daemon would miss.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.state();
        state.running.is_empty() && state.starting.is_empty()
    }
}

/// The directory of what is kept. Run-time directories that share a directory of logs have one each,
/// named by the hash of its path (FNV-1a).
fn kept(dirs: &Dirs) -> PathBuf {
    let path = dirs.runtime.as_os_str().as_encoded_bytes().iter();
    let hash = path.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    dirs.kept().join(format!("{hash:016x}"))
}

/// What tells one boot of the host from another.
fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}
