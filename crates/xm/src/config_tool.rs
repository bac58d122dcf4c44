//! `config check` and `config show`: configurations without starting anything; `config host`: the
//! settings of the host.

use std::path::{Path, PathBuf};

use clap::ArgMatches;
use config::{Diagnostic, HostConfig, Level, LoadOptions, Loaded, Migrated, load};
use serde_json::{Value, json};

use crate::daemon::{Subject, daemon, info};
use crate::error::Error;
use crate::output::{note, put};
use crate::tool::Tool;

/// `config check FILE... [key=value]`, `config show FILE|DOMAIN [key=value]`, `config host [FILE]`,
/// `config edit DOMAIN`. The exit code is 1 when a file that was checked has errors.
///
/// # Errors
///
/// When a file cannot be read, or, with `show`, has errors.
pub fn config(tool: Tool, matches: &ArgMatches) -> Result<u8, Error> {
    let words = crate::words(matches, "words");
    let json = matches.get_flag("json");
    if matches.get_one::<String>("action").is_some_and(|action| action == "host") {
        return host(&words, json).map(|()| 0);
    }
    let (overrides, files) = partition(words);
    if files.is_empty() {
        return Err(Error::usage("config", "Name a configuration file."));
    }
    let options = LoadOptions { overrides, search: search(tool) };
    match matches.get_one::<String>("action").map(String::as_str) {
        Some("edit") => crate::update::edit(&files, &options.overrides).map(|()| 0),
        Some("check") => check(&files, &options, json),
        _ => show(tool, &files, &options, matches).map(|()| 0),
    }
}

/// Settings (`key=value`), and the other words.
pub fn partition(words: Vec<String>) -> (Vec<(String, String)>, Vec<String>) {
    let (settings, files): (Vec<String>, Vec<String>) =
        words.into_iter().partition(|word| word.contains('='));
    let pairs = settings.iter().filter_map(|word| word.split_once('='));
    (pairs.map(|(key, value)| (key.trim().to_owned(), value.to_owned())).collect(), files)
}

/// Where configuration files are looked for.
pub fn search(tool: Tool) -> Vec<PathBuf> {
    match tool {
        Tool::Xm => vec![PathBuf::from("."), PathBuf::from("/etc/xen")],
        Tool::Xl => Vec::new(),
    }
}

fn check(files: &[String], options: &LoadOptions, json: bool) -> Result<u8, Error> {
    let mut bad = 0;
    let mut found = Vec::new();
    for file in files {
        let outcome = match load(Path::new(file), options) {
            Err(error) if error.diagnostics().is_empty() => return Err(error.into()),
            outcome => outcome,
        };
        bad += usize::from(outcome.is_err());
        if json {
            found.push(report(file, &outcome));
            continue;
        }
        match outcome {
            Ok(loaded) => {
                for warning in &loaded.warnings {
                    note(&format!("{warning}\n"));
                }
                for pending in &loaded.pending {
                    note(&format!("note: {pending}"));
                }
                let name = &loaded.config.general.name;
                put(&format!("{}: good; domain {name}\n", loaded.path.display()))?;
            }
            Err(error) => {
                note(&error.to_string());
                let count = error.diagnostics().len();
                let plural = if count == 1 { "" } else { "s" };
                put(&format!("{file}: {count} error{plural}\n"))?;
            }
        }
    }
    if json {
        put(&format!("{}\n", serde_json::to_string_pretty(&found)?))?;
    }
    Ok(u8::from(bad > 0))
}

fn report(file: &str, outcome: &Result<Loaded, config::Error>) -> Value {
    let (good, diagnostics, pending) = match outcome {
        Ok(loaded) => (true, loaded.warnings.as_slice(), loaded.pending.as_slice()),
        Err(error) => (false, error.diagnostics(), [].as_slice()),
    };
    let pending: Vec<Value> =
        pending.iter().map(|entry| json!({"key": entry.key, "note": entry.note})).collect();
    let diagnostics: Vec<Value> = diagnostics.iter().map(diagnostic).collect();
    json!({"file": file, "good": good, "diagnostics": diagnostics, "pending": pending})
}

fn diagnostic(diagnostic: &Diagnostic) -> Value {
    let level = match diagnostic.level {
        Level::Error => "error",
        Level::Warning => "warning",
    };
    let place = diagnostic.place.as_ref();
    json!({
        "level": level, "message": diagnostic.message, "file": diagnostic.file,
        "line": place.map(|place| place.line), "column": place.map(|place| place.column),
        "help": diagnostic.help,
    })
}

fn show(
    tool: Tool,
    files: &[String],
    options: &LoadOptions,
    matches: &ArgMatches,
) -> Result<(), Error> {
    let [word] = files else {
        return Err(Error::usage("config", "Name one configuration file or domain."));
    };
    let config = match running(word)? {
        Some(config) => config,
        None => {
            let mut config = load(Path::new(word), options)?.config;
            HostConfig::load()?.apply(&mut config);
            config
        }
    };
    let format = matches.get_one::<String>("format").map(String::as_str);
    let text = match (matches.get_flag("json"), format, tool) {
        (true, _, _) | (_, Some("json"), _) => {
            format!("{}\n", serde_json::to_string_pretty(&config)?)
        }
        (_, Some("sxp"), _) => format!("{}\n", config.to_sxp()),
        _ => config.to_xm(),
    };
    put(&text)
}

/// The configuration of a domain that runs; `None` if the word names a file rather.
fn running(word: &str) -> Result<Option<config::DomainConfig>, Error> {
    let is_path = Path::new(word).is_file();
    let found = if is_path { None } else { Subject::find(&daemon(), word).ok() };
    match found {
        Some(Subject::Domain(domain)) if domain.run.is_some() => {
            Ok(info(&domain)?.config.as_deref().cloned())
        }
        _ => Ok(None),
    }
}

/// The settings of the host as they hold now, or what an old `xend-config.sxp` comes to.
fn host(files: &[String], json: bool) -> Result<(), Error> {
    let (migrated, origin) = match files {
        [] => {
            let host = HostConfig::load()?;
            let (path, _) = HostConfig::place();
            let there = if path.exists() { "From" } else { "Defaults; there is no" };
            (Migrated { host, left: Vec::new() }, format!("{there} {}", path.display()))
        }
        [file] => (HostConfig::from_sxp(Path::new(file))?, format!("From {file}")),
        _ => return Err(Error::usage("config", "Name one xend-config.sxp, or none.")),
    };
    if json {
        let left: Vec<Value> =
            migrated.left.iter().map(|(key, why)| json!({"key": key, "why": why})).collect();
        let value = json!({"settings": migrated.host, "left": left});
        return put(&format!("{}\n", serde_json::to_string_pretty(&value)?));
    }
    let mut text = format!("# {origin}\n");
    for (key, why) in &migrated.left {
        // A key may hold anything but a line's end would end the comment.
        let key: String = key.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        text += &format!("# {key}: {why}\n");
    }
    put(&format!("{text}\n{}", migrated.host.to_toml()))
}
