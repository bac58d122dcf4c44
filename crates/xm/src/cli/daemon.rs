//! Definitions of the commands about all domains that the daemon knows: `claims`, `event-monitor`,
//! `serve`, `shell` and `vm-list`.

use clap::{Arg, Command, value_parser};

use super::{examples, json};
use crate::tool::Tool;

/// The definition of one of these, or `None`.
pub(super) fn command(tool: Tool, name: &str) -> Option<Command> {
    Some(match name {
        "claims" => claims(tool),
        "event-monitor" => event_monitor(tool),
        "serve" => serve(tool),
        "shell" => shell(tool),
        "vm-list" => vm_list(tool),
        _ => return None,
    })
}

fn claims(tool: Tool) -> Command {
    Command::new("claims")
        .about("List the memory of the host that domains were promised and have not taken yet")
        .arg(json())
        .after_help(format!(
            "A domain's memory becomes the host's only when its guest touches it. Claimed, in MiB, is \
             what is still to come; of a domain that is being started, all of it. New domains cannot \
             have it.\n\n{}",
            examples(tool, &[("claims", "As list, with a column Claimed")])
        ))
}

fn vm_list(tool: Tool) -> Command {
    Command::new("vm-list")
        .about("List the domains that run: UUID, id and name")
        .arg(json())
        .after_help(examples(tool, &[("vm-list", "Domain-0 first")]))
}

fn event_monitor(tool: Tool) -> Command {
    Command::new("event-monitor")
        .about("Print what happens to domains, as it happens")
        .arg(json().help("Print a JSON object for each event, for programs"))
        .arg(
            Arg::new("count")
                .short('n')
                .long("count")
                .value_name("N")
                .value_parser(value_parser!(u64).range(1..))
                .help("End after so many events"),
        )
        .after_help(format!(
            "Words are listening (whatever happens from now on is told), up, paused, unpaused, renamed, \
             stopped (its guest), gone, stored, deleted, and lost when events came faster than they \
             were read. It goes on when the daemon is replaced, and then says listening again.\n\n{}",
            examples(
                tool,
                &[
                    ("event-monitor", "Until Ctrl+C"),
                    ("event-monitor --json -n 1", "Wait for the next event"),
                ],
            )
        ))
}

fn serve(tool: Tool) -> Command {
    Command::new("serve")
        .about("Speak the control daemon's HTTP interface on standard input and output")
        .after_help(format!(
            "For use over ssh: whoever can log in as the user can command that user's domains. It ends \
             when the daemon closes the connection (ask for that: Connection: close), or when nobody \
             reads any more.\n\nAs a socket of this host, for curl and others:\n  \
             socat UNIX-LISTEN:/tmp/xend,fork EXEC:\"ssh HOST xm serve\"\n\n{}",
            examples(
                tool,
                &[("serve", "Then: GET /v1/host HTTP/1.1, Host: xend, and an empty line")]
            )
        ))
}

fn shell(tool: Tool) -> Command {
    Command::new("shell")
        .about("Read commands from an interactive prompt")
        .after_help(format!(
            "A line is a command without the word xm; quotes and \\ keep words together. Tab completes \
             commands, options and names of domains; arrows bring earlier lines back, Ctrl+R finds \
             them. help lists the commands; exit, quit or Ctrl+D ends it. Without a terminal, lines are \
             read as they come, and the exit status is that of the last command.\n\n{}",
            examples(tool, &[("shell", "xm> list"), ("shell < lines", "A command for each line")])
        ))
}
