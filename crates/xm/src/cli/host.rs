//! Definitions of what concerns the host: `doctor`, `info`, `image`, `network-bridge`.

use clap::builder::ValueHint;
use clap::{Arg, Command};

use super::{examples, flag, json};
use crate::tool::Tool;

/// The definition of one of these, or `None`.
pub(super) fn command(tool: Tool, name: &str) -> Option<Command> {
    Some(match name {
        "doctor" => doctor(tool),
        "image" => image(tool),
        "info" => info(tool),
        "network-bridge" => network_bridge(tool),
        _ => return None,
    })
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
