//! Definitions of what tells of domains: `list`, `uptime`, `dmesg` and the like.

use clap::{Arg, Command};

use super::{domain, domains, examples, flag, json};
use crate::tool::Tool;

/// The definition of one of these, or `None`.
pub(super) fn command(tool: Tool, name: &str) -> Option<Command> {
    Some(match name {
        "crash-report" => crash_report(tool),
        "dmesg" => dmesg(tool),
        "domid" => domid(tool),
        "domname" => domname(tool),
        "list" => list(tool),
        "uptime" => uptime(tool),
        _ => return None,
    })
}

fn list(tool: Tool) -> Command {
    let long = match tool {
        Tool::Xm => "Print everything known, as S-expressions",
        Tool::Xl => "Print everything known, as JSON",
    };
    let command = Command::new("list")
        .about("List domains: name, id, memory in MiB, virtual CPUs, state, CPU seconds")
        .arg(flag("long", Some('l'), long))
        .arg(json())
        .arg(flag("vcpus", Some('v'), "Deprecated: vcpu-list"))
        .arg(domains());
    let command = match tool {
        Tool::Xl => command,
        Tool::Xm => command
            .arg(flag("label", None, "Show security labels"))
            .arg(Arg::new("state").long("state").value_name("STATE").help(
                "Only domains in this state: all, halted, paused, running, suspended, \
                     shutdown, crashed or unknown",
            ))
            .arg(Arg::new("pool").long("pool").value_name("POOL").help("Only this CPU pool")),
    };
    command.after_help(format!(
        "State is six letters, - where unset: running, blocked, paused, shutdown, crashed, \
         dying.\nDomain-0 is the host: its memory, its processors, and the time that they were busy \
         since its start.\n\n{}",
        examples(
            tool,
            &[
                ("list", "All domains, Domain-0 first"),
                ("list serv1", "One domain"),
                ("list --json", "For programs"),
            ],
        )
    ))
}

fn dmesg(tool: Tool) -> Command {
    Command::new("dmesg")
        .about("Print the hypervisor's messages: those of every domain's monitor")
        .arg(flag("clear", Some('c'), "Clear the messages after printing them"))
        .arg(domains())
        .after_help(examples(
            tool,
            &[("dmesg", "All domains"), ("dmesg serv1", "What the monitor of serv1 had to say")],
        ))
}

fn domid(tool: Tool) -> Command {
    Command::new("domid")
        .about("Print the id of a domain")
        .arg(Arg::new("domain").value_name("DomainName").required(true).help("Its name"))
        .after_help(examples(tool, &[("domid serv1", "5")]))
}

fn domname(tool: Tool) -> Command {
    Command::new("domname")
        .about("Print the name of a domain")
        .arg(Arg::new("domain").value_name("DomainId").required(true).help("Its id"))
        .after_help(examples(tool, &[("domname 5", "serv1")]))
}

fn uptime(tool: Tool) -> Command {
    Command::new("uptime")
        .about("Print how long domains have been up")
        .arg(flag("short", Some('s'), "One line per domain as uptime(1) prints it"))
        .arg(json())
        .arg(domains())
        .after_help(examples(tool, &[("uptime", "All domains"), ("uptime -s serv1", "One")]))
}

fn crash_report(tool: Tool) -> Command {
    Command::new("crash-report")
        .about("Print why a domain crashed: the reason, its registers, its last messages")
        .arg(domain().required(true))
        .after_help(examples(tool, &[("crash-report serv1", "The newest report of serv1")]))
}
