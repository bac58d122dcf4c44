//! The options and operands of every command that works, as clap definitions.
//!
//! The same definitions parse the command line and make the help texts, the manual pages and
//! the shell completions.

mod daemon;
mod guest;
mod inside;
mod own;

use clap::builder::ValueHint;
use clap::{Arg, ArgAction, Command};

use crate::tool::Tool;

/// Layout of `--help`: usage first, as xm prints it.
const HELP_TEMPLATE: &str = "{usage-heading} {usage}\n\n{about}\n\n{all-args}{after-help}\n";

/// The definition of one working command, or `None` if there is no such command.
pub fn command(tool: Tool, name: &str) -> Option<Command> {
    let command = match name {
        "block-attach" => block_attach(tool),
        "block-configure" => block_configure(tool),
        "block-detach" => block_detach(tool),
        "block-list" => block_list(tool),
        "block-refresh" => block_refresh(tool),
        "block-resize" => block_resize(tool),
        "cd-eject" => cd_eject(tool),
        "cd-insert" => cd_insert(tool),
        "channel-list" => channel_list(tool),
        "console" => console(tool),
        "crash-report" => crash_report(tool),
        "create" => create(tool),
        "delete" => delete(tool),
        "destroy" => destroy(tool),
        "dmesg" => dmesg(tool),
        "doctor" => doctor(tool),
        "domid" => domid(tool),
        "domname" => domname(tool),
        "image" => image(tool),
        "info" => info(tool),
        "list" => list(tool),
        "network-attach" => network_attach(tool),
        "network-detach" => network_detach(tool),
        "network-list" => network_list(tool),
        "network-bridge" => network_bridge(tool),
        "new" => new(tool),
        "pause" => pause(tool),
        "reboot" => reboot(tool),
        "shutdown" => shutdown(tool),
        "start" => start(tool),
        "unpause" => unpause(tool),
        "uptime" => uptime(tool),
        _ => inside::command(tool, name)
            .or_else(|| own::command(tool, name))
            .or_else(|| daemon::command(tool, name))
            .or_else(|| guest::command(tool, name))?,
    };
    Some(
        command
            .bin_name(format!("{} {name}", tool.name()))
            .help_template(HELP_TEMPLATE)
            .args_override_self(true)
            .infer_long_args(true)
            .disable_version_flag(true),
    )
}

/// The whole tool with all working commands, for manual pages and completions.
pub fn whole(tool: Tool) -> Command {
    let working = crate::commands::COMMANDS.iter().filter(|entry| entry.lacks.is_none());
    Command::new(tool.name())
        .about("Control the domains of a Xenolith host")
        .subcommands(working.filter_map(|entry| command(tool, entry.name)))
        .disable_help_subcommand(true)
        .subcommand(Command::new("help").about("List all commands"))
        .after_help(
            "A word of at least two letters that begins only one command runs that command.\n\
             Options may follow operands. A <Domain> is a name, an id or a uuid; names win.",
        )
}

/// `Examples:` with one line per command line and what it does.
fn examples(tool: Tool, lines: &[(&str, &str)]) -> String {
    let mut text = String::from("Examples:");
    for (line, what) in lines {
        let full = format!("{} {line}", tool.name());
        text.push_str(&format!("\n  {full:<34} {what}"));
    }
    text
}

fn flag(name: &'static str, short: Option<char>, help: &'static str) -> Arg {
    let arg = Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    match short {
        Some(letter) => arg.short(letter),
        None => arg,
    }
}

fn domain() -> Arg {
    Arg::new("domain").value_name("Domain").help("Name, id or uuid of the domain")
}

fn domains() -> Arg {
    Arg::new("domain").value_name("Domain").num_args(0..).help("Only these domains")
}

fn wait(help: &'static str) -> Arg {
    flag("wait", Some('w'), help)
}

fn json() -> Arg {
    flag("json", None, "Print JSON, for programs")
}

fn create(tool: Tool) -> Command {
    let command = Command::new("create")
        .about("Create a domain from a configuration file and start it")
        .arg(flag("console_autoconnect", Some('c'), "Attach the console from its first byte on"))
        .arg(flag("paused", Some('p'), "Leave the domain paused after it was created"))
        .arg(flag("dryrun", Some('n'), "Print the resulting configuration; create nothing"));
    configuration(tool, command).after_help(examples(
        tool,
        &[
            ("create serv1.cfg", "Start the domain that serv1.cfg describes"),
            ("create -c serv1.cfg", "The same, and watch it boot"),
            ("create serv1.cfg memory=256", "With 256 MiB, whatever the file says"),
            ("create -n serv1.cfg", "Check the file; start nothing"),
        ],
    ))
}

