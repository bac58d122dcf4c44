//! Short orders to one domain: `rename`, `reset`, `sysrq`, `trigger`, `debug-keys` and `vcpu-set`.

use clap::ArgMatches;
use control::{EndedAs, ShutdownKind, kill_point};

use crate::daemon::{Subject, connect, daemon, info, run, subjects};
use crate::error::Error;
use crate::output::{Colour, heading, note, put};
use crate::tool::Tool;
use crate::word;

/// `rename D NewName`.
///
/// # Errors
///
/// When there is no such domain, or the name is taken or none; so for all of these, as far as it
/// applies.
pub fn rename(matches: &ArgMatches) -> Result<(), Error> {
    let daemon = daemon();
    let domain = Subject::find(&daemon, word(matches, "domain"))?.unprivileged("rename")?;
    Ok(daemon.rename(&domain.uuid.to_string(), word(matches, "name"))?)
}

/// `reset D`: returns when the domain has started anew.
///
/// # Errors
///
/// As [`rename`].
pub fn reset(matches: &ArgMatches) -> Result<(), Error> {
    reset_domain(word(matches, "domain"))
}

fn reset_domain(word: &str) -> Result<(), Error> {
    let (_, client) = connect(word, "reset")?;
    kill_point("xm.reset.connected");
    let ended = client.reset()?;
    if let EndedAs::Restarted { domid } = ended.outcome {
        note(&format!("Domain {word} runs anew (id={domid})"));
    }
    Ok(())
}

/// `sysrq D LETTER`.
///
/// # Errors
///
/// As [`rename`].
pub fn sysrq(matches: &ArgMatches) -> Result<(), Error> {
    let mut keys = word(matches, "key").chars();
    let (Some(key), None) = (keys.next(), keys.next()) else {
        return Err(Error::usage("sysrq", "A magic SysRq key is one letter or digit."));
    };
    if !key.is_ascii_alphanumeric() {
        return Err(Error::usage("sysrq", "A magic SysRq key is one letter or digit."));
    }
    Ok(connect(word(matches, "domain"), "send a key to")?.1.sysrq(key)?)
}

/// `trigger D nmi|reset|init|power|s3resume|sleep [VCPU]`.
///
/// A paravirtual guest has no buttons and no interrupt controller. What such a button would lead to
/// is done where there is a way: the reset button resets, the power button asks for a shutdown.
///
/// # Errors
///
/// As [`rename`]; and for what a paravirtual guest cannot be sent.
pub fn trigger(tool: Tool, matches: &ArgMatches) -> Result<(), Error> {
    let (domain, what) = (word(matches, "domain"), word(matches, "trigger"));
    let vcpu = matches.get_one::<u32>("vcpu").copied().unwrap_or(0);
    let lacks = match what {
        "reset" => return reset_domain(domain),
        "power" => {
            let (_, mut client) = connect(domain, "shut down")?;
            return Ok(client.shutdown(ShutdownKind::Poweroff)?);
        }
        "nmi" => "non-maskable interrupts, which this engine does not raise",
        "init" => "an assisted (HVM) domain: the vCPUs of a paravirtual one have no INIT signal",
        "s3resume" | "sleep" => {
            "an assisted (HVM) domain: a paravirtual one has no ACPI to sleep by"
        }
        _ => {
            let text = format!(
                "'{what}' is no trigger; expected one of nmi, reset, init, power, s3resume, sleep."
            );
            return Err(Error::usage("trigger", text));
        }
    };
    // Of a domain or vCPU that is not there, this is what matters.
    let (_, mut client) = connect(domain, "trigger")?;
    check_vcpu("trigger", vcpu, client.info()?.vcpus)?;
    Err(Error::NotThere { tool: tool.name(), command: format!("trigger {what}"), lacks })
}

fn check_vcpu(command: &'static str, vcpu: u32, count: u32) -> Result<(), Error> {
    if vcpu < count {
        return Ok(());
    }
    Err(Error::usage(command, format!("The domain has no vCPU {vcpu}: it has {count}, from 0 on.")))
}

