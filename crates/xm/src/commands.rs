//! The table of subcommands: everything that xm and xl ever had, and what is there already.
//!
//! A command that is not there yet still has a line here, so that it is answered with what is
//! missing and takes part in prefix matching exactly as it will later.

use crate::tool::Tool;

/// Which tool a command belongs to; decides the order in which prefixes are matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// xm and xl both have it.
    Both,
    /// Only xm had it.
    Xm,
    /// Only xl has it.
    Xl,
    /// An addition of this project.
    Own,
}

/// One subcommand.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// The word on the command line.
    pub name: &'static str,
    /// Which tool had it.
    pub origin: Origin,
    /// `None` when the command works; else what has to exist before it can.
    pub lacks: Option<&'static str>,
}

impl Entry {
    const fn here(name: &'static str, origin: Origin) -> Self {
        Self { name, origin, lacks: None }
    }

    const fn lacking(name: &'static str, origin: Origin, what: &'static str) -> Self {
        Self { name, origin, lacks: Some(what) }
    }

    /// Whether `tool` itself had the command.
    fn native_to(&self, tool: Tool) -> bool {
        match self.origin {
            Origin::Both => true,
            Origin::Xm => tool == Tool::Xm,
            Origin::Xl => tool == Tool::Xl,
            Origin::Own => false,
        }
    }
}

