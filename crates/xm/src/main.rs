//! `xm`: the command line of Xenolith; answers to `xl` too.
//!
//! The top level is our own, since its rules are xm's: unique prefixes, old names, help on
//! standard output with exit code 1. Each command's options are parsed by clap ([`cli`]).
//! What happens to domains goes through the daemon, which is started when it is needed (crate `api`);
//! consoles, devices and logs are the domains' own and are asked for at their processes (`control`).
//!
//! Architecture invariant: nothing here knows how a domain is built or run.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod claims;
mod cli;
mod commands;
mod config_tool;
mod console;
mod create;
mod daemon;
mod devices;
mod dispatch;
mod doctor;
mod dump_core;
mod error;
mod event_monitor;
mod explain;
mod generate;
mod guest;
mod help;
mod host;
mod image;
mod info;
mod launch;
mod lifecycle;
mod list;
mod listing;
mod log_merge;
mod logs;
mod managed;
mod media;
mod memory;
mod network_bridge;
mod orders;
mod output;
mod relay;
mod resize;
mod serve;
mod settings;
mod shell;
mod signals;
mod stats;
mod terminal;
mod tool;
mod top;
mod update;
mod uptime;
mod vcpus;
mod wait;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::ArgMatches;

use crate::commands::{Entry, Lookup, lookup};
use crate::error::{Error, Line};
use crate::help::Parsed;
use crate::output::{Colour, heading, note, put};
use crate::tool::Tool;

fn main() -> ExitCode {
    terminal::install_panic_hook();
    let mut arguments = std::env::args_os();
    let tool = Tool::from_argv0(arguments.next().as_deref());
    let words: Vec<OsString> = arguments.collect();
    let words = match text(&words) {
        Ok(words) => words,
        Err(error) => return finish(tool, Err(error)),
    };
    finish(tool, run(tool, &words))
}

/// The command line as text; a word that is not UTF-8 names no domain, option or setting.
fn text(words: &[OsString]) -> Result<Vec<String>, Error> {
    let word = |word: &OsString| {
        let text = word.to_str().map(str::to_owned);
        text.ok_or_else(|| Error::usage("", format!("{} is not UTF-8.", word.display())))
    };
    words.iter().map(word).collect()
}

/// Turns the outcome into texts and an exit code.
fn finish(tool: Tool, outcome: Result<u8, Error>) -> ExitCode {
    let error = match outcome {
        Ok(code) => return ExitCode::from(code),
        Err(error) => error,
    };
    match &error {
        Error::OutputClosed => signals::obey(signal_hook::consts::SIGPIPE),
        _ => tell(tool, &error),
    }
    if let Error::Interrupted { signal, .. }
    | Error::Guest(guest::GuestError::Interrupted { signal })
    | Error::Image(::image::Error::Interrupted { signal }) = error
    {
        signals::obey(signal);
    }
    ExitCode::from(error.exit_code(tool))
}

fn tell(tool: Tool, error: &Error) {
    match error.line(tool) {
        Line::Error(text) => note(&format!("{} {text}", heading("Error:", Colour::Red))),
        Line::Bare(text) => note(&text),
    }
    if let Some(hint) = error.hint(tool) {
        note(&hint);
    }
    if let Some(code) = explain::code(error)
        && output::colours_on(&std::io::stderr())
    {
        note(&format!("More: {} explain {code}", tool.name()));
    }
    if let Error::Usage { command, .. } = error {
        drop(put(&format!("{}\n", help::usage(tool, command))));
    }
}

fn run(tool: Tool, words: &[String]) -> Result<u8, Error> {
    let words = match tool {
        Tool::Xm => words,
        Tool::Xl => without_global_options(words),
    };
    let Some((first, rest)) = words.split_first() else {
        put(&help::short(tool))?;
        return Ok(1);
    };
    match first.as_str() {
        "help" | "--help" | "-h" => return help(tool, rest),
        "--version" => {
            let version = env!("CARGO_PKG_VERSION");
            put(&format!("{} (Xenolith) {version}\n", tool.name()))?;
            return Ok(0);
        }
        terminal::WATCH_COMMAND => return Ok(u8::from(terminal::watch(rest).is_err())),
        generate::COMMAND => return write_files(rest),
        _ => {}
    }
    match lookup(tool, first) {
        Lookup::Found(entry) => dispatch(tool, entry, rest),
        Lookup::Deprecated(entry) => {
            let name = tool.name();
            note(&format!(
                "Command '{name} {first}' is deprecated. Please use '{name} {}' instead.",
                entry.name
            ));
            dispatch(tool, entry, rest)
        }
        Lookup::Unknown => unknown(tool, first),
    }
}