/// The operands and options that name a configuration.
fn configuration(tool: Tool, command: Command) -> Command {
    let path = match tool {
        Tool::Xm => ".:/etc/xen",
        Tool::Xl => ".",
    };
    command
        .arg(flag("quiet", Some('q'), "Do not say which file is used and what was started"))
        .arg(
            Arg::new("defconfig")
                .short('f')
                .long("defconfig")
                .value_name("FILE")
                .value_hint(ValueHint::FilePath)
                .help("Configuration file; the same as giving it as an operand"),
        )
        .arg(
            Arg::new("path")
                .long("path")
                .value_name("A:B")
                .help(format!("Directories to search for the file [default: {path}]")),
        )
        .arg(
            Arg::new("words")
                .value_name("ConfigFile] [key=value")
                .value_hint(ValueHint::FilePath)
                .num_args(0..)
                .help("Configuration file [default: xmdefconfig]; settings that override it"),
        )
}

fn new(tool: Tool) -> Command {
    let command = Command::new("new").about("Store a domain, which 'start' then starts");
    configuration(tool, command).after_help(examples(
        tool,
        &[
            ("new serv1.cfg", "It is listed from now on, and outlives the host's reboots"),
            ("start serv1", "Whenever it is wanted"),
        ],
    ))
}

fn start(tool: Tool) -> Command {
    Command::new("start")
        .about("Start a stored domain")
        .arg(flag("console_autoconnect", Some('c'), "Attach the console from its first byte on"))
        .arg(flag("paused", Some('p'), "Leave the domain paused after it was started"))
        .arg(domain().required(true))
        .after_help(examples(tool, &[("start serv1", "What 'new' stored")]))
}

