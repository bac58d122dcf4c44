//! `create`: from a configuration file to a running domain.

use std::path::{Path, PathBuf};

use api::Daemon;
use api::types::{Create, Started};
use clap::ArgMatches;
use config::{DomainConfig, HostConfig, LoadOptions, Loaded, load};
use control::{Uuid, check_name, kill_point};

use crate::console::{Finished, Manner, attach};
use crate::daemon::{connect, daemon, environment, working_directory};
use crate::error::Error;
use crate::launch::launch;
use crate::output::{note, put};
use crate::signals::Signals;
use crate::tool::Tool;
use crate::words;

/// The file that is read if none is named.
const DEFAULT_FILE: &str = "xmdefconfig";

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    file: String,
    /// Keys and values.
    settings: Vec<(String, String)>,
    search: Vec<PathBuf>,
}

/// `create [-c] [-p] [-n] [-q] [-f F] [--path P] FILE [key=value...]`.
///
/// # Errors
///
/// When the configuration is at fault, the name is taken or the domain does not start; there is
/// no new domain then.
pub fn create(tool: Tool, matches: &ArgMatches) -> Result<(), Error> {
    let quiet = matches.get_flag("quiet");
    let order = order(tool, "create", matches)?;
    let loaded = read(tool, &order, quiet)?;
    if matches.get_flag("dryrun") {
        return dry_run(tool, &loaded.config);
    }
    check_name(&loaded.config.general.name)?;
    let (config, uuid) = identified(loaded.config)?;
    let mut signals = Signals::catch().map_err(Error::Signals)?;
    let paused = matches.get_flag("paused");
    let with_console = matches.get_flag("console_autoconnect");
    // A console that is attached before the first instruction misses nothing, even if the
    // domain ends at once.
    let create = Create {
        config,
        paused: paused || with_console,
        directory: working_directory()?,
        environment: environment(),
    };
    kill_point("xm.create.read");
    let daemon = daemon();
    let name = &create.config.general.name;
    let started = launch(&daemon, || daemon.create(&create), name, uuid, &mut signals)?;
    if tool == Tool::Xm && !quiet {
        put(&format!("Started domain {} (id={})\n", started.name, started.domid))?;
    }
    if with_console {
        let manner = Manner { tool, quiet };
        return watch(&daemon, &started, paused, manner, &mut signals).map(Finished::obey);
    }
    if let Some(signal) = signals.ending() {
        crate::signals::obey(signal);
    }
    Ok(())
}

/// A configuration with a UUID, which is drawn if it has none: by it the domain is known to the
/// daemon before it runs.
///
/// # Errors
///
/// When the host has no random numbers.
pub fn identified(mut config: DomainConfig) -> Result<(DomainConfig, Uuid), Error> {
    let uuid = match &config.general.uuid {
        Some(uuid) => Uuid(uuid.0),
        None => Uuid::random().map_err(Error::NoUuid)?,
    };
    config.general.uuid = Some(config::Uuid(uuid.0));
    Ok((config, uuid))
}

/// Attaches the console of a domain that was started paused, and lets it run.
///
/// # Errors
///
/// When there is no console to attach, or the domain cannot be let run.
pub fn watch(
    daemon: &Daemon,
    started: &Started,
    stay_paused: bool,
    manner: Manner,
    signals: &mut Signals,
) -> Result<Finished, Error> {
    let id = started.domid.to_string();
    let unpause = || {
        kill_point("xm.create.attached");
        if stay_paused { Ok(()) } else { Ok(daemon.unpause(&id)?) }
    };
    let console = || -> Result<_, Error> { Ok(connect(&id, "attach to")?.1.console()?) };
    match console() {
        Ok(console) => attach(&started.name, console, manner, signals, unpause),
        // Without its console the domain still runs: it was created, and says so.
        Err(error) => {
            unpause()?;
            Err(error)
        }
    }
}

/// The words of the command line: the first without `=` is the file, unless `-f` names one.
///
/// # Errors
///
/// A usage error of `command` when there is a word too many.
pub fn order(tool: Tool, command: &'static str, matches: &ArgMatches) -> Result<Order, Error> {
    let mut file = matches.get_one::<String>("defconfig").cloned();
    let mut settings = Vec::new();
    for word in words(matches, "words") {
        match (&file, tool) {
            (None, Tool::Xl) => file = Some(word),
            (Some(_), Tool::Xl) => settings.extend(xl_settings(&word)?),
            (_, Tool::Xm) if word.contains('=') => settings.extend(pair(&word)),
            (None, Tool::Xm) => file = Some(word),
            (Some(file), Tool::Xm) => {
                let text = format!("'{word}' is no setting (key=value), and the file is {file}.");
                return Err(Error::usage(command, text));
            }
        }
    }
    let search = match (matches.get_one::<String>("path"), tool) {
        (Some(path), _) => path.split(':').map(PathBuf::from).collect(),
        (None, Tool::Xm) => vec![PathBuf::from("."), PathBuf::from("/etc/xen")],
        (None, Tool::Xl) => Vec::new(),
    };
    Ok(Order { file: file.unwrap_or_else(|| DEFAULT_FILE.to_owned()), settings, search })
}

