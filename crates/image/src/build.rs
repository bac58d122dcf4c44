//! A build from its order to the finished directory.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::command::{Outcome, run};
use crate::complaint::{explain, failed};
use crate::confine::Way;
use crate::error::Error;
use crate::files::{self, Layout};
use crate::mirror::{Archives, host_settings};
use crate::names;
use crate::order::{Order, Password};
use crate::release::Release;
use crate::size::Size;
use crate::staging::{Staging, Target};
use crate::tools::Tools;

/// Packages, the tree and its archive at their largest moment, for a system as small as ours.
const ROOM: Size = Size::mib(1200);

/// A part of a build, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Reading the archive's lists.
    Lists,
    /// Fetching the packages that make up the base.
    Download,
    /// Unpacking them.
    Unpack,
    /// Setting the base up.
    Base,
    /// Fetching and setting up all others.
    Packages,
    /// Names, addresses, passwords.
    Finish,
    /// Writing the tree as an archive.
    Archive,
    /// Making the file system.
    FileSystem,
    /// Kernel, swap, configuration.
    Files,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lists => "Reading the archive's lists",
            Self::Download => "Fetching the base system",
            Self::Unpack => "Unpacking the base system",
            Self::Base => "Setting up the base system",
            Self::Packages => "Fetching and setting up the other packages",
            Self::Finish => "Configuring the guest",
            Self::Archive => "Collecting its files",
            Self::FileSystem => "Making the file system",
            Self::Files => "Writing kernel, swap space and configuration",
        })
    }
}

/// What mmdebstrap says when a stage begins.
const STAGE_LINES: [(&str, Stage); 7] = [
    ("I: running --setup-hook", Stage::Lists),
    ("I: downloading packages", Stage::Download),
    ("I: extracting archives", Stage::Unpack),
    ("I: installing essential packages", Stage::Base),
    ("I: installing remaining packages", Stage::Packages),
    ("I: running --customize-hook", Stage::Finish),
    ("I: creating tarball", Stage::Archive),
];

/// Who follows a build, and may stop it.
pub trait Watcher {
    /// A stage begins.
    fn stage(&mut self, stage: Stage);

    /// Called about ten times a second; the number of a signal stops the build.
    fn poll(&mut self) -> Option<i32>;
}

/// A finished build.
#[derive(Debug, Serialize)]
pub struct Built {
    /// `debian:12`.
    pub release: String,
    /// The host name, also the domain's.
    pub name: String,
    /// The directory.
    pub directory: PathBuf,
    /// The configuration file.
    pub config: PathBuf,
    /// The kernel.
    pub kernel: PathBuf,
    /// The kernel's version.
    pub kernel_version: String,
    /// The initramfs.
    pub ramdisk: PathBuf,
    /// The root file system.
    pub disk: PathBuf,
    /// Its size in bytes.
    pub disk_bytes: u64,
    /// Swap space, if there is any.
    pub swap: Option<PathBuf>,
    /// Where root's password is, if it was made up here.
    pub password_file: Option<PathBuf>,
    /// That password; told once, not in reports.
    #[serde(skip)]
    pub password: Option<String>,
}

/// Builds what `order` says.
///
/// # Errors
///
/// Everything in [`Error`] that is not about the options themselves. Nothing is left behind then.
pub fn build(order: &Order, watcher: &mut dyn Watcher) -> Result<Built, Error> {
    build_with(order, Tools::of_host(), Way::choose, watcher)
}

/// The same with these programs, on the way that `choose` finds.
fn build_with(
    order: &Order,
    tools: Tools,
    choose: impl FnOnce(&Tools, &Release) -> Result<Way, Error>,
    watcher: &mut dyn Watcher,
) -> Result<Built, Error> {
    let target = Target::new(&order.directory, order.force)?;
    tools.check(order.swap.is_some())?;
    let archives = Archives::choose(order)?;
    let way = choose(&tools, order.release)?;
    check_room(target.parent(), ROOM)?;
    let job = Job { order, archives, staging: Staging::new(&target, &tools, way)?, tools, way };
    job.install(watcher)?;
    job.make_disk(watcher)?;
    watcher.stage(Stage::Files);
    let built = job.collect(&target.path(), watcher)?;
    job.staging.commit()?;
    Ok(built)
}

fn check_room(place: &Path, needed: Size) -> Result<(), Error> {
    let facts = rustix::fs::statvfs(place).map_err(Error::at("look at", place))?;
    let free = facts.f_bavail.saturating_mul(facts.f_frsize);
    if free < needed.bytes() {
        let free = Size::mib(free >> 20);
        return Err(Error::Space { place: place.to_path_buf(), free, needed });
    }
    Ok(())
}

/// A build in its staging directory.
struct Job<'a> {
    order: &'a Order,
    archives: Archives,
    staging: Staging,
    tools: Tools,
    way: Way,
}

