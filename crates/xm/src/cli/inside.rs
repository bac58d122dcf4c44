//! Definitions of the commands about one domain's inside: names, memory, vCPUs, keys, logs.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Arg, ArgAction, Command, value_parser};
use config::LogLevel;

use super::{domain, domains, examples, flag, json};
use crate::tool::Tool;
use crate::wait;

/// The definition of one of these, or `None`.
pub(super) fn command(tool: Tool, name: &str) -> Option<Command> {
    Some(match name {
        "debug-keys" => debug_keys(tool),
        "domstate" => domstate(tool),
        "explain" => explain(tool),
        "log" => log(tool),
        "logs" => logs(tool),
        "mem-max" => mem_max(tool),
        "mem-set" => mem_set(tool),
        "rename" => rename(tool),
        "reset" => reset(tool),
        "stats" => stats(tool),
        "sysrq" => sysrq(tool),
        "trigger" => trigger(tool),
        "vcpu-list" => vcpu_list(tool),
        "vcpu-set" => vcpu_set(tool),
        "wait" => wait_for(tool),
        _ => return None,
    })
}

fn operand(name: &'static str, shown: &'static str, help: &'static str) -> Arg {
    Arg::new(name).value_name(shown).required(true).help(help)
}

fn rename(tool: Tool) -> Command {
    Command::new("rename")
        .about("Give a domain another name")
        .arg(domain().required(true))
        .arg(operand("name", "NewName", "Letters, digits and _ - . : + only"))
        .after_help(format!(
            "Its log goes on under the new name.\n\n{}",
            examples(tool, &[("rename serv1 web", "From now on it is called web")])
        ))
}

fn reset(tool: Tool) -> Command {
    Command::new("reset")
        .about("End a domain's guest at once and start it anew")
        .arg(domain().required(true))
        .after_help(format!(
            "The guest is not asked: what it has not written is lost. It starts as its \
             configuration says, under another id.\n\n{}",
            examples(tool, &[("reset serv1", "As if its reset button was pressed")])
        ))
}

fn domstate(tool: Tool) -> Command {
    Command::new("domstate")
        .about("Print a domain's state in one word")
        .arg(json())
        .arg(domain().required(true))
        .after_help(format!(
            "Words are running, idle (it waits for events), paused, shutdown (it is going), \
             shutoff and crashed.\n\n{}",
            examples(tool, &[("domstate serv1", "idle")])
        ))
}

fn sysrq(tool: Tool) -> Command {
    Command::new("sysrq")
        .about("Send a magic SysRq key to a domain's kernel")
        .arg(domain().required(true))
        .arg(operand("key", "letter", "The key: h prints a list on the guest's console"))
        .after_help(examples(
            tool,
            &[
                ("sysrq serv1 h", "What keys there are"),
                ("sysrq serv1 s", "Write all disks' data out"),
                ("sysrq serv1 w", "Show what waits for ever"),
            ],
        ))
}

fn trigger(tool: Tool) -> Command {
    Command::new("trigger")
        .about("Press one of a domain's buttons")
        .arg(domain().required(true))
        .arg(operand("trigger", "nmi|reset|init|power|s3resume", "Which button"))
        .arg(
            Arg::new("vcpu")
                .value_name("VCPU")
                .value_parser(value_parser!(u32))
                .help("Of which vCPU [default: 0]"),
        )
        .after_help(format!(
            "A paravirtual domain has no buttons: reset does what the command reset does, power \
             asks for a shutdown, the others are refused.\n\n{}",
            examples(tool, &[("trigger serv1 power", "The same as: shutdown serv1")])
        ))
}

fn debug_keys(tool: Tool) -> Command {
    Command::new("debug-keys")
        .about("Have domains' processes write about their inside into dmesg")
        .arg(operand(
            "keys",
            "Keys",
            "h: list of keys; q: memory, vCPU, processes; r: registers; s: the engine's counters",
        ))
        .arg(domains())
        .after_help(examples(
            tool,
            &[
                ("debug-keys s", "The engine's counters of all domains, see dmesg"),
                ("debug-keys qr serv1", "What serv1 is doing"),
            ],
        ))
}

fn memory(tool: Tool) -> Arg {
    let units = match tool {
        Tool::Xm => "In MiB, or with k, m or g",
        Tool::Xl => "In MiB, or with b, k, m, g or t",
    };
    operand("memory", "Mem", units)
}

fn mem_set(tool: Tool) -> Command {
    Command::new("mem-set")
        .about("Ask a domain to change the size of its memory")
        .arg(domain().required(true))
        .arg(memory(tool))
        .after_help(format!(
            "The guest's balloon driver does it, so success means that it was asked; list shows how \
             far it is. What it gives back the host can use at once.\nIt can grow up to maxmem of \
             its configuration, or what mem-max says.\n\n{}",
            examples(tool, &[("mem-set serv1 128", "Down, or up, to 128 MiB")])
        ))
}