/// How a word on the command line was understood.
#[derive(Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The command itself, or the only one that begins with the word.
    Found(&'static Entry),
    /// An old name; the command that replaced it.
    Deprecated(&'static Entry),
    /// No command, or more than one that begins with the word.
    Unknown,
}

const STATE: &str = "writing a domain's whole state to a stream and reading it back";
const VCPUS: &str = "more than one virtual CPU per domain";
const SCHEDULER: &str = "the scheduler that shares physical CPUs among domains";
const NETWORK2: &str = "the second network protocol, which Xen itself has removed";
const PASSTHROUGH: &str = "giving physical devices to domains";
const VNET: &str = "virtual networks that span hosts";
const POLICY: &str = "the sHype security policy and its labels";
const FLASK: &str = "the Flask security module";
const TMEM: &str = "transcendent memory, which Xen itself has removed";
const POOLS: &str = "pools of physical CPUs";
const TPM: &str = "virtual TPM devices";
const QOS: &str = "control of CPU caches and platform monitoring";

/// Every subcommand, in the order of the long help.
pub static COMMANDS: &[Entry] = &{
    use Origin::{Both, Own, Xl, Xm};
    [
        Entry::here("console", Both),
        Entry::here("create", Both),
        Entry::here("destroy", Both),
        Entry::here("dmesg", Both),
        Entry::here("domid", Both),
        Entry::here("domname", Both),
        Entry::here("info", Both),
        Entry::here("list", Both),
        Entry::here("pause", Both),
        Entry::here("reboot", Both),
        Entry::here("shutdown", Both),
        Entry::here("unpause", Both),
        Entry::here("uptime", Both),
        Entry::here("new", Xm),
        Entry::here("start", Xm),
        Entry::here("delete", Xm),
        Entry::here("block-attach", Both),
        Entry::here("block-detach", Both),
        Entry::here("block-list", Both),
        Entry::here("network-attach", Both),
        Entry::here("network-detach", Both),
        Entry::here("network-list", Both),
        Entry::here("block-refresh", Own),
        Entry::here("block-resize", Own),
        Entry::here("crash-report", Own),
        Entry::here("doctor", Own),
        Entry::here("image", Own),
        Entry::here("network-bridge", Own),
        Entry::here("config", Own),
        Entry::here("cp", Own),
        Entry::here("exec", Own),
        Entry::here("explain", Own),
        Entry::here("logs", Own),
        Entry::here("stats", Own),
        Entry::here("wait", Own),
        Entry::lacking("suspend", Both, STATE),
        Entry::lacking("resume", Both, STATE),
        Entry::lacking("save", Both, STATE),
        Entry::lacking("restore", Both, STATE),
        Entry::lacking("migrate", Both, "live migration between hosts"),
        Entry::lacking("migrate-receive", Xl, "live migration between hosts"),
        Entry::lacking("remus", Xl, "continuous checkpointing to a second host"),
        Entry::here("dump-core", Both),
        Entry::here("rename", Both),
        Entry::here("domstate", Xm),
        Entry::here("log", Xm),
        Entry::here("reset", Xm),
        Entry::here("top", Both),
        Entry::here("sysrq", Both),
        Entry::here("trigger", Both),
        Entry::here("debug-keys", Both),
        Entry::here("mem-max", Both),
        Entry::here("mem-set", Both),
        Entry::here("vcpu-list", Both),
        Entry::lacking("vcpu-pin", Both, VCPUS),
        Entry::here("vcpu-set", Both),
        Entry::lacking("sched-credit", Both, SCHEDULER),
        Entry::lacking("sched-credit2", Both, SCHEDULER),
        Entry::lacking("sched-sedf", Xm, SCHEDULER),
        Entry::lacking("sched-rtds", Xl, SCHEDULER),
        Entry::here("block-configure", Xm),
        Entry::here("cd-insert", Xl),
        Entry::here("cd-eject", Xl),
        Entry::lacking("network2-attach", Xm, NETWORK2),
        Entry::lacking("network2-detach", Xm, NETWORK2),
        Entry::lacking("network2-list", Xm, NETWORK2),
        Entry::here("channel-list", Xl),
        Entry::lacking("vtpm-attach", Xl, TPM),
        Entry::lacking("vtpm-detach", Xl, TPM),
        Entry::lacking("vtpm-list", Both, TPM),
        Entry::lacking("pci-attach", Both, PASSTHROUGH),
        Entry::lacking("pci-detach", Both, PASSTHROUGH),
        Entry::lacking("pci-list", Both, PASSTHROUGH),
        Entry::lacking("pci-list-assignable-devices", Xm, PASSTHROUGH),
        Entry::lacking("pci-assignable-add", Xl, PASSTHROUGH),
        Entry::lacking("pci-assignable-list", Xl, PASSTHROUGH),
        Entry::lacking("pci-assignable-remove", Xl, PASSTHROUGH),
        Entry::lacking("scsi-attach", Xm, PASSTHROUGH),
        Entry::lacking("scsi-detach", Xm, PASSTHROUGH),
        Entry::lacking("scsi-list", Xm, PASSTHROUGH),
        Entry::lacking("usb-add", Xm, PASSTHROUGH),
        Entry::lacking("usb-attach", Xm, PASSTHROUGH),
        Entry::lacking("usb-del", Xm, PASSTHROUGH),
        Entry::lacking("usb-detach", Xm, PASSTHROUGH),
        Entry::lacking("usb-hc-create", Xm, PASSTHROUGH),
        Entry::lacking("usb-hc-destroy", Xm, PASSTHROUGH),
        Entry::lacking("usb-list", Xm, PASSTHROUGH),
        Entry::lacking("usb-list-assignable-devices", Xm, PASSTHROUGH),
        Entry::lacking("usbctrl-attach", Xl, PASSTHROUGH),
        Entry::lacking("usbctrl-detach", Xl, PASSTHROUGH),
        Entry::lacking("usbdev-attach", Xl, PASSTHROUGH),
        Entry::lacking("usbdev-detach", Xl, PASSTHROUGH),
        Entry::lacking("usb-ctrl-list", Xl, PASSTHROUGH),
        Entry::lacking("vkb-attach", Xl, "virtual keyboards"),
        Entry::lacking("vkb-detach", Xl, "virtual keyboards"),
        Entry::lacking("vkb-list", Xl, "virtual keyboards"),
        Entry::lacking("vsnd-attach", Xl, "virtual sound devices"),
        Entry::lacking("vsnd-detach", Xl, "virtual sound devices"),
        Entry::lacking("vsnd-list", Xl, "virtual sound devices"),
        Entry::lacking("vdispl-attach", Xl, "virtual displays"),
        Entry::lacking("vdispl-detach", Xl, "virtual displays"),
        Entry::lacking("vdispl-list", Xl, "virtual displays"),
        Entry::lacking("vncviewer", Both, "graphical consoles"),
        Entry::lacking("vnet-create", Xm, VNET),
        Entry::lacking("vnet-delete", Xm, VNET),
        Entry::lacking("vnet-list", Xm, VNET),
        Entry::lacking("addlabel", Xm, POLICY),
        Entry::lacking("cfgbootpolicy", Xm, POLICY),
        Entry::lacking("dry-run", Xm, POLICY),
        Entry::lacking("dumppolicy", Xm, POLICY),
        Entry::lacking("getlabel", Xm, POLICY),
        Entry::lacking("getpolicy", Xm, POLICY),
        Entry::lacking("labels", Xm, POLICY),
        Entry::lacking("loadpolicy", Both, POLICY),
        Entry::lacking("makepolicy", Xm, POLICY),
        Entry::lacking("resetpolicy", Xm, POLICY),
        Entry::lacking("resources", Xm, POLICY),
        Entry::lacking("rmlabel", Xm, POLICY),
        Entry::lacking("setpolicy", Xm, POLICY),
        Entry::lacking("getenforce", Both, FLASK),
        Entry::lacking("setenforce", Both, FLASK),
        Entry::lacking("cpupool-create", Both, POOLS),
        Entry::lacking("cpupool-cpu-add", Both, POOLS),
        Entry::lacking("cpupool-cpu-remove", Both, POOLS),
        Entry::lacking("cpupool-delete", Xm, POOLS),
        Entry::lacking("cpupool-destroy", Both, POOLS),
        Entry::lacking("cpupool-list", Both, POOLS),
        Entry::lacking("cpupool-migrate", Both, POOLS),
        Entry::lacking("cpupool-new", Xm, POOLS),
        Entry::lacking("cpupool-numa-split", Xl, POOLS),
        Entry::lacking("cpupool-rename", Xl, POOLS),
        Entry::lacking("cpupool-start", Xm, POOLS),
        Entry::lacking("tmem-destroy", Xm, TMEM),
        Entry::lacking("tmem-freeable", Xm, TMEM),
        Entry::lacking("tmem-freeze", Xm, TMEM),
        Entry::lacking("tmem-list", Xm, TMEM),
        Entry::lacking("tmem-set", Xm, TMEM),
        Entry::lacking("tmem-shared-auth", Xm, TMEM),
        Entry::lacking("tmem-thaw", Xm, TMEM),
        Entry::lacking("psr-cat-cbm-set", Xl, QOS),
        Entry::lacking("psr-cat-show", Xl, QOS),
        Entry::lacking("psr-cmt-attach", Xl, QOS),
        Entry::lacking("psr-cmt-detach", Xl, QOS),
        Entry::lacking("psr-cmt-show", Xl, QOS),
        Entry::lacking("psr-hwinfo", Xl, QOS),
        Entry::lacking("psr-mba-set", Xl, QOS),
        Entry::lacking("psr-mba-show", Xl, QOS),
        Entry::here("vm-list", Xl),
        Entry::here("config-update", Xl),
        Entry::here("claims", Xl),
        Entry::lacking("sharing", Xl, "sharing of equal pages among domains"),
        Entry::lacking("devd", Xl, "driver domains"),
        Entry::here("serve", Xm),
        Entry::here("shell", Xm),
        Entry::here("event-monitor", Xm),
    ]
};

/// Old names that xm still takes, with the names that replaced them.
static ALIASES: &[(&str, &str)] = &[
    ("balloon", "mem-set"),
    ("set-vcpus", "vcpu-set"),
    ("vif-list", "network-list"),
    ("vbd-create", "block-attach"),
    ("vbd-destroy", "block-detach"),
    ("vbd-list", "block-list"),
    ("pool-create", "cpupool-create"),
    ("pool-delete", "cpupool-delete"),
    ("pool-destroy", "cpupool-destroy"),
    ("pool-list", "cpupool-list"),
    ("pool-new", "cpupool-new"),
    ("pool-start", "cpupool-start"),
];

/// The shortest word that is taken as a prefix.
const SHORTEST_PREFIX: usize = 2;

/// Finds the command that `word` means for `tool`.
///
/// In this order: the exact name (of either tool), an old name, the only command *of this tool*
/// that begins with the word, the only one among all others. A command that this project or the
/// other tool adds therefore never makes an abbreviation ambiguous that used to work.
pub fn lookup(tool: Tool, word: &str) -> Lookup {
    if let Some(entry) = exact(word) {
        return Lookup::Found(entry);
    }
    if let Some((_, new)) = ALIASES.iter().find(|(old, _)| *old == word) {
        return exact(new).map_or(Lookup::Unknown, Lookup::Deprecated);
    }
    if word.chars().count() < SHORTEST_PREFIX {
        return Lookup::Unknown;
    }
    let begins = |native: bool| {
        COMMANDS
            .iter()
            .filter(move |entry| entry.native_to(tool) == native && entry.name.starts_with(word))
    };
    let mut native = begins(true);
    match (native.next(), native.next()) {
        (Some(entry), None) => Lookup::Found(entry),
        (Some(_), Some(_)) => Lookup::Unknown,
        (None, _) => {
            let mut foreign = begins(false);
            match (foreign.next(), foreign.next()) {
                (Some(entry), None) => Lookup::Found(entry),
                _ => Lookup::Unknown,
            }
        }
    }
}

/// The command of exactly this name.
pub fn exact(name: &str) -> Option<&'static Entry> {
    COMMANDS.iter().find(|entry| entry.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(tool: Tool, word: &str) -> Option<&'static str> {
        match lookup(tool, word) {
            Lookup::Found(entry) | Lookup::Deprecated(entry) => Some(entry.name),
            Lookup::Unknown => None,
        }
    }

    #[test]
    fn names_are_unique_and_aliases_lead_somewhere() {
        for (index, entry) in COMMANDS.iter().enumerate() {
            let twin = COMMANDS.iter().skip(index + 1).find(|other| other.name == entry.name);
            assert_eq!(twin, None, "{} is listed twice", entry.name);
        }
        for (old, new) in ALIASES {
            assert!(exact(new).is_some(), "{old} leads to {new}, which does not exist");
            assert!(exact(old).is_none(), "{old} is a command itself");
        }
    }

    #[test]
    fn a_unique_prefix_of_two_letters_is_enough() {
        assert_eq!(name(Tool::Xm, "des"), Some("destroy"));
        assert_eq!(name(Tool::Xm, "li"), Some("list"));
        assert_eq!(name(Tool::Xm, "con"), Some("console"));
        assert_eq!(name(Tool::Xm, "unp"), Some("unpause"));
        assert_eq!(name(Tool::Xm, "inf"), Some("info"));
    }

    #[test]
    fn an_ambiguous_or_short_word_is_unknown() {
        assert_eq!(name(Tool::Xm, "sh"), None, "shutdown and shell");
        assert_eq!(name(Tool::Xm, "l"), None);
        assert_eq!(name(Tool::Xm, ""), None);
        assert_eq!(name(Tool::Xm, "frobnicate"), None);
        assert_eq!(name(Tool::Xm, "listx"), None);
    }

    #[test]
    fn commands_of_others_do_not_spoil_a_prefix() {
        assert_eq!(name(Tool::Xm, "cr"), Some("create"), "crash-report is ours");
        assert_eq!(name(Tool::Xm, "cra"), Some("crash-report"));
        assert_eq!(name(Tool::Xl, "shu"), Some("shutdown"));
        assert_eq!(name(Tool::Xl, "sh"), None, "sharing is xl's");
        assert_eq!(name(Tool::Xm, "vm"), Some("vm-list"), "only xl has one");
    }

    #[test]
    fn old_names_are_told_apart() {
        assert_eq!(lookup(Tool::Xm, "balloon"), Lookup::Deprecated(exact("mem-set").unwrap()));
        assert_eq!(name(Tool::Xm, "vbd-list"), Some("block-list"));
        assert_eq!(name(Tool::Xm, "ball"), None, "old names take no part in prefixes");
    }
}