impl Job<'_> {
    /// Installs the packages and the guest's own files, into `root.tar`.
    fn install(&self, watcher: &mut dyn Watcher) -> Result<(), Error> {
        files::write(&self.staging.path("early"), &files::early())?;
        files::write(&self.staging.path("late"), &files::late(self.order, &self.archives))?;
        let hash = self.write_password()?;
        let words = mmdebstrap_words(self.order, &self.archives, self.way, hash);
        let outcome = self.run(&words, watcher, |watcher, line| {
            if let Some((_, stage)) = STAGE_LINES.iter().find(|(begin, _)| line.starts_with(begin))
            {
                watcher.stage(*stage);
            }
        })?;
        if outcome.status.success() {
            return Ok(());
        }
        let (release, place) = (self.order.release, self.staging.path(""));
        Err(explain("mmdebstrap", &outcome, release, &self.archives, &place))
    }

    /// Writes what the guest's chpasswd reads; a password never is on a command line.
    fn write_password(&self) -> Result<bool, Error> {
        let password = match &self.order.password {
            Password::Random => names::random_password()?,
            Password::Given(password) => password.clone(),
            Password::Empty => return Ok(false),
        };
        if self.order.password == Password::Random {
            let layout = Layout::new(&self.staging.path("result"), &self.order.hostname);
            write_secret(&layout.password, &format!("{password}\n"))?;
        }
        write_secret(&self.staging.path("chpasswd"), &format!("root:{password}\n"))?;
        Ok(true)
    }

    /// Turns `root.tar` into `result/disk.img`.
    fn make_disk(&self, watcher: &mut dyn Watcher) -> Result<(), Error> {
        watcher.stage(Stage::FileSystem);
        let archive = self.staging.path("root.tar");
        let bytes = fs::metadata(&archive).map_err(Error::at("look at", &archive))?.len();
        let size = self.order.size.unwrap_or_else(|| Size::comfortable(bytes));
        let small = Error::TooSmall { given: size, needed: Size::needed(bytes) };
        if size < Size::needed(bytes) {
            return Err(small);
        }
        let conf = self.staging.path("mke2fs.conf");
        fs::write(&conf, files::MKE2FS_CONF).map_err(Error::at("write", &conf))?;
        let disk = self.staging.path("result/disk.img");
        write_secret(&disk, "")?;
        let mut words: Vec<OsString> = self.way.as_root().into_iter().map(OsString::from).collect();
        words.extend(["sh", "-eu", "-c", include_str!("pack.sh"), "pack"].map(OsString::from));
        words.extend(["result/disk.img".into(), size.kib().to_string().into()]);
        words.extend(self.way.capabilities().iter().map(OsString::from));
        let outcome = self.run(&words, watcher, |_, _| {})?;
        let said = |words: &str| outcome.lines.iter().any(|line| line.contains(words));
        match outcome.status.success() {
            true => Ok(()),
            // libext2fs says so of the image, errno of the host's file system.
            false if said("Could not allocate block") => Err(small),
            false if said("No space left on device") => Err(Error::Full(self.staging.path(""))),
            false => Err(failed("mke2fs", &outcome)),
        }
    }

    /// Writes the other files of the result, which will be at `home`.
    fn collect(&self, home: &Path, watcher: &mut dyn Watcher) -> Result<Built, Error> {
        let order = self.order;
        let here = Layout::new(&self.staging.path("result"), &order.hostname);
        let there = Layout::new(home, &order.hostname);
        let kernel_version = self.take_kernel(&here)?;
        if let Some(size) = order.swap {
            write_secret(&here.swap, "")?;
            let file = OpenOptions::new().write(true).open(&here.swap);
            let file = file.map_err(Error::at("open", &here.swap))?;
            file.set_len(size.bytes()).map_err(Error::at("enlarge", &here.swap))?;
            let outcome = self.run(&["mkswap", "result/swap.img"], watcher, |_, _| {})?;
            if !outcome.status.success() {
                return Err(failed("mkswap", &outcome));
            }
        }
        let text = files::config_text(order, &there);
        fs::write(&here.config, text).map_err(Error::at("write", &here.config))?;
        let disk_bytes = fs::metadata(&here.disk).map_err(Error::at("look at", &here.disk))?.len();
        let password = match &order.password {
            Password::Random => {
                let text = fs::read_to_string(&here.password);
                Some(text.map_err(Error::at("read", &here.password))?.trim().to_owned())
            }
            _ => None,
        };
        Ok(Built {
            release: order.release.word(),
            name: order.hostname.clone(),
            directory: home.to_path_buf(),
            config: there.config,
            kernel: there.kernel,
            kernel_version,
            ramdisk: there.ramdisk,
            disk: there.disk,
            disk_bytes,
            swap: order.swap.is_some().then_some(there.swap),
            password_file: password.is_some().then_some(there.password),
            password,
        })
    }

    /// Copies kernel and initramfs out of the unpacked tree; the kernel's version.
    fn take_kernel(&self, here: &Layout) -> Result<String, Error> {
        let boot = self.staging.path("root/boot");
        if !fs::symlink_metadata(&boot).is_ok_and(|facts| facts.is_dir()) {
            return Err(Error::Incomplete { what: "kernel" });
        }
        let entries = fs::read_dir(&boot).map_err(Error::at("read", &boot))?;
        let names: Vec<String> =
            entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        let version = newest(&names, "vmlinuz-").ok_or(Error::Incomplete { what: "kernel" })?;
        copy(&boot.join(format!("vmlinuz-{version}")), &here.kernel, "kernel")?;
        copy(&boot.join(format!("initrd.img-{version}")), &here.ramdisk, "initramfs")?;
        Ok(version)
    }

    /// Runs a program in the staging directory.
    fn run<S: AsRef<OsStr>>(
        &self,
        words: &[S],
        watcher: &mut dyn Watcher,
        each: impl FnMut(&mut dyn Watcher, &str),
    ) -> Result<Outcome, Error> {
        let mut command = self.tools.command(words);
        command.current_dir(self.staging.path(""));
        command.env("TMPDIR", self.staging.path("tmp"));
        command.env("XM_IMAGE_STAGING", self.staging.path(""));
        command.env("MKE2FS_CONFIG", self.staging.path("mke2fs.conf"));
        // In a user namespace with one id the attempt itself fails, which fakeroot takes amiss.
        command.env("FAKEROOTDONTTRYCHOWN", "1");
        run(command, watcher, each)
    }
}

