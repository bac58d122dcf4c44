use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::order::Options;

fn words(change: impl FnOnce(&mut Options), way: Way) -> Vec<String> {
    let keys = tempfile::NamedTempFile::new().unwrap();
    let mut options = Options {
        release: "debian:12".into(),
        mirror: Some("http://m.example/debian".into()),
        keyring: Some(keys.path().into()),
        ..Options::default()
    };
    change(&mut options);
    let order = Order::new(&options).unwrap();
    let archives = Archives::choose(&order).unwrap();
    mmdebstrap_words(&order, &archives, way, order.password != Password::Empty)
}

#[test]
fn what_mmdebstrap_is_told() {
    let words = words(|options| options.packages = Some("lighttpd".into()), Way::Granted);
    let all = words.join("\n");
    assert!(all.contains("mmdebstrap\n--mode=root\n--format=tar\n"), "{all}");
    let include = words.iter().find(|word| word.starts_with("--include=")).unwrap();
    assert!(include.contains("linux-image-cloud-amd64") && include.ends_with(",lighttpd"));
    assert!(all.contains("\nbookworm\nroot.tar\ndeb [signed-by="), "{all}");
    assert!(all.contains("chpasswd"));
    assert!(all.contains(" lighttpd >/dev/null\n"), "looked for beforehand: {all}");
}

#[test]
fn no_password_appears_on_the_command_line() {
    let words = words(|options| options.root_password = Some("hunter2".into()), Way::Root);
    assert!(!words.join("\n").contains("hunter2"));
    let words = self::words(|options| options.root_password = Some(String::new()), Way::Root);
    assert!(words.join("\n").contains("passwd --delete root"));
}

#[test]
fn the_newest_kernel_is_taken() {
    let names = ["vmlinuz-6.1.0-9-cloud-amd64", "vmlinuz-6.1.0-50-cloud-amd64", "config-7"];
    let names: Vec<String> = names.map(str::to_owned).into();
    assert_eq!(newest(&names, "vmlinuz-").as_deref(), Some("6.1.0-50-cloud-amd64"));
    assert_eq!(newest(&[], "vmlinuz-"), None);
}

#[test]
fn a_kernel_that_is_a_link_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("secret"), "x").unwrap();
    std::os::unix::fs::symlink(path("secret"), path("vmlinuz")).unwrap();
    let copied = copy(&path("vmlinuz"), &path("copy"), "kernel");
    assert!(matches!(copied, Err(Error::Incomplete { what: "kernel" })));
    assert!(!path("copy").exists());
}

/// A host whose programs are these scripts, and the shell's and coreutils'.
struct Host {
    folder: tempfile::TempDir,
}

/// What mmdebstrap leaves: an archive with a kernel.
const INSTALLS: &str = "echo 'I: running --setup-hook in shell: x'
    mkdir -p tree/boot; echo kernel >tree/boot/vmlinuz-6.1-x; echo initrd >tree/boot/initrd.img-6.1-x
    tar -C tree -cf root.tar .";

