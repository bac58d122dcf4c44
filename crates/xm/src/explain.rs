//! `explain`: what stands behind an error, by its code.
//!
//! A code is a word that never changes its meaning. This table is the only place of codes; those of
//! [`control::ErrorCode`], with which domains' processes answer, are in it under the same names.

use clap::ArgMatches;
use control::{ClientError, ErrorCode, Failure, LaunchError, RegistryError};
use serde_json::json;

use crate::error::Error;
use crate::output::put;

/// One error.
#[derive(Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Its code.
    pub code: &'static str,
    /// What happened.
    pub what: &'static str,
    /// Why that can be.
    pub why: &'static str,
    /// What to do next.
    pub next: &'static str,
}

/// All errors with a code, by code.
pub static EXPLANATIONS: &[Explanation] = &[
    Explanation {
        code: "bad-name",
        what: "A name cannot be that of a domain.",
        why: "Names become names of files: they have letters, digits and _ - . : + only, at most \
              200 of them, do not begin with a dot, and are not Domain-0.",
        next: "Choose another name, in the configuration or for 'xm rename'.",
    },
    Explanation {
        code: "bad-request",
        what: "A domain's process did not understand what it was asked.",
        why: "The tool and the process are of different versions, or a key or letter is none that \
              there is.",
        next: "Restart the domain with the present version, or look at the command's --help.",
    },
    Explanation {
        code: "busy",
        what: "What was asked for is in use.",
        why: "Another domain has the name, the uuid or the image, the guest holds on to a device, \
              or the domain has too many connections.",
        next: "'xm list' shows who is there; unmount a disk in the guest before it is detached, or \
               use --force.",
    },
    Explanation {
        code: "config",
        what: "A configuration cannot be used.",
        why: "A key, a value or the syntax is wrong; the message names the file, the line and the \
              column.",
        next: "'xm config check FILE' shows all faults at once and starts nothing.",
    },
    Explanation {
        code: "disk-full",
        what: "The host's file system has no room left.",
        why: "Logs, images and core files grow; a guest whose disk image cannot grow is paused.",
        next: "Free space, then 'xm unpause DOMAIN': what the guest wrote is tried again.",
    },
    Explanation {
        code: "domain-ended",
        what: "The domain ended while it was asked.",
        why: "The guest shut down or crashed, or somebody destroyed it at the same time.",
        next: "'xm logs DOMAIN' and 'xm crash-report DOMAIN' tell how it went.",
    },
    Explanation {
        code: "domain-silent",
        what: "A domain's process gave no answer in time.",
        why: "The host is overloaded, or the process is stopped or hangs, which is a bug.",
        next: "'xm list' shows question marks for it. 'xm destroy DOMAIN' ends it in any case.",
    },
    Explanation {
        code: "host",
        what: "The host refused something that a domain needs.",
        why: "A limit is reached, a right is missing, or a program or file is not there; the \
              message says which.",
        next: "'xm doctor' looks at everything that domains need and says how to mend it.",
    },
    Explanation {
        code: "kernel",
        what: "The guest's kernel or ramdisk cannot be loaded.",
        why: "The file is missing, damaged, of another kind, or a kernel without support for Xen \
              (CONFIG_XEN_PV).",
        next: "Take a stock kernel of Debian: 'xm image build debian:12 -o DIR' fetches one.",
    },
    Explanation {
        code: "memory",
        what: "A domain cannot have so much, or so little, memory.",
        why: "More than 'maxmem' of its configuration is not possible while it runs, nor more than \
              the host has; a kernel with its ramdisk needs some dozens of MiB.",
        next: "Change 'memory' or 'maxmem' in the configuration and start it again.",
    },
    Explanation {
        code: "name-taken",
        what: "Another domain has that name.",
        why: "Names are unique among the domains that exist.",
        next: "'xm rename' one of them, or change 'name' in the configuration.",
    },
    Explanation {
        code: "not-found",
        what: "What was asked for does not exist.",
        why: "The domain has no such device, or has never crashed, or its log is gone.",
        next: "'xm block-list' and 'xm network-list' show the devices of a domain.",
    },
    Explanation {
        code: "not-permitted",
        what: "Another user's domain cannot be commanded.",
        why: "A domain obeys the user who created it, and root.",
        next: "Become that user. 'xm list' shows your own domains only.",
    },
    Explanation {
        code: "not-supported",
        what: "A command or an option is not there yet, or not for this kind of domain.",
        why: "The message says what it waits for; docs/commands.md lists all of them.",
        next: "'xm help' lists the commands that work.",
    },
    Explanation {
        code: "privileged-domain",
        what: "Domain-0 cannot be commanded like this.",
        why: "Domain-0 is this host itself.",
        next: "Use the host's own commands.",
    },
    Explanation {
        code: "start-timeout",
        what: "A domain did not start in time; it was ended again.",
        why: "The host is overloaded, or reading the kernel or a disk hangs.",
        next: "'xm logs DOMAIN' shows how far it came.",
    },
    Explanation {
        code: "unknown-domain",
        what: "No domain has that name, id or uuid.",
        why: "It ended, or was never there, or belongs to another user or another run-time \
              directory (XENOLITH_RUNTIME_DIR).",
        next: "'xm list' shows the domains that exist; 'xm logs NAME' why one is gone.",
    },
    Explanation {
        code: "usage",
        what: "The words of a command are not what it takes.",
        why: "An option is none, an operand is missing, or there is one too many.",
        next: "'xm COMMAND --help' shows its options with examples.",
    },
    Explanation {
        code: "wrong-state",
        what: "That is not possible in the domain's present state.",
        why: "It is paused, has shut down or has crashed, or is stored and not started.",
        next: "'xm list DOMAIN' tells the state; 'xm unpause DOMAIN', 'xm start DOMAIN' or \
               'xm destroy DOMAIN' changes it.",
    },
];

