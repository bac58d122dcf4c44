//! `xenstored`: serves the store that all domains of a run-time directory share. It is started by
//! whoever needs it; started by hand, it does the same.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

use std::fs::OpenOptions;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};

use control::xenstore::{ENDED, READY, StorePlace};
use control::{Dirs, Record, Registry, kill_point};
use xenstored::{Server, confine};

/// Word that makes the process serve itself instead of starting one that does.
const SERVE: &str = "--serve";
const USAGE: &str = "\
usage: xenstored [--path | --help | --version]

Starts the store that all domains of a user share, in the background. The tools start it by
themselves; it ends some seconds after the last domain and client.

  --path     only prints where its socket is, for XENSTORED_PATH
  --help     prints this text
  --version  prints the version

Environment: XENOLITH_RUNTIME_DIR, XENOLITH_STATE_DIR, XENOLITH_LOG, XENOLITH_LOG_FORMAT, as for xm.
";

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let result = match (words.next().as_deref(), words.next()) {
        (None, _) => start(),
        (Some(SERVE), None) => serve(),
        (Some("--path"), None) => {
            let place = StorePlace::new(&Dirs::from_environment());
            say(&place.socket().display().to_string());
            Ok(())
        }
        (Some("-h" | "--help"), None) => {
            say(USAGE.trim_end());
            Ok(())
        }
        (Some("-V" | "--version"), None) => {
            say(&format!("xenstored {}", env!("CARGO_PKG_VERSION")));
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
        .arg(SERVE)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    kill_point("xenstored.launcher.spawned");
    let mut line = String::new();
    if let Some(output) = child.stdout.take() {
        BufReader::new(output).read_line(&mut line).map_err(|error| error.to_string())?;
    }
    kill_point("xenstored.launcher.told");
    match line.trim_end() {
        READY => {
            say(READY);
            Ok(())
        }
        "" => Err(ENDED.into()),
        why => Err(why.to_owned()),
    }
}

/// Serves the store.
fn serve() -> Result<(), String> {
    kill_point("xenstored.start.begun");
    // Fails for a process group leader, which is detached enough.
    let _in_own_session = rustix::process::setsid();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let registry = Registry::open().map_err(|error| error.to_string())?;
    let mut server = Server::new(registry).map_err(|error| error.to_string())?;
    kill_point("xenstored.start.open");
    let missing = confine();
    if !missing.is_empty() {
        server.log(Record::warning("not confined").with("missing", missing.join(" ")));
    }
    kill_point("xenstored.start.confined");
    say(READY);
    kill_point("xenstored.start.ready");
    detach();
    kill_point("xenstored.start.detached");
    server.run();
    Ok(())
}

/// Lets go of whoever started the process, and of its directory.
fn detach() {
    if let Ok(null) = OpenOptions::new().read(true).write(true).open("/dev/null") {
        let _null_in = rustix::stdio::dup2_stdin(&null);
        let _null_out = rustix::stdio::dup2_stdout(&null);
        let _null_err = rustix::stdio::dup2_stderr(&null);
    }
    let _at_root = std::env::set_current_dir("/");
}
