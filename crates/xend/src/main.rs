//! `xend`: the control daemon. The tools start it when they need it; systemd can, too.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

use api::{ENDED, Place, READY, SERVED};
use config::HostConfig;
use control::{Dirs, Hint, Record, Registry, kill_point};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::os::unix::net::UnixListener;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use xend::{Daemon, End, OwnSocket, activated, notify, serve};

/// Word that makes the process serve itself instead of starting one that does.
const SERVE: &str = "--serve";
/// How long the lock of a daemon that does not listen is waited for, and how often it is tried.
const HELD: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(10);
/// Longest answer of a daemon that does not start, in bytes.
const LONGEST_ANSWER: u64 = 64 << 10;
const USAGE: &str = "\
usage: xend [--serve | openapi | --path | --help | --version]

Starts the control daemon of this user's domains in the background. The tools start it by
themselves; it ends some seconds after the last domain and client, and domains go on without it.

  --serve    serves in the foreground (for service managers), until a signal
  openapi    prints the description of its programming interface
  --path     only prints where its socket is
  --help     prints this text
  --version  prints the version

Environment: XENOLITH_RUNTIME_DIR, XENOLITH_STATE_DIR, XENOLITH_HOST_CONFIG, XENOLITH_LOG,
XENOLITH_LOG_FORMAT, as for xm.
";

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let result = match (words.next().as_deref(), words.next().as_deref()) {
        (None, _) => start(),
        (Some(SERVE), None) => run(false),
        (Some(SERVE), Some("on-demand")) => run(true),
        (Some("openapi"), None) => match xend::openapi() {
            Ok(text) => {
                say(text.trim_end());
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        },
        (Some("--path"), None) => {
            say(&Place::new(&Dirs::from_environment()).socket().display().to_string());
            Ok(())
        }
        (Some("-h" | "--help"), None) => {
            say(USAGE.trim_end());
            Ok(())
        }
        (Some("-V" | "--version"), None) => {
            say(&format!("xend (Xenolith) {}", env!("CARGO_PKG_VERSION")));
            Ok(())
        }
        _ => Err(USAGE.trim_end().to_owned()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            say(&why);
            ExitCode::FAILURE
        }
    }
}

/// A line on standard output; without a reader there is nobody to tell.
fn say(line: &str) {
    let _told = writeln!(io::stdout(), "{line}");
}

/// Starts the serving process, which so is nobody's child, and says what it says.
fn start() -> Result<(), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut child = Command::new(program)
        .args([SERVE, "on-demand"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    kill_point("xend.launcher.spawned");
    let mut answer = String::new();
    if let Some(output) = child.stdout.take() {
        let mut output = BufReader::new(output).take(LONGEST_ANSWER);
        output.read_line(&mut answer).map_err(|error| error.to_string())?;
        if answer.trim_end() != READY {
            // It ends, and says why in as many lines as it takes.
            output.read_to_string(&mut answer).map_err(|error| error.to_string())?;
        }
    }
    kill_point("xend.launcher.told");
    match answer.trim_end() {
        READY => {
            say(READY);
            Ok(())
        }
        "" => Err(ENDED.into()),
        why => Err(why.to_owned()),
    }
}

fn shown(error: &(impl std::fmt::Display + Hint)) -> String {
    match error.hint() {
        Some(hint) => format!("{error}. {hint}"),
        None => error.to_string(),
    }
}

/// Serves until there is a reason to end.
fn run(on_demand: bool) -> Result<(), String> {
    kill_point("xend.start.begun");
    // Fails for a process group leader, which is detached enough.
    let _in_own_session = rustix::process::setsid();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let host = HostConfig::load().map_err(|error| error.to_string())?;
    let idle = on_demand.then(|| Duration::from_secs(host.daemon.idle.into()));
    let registry = Registry::open().map_err(|error| shown(&error))?;
    let place = Place::new(registry.dirs());
    place.create().map_err(|error| shown(&error))?;
    let handed = activated().map_err(|error| error.to_string())?;
    let is_handed = handed.is_some();
    kill_point("xend.start.placed");
    let _lock = take_lock(&place, is_handed)?;
    kill_point("xend.start.locked");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("Cannot start: {error}"))?;
    let daemon = runtime
        .block_on(async { Daemon::open(registry, host.memory.reserve.into()) })
        .map_err(|error| shown(&error))?;
    let (listener, own) = match handed {
        Some(listener) => (listener, None),
        None => bind(&place)
            .map(|(listener, own)| (listener, Some(own)))
            .map_err(|error| format!("Cannot listen at {}: {error}", place.socket().display()))?,
    };
    kill_point("xend.start.bound");
    say(READY);
    kill_point("xend.start.told");
    if idle.is_some() {
        detach(&daemon);
    }
    let _no_manager = notify("READY=1");
    kill_point("xend.start.ready");
    let end = runtime.block_on(serve(daemon.clone(), listener, own.clone(), idle));
    let _no_manager = notify("STOPPING=1");
    runtime.block_on(daemon.settle());
    kill_point("xend.end.begun");
    daemon.log(match &end {
        Ok(End::Signal) => Record::info("ends: it was told to"),
        Ok(End::Idle) => Record::info("ends: nobody needs it"),
        Ok(End::Homeless) => Record::warning("ends: its directory or its socket is gone"),
        Err(error) => Record::error("ends").with("error", error),
    });
    if let Some(own) = own.filter(|_| !matches!(end, Ok(End::Homeless))) {
        remove_socket(&place, &own);
    }
    end.map(drop).map_err(|error| error.to_string())
}

