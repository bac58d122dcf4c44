//! The store that all domains of one run-time directory share.
//!
//! It is served by one process, `xenstored`, which is started when somebody needs it and ends some
//! seconds after the last domain.
//!
//! ```text
//! RUNTIME/xenstored/socket         for clients, in the protocol of Xen's tools (XENSTORED_PATH)
//! RUNTIME/xenstored/domains.sock   for domains' processes ([`StoreLink`])
//! RUNTIME/xenstored/journal        what the next process needs to go on
//! RUNTIME/xenstored/lock           held by xenstored for its life
//! RUNTIME/xenstored/start.lock     held while it starts or ends
//! STATE/xenstored.log              what it did
//! ```

mod client;
mod link;

pub use client::{StoreClient, StoreError, Transaction, WatchEvent};
pub use link::{LinkNews, StoreLink};

use crate::dirs::{Dirs, private_directory};
use crate::error::{Hint, PathError};
use crate::launch::{LaunchError, find_program};
use crate::socket;
use kill_point::kill_point;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// What `xenstored` says when it serves; anything else is the reason why it does not.
pub const READY: &str = "ready";
/// What it says when the process that should have served is gone.
pub const ENDED: &str = "it ended while it started";
/// How it begins to say that there is one already: another attempt to start it was faster.
pub const SERVED: &str = "Another process serves";
/// Longest answer of `xenstored` that is read, in bytes.
const LONGEST_ANSWER: u64 = 4096;
/// How long a store may take to start.
const PATIENCE: Duration = Duration::from_secs(20);
/// Pauses between attempts.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// Files of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorePlace {
    /// Their directory; `XENSTORED_RUNDIR` for Xen's tools.
    pub directory: PathBuf,
}

impl StorePlace {
    /// The place in these directories.
    pub fn new(dirs: &Dirs) -> Self {
        Self { directory: dirs.runtime.join("xenstored") }
    }

    /// Creates the directory (mode 0700), or checks that it is ours.
    ///
    /// # Errors
    /// As [`Dirs::create`].
    pub fn create(&self) -> Result<(), PathError> {
        private_directory(&self.directory)
    }

    /// The socket for clients.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("socket")
    }

    /// The socket for domains' processes.
    pub fn domains(&self) -> PathBuf {
        self.directory.join("domains.sock")
    }

    /// The journal.
    pub fn journal(&self) -> PathBuf {
        self.directory.join("journal")
    }

    /// Opens the file that the serving process keeps locked.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn lock_file(&self) -> Result<File, PathError> {
        open_lock(&self.directory.join("lock"))
    }

    /// Opens the file that is locked while a store starts or ends.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn start_lock_file(&self) -> Result<File, PathError> {
        open_lock(&self.directory.join("start.lock"))
    }
}

fn open_lock(path: &Path) -> Result<File, PathError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(PathError::at("open", path))
}

/// The store could not be reached or started.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    /// A file or directory.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The program is missing.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// It says why it does not serve.
    #[error("xenstored does not start: {0}")]
    Failed(String),
    /// It starts and ends again and again, or somebody else starts it without end.
    #[error("xenstored cannot be reached within {} s", PATIENCE.as_secs())]
    Late,
}

impl Hint for ReachError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Path(error) => error.hint(),
            Self::Launch(error) => error.hint(),
            Self::Failed(_) | Self::Late => Some("Its log is xenstored.log.".into()),
        }
    }
}

/// Which of the store's sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    Clients,
    Domains,
}

/// Connects to the store, which is started if it does not run.
pub(crate) fn reach(dirs: &Dirs, door: Door) -> Result<UnixStream, ReachError> {
    let place = StorePlace::new(dirs);
    let path = match door {
        Door::Clients => place.socket(),
        Door::Domains => place.domains(),
    };
    let end = Instant::now() + PATIENCE;
    let mut pause = SHORTEST_PAUSE;
    let mut is_first = true;
    while Instant::now() < end {
        if !std::mem::take(&mut is_first) {
            // It was started, and somebody killed it.
            std::thread::sleep(pause);
            pause = LONGEST_PAUSE.min(2 * pause);
        }
        if let Ok(stream) = socket::connect(&path) {
            return Ok(stream);
        }
        dirs.create()?;
        place.create()?;
        let lock = place.start_lock_file()?;
        lock.lock().map_err(PathError::at("lock", &place.directory))?;
        kill_point("store-start.locked");
        // Somebody else may have started it meanwhile.
        if let Ok(stream) = socket::connect(&path) {
            return Ok(stream);
        }
        start(dirs)?;
        kill_point("store-start.done");
        if let Ok(stream) = socket::connect(&path) {
            return Ok(stream);
        }
    }
    Err(ReachError::Late)
}

static CHILD_SETUP: OnceLock<fn(&mut Command)> = OnceLock::new();

/// Has `setup` called for each store that this process starts, before it starts it: for a process
/// that blocks signals, which its children would do as well.
pub fn set_up_children(setup: fn(&mut Command)) {
    let _first_one_stays = CHILD_SETUP.set(setup);
}

/// Starts the store and waits until it serves, or has died while it started.
fn start(dirs: &Dirs) -> Result<(), ReachError> {
    let program = find_program("xenstored", "XENOLITH_XENSTORED")?;
    let failed = |error: io::Error| PathError::at("run", &program)(error);
    let mut command = crate::in_scope(&program, "store").map_err(failed)?;
    command
        .env(crate::RUNTIME_VARIABLE, &dirs.runtime)
        .env(crate::STATE_VARIABLE, &dirs.state)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    if let Some(setup) = CHILD_SETUP.get() {
        setup(&mut command);
    }
    let mut child = command.spawn().map_err(failed)?;
    kill_point("store-start.spawned");
    let mut answer = String::new();
    if let Some(output) = child.stdout.take() {
        output.take(LONGEST_ANSWER).read_to_string(&mut answer).map_err(failed)?;
    }
    // Whoever waits for all children of this process may have been faster.
    let _ended = child.wait();
    match answer.trim() {
        READY | ENDED | "" => Ok(()),
        why if why.starts_with(SERVED) => Ok(()),
        why => Err(ReachError::Failed(why.chars().filter(|c| !c.is_control()).collect())),
    }
}
