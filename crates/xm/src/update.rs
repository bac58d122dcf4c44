//! `config edit` and `config-update`: the configuration that a domain starts with next time.

mod edit;

use std::path::{Path, PathBuf};

use api::Daemon;
use api::types::{Domain, Managed, Replace};
use clap::ArgMatches;
use config::{DomainConfig, HostConfig, LoadOptions, Loaded, load, parse_str};
use control::Request;

use crate::config_tool::{partition, search};
use crate::daemon::{Subject, connect, daemon, known, working_directory};
use crate::error::Error;
use crate::output::{note, put};
use crate::tool::Tool;
use crate::{word, words};

pub use edit::{EditError, edit};

/// `config-update D [ConfigFile] [key=value...]`.
///
/// # Errors
///
/// When there is no such domain, the configuration is at fault, or it names another domain; nothing
/// has changed then.
pub fn config_update(tool: Tool, matches: &ArgMatches) -> Result<(), Error> {
    let (settings, files) = partition(words(matches, "words"));
    if settings.is_empty() && files.is_empty() {
        return Err(Error::usage("config-update", "Give a configuration file, or key=value."));
    }
    let daemon = daemon();
    let domain = Subject::find(&daemon, word(matches, "domain"))?.unprivileged("configure")?;
    let stored = if domain.managed { Some(stored(&daemon, &domain)?) } else { None };
    let (mut config, directory) = match files.as_slice() {
        [] => changed(&domain, stored.as_ref(), &settings)?,
        [file] => from_file(tool, &domain, file, settings)?,
        _ => return Err(Error::usage("config-update", "Name one configuration file.")),
    };
    HostConfig::load()?.apply(&mut config);
    if let Some(stored) = stored {
        daemon.replace(
            stored.uuid,
            &Replace {
                revision: stored.revision,
                config: config.clone(),
                directory: directory.clone(),
            },
        )?;
    }
    if domain.run.is_some() {
        absolute_from(&mut config, &directory);
        let request = Request::Configure { config: Box::new(config) };
        connect(&domain.uuid.to_string(), "configure")?.1.order(&request)?;
    }
    put(&format!("{}\n", when(&domain)))
}

/// From when on a new configuration holds.
fn when(domain: &Domain) -> String {
    match (&domain.run, domain.managed) {
        (None, _) => format!("Domain {} starts with it next time.", domain.name),
        (Some(run), true) => format!(
            "Domain {} runs (id={}) and goes on as it is; it restarts and starts with it.",
            domain.name, run.domid
        ),
        (Some(run), false) => format!(
            "Domain {} runs (id={}) and goes on as it is; it restarts with it.",
            domain.name, run.domid
        ),
    }
}

fn stored(daemon: &Daemon, domain: &Domain) -> Result<Managed, Error> {
    known(&domain.name, daemon.managed(&domain.uuid.to_string()))
}

/// The present configuration with some settings changed.
fn changed(
    domain: &Domain,
    stored: Option<&Managed>,
    settings: &[(String, String)],
) -> Result<(DomainConfig, PathBuf), Error> {
    let running = || {
        let info = domain.info.as_ref()?;
        info.next_config.as_deref().or(info.config.as_deref())
    };
    let (config, directory) = match stored {
        Some(stored) => (Some(&stored.config), stored.directory.clone()),
        None => (running(), working_directory()?),
    };
    let name = &domain.name;
    let config = config.ok_or_else(|| Error::NotStarted { name: name.clone() })?;
    let loaded = parse_str(&format!("configuration of {name}"), &config.to_xm(), settings)?;
    Ok((tell(loaded), directory))
}

fn from_file(
    tool: Tool,
    domain: &Domain,
    file: &str,
    settings: Vec<(String, String)>,
) -> Result<(DomainConfig, PathBuf), Error> {
    let options = LoadOptions { overrides: settings, search: search(tool) };
    let loaded = load(Path::new(file), &options)?;
    let name = &loaded.config.general.name;
    if *name != domain.name {
        let text = format!(
            "{} is the configuration of '{name}', not of '{}'; name={} makes it that.",
            loaded.path.display(),
            domain.name,
            domain.name
        );
        return Err(Error::usage("config-update", text));
    }
    Ok((tell(loaded), working_directory()?))
}

/// Tells what in a configuration has no effect.
fn tell(loaded: Loaded) -> DomainConfig {
    for warning in &loaded.warnings {
        note(&warning.to_string());
    }
    for pending in &loaded.pending {
        note(&format!("note: {pending}"));
    }
    loaded.config
}

/// Names files by paths that do not depend on where they are seen from.
fn absolute_from(config: &mut DomainConfig, directory: &Path) {
    let from = |path: &mut String| {
        if !path.is_empty() {
            *path = directory.join(&*path).to_string_lossy().into_owned();
        }
    };
    let boot = &mut config.boot;
    [&mut boot.kernel, &mut boot.ramdisk].into_iter().flatten().for_each(from);
    for disk in &mut config.devices.disks {
        if disk.backing != config::DiskBacking::Phy {
            disk.target.iter_mut().for_each(from);
        }
        disk.make_absolute();
    }
    for channel in &mut config.devices.channels {
        if let config::Connection::Socket(path) = &mut channel.connection {
            from(path);
        }
    }
}