impl Host {
    fn new(mmdebstrap: &str) -> Self {
        let host = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(host.path("bin")).unwrap();
        fs::write(host.path("keys"), "").unwrap();
        host.program("mmdebstrap", mmdebstrap);
        for needed in ["apt-get", "dpkg"] {
            host.program(needed, "exit 1");
        }
        host.program("fakeroot", "exec \"$@\"");
        // Its last two words are the disk and its size.
        host.program(
            "mke2fs",
            "size=; for last; do disk=$size size=$last; done; truncate -s \"${size%k}K\" \"$disk\"",
        );
        host.program("mkswap", "exit 0");
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn program(&self, name: &str, script: &str) {
        let path = self.path("bin").join(name);
        fs::write(&path, format!("#!/bin/sh -eu\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn build(
        &self,
        watcher: &mut dyn Watcher,
        change: impl FnOnce(&mut Options),
    ) -> Result<Built, Error> {
        let mut options = Options {
            release: "debian:12".into(),
            directory: self.path("serv1"),
            mirror: Some("http://m.example/debian".into()),
            keyring: Some(self.path("keys")),
            ..Options::default()
        };
        change(&mut options);
        let mut path = self.path("bin").into_os_string();
        path.push(":/usr/bin:/bin");
        build_with(&Order::new(&options)?, Tools::new(path), |_, _| Ok(Way::Bare), watcher)
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// Notes the stages, and stops the build a while after the first.
#[derive(Default)]
struct Follower {
    stages: Vec<Stage>,
    stops: bool,
    polls: u32,
}

impl Watcher for Follower {
    fn stage(&mut self, stage: Stage) {
        self.stages.push(stage);
    }

    fn poll(&mut self) -> Option<i32> {
        self.polls += u32::from(!self.stages.is_empty());
        (self.stops && self.polls > 5).then_some(2)
    }
}

#[test]
fn a_build_makes_these_files_and_no_others() {
    let host = Host::new(INSTALLS);
    let mut follower = Follower::default();
    let built = host.build(&mut follower, |options| {
        options.swap = Some("1M".into());
        options.size = Some("64M".into());
    });
    let built = built.unwrap();
    assert_eq!(host.names("."), ["bin", "keys", "serv1"]);
    let files = ["disk.img", "initrd.img", "serv1.cfg", "serv1.password", "swap.img", "vmlinuz"];
    assert_eq!(host.names("serv1"), files);
    assert_eq!(fs::read_to_string(&built.kernel).unwrap(), "kernel\n");
    assert_eq!(fs::read_to_string(&built.ramdisk).unwrap(), "initrd\n");
    assert_eq!((built.kernel_version.as_str(), built.disk_bytes), ("6.1-x", 64 << 20));
    assert_eq!(fs::metadata(built.swap.unwrap()).unwrap().len(), 1 << 20);
    assert_eq!(follower.stages, [Stage::Lists, Stage::FileSystem, Stage::Files]);
    let mode = |name: &str| {
        fs::metadata(host.path("serv1").join(name)).unwrap().permissions().mode() & 0o777
    };
    assert_eq!((mode("disk.img"), mode("swap.img"), mode("serv1.password")), (0o600, 0o600, 0o600));
    let kept = fs::read_to_string(host.path("serv1/serv1.password")).unwrap();
    assert_eq!(Some(kept.trim()), built.password.as_deref());
    let text = fs::read_to_string(&built.config).unwrap();
    let domain = config::parse_str("serv1.cfg", &text, &[]).unwrap().config;
    assert_eq!(domain.boot.kernel.as_deref(), built.kernel.to_str());
}

#[test]
fn an_interrupted_build_leaves_no_file_and_no_process() {
    let script = "echo $$ >../../pid; echo 'I: running --setup-hook in shell: x'
        mkdir -p tmp/deep; echo x >tmp/deep/x; sleep 1000; :";
    let host = Host::new(&script.replace("../../pid", "../pid"));
    let mut follower = Follower { stops: true, ..Follower::default() };
    let stopped = host.build(&mut follower, |_| {});
    assert!(matches!(stopped, Err(Error::Interrupted { signal: 2 })), "{stopped:?}");
    assert_eq!(host.names("."), ["bin", "keys", "pid"]);
    let pid = fs::read_to_string(host.path("pid")).unwrap();
    assert!(!Path::new(&format!("/proc/{}", pid.trim())).exists(), "{pid} still runs");
}

#[test]
fn a_failed_build_leaves_the_image_that_was_there() {
    let host = Host::new("echo 'E: Unable to locate package nonesuch' >&2; exit 25");
    fs::create_dir(host.path("serv1")).unwrap();
    fs::write(host.path("serv1/disk.img"), "old").unwrap();
    let failed = host.build(&mut Follower::default(), |options| options.force = true);
    assert!(matches!(failed, Err(Error::NoPackage { .. })), "{failed:?}");
    assert_eq!(host.names("."), ["bin", "keys", "serv1"]);
    assert_eq!(fs::read_to_string(host.path("serv1/disk.img")).unwrap(), "old");
}

#[test]
fn an_archive_that_does_not_fit_says_what_is_needed() {
    let host = Host::new(INSTALLS);
    let failed = host.build(&mut Follower::default(), |options| options.size = Some("40M".into()));
    assert!(matches!(failed, Err(Error::TooSmall { .. })), "{failed:?}");
    assert_eq!(host.names("."), ["bin", "keys"]);
}

#[test]
fn a_tree_without_a_kernel_is_no_guest() {
    let host = Host::new("mkdir tree; tar -C tree -cf root.tar .");
    let failed = host.build(&mut Follower::default(), |_| {});
    assert!(matches!(failed, Err(Error::Incomplete { what: "kernel" })), "{failed:?}");
}

#[test]
fn room_is_checked_before_the_work() {
    assert!(check_room(Path::new("/"), Size::mib(0)).is_ok());
    let error = check_room(Path::new("/proc"), Size::mib(1)).unwrap_err();
    assert_eq!(error.to_string(), "/proc has 0M free; building needs about 1M.");
    assert!(error.hint().unwrap().contains("-o DIR"));
}
