//! The texts that a build writes: into the guest, for mke2fs, and the configuration.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::mirror::Archives;
use crate::order::Order;

/// One file or link of the guest.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    path: &'static str,
    kind: Kind,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    /// A text, with the mode of the file and of a folder made for it.
    Text { text: String, mode: u32 },
    /// What a file of the host holds, with this mode.
    Copy { from: PathBuf, mode: u32 },
    /// A symbolic link.
    Link(&'static str),
}

const PUBLIC: u32 = 0o644;
const SECRET: u32 = 0o600;
const PROGRAM: u32 = 0o755;

fn file(path: &'static str, text: impl Into<String>) -> Entry {
    Entry { path, kind: Kind::Text { text: text.into(), mode: PUBLIC } }
}

fn link(path: &'static str, to: &'static str) -> Entry {
    Entry { path, kind: Kind::Link(to) }
}

/// What has to be there before the packages are: it decides what the initramfs holds, which is
/// then made only once.
pub fn early() -> Vec<Entry> {
    vec![
        file(
            "usr/share/initramfs-tools/conf.d/xm-image",
            "# Only the modules that are named: the guest's machine is known.\n\
             MODULES=list\nCOMPRESS=lz4\nFSTYPE=ext4\n",
        ),
        file(
            "usr/share/initramfs-tools/modules.d/xm-image",
            "# Xen's disk and network; virtio's disk, so that the image boots under QEMU too.\n\
             xen-blkfront\nxen-netfront\next4\nvirtio_pci\nvirtio_blk\n",
        ),
        file("etc/systemd/network/99-default.link", KEPT_NAMES),
    ]
}

/// Takes the place of systemd's file of this name, systemd.link(5). Not a link to /dev/null, as
/// the initramfs takes files only, and would have the card renamed before the system is there.
const KEPT_NAMES: &str = "\
[Match]
OriginalName=*

[Link]
# The kernel's, so eth0.
NamePolicy=keep
MACAddressPolicy=none
";

/// What is put into the finished system.
pub fn late(order: &Order, archives: &Archives) -> Vec<Entry> {
    let mut entries = vec![
        file("etc/hostname", format!("{}\n", order.hostname)),
        file("etc/hosts", hosts(&order.hostname)),
        file("etc/fstab", fstab(order.swap.is_some())),
        file("etc/network/interfaces", INTERFACES),
        file("etc/apt/sources.list", archives.lines_of_guest(order.release).join("\n") + "\n"),
        // The DHCP client writes the rest; nothing of the host's goes along.
        file("etc/resolv.conf", ""),
        file("etc/machine-id", ""),
        // The console of Xen, whether the command line names it or not.
        link(
            "etc/systemd/system/getty.target.wants/serial-getty@hvc0.service",
            "/lib/systemd/system/serial-getty@.service",
        ),
    ];
    if WEB_SERVERS.iter().any(|server| order.has(server)) {
        entries.push(file("var/www/html/index.html", page(order)));
    }
    if order.has("openssh-server") {
        entries.push(file("etc/systemd/system/ssh-host-keys.service", SSH_HOST_KEYS));
        entries.push(link(
            "etc/systemd/system/ssh.service.wants/ssh-host-keys.service",
            "/etc/systemd/system/ssh-host-keys.service",
        ));
    }
    if let Some((from, path)) = archives.other_keys(order.release) {
        let kind = Kind::Copy { from: from.to_path_buf(), mode: PUBLIC };
        entries.push(Entry { path, kind });
    }
    if let Some(from) = &order.agent {
        let kind = Kind::Copy { from: from.clone(), mode: PROGRAM };
        entries.push(Entry { path: "usr/local/sbin/xenguest", kind });
        entries.push(file("etc/systemd/system/xenguest.service", AGENT));
        entries.push(link(
            "etc/systemd/system/multi-user.target.wants/xenguest.service",
            "/etc/systemd/system/xenguest.service",
        ));
    }
    if let Some(keys) = &order.ssh_keys {
        let text = keys.clone();
        entries.push(Entry {
            path: "root/.ssh/authorized_keys",
            kind: Kind::Text { text, mode: SECRET },
        });
    }
    entries
}

