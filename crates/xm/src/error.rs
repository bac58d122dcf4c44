//! What can go wrong, how it is said, and with which exit code.

use std::path::PathBuf;

use control::{ClientError, Hint, LaunchError, PathError, RegistryError};

use crate::terminal::TerminalError;
use crate::tool::Tool;

/// Everything that ends a command early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A word on the command line is not what the command takes.
    #[error("{text}")]
    Usage {
        /// The command, whose usage is printed too.
        command: &'static str,
        /// What is wrong.
        text: String,
    },
    /// A command of xm or xl that does not work yet.
    #[error("{tool} {command} is not there yet: it needs {lacks}.")]
    NotThere {
        /// The tool that was called.
        tool: &'static str,
        /// The command or the option.
        command: String,
        /// What is missing.
        lacks: &'static str,
    },
    /// A command on Domain-0 that would end or stop the host.
    #[error("Cannot {verb} privileged domain {name}")]
    Privileged {
        /// "destroy", "pause", ...
        verb: &'static str,
        /// How xm names it: by number or by name.
        name: &'static str,
    },
    /// The registry of domains.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A request to the daemon.
    #[error(transparent)]
    Daemon(#[from] api::Error),
    /// A stored domain that does not run.
    #[error("Domain '{name}' is not started")]
    NotStarted {
        /// Its name.
        name: String,
    },
    /// The host has no random numbers.
    #[error("Cannot draw a UUID: {0}")]
    NoUuid(std::io::Error),
    /// A request to a domain.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A domain that did not tell the daemon how it is.
    #[error("{trouble}")]
    Silent {
        /// Its number.
        domid: u32,
        /// What was the matter.
        trouble: String,
    },
    /// A domain that could not be started.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// A domain whose process did not say that it runs.
    #[error("Domain {name} did not start within {seconds} s; it was ended again.")]
    TooSlow {
        /// The name in its configuration.
        name: String,
        /// The time limit.
        seconds: u64,
    },
    /// The user gave up while a domain was started.
    #[error("Interrupted: domain {name} was not created.")]
    Interrupted {
        /// The name in its configuration.
        name: String,
        /// The signal, which the program then obeys.
        signal: i32,
    },
    /// A guest's agent, or the way to it.
    #[error(transparent)]
    Guest(#[from] crate::guest::GuestError),
    /// Whatever keeps `exec` from running its command.
    #[error(transparent)]
    Exec(Box<Error>),
    /// A device that the domain does not have.
    #[error("Device {device} not connected")]
    NoDevice {
        /// The word that names it.
        device: String,
    },
    /// A configuration file.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// A configuration that was edited in vain.
    #[error(transparent)]
    Edit(#[from] crate::update::EditError),
    /// The line editor of the interactive prompt.
    #[error("Cannot read a line: {0}")]
    Prompt(#[from] rustyline::error::ReadlineError),
    /// An image that could not be built.
    #[error(transparent)]
    Image(#[from] image::Error),
    /// No crash report was found.
    #[error("There is no crash report of a domain '{name}' (looked in {}).", place.display())]
    NoCrashReport {
        /// The name asked for.
        name: String,
        /// The directory of crash reports.
        place: PathBuf,
    },
    /// Several domains were commanded and some refused; each was told on its own.
    #[error("{failed} of {all} domains could not be told.")]
    Some {
        /// How many failed.
        failed: usize,
        /// How many there were.
        all: usize,
    },
    /// A domain went away for a reboot and did not come back.
    #[error("Domain {name} ended and did not start again within {seconds} s.")]
    NotBack {
        /// Its name.
        name: String,
        /// How long was waited.
        seconds: u64,
    },
    /// The terminal.
    #[error(transparent)]
    Terminal(#[from] TerminalError),
    /// The bridge over the uplink.
    #[error(transparent)]
    Bridge(#[from] devices::net::setup::bridge::BridgeError),
    /// The relay of the console.
    #[error("The console connection failed: {0}")]
    Relay(std::io::Error),
    /// A file of the host.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Signal handlers could not be installed.
    #[error("Cannot watch for signals: {0}")]
    Signals(std::io::Error),
    /// Nobody reads standard output any more; nothing is said.
    #[error("Standard output was closed")]
    OutputClosed,
    /// Standard output cannot be written.
    #[error("Cannot write to standard output: {0}")]
    Output(std::io::Error),
    /// Something cannot be written as JSON or as an S-expression.
    #[error("Cannot write this as text: {0}")]
    Serialise(#[from] serde_json::Error),
}

impl Error {
    /// A usage error of `command`.
    pub fn usage(command: &'static str, text: impl Into<String>) -> Self {
        Self::Usage { command, text: text.into() }
    }

    /// What kept `exec` from running its command: its exit code must not be taken for the command's.
    pub fn of_exec(self) -> Self {
        match self {
            Self::Usage { .. } | Self::OutputClosed => self,
            other => Self::Exec(Box::new(other)),
        }
    }

    /// The word of a domain that does not exist.
    pub fn unknown_domain(&self) -> Option<&str> {
        match self {
            Self::Registry(RegistryError::Unknown(word))
            | Self::Client(ClientError::Registry(RegistryError::Unknown(word))) => Some(word),
            _ => None,
        }
    }

    /// The process's exit code.
    pub fn exit_code(&self, tool: Tool) -> u8 {
        match self {
            Self::Usage { .. } => tool.usage_exit(),
            Self::Guest(error) => error.exit_code(),
            Self::Exec(error) => match &**error {
                Self::Guest(error) => error.exit_code(),
                _ => guest_agent::exit::FAULT,
            },
            _ if self.unknown_domain().is_some() => tool.unknown_domain_exit(),
            _ => 1,
        }
    }

    /// The text after `Error: `, or the whole line in xl's form.
    pub fn line(&self, tool: Tool) -> Line {
        if let Self::Exec(error) = self {
            return error.line(tool);
        }
        if let Self::Config(config::Error::Invalid(faults)) = self {
            // Each fault says "error:" itself, with its place.
            let count = match faults.len() {
                1 => "an error".to_owned(),
                many => format!("{many} errors"),
            };
            return Line::Error(format!("The configuration has {count}.\n{self}"));
        }
        match (tool, self.unknown_domain()) {
            (Tool::Xl, Some(word)) => {
                Line::Bare(format!("{word} is an invalid domain identifier (rc={XL_NO_DOMAIN})"))
            }
            _ => Line::Error(self.to_string()),
        }
    }

    /// What the user can do about it.
    pub fn hint(&self, tool: Tool) -> Option<String> {
        match self {
            Self::Guest(error) => return error.hint(tool),
            Self::Exec(error) => return error.hint(tool),
            _ => {}
        }
        let tool = tool.name();
        match self {
            Self::NotThere { .. } => Some(format!("'{tool} help' lists the commands that work.")),
            Self::Registry(error) => error.hint(),
            Self::Client(error) => error.hint(),
            Self::Daemon(error) => error.hint(),
            Self::Edit(error) => error.hint(tool),
            Self::NotStarted { name } => Some(format!("'xm start {name}' starts it.")),
            Self::Silent { domid, .. } => {
                Some(format!("'{tool} destroy {domid}' ends it if it stays like this."))
            }
            Self::Launch(LaunchError::Silent) => {
                Some(format!("'{tool} dmesg NAME' prints the domain's log, if it got that far."))
            }
            Self::Launch(error) => error.hint(),
            Self::Path(error) => error.hint(),
            Self::Image(error) => error.hint(),
            Self::Bridge(error) => crate::network_bridge::hint(tool, error),
            Self::TooSlow { name, .. } => {
                Some(format!("'{tool} dmesg {name}' shows how far it came."))
            }
            Self::NotBack { name, .. } => Some(format!(
                "Its on_reboot setting may say destroy, or it stopped too soon after its start; \
                 see '{tool} dmesg {name}'."
            )),
            Self::NoCrashReport { .. } => {
                Some(format!("'{tool} dmesg NAME' prints the log of a domain that did not crash."))
            }
            Self::Config(config::Error::NotFound { .. }) => {
                Some(format!("Give its path, or where to look: '{tool} create --path=DIR FILE'."))
            }
            Self::Privileged { .. } => {
                Some("Domain-0 is this host itself; use the host's own commands.".to_owned())
            }
            _ => None,
        }
    }
}

/// `ERROR_INVAL` of libxl, which xl prints for a word that names no domain.
const XL_NO_DOMAIN: i32 = -6;

/// A line for standard error.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// To be printed after `Error: `.
    Error(String),
    /// To be printed as it is.
    Bare(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_domains_in_both_dialects() {
        let error = Error::from(RegistryError::Unknown("ghost".into()));
        assert_eq!(error.line(Tool::Xm), Line::Error("Domain 'ghost' does not exist.".into()));
        assert_eq!(error.exit_code(Tool::Xm), 3);
        let bare = "ghost is an invalid domain identifier (rc=-6)";
        assert_eq!(error.line(Tool::Xl), Line::Bare(bare.into()));
        assert_eq!(error.exit_code(Tool::Xl), 1);
    }

    #[test]
    fn usage_errors_end_with_the_codes_of_the_tools() {
        let error = Error::usage("list", "Invalid argument.");
        assert_eq!((error.exit_code(Tool::Xm), error.exit_code(Tool::Xl)), (1, 2));
    }
}