/// The code of an error, if it has one.
pub fn code(error: &Error) -> Option<&'static str> {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    Some(match error {
        Error::Usage { .. } => "usage",
        Error::NotThere { .. } => "not-supported",
        Error::Privileged { .. } => "privileged-domain",
        Error::Registry(error) | Error::Client(ClientError::Registry(error)) => registry(error)?,
        Error::Client(ClientError::Refused(failure))
        | Error::Daemon(api::Error::Refused(failure))
        | Error::Launch(LaunchError::Failed(failure)) => refusal(failure),
        Error::Client(ClientError::Timeout { .. }) | Error::Silent { .. } => "domain-silent",
        Error::Client(ClientError::Ended { .. }) => "domain-ended",
        Error::TooSlow { .. } => "start-timeout",
        Error::NoDevice { .. } | Error::NoCrashReport { .. } => "not-found",
        Error::Config(_) => "config",
        Error::Path(path) if matches!(path.source.kind(), StorageFull | QuotaExceeded) => {
            "disk-full"
        }
        _ => return None,
    })
}

fn registry(error: &RegistryError) -> Option<&'static str> {
    Some(match error {
        RegistryError::Unknown(_) => "unknown-domain",
        RegistryError::NameTaken { .. } => "name-taken",
        RegistryError::UuidTaken { .. } => "busy",
        RegistryError::BadName { .. } => "bad-name",
        RegistryError::Path(_) | RegistryError::NoNumber => return None,
    })
}

fn refusal(failure: &Failure) -> &'static str {
    match failure.code {
        ErrorCode::BadRequest => "bad-request",
        ErrorCode::NotPermitted => "not-permitted",
        ErrorCode::WrongState => "wrong-state",
        ErrorCode::NotSupported => "not-supported",
        ErrorCode::NotFound => "not-found",
        ErrorCode::Busy => "busy",
        ErrorCode::Memory => "memory",
        ErrorCode::Config => "config",
        ErrorCode::Kernel => "kernel",
        ErrorCode::Host => "host",
        ErrorCode::Timeout => "domain-silent",
        ErrorCode::Ended => "domain-ended",
    }
}

/// `explain [--json] [CODE]`; without a code, all of them in a line each.
///
/// # Errors
///
/// For a code that there is not.
pub fn explain(matches: &ArgMatches) -> Result<(), Error> {
    let word = matches.get_one::<String>("code");
    let found: Vec<&Explanation> =
        EXPLANATIONS.iter().filter(|entry| word.is_none_or(|word| entry.code == word)).collect();
    if let (Some(word), []) = (word, found.as_slice()) {
        let near: Vec<&str> = EXPLANATIONS
            .iter()
            .map(|entry| entry.code)
            .filter(|code| code.contains(word.as_str()) || word.contains(code))
            .collect();
        let hint = if near.is_empty() {
            "'xm explain' lists all codes.".to_owned()
        } else {
            format!("Did you mean {}?", near.join(" or "))
        };
        return Err(Error::usage("explain", format!("There is no error code '{word}'. {hint}")));
    }
    if matches.get_flag("json") {
        let values: Vec<_> = found
            .iter()
            .map(|e| json!({"code": e.code, "what": e.what, "why": e.why, "next": e.next}))
            .collect();
        return put(&format!("{}\n", serde_json::to_string_pretty(&values)?));
    }
    if word.is_none() {
        let line = |entry: &&Explanation| format!("{:<18} {}\n", entry.code, entry.what);
        return put(&found.iter().map(line).collect::<String>());
    }
    let whole = |e: &&Explanation| {
        format!("{}\n\nWhat happened: {}\nWhy: {}\nNext: {}\n", e.code, e.what, e.why, e.next)
    };
    put(&found.iter().map(whole).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_and_unique() {
        let codes: Vec<&str> = EXPLANATIONS.iter().map(|entry| entry.code).collect();
        let mut sorted = codes.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(codes, sorted);
    }

    #[test]
    fn every_code_that_an_error_has_is_explained() {
        let all = [
            ErrorCode::BadRequest,
            ErrorCode::NotPermitted,
            ErrorCode::WrongState,
            ErrorCode::NotSupported,
            ErrorCode::NotFound,
            ErrorCode::Busy,
            ErrorCode::Memory,
            ErrorCode::Config,
            ErrorCode::Kernel,
            ErrorCode::Host,
        ];
        let refused = all.map(|code| ClientError::Refused(Failure::new(code, "no")).into());
        let errors: Vec<Error> = refused
            .into_iter()
            .chain([
                Error::usage("list", "x"),
                RegistryError::Unknown("x".into()).into(),
                RegistryError::NameTaken { name: "x".into(), domid: 1 }.into(),
                RegistryError::BadName { name: "x".into(), why: "y" }.into(),
                ClientError::Ended { domid: 1 }.into(),
                Error::Privileged { verb: "x", name: "y" },
                Error::TooSlow { name: "x".into(), seconds: 1 },
                Error::NoDevice { device: "x".into() },
            ])
            .collect();
        for error in &errors {
            let code = code(error).unwrap();
            assert!(EXPLANATIONS.iter().any(|entry| entry.code == code), "{code}");
        }
    }

    #[test]
    fn codes_of_refusals_are_those_of_the_protocol() {
        let word = serde_json::to_value(ErrorCode::WrongState).unwrap();
        assert_eq!(word, refusal(&Failure::new(ErrorCode::WrongState, "x")));
    }
}