/// Those whose pages are below /var/www/html.
const WEB_SERVERS: [&str; 3] = ["lighttpd", "nginx", "apache2"];

/// Not `auto`, as the login would wait for an answer of the DHCP server.
const INTERFACES: &str = "\
# See interfaces(5).
auto lo
iface lo inet loopback

# Brought up when the card appears, without holding up the start.
allow-hotplug eth0
iface eth0 inet dhcp
";

/// Keys in an image would be the same for all its copies.
const SSH_HOST_KEYS: &str = "\
[Unit]
Description=Make the host keys of OpenSSH at the first start
Before=ssh.service
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/ssh-keygen -A
";

/// Commands run in scopes of their own only if they ask for it: they end with the agent.
const AGENT: &str = "\
[Unit]
Description=Commands and copies of the host (xm exec, xm cp)
ConditionVirtualization=xen

[Service]
ExecStart=/usr/local/sbin/xenguest
Restart=always
RestartSec=1

[Install]
WantedBy=multi-user.target
";

fn hosts(hostname: &str) -> String {
    let short = hostname.split('.').next().unwrap_or(hostname);
    let names = if short == hostname { hostname.to_owned() } else { format!("{hostname} {short}") };
    format!(
        "127.0.0.1\tlocalhost\n127.0.1.1\t{names}\n\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
    )
}

fn fstab(swap: bool) -> String {
    let mut text = "# See fstab(5).\n/dev/xvda1 / ext4 defaults,errors=remount-ro 0 1\n".to_owned();
    if swap {
        text.push_str("/dev/xvda2 none swap sw 0 0\n");
    }
    text
}

fn page(order: &Order) -> String {
    // A host name cannot hold what HTML gives a meaning.
    let (name, system) = (&order.hostname, order.release.title());
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>{name}</title></head>\n\
         <body><h1>{name}</h1><p>This is {name}, a domain with {system}.</p></body>\n</html>\n"
    )
}

/// Writes entries below `root`, with exactly their modes whatever the umask is.
///
/// # Errors
///
/// When a file cannot be written.
pub fn write(root: &Path, entries: &[Entry]) -> Result<(), Error> {
    folder(root, 0o755)?;
    for entry in entries {
        let path = root.join(entry.path);
        let above: Vec<PathBuf> = parents(root, &path);
        for parent in above {
            // Those of root's home are his alone, as the packages have them.
            let home = parent.starts_with(root.join("root"));
            folder(&parent, if home { 0o700 } else { 0o755 })?;
        }
        match &entry.kind {
            Kind::Text { text, mode } => {
                fs::write(&path, text).map_err(Error::at("write", &path))?;
                set_mode(&path, *mode)?;
            }
            Kind::Copy { from, mode } => {
                fs::copy(from, &path).map_err(Error::at("copy to", &path))?;
                set_mode(&path, *mode)?;
            }
            Kind::Link(to) => symlink(to, &path).map_err(Error::at("make the link", &path))?,
        }
    }
    Ok(())
}

/// The folders between `root` and `path`, the outermost first.
fn parents(root: &Path, path: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = path
        .ancestors()
        .skip(1)
        .take_while(|parent| *parent != root)
        .map(Path::to_path_buf)
        .collect();
    found.reverse();
    found
}

fn folder(path: &Path, mode: u32) -> Result<(), Error> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(Error::at("create", path)(error)),
        Ok(()) => set_mode(path, mode),
    }
}

/// Sets a mode whatever the umask is.
///
/// # Errors
///
/// When it cannot be set.
pub fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(Error::at("set the mode of", path))
}

/// The settings of mke2fs, mke2fs.conf(5): features that every kernel and e2fsck of the releases
/// knows, whatever the host's own settings are.
pub const MKE2FS_CONF: &str = "\
[defaults]
\tbase_features = sparse_super,large_file,filetype,resize_inode,dir_index,ext_attr
\tblocksize = 4096
\tinode_size = 256
\tinode_ratio = 16384
[fs_types]
\text4 = {
\t\tfeatures = has_journal,extent,huge_file,flex_bg,metadata_csum,64bit,dir_nlink,extra_isize
\t}
";

