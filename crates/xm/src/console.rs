//! `console`: attach the user's terminal, or a pair of pipes, to a domain.

use std::io::IsTerminal;
use std::os::fd::AsFd;

use clap::ArgMatches;
use control::{Console, kill_point};

use crate::daemon::{connect, daemon};
use crate::error::Error;
use crate::lifecycle::is_unknown;
use crate::output::note;
use crate::relay::{End, User, relay};
use crate::signals::{Signals, obey};
use crate::terminal::RawTerminal;
use crate::tool::Tool;

/// How the console is told to behave.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// The tool, for the words of its notes.
    pub tool: Tool,
    /// Print nothing but the domain's output.
    pub quiet: bool,
}

/// A signal ended the relay; the program obeys it when everything is restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finished {
    /// The console was left or its domain ended.
    Normally,
    /// A signal that is to be obeyed.
    BySignal(i32),
}

/// Relays between standard input and output and `console`, the console of domain `name`.
///
/// `begin` runs when all is set up and before anything is relayed.
///
/// # Errors
///
/// When the terminal cannot be switched, the connection fails in an unexpected way, or `begin`
/// does.
pub fn attach(
    name: &str,
    console: Console,
    manner: Manner,
    signals: &mut Signals,
    begin: impl FnOnce() -> Result<(), Error>,
) -> Result<Finished, Error> {
    let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
    let on_terminal = stdin.is_terminal();
    greet(name, &console, manner, on_terminal);
    let terminal = if on_terminal { Some(RawTerminal::enter(stdin.as_fd())?) } else { None };
    begin()?;
    let user = User { input: stdin.as_fd(), output: stdout.as_fd(), terminal: terminal.as_ref() };
    let Console { stream, received, writable, .. } = console;
    let end = relay(&user, stream, received, writable, signals).map_err(Error::Relay)?;
    drop(terminal);
    part(name, end, manner, on_terminal);
    match end {
        End::DomainEnded | End::Left => Ok(Finished::Normally),
        End::OutputClosed => Err(Error::OutputClosed),
        End::TerminalGone => Ok(Finished::BySignal(signal_hook::consts::SIGHUP)),
        End::Signal(signal) => Ok(Finished::BySignal(signal)),
    }
}

impl Finished {
    /// Ends the process if a signal asked for it.
    pub fn obey(self) {
        if let Self::BySignal(signal) = self {
            obey(signal);
        }
    }
}

fn greet(name: &str, console: &Console, manner: Manner, on_terminal: bool) {
    if manner.quiet {
        return;
    }
    if on_terminal {
        note(&format!("Connected to {name}. Leave with Ctrl+] (Ctrl+5)."));
    }
    if !console.writable {
        note(&format!(
            "Another console of {name} is open: this one shows what it prints, but what you type \
             does not reach it."
        ));
    }
}

fn part(name: &str, end: End, manner: Manner, on_terminal: bool) {
    if manner.quiet {
        return;
    }
    if on_terminal {
        // The domain's last line may have no end.
        note("");
    }
    let tool = manner.tool.name();
    match end {
        End::DomainEnded => match daemon().domain(name).map(|domain| (domain.domid(), domain.name))
        {
            Ok((Some(domid), now)) if now == name => note(&format!(
                "Domain {name} closed its console; it is domain {domid} now. '{tool} console {name}' \
                 attaches again."
            )),
            _ => note(&format!("Domain {name} has ended.")),
        },
        End::Left if on_terminal => {
            note(&format!("Left {name}, which goes on. Come back with '{tool} console {name}'."));
        }
        End::Left | End::TerminalGone | End::OutputClosed | End::Signal(_) => {}
    }
}

/// `console [-q] [-n N] D`.
///
/// # Errors
///
/// When there is no such domain, it has no such console, or it cannot be attached.
pub fn console(tool: Tool, matches: &ArgMatches) -> Result<u8, Error> {
    let manner = Manner { tool, quiet: matches.get_flag("quiet") };
    let word = crate::word(matches, "domain");
    if matches.get_one::<u32>("num").is_some_and(|number| *number != 0) {
        return Err(Error::usage("console", "Every domain has one console, number 0."));
    }
    let (who, client) = match connect(word, "attach to the console of") {
        // Quiet means that a missing domain is told by the exit code alone.
        Err(error) if manner.quiet && is_unknown(&error) => return Ok(1),
        connected => connected?,
    };
    let mut signals = Signals::catch().map_err(Error::Signals)?;
    let console = client.console()?;
    kill_point("xm.console.opened");
    attach(&who.name, console, manner, &mut signals, || Ok(()))?.obey();
    Ok(0)
}
