//! What a domain boots and the command line its kernel gets.

use serde::{Deserialize, Serialize};

/// Longest kernel command line in bytes, without the final zero: the field
/// of `start_info` has 1024 (`MAX_GUEST_CMDLINE`, xen/include/public/xen.h).
pub const MAX_COMMAND_LINE: usize = 1023;

/// Server address that makes the kernel accept an `ip=` argument when there
/// is no NFS server.
const DUMMY_SERVER: &str = "127.0.255.255";

/// What a domain boots. Paths are host paths as written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// Kernel image.
    pub kernel: Option<String>,
    /// Initial ramdisk.
    pub ramdisk: Option<String>,
    /// Root device and its flags, without a leading `root=`.
    pub root: Option<String>,
    /// More arguments (`extra`).
    pub extra: Option<String>,
    /// Whole command line in xl's way; replaces everything else.
    pub cmdline: Option<String>,
    /// Program that finds the kernel inside the first disk.
    pub bootloader: Option<Bootloader>,
    /// Network configuration by the kernel.
    pub network: BootNetwork,
}

/// Program that finds the kernel inside the first disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bootloader {
    /// Path, or `pygrub`.
    pub program: String,
    /// Arguments; xm passes `-q` when there are none.
    pub args: Vec<String>,
}

/// The parts of the kernel's `ip=` and `nfsroot=` arguments.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootNetwork {
    /// Address of the domain.
    pub ip: Option<String>,
    /// Network mask.
    pub netmask: Option<String>,
    /// Default router.
    pub gateway: Option<String>,
    /// Host name.
    pub hostname: Option<String>,
    /// Interface; `eth0` if absent.
    pub interface: Option<String>,
    /// Autoconfiguration word; `off` if absent.
    pub dhcp: Option<String>,
    /// NFS server for the root file system.
    pub nfs_server: Option<String>,
    /// Directory on that server; needs `nfs_server`.
    pub nfs_root: Option<String>,
}

impl BootNetwork {
    /// Value of the kernel's `ip=` argument, client:server:gateway:netmask:
    /// hostname:device:autoconf; `None` when neither `ip` nor `dhcp` asks for it.
    pub fn ip_argument(&self) -> Option<String> {
        let dhcp = self.dhcp.as_deref().unwrap_or("off");
        if self.ip.is_none() && dhcp == "off" {
            return None;
        }
        let part = |field: &Option<String>| field.clone().unwrap_or_default();
        let server = self.nfs_server.as_deref().unwrap_or(DUMMY_SERVER);
        let device = self.interface.as_deref().unwrap_or("eth0");
        let (ip, gateway, netmask) = (part(&self.ip), part(&self.gateway), part(&self.netmask));
        let hostname = part(&self.hostname);
        Some(format!("{ip}:{server}:{gateway}:{netmask}:{hostname}:{device}:{dhcp}"))
    }
}

impl Boot {
    /// The kernel command line in the order of Xen 4.1: `root=`, `ip=`, then
    /// `nfsroot=` and `extra`. `ip=` and `root=` are left out when `extra`
    /// has them already. `cmdline` replaces all of it.
    pub fn command_line(&self) -> String {
        if let Some(cmdline) = &self.cmdline {
            return cmdline.clone();
        }
        let network = &self.network;
        let extra = self.extra.as_deref().unwrap_or_default();
        let mut words = Vec::new();
        if let Some(root) = self.root.as_ref().filter(|_| !has_argument(extra, "root=")) {
            words.push(format!("root={root}"));
        }
        if let Some(ip) = network.ip_argument().filter(|_| !has_argument(extra, "ip=")) {
            words.push(format!("ip={ip}"));
        }
        if let (Some(server), Some(path)) = (&network.nfs_server, &network.nfs_root) {
            words.push(format!("nfsroot={server}:{path}"));
        }
        if !extra.is_empty() {
            words.push(extra.to_owned());
        }
        words.join(" ")
    }
}

/// Whether a word of `line` starts with `prefix`. Whole words are compared,
/// so that `nfsroot=` does not count as `root=`.
fn has_argument(line: &str, prefix: &str) -> bool {
    line.split_whitespace().any(|word| word.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn root_then_ip_then_extra() {
        let mut boot = Boot { root: some("/dev/xvda1 ro"), extra: some("4"), ..Boot::default() };
        assert_eq!(boot.command_line(), "root=/dev/xvda1 ro 4");
        boot.network.dhcp = some("dhcp");
        assert_eq!(boot.command_line(), "root=/dev/xvda1 ro ip=:127.0.255.255::::eth0:dhcp 4");
        boot.network.ip = some("10.0.0.2");
        boot.network.netmask = some("255.255.255.0");
        boot.network.gateway = some("10.0.0.1");
        boot.network.hostname = some("web");
        boot.network.dhcp = None;
        assert_eq!(
            boot.network.ip_argument(),
            some("10.0.0.2:127.0.255.255:10.0.0.1:255.255.255.0:web:eth0:off")
        );
    }

    #[test]
    fn extra_wins_over_root_and_ip() {
        let mut boot = Boot { root: some("/dev/a"), extra: some("root=/dev/b"), ..Boot::default() };
        boot.network.dhcp = some("on");
        assert_eq!(boot.command_line(), "ip=:127.0.255.255::::eth0:on root=/dev/b");
        boot.extra = some("quiet ip=dhcp");
        assert_eq!(boot.command_line(), "root=/dev/a quiet ip=dhcp");
    }

    #[test]
    fn nfs_root_stands_before_extra_and_does_not_hide_root() {
        let mut boot = Boot { root: some("/dev/nfs"), extra: some("3"), ..Boot::default() };
        boot.network.nfs_server = some("10.0.0.9");
        boot.network.nfs_root = some("/export");
        assert_eq!(boot.command_line(), "root=/dev/nfs nfsroot=10.0.0.9:/export 3");
    }

    #[test]
    fn cmdline_replaces_everything() {
        let boot = Boot { root: some("/dev/a"), cmdline: some("quiet"), ..Boot::default() };
        assert_eq!(boot.command_line(), "quiet");
    }
}
