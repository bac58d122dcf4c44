//! `new`, `start` and `delete`: domains that are stored.

use api::types::{Domain, Start, Store};
use clap::ArgMatches;
use control::kill_point;

use crate::console::{Finished, Manner};
use crate::create::{identified, order, read, watch};
use crate::daemon::{Subject, daemon, environment, known, working_directory};
use crate::error::Error;
use crate::launch::launch;
use crate::signals::{Signals, obey};
use crate::tool::Tool;

/// `new [-q] [-f F] [--path P] FILE [key=value...]`.
///
/// # Errors
///
/// When the configuration is at fault or the name is taken; nothing is stored then.
pub fn new(tool: Tool, matches: &ArgMatches) -> Result<(), Error> {
    let loaded = read(tool, &order(tool, "new", matches)?, matches.get_flag("quiet"))?;
    let (config, _) = identified(loaded.config)?;
    kill_point("xm.new.read");
    daemon().store(&Store { config, directory: working_directory()? })?;
    kill_point("xm.new.stored");
    Ok(())
}

/// The stored domain that `word` names.
fn stored(word: &str, verb: &'static str) -> Result<Domain, Error> {
    Subject::find(&daemon(), word)?.unprivileged(verb)
}

/// `start [-p] [-c] NAME`.
///
/// # Errors
///
/// When there is no such stored domain, it runs already, or does not start.
pub fn start(tool: Tool, matches: &ArgMatches) -> Result<(), Error> {
    let word = matches.get_one::<String>("domain").map_or("", String::as_str);
    let daemon = daemon();
    let domain = stored(word, "start")?;
    let mut signals = Signals::catch().map_err(Error::Signals)?;
    let paused = matches.get_flag("paused");
    let with_console = matches.get_flag("console_autoconnect");
    let start = Start { paused: paused || with_console, environment: environment() };
    kill_point("xm.start.found");
    let id = domain.uuid.to_string();
    let begin = || daemon.start(&id, &start);
    let started = launch(&daemon, begin, &domain.name, domain.uuid, &mut signals)?;
    if with_console {
        let manner = Manner { tool, quiet: false };
        return watch(&daemon, &started, paused, manner, &mut signals).map(Finished::obey);
    }
    if let Some(signal) = signals.ending() {
        obey(signal);
    }
    Ok(())
}

/// `delete NAME`.
///
/// # Errors
///
/// When there is no such stored domain, or it runs.
pub fn delete(word: &str) -> Result<(), Error> {
    let domain = stored(word, "delete")?;
    kill_point("xm.delete.found");
    known(word, daemon().delete(&domain.uuid.to_string()))
}