/// `key=value`, with blanks around both taken off.
fn pair(word: &str) -> Option<(String, String)> {
    let (key, value) = word.split_once('=')?;
    Some((key.trim().to_owned(), value.to_owned()))
}

/// The settings in one operand of xl: configuration syntax, `key=value` separated by `;`, where
/// a value may be in quotes.
fn xl_settings(word: &str) -> Result<Vec<(String, String)>, Error> {
    let wrong = |part: &str| {
        let text = format!("'{}' is no setting; write key=value or key=\"value\".", part.trim());
        Error::usage("create", text)
    };
    let parts = word.split(';').filter(|part| !part.trim().is_empty());
    let settings = parts.map(|part| {
        let (key, value) = pair(part).ok_or_else(|| wrong(part))?;
        let value = value.trim();
        match value.chars().next() {
            Some('[') => Err(Error::usage(
                "create",
                format!("A list cannot be given here: '{}'. Write it into the file.", part.trim()),
            )),
            Some(quote @ ('"' | '\'')) => {
                let inner = value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
                let inner = inner.ok_or_else(|| wrong(part))?;
                Ok((key, inner.to_owned()))
            }
            _ => Ok((key, value.to_owned())),
        }
    });
    settings.collect()
}

/// Reads the configuration and tells which file it is and what in it has no effect.
///
/// # Errors
///
/// When the configuration is at fault.
pub fn read(tool: Tool, order: &Order, quiet: bool) -> Result<Loaded, Error> {
    let options = LoadOptions { search: order.search.clone(), overrides: order.settings.clone() };
    let mut loaded = load(Path::new(&order.file), &options)?;
    HostConfig::load()?.apply(&mut loaded.config);
    if !quiet {
        match tool {
            Tool::Xm => put(&format!("Using config file \"{}\".\n", loaded.path.display()))?,
            Tool::Xl => note(&format!("Parsing config from {}", loaded.path.display())),
        }
    }
    // Told in quiet mode too: nothing in a file is passed over in silence.
    for warning in &loaded.warnings {
        note(&warning.to_string());
    }
    for pending in &loaded.pending {
        note(&format!("note: {pending}"));
    }
    Ok(loaded)
}

fn dry_run(tool: Tool, config: &DomainConfig) -> Result<(), Error> {
    let text = match tool {
        Tool::Xm => config.to_sxp().to_string(),
        Tool::Xl => serde_json::to_string_pretty(config)?,
    };
    put(&format!("{text}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_order(tool: Tool, line: &[&str]) -> Result<Order, Error> {
        let line = std::iter::once("create").chain(line.iter().copied());
        let matches = crate::cli::command(tool, "create").unwrap().try_get_matches_from(line);
        order(tool, "create", &matches.unwrap())
    }

    fn setting(key: &str, value: &str) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    #[test]
    fn files_and_settings_come_in_any_order() {
        let order = read_order(Tool::Xm, &["memory=256", "serv1.cfg", "-c", "vmid=2"]).unwrap();
        assert_eq!(order.file, "serv1.cfg");
        assert_eq!(order.settings, [setting("memory", "256"), setting("vmid", "2")]);
        assert_eq!(order.search, [PathBuf::from("."), PathBuf::from("/etc/xen")]);
    }

    #[test]
    fn a_file_by_option_leaves_only_settings() {
        let order = read_order(Tool::Xm, &["-f", "a=b.cfg", "x=1", "--path=/a:/b"]).unwrap();
        assert_eq!((order.file.as_str(), order.settings.len()), ("a=b.cfg", 1));
        assert_eq!(order.search, [PathBuf::from("/a"), PathBuf::from("/b")]);
        let error = read_order(Tool::Xm, &["a.cfg", "b.cfg"]).unwrap_err();
        assert!(error.to_string().contains("'b.cfg' is no setting"), "{error}");
        assert_eq!(read_order(Tool::Xm, &[]).unwrap().file, "xmdefconfig");
    }

    #[test]
    fn xl_takes_configuration_lines_and_searches_nowhere() {
        let order = read_order(Tool::Xl, &["a.cfg", "cpus=\"0-3\"; vcpus=2"]).unwrap();
        assert_eq!(order.settings, [setting("cpus", "0-3"), setting("vcpus", "2")]);
        assert!(read_order(Tool::Xl, &["a.cfg", "disk=['x']"]).is_err());
        assert!(read_order(Tool::Xl, &["a.cfg", "name=\"x"]).is_err());
        assert!(order.search.is_empty());
    }
}
