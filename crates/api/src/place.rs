//! Where the daemon is, and how it is started.

use control::{Dirs, Hint, LaunchError, PathError, find_program, kill_point};
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What `xend` says when it serves; anything else is the reason why it does not.
pub const READY: &str = "ready";
/// What it says when the process that should have served is gone.
pub const ENDED: &str = "it ended while it started";
/// What it says when there is one already: another attempt to start it was faster, even if whoever made
/// that was killed meanwhile.
pub const SERVED: &str = "another xend serves these domains already";
/// Longest answer of `xend` that is read, in bytes.
const LONGEST_ANSWER: u64 = 4096;
/// How long a daemon may take to start.
const PATIENCE: Duration = Duration::from_secs(20);
/// Pauses between attempts.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// Files of the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Their directory.
    pub directory: PathBuf,
}

impl Place {
    /// The place in these directories.
    pub fn new(dirs: &Dirs) -> Self {
        Self { directory: dirs.runtime.join("xend") }
    }

    /// Creates the directory (mode 0700), or checks that it is ours.
    ///
    /// # Errors
    /// As [`Dirs::create`].
    pub fn create(&self) -> Result<(), PathError> {
        Dirs::private(&self.directory)
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("socket")
    }

    /// Opens the file that the serving process keeps locked.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn lock_file(&self) -> Result<File, PathError> {
        open_lock(&self.directory.join("lock"))
    }

    /// Opens the file that is locked while a daemon starts or ends.
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

/// The daemon could not be reached or started.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    /// A file or directory.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The program is missing.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// It says why it does not serve.
    #[error("xend does not start: {0}")]
    Failed(String),
    /// It starts and ends again and again, or somebody else starts it without end.
    #[error("xend cannot be reached within {} s", PATIENCE.as_secs())]
    Late,
}

impl Hint for ReachError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Path(error) => error.hint(),
            Self::Launch(error) => error.hint(),
            Self::Failed(_) | Self::Late => Some("Its log is xend.log ('xm log').".into()),
        }
    }
}

/// Connects to the daemon, which is started if it does not run.
pub(crate) fn reach(dirs: &Dirs) -> Result<UnixStream, ReachError> {
    let place = Place::new(dirs);
    let path = place.socket();
    let end = Instant::now() + PATIENCE;
    let mut pause = SHORTEST_PAUSE;
    let mut is_first = true;
    while Instant::now() < end {
        if !std::mem::take(&mut is_first) {
            // It was started, and somebody killed it.
            std::thread::sleep(pause);
            pause = LONGEST_PAUSE.min(2 * pause);
        }
        if let Ok(stream) = control::connect(&path) {
            return Ok(stream);
        }
        dirs.create()?;
        place.create()?;
        let lock = place.start_lock_file()?;
        lock.lock().map_err(PathError::at("lock", &place.directory))?;
        kill_point("daemon-start.locked");
        // Somebody else may have started it meanwhile.
        if let Ok(stream) = control::connect(&path) {
            return Ok(stream);
        }
        start(dirs)?;
        kill_point("daemon-start.done");
        if let Ok(stream) = control::connect(&path) {
            return Ok(stream);
        }
    }
    Err(ReachError::Late)
}

/// Variables that a daemon takes over from the tool that starts it. All others of ours come with
/// each request: the next tool may have been given other ones.
const KEPT: [&str; 4] =
    ["XENOLITH_XENDOMAIN", "XENOLITH_XENSTORED", config::HOST_VARIABLE, control::DIE_VARIABLE];

/// Starts the daemon and waits until it serves, or has died while it started.
fn start(dirs: &Dirs) -> Result<(), ReachError> {
    let program = find_program("xend", "XENOLITH_XEND")?;
    let failed = |error: io::Error| PathError::at("run", &program)(error);
    let mut command = Command::new(&program);
    for (name, _) in std::env::vars_os() {
        let ours = name.to_str().is_some_and(|name| name.starts_with("XENOLITH_"));
        if ours && !KEPT.iter().any(|kept| name == *kept) {
            command.env_remove(name);
        }
    }
    let mut child = command
        .env(control::RUNTIME_VARIABLE, &dirs.runtime)
        .env(control::STATE_VARIABLE, &dirs.state)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    kill_point("daemon-start.spawned");
    let mut answer = String::new();
    if let Some(output) = child.stdout.take() {
        output.take(LONGEST_ANSWER).read_to_string(&mut answer).map_err(failed)?;
    }
    let _ended = child.wait();
    match answer.trim() {
        READY | ENDED | SERVED | "" => Ok(()),
        why => Err(ReachError::Failed(why.chars().filter(|c| !c.is_control()).collect())),
    }
}