fn delete(tool: Tool) -> Command {
    Command::new("delete")
        .about("Delete a stored domain that does not run; its disks are left alone")
        .arg(domain().required(true))
        .after_help(examples(tool, &[("delete serv1", "It is not listed any more")]))
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

fn console(tool: Tool) -> Command {
    Command::new("console")
        .about("Attach to a domain's console; leave it with Ctrl+] (Ctrl+5)")
        .arg(flag("quiet", Some('q'), "Print nothing but what the domain prints"))
        .arg(
            Arg::new("num")
                .short('n')
                .long("num")
                .value_name("N")
                .value_parser(clap::value_parser!(u32))
                .help("Number of the console; every domain has one, number 0"),
        )
        .arg(domain().required(true))
        .after_help(examples(
            tool,
            &[
                ("console serv1", "Output so far, then live"),
                ("console serv1 < cmds > out", "Relay a file; ends with the domain"),
            ],
        ))
}

fn shutdown(tool: Tool) -> Command {
    let command = Command::new("shutdown")
        .about("Ask a domain to shut down; its own system does the work")
        .arg(flag("all", Some('a'), "All domains except Domain-0"))
        .arg(wait("Wait until the domains are gone"));
    let command = match tool {
        Tool::Xl => command,
        Tool::Xm => command
            .arg(flag("halt", Some('H'), "Ask to halt instead of to power off"))
            .arg(flag("reboot", Some('R'), "Ask to reboot instead of to power off")),
    };
    command.arg(domain()).after_help(examples(
        tool,
        &[
            ("shutdown serv1", "Ask, and return at once"),
            ("shutdown -w serv1", "Ask, and wait for the end"),
            ("shutdown -a -w", "All domains"),
        ],
    ))
}

fn reboot(tool: Tool) -> Command {
    Command::new("reboot")
        .about("Ask a domain to reboot; its own system does the work")
        .arg(flag("all", Some('a'), "All domains except Domain-0"))
        .arg(wait("Wait until the domains have started again"))
        .arg(domain())
        .after_help(examples(tool, &[("reboot -w serv1", "Ask, and wait for the new start")]))
}

fn destroy(tool: Tool) -> Command {
    Command::new("destroy")
        .about("End a domain at once, without asking it")
        .arg(domain().required(true))
        .after_help(examples(tool, &[("destroy serv1", "As if its power cord was pulled")]))
}

fn pause(tool: Tool) -> Command {
    Command::new("pause")
        .about("Stop a domain's virtual CPUs; it keeps its memory and devices")
        .arg(domain().required(true))
        .after_help(examples(tool, &[("pause serv1", "Until: unpause serv1")]))
}

fn unpause(tool: Tool) -> Command {
    Command::new("unpause")
        .about("Let a paused domain go on")
        .arg(domain().required(true))
        .after_help(examples(tool, &[("unpause serv1", "Go on where it was paused")]))
}

fn device(help: &'static str) -> Arg {
    Arg::new("device").value_name("DevId").required(true).help(help)
}

fn block_attach(tool: Tool) -> Command {
    let words = Arg::new("words").required(true).num_args(1..=4).value_hint(ValueHint::FilePath);
    let words = match tool {
        Tool::Xm => words.value_name("BackDev FrontDev Mode").help(
            "Backing (file:/path, phy:/dev/x, tap:qcow2:/path), name in the guest, r or w or w!; \
             or one disk specification as in a configuration",
        ),
        Tool::Xl => words.value_name("DISK").help("Disk specification as in a configuration"),
    };
    let line = match tool {
        Tool::Xm => "block-attach serv1 file:/srv/a.img xvdb w",
        Tool::Xl => "block-attach serv1 /srv/a.img,raw,xvdb,rw",
    };
    Command::new("block-attach")
        .about("Give a running domain another disk")
        .arg(domain().required(true))
        .arg(words)
        .after_help(examples(tool, &[(line, "As its second disk")]))
}

/// What is the same for all changes of a medium.
const MEDIA: &str = "The guest must let go of the drive: unmount it there first. (Linux lets go of mounted \
    drives too from 5.14 on, and what is mounted reads no more.) The drive is away for a moment and \
    comes again under the same name. If the new medium cannot be used, or the guest does not let go, it \
    keeps the one it has.";

fn block_configure(tool: Tool) -> Command {
    Command::new("block-configure")
        .about("Put another medium into a drive of a running domain")
        .arg(domain().required(true))
        .arg(
            Arg::new("words")
                .required(true)
                .num_args(3..=4)
                .value_hint(ValueHint::FilePath)
                .value_name("BackDev FrontDev Mode")
                .help("As with block-attach: file:/path or phy:/dev/x, name in the guest, r"),
        )
        .after_help(format!(
            "{MEDIA}\n\n{}",
            examples(tool, &[("block-configure serv1 file:/srv/b.iso xvdc r", "Another disc")])
        ))
}

fn cd_insert(tool: Tool) -> Command {
    Command::new("cd-insert")
        .about("Put a disc into a CD drive of a running domain")
        .arg(domain().required(true))
        .arg(
            Arg::new("device")
                .value_name("VirtualDev")
                .required(true)
                .help("Name of the drive in the guest"),
        )
        .arg(
            Arg::new("medium")
                .value_name("Disc")
                .required(true)
                .value_hint(ValueHint::FilePath)
                .help("Image file, or phy:/dev/x"),
        )
        .after_help(format!(
            "{MEDIA}\n\n{}",
            examples(tool, &[("cd-insert serv1 xvdc /srv/b.iso", "In place of what is in it")])
        ))
}

fn cd_eject(tool: Tool) -> Command {
    Command::new("cd-eject")
        .about("Take the disc out of a CD drive of a running domain")
        .arg(domain().required(true))
        .arg(
            Arg::new("device")
                .value_name("VirtualDev")
                .required(true)
                .help("Name of the drive in the guest"),
        )
        .after_help(format!(
            "The drive stays, empty: a disk of no size.\n\n{MEDIA}\n\n{}",
            examples(tool, &[("cd-eject serv1 xvdc", "Until: cd-insert serv1 xvdc /srv/b.iso")])
        ))
}

fn block_detach(tool: Tool) -> Command {
    Command::new("block-detach")
        .about("Take a disk away from a running domain")
        .arg(domain().required(true))
        .arg(device("Name of the disk in the guest, or its number"))
        .arg(flag("force", Some('f'), "Even if the guest uses it"))
        .after_help(examples(tool, &[("block-detach serv1 xvdb", "Once the guest lets go of it")]))
}

fn block_refresh(tool: Tool) -> Command {
    Command::new("block-refresh")
        .about("Show a running domain the new size of a disk whose image has grown")
        .arg(domain().required(true))
        .arg(device("Name of the disk in the guest, or its number"))
        .after_help(examples(tool, &[("block-refresh serv1 xvdb", "After: truncate -s +1G image")]))
}

fn block_resize(tool: Tool) -> Command {
    Command::new("block-resize")
        .about("Make a disk of a running domain larger; the guest sees it at once")
        .arg(domain().required(true))
        .arg(device("Name of the disk in the guest, or its number"))
        .arg(
            Arg::new("size")
                .value_name("Size")
                .required(true)
                .help("Bytes, or with K, M, G or T behind it; with + before it, what is added"),
        )
        .after_help(format!(
            "Image files can grow, raw and qcow2, whose domain may write them and has them for \
             itself (mode w). No disk becomes smaller. A volume grows by the host's means \
             (lvextend), and block-refresh shows it. In the guest, the file system still has to \
             be told: resize2fs, xfs_growfs.\n\n{}",
            examples(
                tool,
                &[
                    ("block-resize serv1 xvdb +2G", "2 GiB more"),
                    ("block-resize serv1 xvdb 20G", "20 GiB in all"),
                ],
            )
        ))
}

fn list_of(tool: Tool, name: &'static str, about: &'static str) -> Command {
    Command::new(name)
        .about(about)
        .arg(flag("long", Some('l'), "Everything known, as JSON"))
        .arg(json())
        .arg(domain().required(true))
        .after_help(examples(tool, &[(&format!("{name} serv1"), "One line each")]))
}

fn block_list(tool: Tool) -> Command {
    list_of(tool, "block-list", "List a domain's disks")
}

fn channel_list(tool: Tool) -> Command {
    list_of(tool, "channel-list", "List a domain's channels to programs in it")
}

fn network_list(tool: Tool) -> Command {
    list_of(tool, "network-list", "List a domain's network interfaces")
}

fn network_attach(tool: Tool) -> Command {
    Command::new("network-attach")
        .about("Give a running domain another network interface")
        .arg(domain().required(true))
        .arg(Arg::new("words").value_name("key=value").num_args(0..).help(
            "As in a configuration's vif: mac=, bridge=, ip=, antispoof=, script=, vifname=, rate=, ports=",
        ))
        .after_help(examples(
            tool,
            &[
                ("network-attach serv1", "To the user-mode network"),
                ("network-attach serv1 bridge=xenbr0", "To a bridge"),
            ],
        ))
}

fn network_detach(tool: Tool) -> Command {
    Command::new("network-detach")
        .about("Take a network interface away from a running domain")
        .arg(domain().required(true))
        .arg(device("Number of the interface, or its MAC address"))
        .arg(flag("force", Some('f'), "Even if the guest uses it"))
        .after_help(examples(tool, &[("network-detach serv1 0", "Its first interface")]))
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

fn network_bridge(tool: Tool) -> Command {
    let about = "Make or remove a bridge over the host's uplink, for guests with bridge=xenbr0";
    Command::new("network-bridge")
        .about(about)
        .arg(
            Arg::new("action")
                .value_name("start|stop|status")
                .required(true)
                .value_parser(["start", "stop", "status"])
                .hide_possible_values(true)
                .help("Make the bridge, put everything back, or tell what is there"),
        )
        .arg(Arg::new("setting").value_name("KEY=NAME").num_args(0..).help(
            "netdev=DEVICE (default: that of the default route), bridge=NAME (default: xenbr0)",
        ))
        .arg(flag("dry-run", Some('n'), "With start: print the steps, change nothing"))
        .after_help(format!(
            "The uplink becomes a port of the bridge, which takes over its MAC address, its \
             addresses and its routes.\nWhat was moved is recorded first: if a start or a stop is \
             broken off, the next one puts it right.\n\n{}",
            examples(
                tool,
                &[
                    ("network-bridge start --dry-run", "What would be done"),
                    ("network-bridge start netdev=eth0", "xenbr0 over eth0"),
                    ("network-bridge stop", "Everything as before"),
                ],
            )
        ))
}

fn doctor(tool: Tool) -> Command {
    Command::new("doctor")
        .about("Check what of this host works for domains, and say what to do about the rest")
        .arg(json())
        .after_help(format!(
            "Each line is ok, warn (slower, or behind fewer walls), FAIL (no domain can run) or a \
             dash (to know).\nThe exit status is 0 if domains can run, warnings or not, else 1. \
             One process is started in the jail for a try.\n\n{}",
            examples(
                tool,
                &[("doctor", "For this user, on this host"), ("doctor --json", "For programs")],
            )
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

fn image(tool: Tool) -> Command {
    let option = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).help(help)
    };
    let path = |arg: Arg| arg.value_hint(ValueHint::FilePath);
    Command::new("image")
        .about("Build a guest: root file system, kernel, initramfs and configuration file")
        .arg(
            Arg::new("action")
                .value_name("build|list")
                .required(true)
                .help("Build a guest, or list what can be built"),
        )
        .arg(Arg::new("release").value_name("Release").help("What to build, like debian:12"))
        .arg(
            option("output", "DIR", "Directory to make for the files")
                .short('o')
                .value_hint(ValueHint::DirPath),
        )
        .arg(option("size", "SIZE", "Size of the disk, like 700M or 2G [default: by content]"))
        .arg(option("swap", "SIZE", "Swap space as a second disk [default: none]"))
        .arg(option("packages", "A,B", "Packages to install as well"))
        .arg(option("hostname", "NAME", "Name of the guest and of its domain [default: serv1]"))
        .arg(option("mac", "ADDRESS", "Address of its network card [default: at random]"))
        .arg(option("vif", "KEY=VALUE,...", "More for its network card, as in a configuration: bridge=xenbr0 [default: a network that needs no rights]"))
        .arg(option("memory", "MIB", "Memory of the domain [default: 256]"))
        .arg(option("root-password", "WORD", "Root's password, '' for none [default: at random]"))
        .arg(path(option("ssh-key", "FILE", "Public key for root, and an SSH server")))
        .arg(option("mirror", "URL", "Archive of packages [default: the host's, or the usual]"))
        .arg(option("security-mirror", "URL", "Archive of security updates"))
        .arg(path(option("keyring", "FILE", "Keys of the archive, if not the usual ones")))
        .arg(flag("force", None, "Replace an image that is there, when the new one is complete"))
        .arg(flag("quiet", Some('q'), "Do not tell the progress"))
        .arg(json())
        .after_help(format!(
            "Needs no root: an ordinary user needs ids in /etc/subuid and /etc/subgid, or fakeroot \
             and fakechroot.\nWithout --root-password, one is made up, told, and kept in \
             DIR/NAME.password.\nAn interrupted build leaves nothing behind.\n\n{}",
            examples(
                tool,
                &[
                    ("image list", "What can be built"),
                    ("image build debian:12 -o serv1", "A guest with nothing but a login"),
                    ("image build debian:12 -o web --packages lighttpd", "With a web server"),
                ],
            )
        ))
}

fn info(tool: Tool) -> Command {
    Command::new("info")
        .about("Print facts about the host and the hypervisor; memory in MiB")
        .arg(json())
        .arg(flag("config", Some('c'), "Print where this installation keeps and finds its files"))
        .arg(flag("numa", Some('n'), "Print the NUMA topology as well"))
        .after_help(examples(
            tool,
            &[("info", "One fact per line"), ("info --json", "For programs")],
        ))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::COMMANDS;

    #[test]
    fn every_working_command_is_defined_and_no_other() {
        for tool in [Tool::Xm, Tool::Xl] {
            for entry in COMMANDS {
                let defined = command(tool, entry.name);
                assert_eq!(defined.is_some(), entry.lacks.is_none(), "{}", entry.name);
                if let Some(mut defined) = defined {
                    let help = defined.render_help().to_string();
                    assert!(help.starts_with(&format!("Usage: {} {}", tool.name(), entry.name)));
                    assert!(help.contains("Examples:"), "{} has no examples", entry.name);
                }
            }
            whole(tool).debug_assert();
        }
    }

    #[test]
    fn options_may_follow_operands() {
        let parsed =
            command(Tool::Xm, "create").unwrap().try_get_matches_from(["create", "f.cfg", "-c"]);
        assert!(parsed.unwrap().get_flag("console_autoconnect"));
    }

    #[test]
    fn long_options_may_be_cut_short_and_repeated() {
        let parsed = command(Tool::Xm, "create")
            .unwrap()
            .try_get_matches_from(["create", "--defc=a", "-qq", "--quiet", "-fb"]);
        let parsed = parsed.unwrap();
        assert_eq!(parsed.get_one::<String>("defconfig").map(String::as_str), Some("b"));
        assert!(parsed.get_flag("quiet"));
    }
}