fn mem_max(tool: Tool) -> Command {
    Command::new("mem-max")
        .about("Limit the memory that a domain may have")
        .arg(domain().required(true))
        .arg(memory(tool))
        .after_help(format!(
            "The guest is not told. What it has already stays with it: mem-set takes it away.\n\n{}",
            examples(tool, &[("mem-max serv1 256", "It will not grow beyond")])
        ))
}

fn vcpu_list(tool: Tool) -> Command {
    Command::new("vcpu-list")
        .about("List the virtual CPUs of domains")
        .arg(json())
        .arg(domains())
        .after_help(format!(
            "State is r (it runs), b (it waits) or p (it is offline). CPU is the host's on which it \
             ran last.\n\n{}",
            examples(tool, &[("vcpu-list serv1", "Those of serv1")])
        ))
}

fn vcpu_set(tool: Tool) -> Command {
    Command::new("vcpu-set")
        .about("Set the number of virtual CPUs that a domain uses")
        .arg(domain().required(true))
        .arg(operand("count", "VCPUs", "How many, at most those it was made with"))
        .after_help(examples(tool, &[("vcpu-set serv1 1", "Only its first")]))
}

fn stats(tool: Tool) -> Command {
    Command::new("stats")
        .about("Print what domains have used and moved: CPU time, memory, disks, interfaces")
        .arg(json())
        .arg(domains())
        .after_help(format!(
            "Counters begin with the domain, or with the process that serves the device.\n\n{}",
            examples(tool, &[("stats serv1", "For people"), ("stats --json", "For programs")])
        ))
}

fn wait_for(tool: Tool) -> Command {
    Command::new("wait")
        .about("Wait until a domain is gone, or in a given state")
        .arg(
            Arg::new("for")
                .long("for")
                .value_name("STATE")
                .value_parser(wait::WORDS)
                .default_value("gone")
                .hide_default_value(true)
                .hide_possible_values(true)
                .help("gone (default), shutdown, exists, running or paused"),
        )
        .arg(
            Arg::new("timeout")
                .short('t')
                .long("timeout")
                .value_name("SECONDS")
                .value_parser(value_parser!(f64))
                .help("Not longer than this"),
        )
        .arg(json())
        .arg(domain().required(true))
        .after_help(format!(
            "gone: this life of the domain is over, also when it starts anew. shutdown: the guest \
             stopped, even if the domain is kept.\nThe exit status is 0 when it came so, {} when \
             time ran out, {} when the domain ended while it was waited for another state.\n\n{}",
            wait::TIME_RAN_OUT,
            wait::ENDED,
            examples(
                tool,
                &[
                    ("wait serv1", "For its end"),
                    ("wait --for=exists -t 10 serv1", "Until somebody has created it"),
                ],
            )
        ))
}

fn log(tool: Tool) -> Command {
    Command::new("log")
        .about("Print the logs of all domains and programs, by time")
        .after_help(examples(tool, &[("log", "Everything; see also: logs")]))
}

fn logs(tool: Tool) -> Command {
    Command::new("logs")
        .about("Print or follow the logs of domains and programs, by time")
        .arg(flag("follow", Some('f'), "Go on with what is written from now on"))
        .arg(
            Arg::new("lines")
                .short('n')
                .long("lines")
                .value_name("N")
                .value_parser(value_parser!(usize))
                .action(ArgAction::Set)
                .help("Only the last N lines to begin with"),
        )
        .arg(
            Arg::new("level")
                .long("level")
                .value_name("LEVEL")
                .value_parser(
                    PossibleValuesParser::new(LogLevel::ALL.map(LogLevel::word))
                        .try_map(|word| word.parse::<LogLevel>()),
                )
                .action(ArgAction::Set)
                .help("Only what matters as much as this, or more"),
        )
        .arg(json().help("A JSON object for each line"))
        .arg(domains())
        .after_help(format!(
            "Each line begins with the log that it is from: a domain's name, xend or xenstored. \
             Then follow time (UTC), level, program, domain with its number, message, details. Files \
             have the same as key=value pairs or as JSON, as the host's settings say ('xm help \
             config').\n\n{}",
            examples(
                tool,
                &[
                    ("logs -f", "What happens from now on, after all that was"),
                    ("logs -n 20 serv1", "The last 20 lines about serv1"),
                    ("logs --level=warning", "What is wrong"),
                ],
            )
        ))
}

fn explain(tool: Tool) -> Command {
    Command::new("explain")
        .about("Explain an error code: what happened, why, what to do next")
        .arg(json())
        .arg(Arg::new("code").value_name("CODE").help("The code; without it, all are listed"))
        .after_help(examples(
            tool,
            &[("explain", "All codes"), ("explain unknown-domain", "One of them")],
        ))
}