/// Proves that this is the only daemon of its directory. One that was killed just now may not have
/// let go of everything yet. A socket that was handed over answers without a daemon.
fn take_lock(place: &Place, is_handed: bool) -> Result<File, String> {
    let mut lock = place.lock_file().map_err(|error| shown(&error))?;
    let end = Instant::now() + HELD;
    while lock.try_lock().is_err() {
        let is_served = || !is_handed && control::connect(&place.socket()).is_ok();
        if Instant::now() >= end || is_served() {
            return Err(SERVED.into());
        }
        std::thread::sleep(LOOK);
    }
    let number = format!("{}\n", std::process::id());
    // It is for people and tests.
    let _unwritten = lock
        .set_len(0)
        .and_then(|()| lock.rewind())
        .and_then(|()| lock.write_all(number.as_bytes()));
    Ok(lock)
}

/// Listens in place of a daemon that is gone: we have its lock.
fn bind(place: &Place) -> io::Result<(UnixListener, OwnSocket)> {
    match std::fs::remove_file(place.socket()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    kill_point("xend.start.unbound");
    let listener = control::bind(&place.socket())?;
    Ok((listener, OwnSocket::at(place.socket())?))
}

/// Takes the socket away while nobody starts another daemon. Clients that had connected and were
/// not answered find their connection closed, and start one.
fn remove_socket(place: &Place, own: &OwnSocket) {
    let Ok(lock) = place.start_lock_file() else { return };
    if lock.lock().is_ok() && own.is_in_place() {
        kill_point("xend.end.locked");
        let _gone_already = std::fs::remove_file(place.socket());
        kill_point("xend.end.unbound");
    }
}

/// Lets go of whoever started the process, and of its directory. Messages of last resort go to the
/// log.
fn detach(daemon: &Daemon) {
    if let Ok(null) = OpenOptions::new().read(true).write(true).open("/dev/null") {
        let _null_in = rustix::stdio::dup2_stdin(&null);
        let _null_out = rustix::stdio::dup2_stdout(&null);
        let _null_err = rustix::stdio::dup2_stderr(&null);
    }
    if let Ok(log) = OpenOptions::new().append(true).open(daemon.log_path()) {
        let _log_err = rustix::stdio::dup2_stderr(&log);
    }
    if std::env::set_current_dir("/").is_err() {
        daemon.log(Record::warning("cannot leave the directory it was started in"));
    }
}