/// xl takes `-v -f -t -T` before the command; they change nothing here.
fn without_global_options(mut words: &[String]) -> &[String] {
    while let Some((first, rest)) = words.split_first() {
        let letters = first.strip_prefix('-').unwrap_or("");
        if letters.is_empty() || !letters.chars().all(|letter| "vftT".contains(letter)) {
            break;
        }
        words = rest;
    }
    words
}

/// `help`: xm ignores the words after it; xl explains the command that they name.
fn help(tool: Tool, rest: &[String]) -> Result<u8, Error> {
    if let (Tool::Xl, Some(word)) = (tool, rest.first())
        && let Lookup::Found(entry) = lookup(tool, word)
        && entry.lacks.is_none()
        && let Parsed::Help(text) = help::parse(tool, entry, &["--help".to_owned()])?
    {
        put(&text)?;
        return Ok(0);
    }
    put(&help::long(tool))?;
    Ok(0)
}

fn unknown(tool: Tool, word: &str) -> Result<u8, Error> {
    match tool {
        Tool::Xm => {
            note(&format!("{} Subcommand {word} not found!", heading("Error:", Colour::Red)));
            put(&help::short(tool))?;
        }
        Tool::Xl => note("command not implemented"),
    }
    Ok(1)
}

fn write_files(rest: &[String]) -> Result<u8, Error> {
    let root = rest.first().map_or(".", String::as_str);
    let root = std::path::Path::new(root);
    generate::write(root).map_err(control::PathError::at("write files below", root))?;
    Ok(0)
}

fn dispatch(tool: Tool, entry: &'static Entry, words: &[String]) -> Result<u8, Error> {
    if let Some(lacks) = entry.lacks {
        let command = entry.name.to_owned();
        return Err(Error::NotThere { tool: tool.name(), command, lacks });
    }
    match help::parse(tool, entry, words)? {
        Parsed::Run(matches) => execute(tool, entry.name, &matches),
        Parsed::Help(text) => {
            put(&text)?;
            Ok(tool.help_exit())
        }
    }
}

fn execute(tool: Tool, name: &'static str, matches: &ArgMatches) -> Result<u8, Error> {
    let domain = || word(matches, "domain");
    match name {
        "console" => return console::console(tool, matches),
        "doctor" => return doctor::doctor(matches),
        "create" => create::create(tool, matches)?,
        "new" => managed::new(tool, matches)?,
        "start" => managed::start(tool, matches)?,
        "delete" => managed::delete(domain())?,
        "list" => listing::list(tool, matches)?,
        "uptime" => listing::uptime(matches)?,
        "image" => image::image(tool, matches)?,
        "info" => listing::info(tool, matches)?,
        "domid" => listing::domid(domain())?,
        "domname" => listing::domname(domain())?,
        "shutdown" => lifecycle::shutdown(matches)?,
        "reboot" => lifecycle::reboot(matches)?,
        "destroy" => lifecycle::destroy(domain())?,
        "block-attach" => devices::block_attach(matches)?,
        "block-detach" => devices::block_detach(matches)?,
        "block-list" => devices::block_list(matches)?,
        "block-refresh" => devices::block_refresh(matches)?,
        "block-resize" => resize::block_resize(matches)?,
        "network-attach" => devices::network_attach(matches)?,
        "network-detach" => devices::network_detach(matches)?,
        "network-list" => devices::network_list(matches)?,
        "pause" => lifecycle::pause(domain())?,
        "unpause" => lifecycle::unpause(domain())?,
        "dmesg" => logs::dmesg(tool, matches)?,
        "crash-report" => logs::crash_report(domain())?,
        "network-bridge" => network_bridge::network_bridge(matches)?,
        _ => return dispatch::execute(tool, name, matches),
    }
    Ok(0)
}

/// An operand, empty if it is not there.
fn word<'a>(matches: &'a ArgMatches, name: &str) -> &'a str {
    matches.get_one::<String>(name).map_or("", String::as_str)
}

/// The values of an operand that may be given any number of times.
fn words(matches: &ArgMatches, name: &str) -> Vec<String> {
    matches.get_many::<String>(name).map(|words| words.cloned().collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn global_options_of_xl_are_skipped() {
        let words: Vec<String> = ["-vv", "-t", "list", "-v"].map(str::to_owned).into();
        assert_eq!(without_global_options(&words), ["list", "-v"]);
        let words: Vec<String> = ["-x", "list"].map(str::to_owned).into();
        assert_eq!(without_global_options(&words).len(), 2);
    }
}