/// The command line of mmdebstrap; `hash` says whether there is a password to be set.
fn mmdebstrap_words(order: &Order, archives: &Archives, way: Way, hash: bool) -> Vec<String> {
    let mut words: Vec<String> = way.mmdebstrap().into_iter().map(str::to_owned).collect();
    words.extend(["--format=tar", "--variant=apt", "--architectures=amd64"].map(str::to_owned));
    let packages = order.all_packages();
    words.push(format!("--include={}", packages.join(",")));
    let lists = include_str!("lists.sh");
    let look = format!("apt-get -qq --simulate install {} >/dev/null", packages.join(" "));
    words.push(format!("--setup-hook={lists}{look}"));
    words.extend(host_settings().into_iter().map(|line| format!("--aptopt={line}")));
    words.extend(DPKG.iter().map(|line| format!("--dpkgopt={line}")));
    words.push("--essential-hook=sync-in early /".to_owned());
    words.push("--customize-hook=sync-in late /".to_owned());
    // A file of a lower right than the shell's: redirected, it is read from outside.
    words.push(format!("--customize-hook={}", if hash { SET_PASSWORD } else { NO_PASSWORD }));
    let finish = include_str!("finish.sh");
    words.push(format!("--customize-hook=chroot \"$1\" sh -eu <<'END'\n{finish}END\n"));
    words.push(order.release.codename.to_owned());
    words.push("root.tar".to_owned());
    words.extend(archives.lines(order.release));
    words
}

const SET_PASSWORD: &str = r#"chroot "$1" chpasswd <"$XM_IMAGE_STAGING/chpasswd""#;
const NO_PASSWORD: &str = r#"chroot "$1" passwd --delete root"#;

/// Settings of dpkg: documents that a guest's console hardly shows are left out, licences stay.
/// A build that the host's crash interrupts is not continued, so that nothing need be synced.
const DPKG: [&str; 7] = [
    "force-unsafe-io",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-exclude=/usr/share/lintian/*",
];

/// Writes a file that only this user may read.
fn write_secret(path: &Path, text: &str) -> Result<(), Error> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file: File = file.map_err(Error::at("create", path))?;
    file.write_all(text.as_bytes()).map_err(Error::at("write", path))
}

/// Copies a file of the tree, which must not be a link: that would lead out of it.
fn copy(from: &Path, to: &Path, what: &'static str) -> Result<(), Error> {
    if !fs::symlink_metadata(from).is_ok_and(|facts| facts.is_file()) {
        return Err(Error::Incomplete { what });
    }
    let mut source = File::open(from).map_err(Error::at("open", from))?;
    let mut copy = File::create_new(to).map_err(Error::at("create", to))?;
    std::io::copy(&mut source, &mut copy).map_err(Error::at("write", to))?;
    Ok(())
}

/// Of the names with this beginning, the rest of the one with the highest version.
fn newest(names: &[String], begin: &str) -> Option<String> {
    let versions = names.iter().filter_map(|name| name.strip_prefix(begin));
    versions.max_by_key(|version| numbers(version)).map(str::to_owned)
}

/// The numbers in a version, which decide between two kernels.
fn numbers(version: &str) -> Vec<u64> {
    let parts = version.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
    parts.map(|part| part.parse().unwrap_or(u64::MAX)).collect()
}

#[cfg(test)]
mod tests;