/// The files of a finished build, below its directory.
#[derive(Debug)]
pub struct Layout {
    /// `vmlinuz`.
    pub kernel: PathBuf,
    /// `initrd.img`.
    pub ramdisk: PathBuf,
    /// `disk.img`.
    pub disk: PathBuf,
    /// `swap.img`.
    pub swap: PathBuf,
    /// `serv1.cfg`.
    pub config: PathBuf,
    /// `serv1.password`.
    pub password: PathBuf,
}

impl Layout {
    /// Below `directory`, of a guest of this name.
    pub fn new(directory: &Path, hostname: &str) -> Self {
        Self {
            kernel: directory.join("vmlinuz"),
            ramdisk: directory.join("initrd.img"),
            disk: directory.join("disk.img"),
            swap: directory.join("swap.img"),
            config: directory.join(format!("{hostname}.cfg")),
            password: directory.join(format!("{hostname}.password")),
        }
    }
}

/// The configuration file, in the form of the lecture.
pub fn config_text(order: &Order, layout: &Layout) -> String {
    let name = &order.hostname;
    let disk = |path: &Path, device: &str| format!("'file:{},{device},w'", path.display());
    let mut disks = vec![disk(&layout.disk, "xvda1")];
    if order.swap.is_some() {
        disks.push(disk(&layout.swap, "xvda2"));
    }
    let vif = match &order.vif {
        Some(more) => format!("mac={}, {more}", order.mac),
        None => format!("mac={}", order.mac),
    };
    format!(
        "# {name}: {}\n# Start it with its console here: xm create -c '{}'\n\
         kernel = \"{}\"\nramdisk = \"{}\"\nbuilder = 'linux'\nmemory = {}\nname = \"{name}\"\n\
         vcpus = 1\nvif = ['{}']\ndisk = [{}]\nroot = \"/dev/xvda1 ro\"\n\
         extra = \"console=hvc0\"\n",
        order.release.title(),
        layout.config.display(),
        layout.kernel.display(),
        layout.ramdisk.display(),
        order.memory,
        vif,
        disks.join(", "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::Options;

    fn order(change: impl FnOnce(&mut Options)) -> Order {
        let mut options = Options { release: "debian:12".into(), ..Options::default() };
        change(&mut options);
        Order::new(&options).unwrap()
    }

    /// What is put in late, with the keys of this file.
    fn late(order: &Order) -> Vec<Entry> {
        let keyring = Some(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
        let options = Options {
            release: order.release.word(),
            mirror: Some("http://m.example/debian".into()),
            keyring,
            ..Options::default()
        };
        super::late(order, &Archives::choose(&Order::new(&options).unwrap()).unwrap())
    }

    fn text<'a>(entries: &'a [Entry], path: &str) -> Option<&'a str> {
        entries.iter().find(|entry| entry.path == path).map(|entry| match &entry.kind {
            Kind::Text { text, .. } => text.as_str(),
            Kind::Link(to) => to,
            Kind::Copy { from, .. } => from.to_str().unwrap(),
        })
    }

    #[test]
    fn the_configuration_is_what_config_reads() {
        let order = order(|options| {
            options.mac = Some("00:16:3e:01:02:03".into());
            options.swap = Some("64M".into());
            options.memory = Some("128".into());
        });
        let layout = Layout::new(Path::new("/home/a b/serv1"), "serv1");
        let text = config_text(&order, &layout);
        let loaded = config::parse_str("serv1.cfg", &text, &[]).unwrap();
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
        let domain = loaded.config;
        assert_eq!(domain.general.name, "serv1");
        assert_eq!(domain.memory.initial, 128);
        assert_eq!(domain.boot.kernel.as_deref(), Some("/home/a b/serv1/vmlinuz"));
        assert_eq!(domain.boot.ramdisk.as_deref(), Some("/home/a b/serv1/initrd.img"));
        assert_eq!(domain.boot.command_line(), "root=/dev/xvda1 ro console=hvc0");
        let disks: Vec<_> = domain.devices.disks.iter().collect();
        let [root, swap] = disks.as_slice() else { panic!("{disks:?}") };
        assert_eq!(root.target.as_deref(), Some("/home/a b/serv1/disk.img"));
        assert_eq!(swap.target.as_deref(), Some("/home/a b/serv1/swap.img"));
        assert_eq!(domain.devices.vifs.len(), 1);
        assert!(text.contains("mac=00:16:3e:01:02:03"));
    }

    #[test]
    fn the_guest_knows_its_name_and_disks() {
        let entries = late(&order(|options| options.hostname = Some("www.example.org".into())));
        assert_eq!(text(&entries, "etc/hostname"), Some("www.example.org\n"));
        assert!(text(&entries, "etc/hosts").unwrap().contains("127.0.1.1\twww.example.org www\n"));
        assert!(text(&entries, "etc/fstab").unwrap().contains("\n/dev/xvda1 / ext4 "));
        assert!(!text(&entries, "etc/fstab").unwrap().contains("swap"));
        assert!(text(&entries, "etc/network/interfaces").unwrap().contains("iface eth0 inet dhcp"));
        assert_eq!(text(&entries, "var/www/html/index.html"), None);
        assert_eq!(text(&entries, "etc/resolv.conf"), Some(""));
        let sources = text(&entries, "etc/apt/sources.list").unwrap();
        assert!(sources.starts_with("deb [signed-by=/etc/apt/keyrings/archive.gpg] http://m.ex"));
        assert!(text(&entries, "etc/apt/keyrings/archive.gpg").unwrap().ends_with("Cargo.toml"));
        let swapped = late(&order(|options| options.swap = Some("64M".into())));
        assert!(text(&swapped, "etc/fstab").unwrap().ends_with("/dev/xvda2 none swap sw 0 0\n"));
    }

    #[test]
    fn a_web_server_tells_the_name() {
        let entries = late(&order(|options| options.packages = Some("lighttpd".into())));
        assert!(text(&entries, "var/www/html/index.html").unwrap().contains("<h1>serv1</h1>"));
    }

    #[test]
    fn modes_do_not_depend_on_the_umask() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("key.pub");
        fs::write(&key, "ssh-rsa AAAA\n").unwrap();
        let order = order(|options| options.ssh_key = Some(key));
        let root = folder.path().join("late");
        write(&root, &late(&order)).unwrap();
        let mode =
            |path: &str| fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(""), 0o755);
        assert_eq!(mode("etc/network"), 0o755);
        assert_eq!(mode("etc/fstab"), 0o644);
        assert_eq!((mode("root"), mode("root/.ssh")), (0o700, 0o700));
        assert_eq!(mode("root/.ssh/authorized_keys"), 0o600);
        let getty = "etc/systemd/system/getty.target.wants/serial-getty@hvc0.service";
        assert!(fs::read_link(root.join(getty)).unwrap().ends_with("serial-getty@.service"));
    }

    #[test]
    fn the_agent_comes_along_and_is_started() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("xenguest");
        fs::write(&program, "program").unwrap();
        let order = order(|options| options.agent = Some(program));
        let root = folder.path().join("late");
        write(&root, &late(&order)).unwrap();
        let placed = root.join("usr/local/sbin/xenguest");
        assert_eq!(fs::metadata(&placed).unwrap().permissions().mode() & 0o7777, 0o755);
        let wanted = root.join("etc/systemd/system/multi-user.target.wants/xenguest.service");
        assert!(fs::read_link(wanted).unwrap().ends_with("xenguest.service"));
        let unit = fs::read_to_string(root.join("etc/systemd/system/xenguest.service")).unwrap();
        assert!(unit.contains("ExecStart=/usr/local/sbin/xenguest\n"));
    }

    #[test]
    fn the_initramfs_holds_the_drivers_of_xen() {
        let entries = early();
        let modules = text(&entries, "usr/share/initramfs-tools/modules.d/xm-image").unwrap();
        for module in ["xen-blkfront", "xen-netfront", "ext4"] {
            assert!(modules.lines().any(|line| line == module), "{module}");
        }
    }
}