/// `debug-keys KEYS [D...]`: each key of each domain; the texts go to `dmesg`.
///
/// # Errors
///
/// When a key is none, or a named domain does not exist.
pub fn debug_keys(matches: &ArgMatches) -> Result<(), Error> {
    let keys = word(matches, "keys");
    let daemon = daemon();
    let names = crate::words(matches, "domain");
    let mut domains = Vec::new();
    for subject in subjects(&daemon, &names)? {
        match subject {
            Subject::Host if names.is_empty() => {}
            subject => domains.push(subject.unprivileged("look into")?),
        }
    }
    if names.is_empty() {
        domains.retain(|domain| domain.run.is_some());
    }
    let mut failed = 0;
    for domain in &domains {
        let press = || -> Result<(), Error> {
            let (_, mut client) = connect(&domain.uuid.to_string(), "look into")?;
            Ok(keys.chars().try_for_each(|key| client.debug_key(key))?)
        };
        match press() {
            Ok(()) => {}
            Err(error) if domains.len() == 1 => return Err(error),
            Err(error) => {
                failed += 1;
                note(&format!("{} {}: {error}", heading("Error:", Colour::Red), domain.name));
            }
        }
    }
    if failed > 0 {
        return Err(Error::Some { failed, all: domains.len() });
    }
    Ok(())
}

/// `vcpu-set D N`.
///
/// # Errors
///
/// As [`rename`]; and for a number of vCPUs that the domain cannot have.
pub fn vcpu_set(tool: Tool, matches: &ArgMatches) -> Result<(), Error> {
    let (_, mut client) = connect(word(matches, "domain"), "set the vCPUs of")?;
    let info = client.info()?;
    let Ok(count) = word(matches, "count").parse::<u32>() else {
        return Err(Error::usage("vcpu-set", "Invalid argument."));
    };
    if (1..=info.vcpus).contains(&count) {
        // As many as it has: nothing is to be done.
        return Ok(());
    }
    let text = format!(
        "{count} is no number of vCPUs for domain {}: it has {} at most{}.",
        info.name,
        info.vcpus,
        if tool == Tool::Xl { " (maxvcpus)" } else { "" }
    );
    Err(Error::usage("vcpu-set", text))
}

/// `domstate D`: one word.
///
/// # Errors
///
/// As [`rename`].
pub fn domstate(matches: &ArgMatches) -> Result<(), Error> {
    let subject = Subject::find(&daemon(), word(matches, "domain"))?;
    let (domid, state) = match &subject {
        Subject::Host => (0, "running"),
        Subject::Domain(domain) => (run(domain)?.domid, state_word(info(domain)?.state)),
    };
    if matches.get_flag("json") {
        let value = serde_json::json!({"domid": domid, "name": subject.name(), "state": state});
        return put(&format!("{}\n", serde_json::to_string_pretty(&value)?));
    }
    put(&format!("{state}\n"))
}

/// The word of xm 4.x.
fn state_word(state: control::StateFlags) -> &'static str {
    if state.crashed {
        "crashed"
    } else if state.shutdown {
        "shutoff"
    } else if state.dying {
        "shutdown"
    } else if state.paused {
        "paused"
    } else if state.blocked {
        "idle"
    } else {
        "running"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::StateFlags;

    #[test]
    fn states_in_one_word() {
        let state = StateFlags::default();
        assert_eq!(state_word(StateFlags { blocked: true, ..state }), "idle");
        assert_eq!(state_word(StateFlags { blocked: true, paused: true, ..state }), "paused");
        assert_eq!(state_word(StateFlags { shutdown: true, ..state }), "shutoff");
        assert_eq!(state_word(StateFlags { crashed: true, shutdown: true, ..state }), "crashed");
        assert_eq!(state_word(StateFlags { dying: true, ..state }), "shutdown");
        assert_eq!(state_word(state), "running");
    }
}
