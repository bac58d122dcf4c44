//! `exec` and `cp`: commands and files in a guest, by way of its agent (crate `guest-agent`).

mod copy;
mod exec;
mod session;
mod stream;

pub use copy::copy;
pub use exec::exec;

use crate::output::harmless;
use crate::tool::Tool;
use guest_agent::exit;
use guest_agent::message::Link;
use std::time::Duration;

/// What can go wrong on the way to a guest's agent, and there.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// The agent does not answer.
    #[error("The guest of domain '{name}' does not answer on its channel: {}", reason(*link))]
    Silent {
        /// The domain.
        name: String,
        /// How far it is.
        link: Link,
        /// How long was waited.
        waited: Duration,
    },
    /// The agent refused, or what it did failed.
    #[error("{}", harmless(text))]
    Refused {
        /// Exit code.
        code: u8,
        /// Why, in the guest's words.
        text: String,
    },
    /// The channel or the domain is gone.
    #[error(
        "The channel to domain '{name}' broke: its guest, or the process that serves it, ended"
    )]
    Broken {
        /// The domain.
        name: String,
    },
    /// The guest said what makes no sense.
    #[error("The guest of domain '{name}' broke the rules of its channel")]
    Nonsense {
        /// The domain.
        name: String,
    },
    /// Less came than the guest says that it sent.
    #[error(
        "Of {sent} bytes that the guest of domain '{name}' sent, {received} came: the output is not complete"
    )]
    Lost {
        /// The domain.
        name: String,
        /// Bytes of both outputs, as the guest has them.
        sent: u64,
        /// Bytes that came.
        received: u64,
    },
    /// The command with its arguments and environment is too long.
    #[error("The command, with its environment, is longer than the 32 KiB that fit")]
    TooLong,
    /// A copy failed on this side.
    #[error(transparent)]
    Place(#[from] guest_agent::place::PlaceError),
    /// A file of this host cannot be read.
    #[error(transparent)]
    Tree(#[from] guest_agent::tree::TreeError),
    /// A signal ended a copy.
    #[error("Interrupted: nothing of the copy is left.")]
    Interrupted {
        /// The signal, which the program then obeys.
        signal: i32,
    },
    /// The host has no sockets or signals left.
    #[error("Cannot speak with the guest: {0}")]
    Host(#[from] std::io::Error),
}

fn reason(link: Link) -> &'static str {
    match link {
        Link::NoDriver => "its kernel does not use the channel's device",
        Link::Silent => "there is no agent",
        Link::Version => "its agent speaks another version of the language",
        Link::Up => "its agent fell silent",
    }
}

impl GuestError {
    /// The exit code of the process.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Refused { code, .. } => *code,
            _ => exit::FAULT,
        }
    }

    /// What the user can do about it.
    pub fn hint(&self, tool: Tool) -> Option<String> {
        let tool = tool.name();
        match self {
            Self::Silent { link: Link::NoDriver, waited, name } => Some(format!(
                "It may still be starting ({} s were waited; --timeout SECONDS waits longer), or be \
                 no Linux: '{tool} console {name}' shows.",
                waited.as_secs()
            )),
            Self::Silent { link: Link::Silent | Link::Up, waited, .. } => Some(format!(
                "{} s were waited; --timeout SECONDS waits longer. Guests of '{tool} image build' \
                 have an agent. Into another one install the program xenguest (beside xendomain on \
                 this host), and have it started at boot: '{tool} exec --help' says how.",
                waited.as_secs()
            )),
            Self::Silent { .. } => {
                Some("Install this version's xenguest in the guest, and restart it there.".into())
            }
            Self::Broken { name } => Some(format!("'{tool} dmesg {name}' shows the domain's log.")),
            Self::Lost { name, .. } => Some(format!(
                "This should never happen: please report it, with what '{tool} logs {name}' shows."
            )),
            Self::TooLong => Some("Copy a script into the guest, and run that.".into()),
            Self::Place(guest_agent::place::PlaceError::Taken(_)) => {
                Some("Remove it, or name another destination.".into())
            }
            _ => None,
        }
    }
}
