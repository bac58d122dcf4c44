//! `create`: from a configuration file to a running domain.

use std::path::PathBuf;

use clap::ArgMatches;
use config::{DomainConfig, LoadOptions, Loaded, load};
use control::{Client, CreateSpec, Registry, RegistryError, Started, check_name};

use crate::console::{Finished, Manner, attach};
use crate::error::Error;
use crate::launch::{LIMIT, launch};
use crate::output::{Colour, heading, note, put};
use crate::signals::Signals;
use crate::tool::Tool;
use crate::{sxp, words};

/// The file that is read if none is named.
const DEFAULT_FILE: &str = "xmdefconfig";

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Order {
    file: String,
    settings: Vec<String>,
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
    let order = order(tool, matches)?;
    let loaded = read(tool, &order, quiet)?;
    if matches.get_flag("dryrun") {
        return dry_run(tool, &loaded.config);
    }
    let registry = Registry::open()?;
    let name = loaded.config.general.name.clone();
    refuse_taken(&registry, &name)?;
    let mut signals = Signals::catch().map_err(Error::Signals)?;
    let paused = matches.get_flag("paused");
    let with_console = matches.get_flag("console_autoconnect");
    // A console that is attached before the first instruction misses nothing, even if the
    // domain ends at once.
    let spec = CreateSpec { config: loaded.config, paused: paused || with_console };
    let started = launch(&registry, &spec, &name, LIMIT, &mut signals)?;
    if tool == Tool::Xm && !quiet {
        put(&format!("Started domain {} (id={})\n", started.name, started.domid))?;
    }
    if with_console {
        let manner = Manner { tool, quiet };
        return watch(&registry, &started, paused, manner, &mut signals).map(Finished::obey);
    }
    match signals.ending() {
        Some(signal) => crate::signals::obey(signal),
        None => {}
    }
    Ok(())
}

/// Attaches the console of a domain that was started paused, and lets it run.
fn watch(
    registry: &Registry,
    started: &Started,
    stay_paused: bool,
    manner: Manner,
    signals: &mut Signals,
) -> Result<Finished, Error> {
    let unpause = || {
        if stay_paused {
            return Ok(());
        }
        Ok(Client::connect(registry, started.domid)?.unpause()?)
    };
    match Client::connect(registry, started.domid).and_then(Client::console) {
        Ok(console) => attach(registry, &started.name, console, manner, signals, unpause),
        // Without its console the domain still runs: it was created, and says so.
        Err(error) => {
            unpause()?;
            Err(error.into())
        }
    }
}

/// The words of the command line: the first without `=` is the file, unless `-f` names one.
fn order(tool: Tool, matches: &ArgMatches) -> Result<Order, Error> {
    let mut file = matches.get_one::<String>("defconfig").cloned();
    let mut settings = Vec::new();
    for word in words(matches, "words") {
        match (&file, tool) {
            (_, Tool::Xm) if word.contains('=') => settings.push(word),
            (None, _) => file = Some(word),
            (Some(_), Tool::Xl) => settings.push(word),
            (Some(file), Tool::Xm) => {
                let text = format!("'{word}' is no setting (key=value), and the file is {file}.");
                return Err(Error::usage("create", text));
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

/// Reads the configuration and tells which file it is and what in it has no effect.
fn read(tool: Tool, order: &Order, quiet: bool) -> Result<Loaded, Error> {
    let options = LoadOptions { search: order.search.clone(), settings: order.settings.clone() };
    let loaded = load(&order.file, &options)?;
    if !quiet {
        match tool {
            Tool::Xm => put(&format!("Using config file \"{}\".\n", loaded.path.display()))?,
            Tool::Xl => note(&format!("Parsing config from {}", loaded.path.display())),
        }
        for warning in &loaded.warnings {
            note(&format!("{} {warning}", heading("Warning:", Colour::Yellow)));
        }
        for pending in &loaded.pending {
            note(&format!("{} {pending}", heading("Note:", Colour::Cyan)));
        }
    }
    Ok(loaded)
}

fn dry_run(tool: Tool, config: &DomainConfig) -> Result<(), Error> {
    let value = serde_json::to_value(config)?;
    put(&match tool {
        Tool::Xm => sxp::write("vm", &value),
        Tool::Xl => format!("{}\n", serde_json::to_string_pretty(&value)?),
    })
}

/// Refuses a name early, before a process is started for it; `xendomain` checks again.
fn refuse_taken(registry: &Registry, name: &str) -> Result<(), Error> {
    check_name(name)?;
    match registry.list()?.into_iter().find(|entry| entry.name == name) {
        Some(entry) => {
            Err(RegistryError::NameTaken { name: name.to_owned(), domid: entry.domid }.into())
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_order(tool: Tool, line: &[&str]) -> Result<Order, Error> {
        let line = std::iter::once("create").chain(line.iter().copied());
        let matches = crate::cli::command(tool, "create").unwrap().try_get_matches_from(line);
        order(tool, &matches.unwrap())
    }

    #[test]
    fn files_and_settings_come_in_any_order() {
        let order = read_order(Tool::Xm, &["memory=256", "serv1.cfg", "-c", "vmid=2"]).unwrap();
        assert_eq!(order.file, "serv1.cfg");
        assert_eq!(order.settings, ["memory=256", "vmid=2"]);
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
        assert_eq!(order.settings, ["cpus=\"0-3\"; vcpus=2"]);
        assert!(order.search.is_empty());
    }
}
