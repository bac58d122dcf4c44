//! What is to be built: the user's words, checked before any work begins.

use std::path::{Path, PathBuf};

use config::{Mac, Memory, Vif};

use crate::error::Error;
use crate::names;
use crate::release::Release;
use crate::size::Size;

/// Far more than a few keys need.
const LARGEST_KEY_FILE: u64 = 64 << 10;

/// The options as they were given.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `debian:12`.
    pub release: String,
    /// `-o`.
    pub directory: PathBuf,
    /// `--size`.
    pub size: Option<String>,
    /// `--swap`.
    pub swap: Option<String>,
    /// `--packages`.
    pub packages: Option<String>,
    /// `--hostname`.
    pub hostname: Option<String>,
    /// `--mac`.
    pub mac: Option<String>,
    /// `--vif`.
    pub vif: Option<String>,
    /// `--memory`.
    pub memory: Option<String>,
    /// `--mirror`.
    pub mirror: Option<String>,
    /// `--security-mirror`.
    pub security_mirror: Option<String>,
    /// `--keyring`.
    pub keyring: Option<PathBuf>,
    /// `--root-password`.
    pub root_password: Option<String>,
    /// `--ssh-key`.
    pub ssh_key: Option<PathBuf>,
    /// `--force`.
    pub force: bool,
    /// The program that serves `xm exec` and `xm cp` in the guest.
    pub agent: Option<PathBuf>,
}

/// How root logs in at the console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Password {
    /// Made up, told once and kept beside the image.
    Random,
    /// This one.
    Given(String),
    /// None is asked for.
    Empty,
}

/// A build that can begin.
#[derive(Debug)]
pub struct Order {
    pub(crate) release: &'static Release,
    pub(crate) directory: PathBuf,
    pub(crate) size: Option<Size>,
    pub(crate) swap: Option<Size>,
    pub(crate) packages: Vec<String>,
    pub(crate) hostname: String,
    pub(crate) mac: Mac,
    /// More of the interface's entry in the configuration, as it is written there.
    pub(crate) vif: Option<String>,
    pub(crate) memory: u64,
    pub(crate) mirror: Option<String>,
    pub(crate) security_mirror: Option<String>,
    pub(crate) keyring: Option<PathBuf>,
    pub(crate) password: Password,
    pub(crate) ssh_keys: Option<String>,
    pub(crate) force: bool,
    pub(crate) agent: Option<PathBuf>,
}

impl Order {
    /// Checks the options.
    ///
    /// # Errors
    ///
    /// Names the option and what it has to be like.
    pub fn new(options: &Options) -> Result<Self, Error> {
        let hostname = options.hostname.clone().unwrap_or_else(|| "serv1".to_owned());
        names::check_hostname(&hostname)?;
        let mut packages = names::packages(options.packages.as_deref().unwrap_or_default())?;
        let ssh_keys = options.ssh_key.as_deref().map(read_keys).transpose()?;
        if ssh_keys.is_some() {
            packages.push("openssh-server".to_owned());
        }
        Ok(Self {
            release: Release::find(&options.release)?,
            directory: options.directory.clone(),
            size: size("--size", options.size.as_deref())?,
            swap: size("--swap", options.swap.as_deref())?,
            packages,
            hostname,
            mac: options.mac.as_deref().map_or_else(names::random_mac, names::mac)?,
            vif: options.vif.as_deref().map(vif).transpose()?,
            memory: options.memory.as_deref().map_or(Ok(DEFAULT_MEMORY), memory)?,
            mirror: url("--mirror", options.mirror.as_deref())?,
            security_mirror: url("--security-mirror", options.security_mirror.as_deref())?,
            keyring: options.keyring.as_deref().map(absolute).transpose()?,
            password: password(options.root_password.as_deref())?,
            ssh_keys,
            force: options.force,
            agent: options.agent.clone(),
        })
    }

    /// All packages that are named to apt.
    pub(crate) fn all_packages(&self) -> Vec<&str> {
        let chosen = self.packages.iter().map(String::as_str);
        self.release.packages().map(|name| name as &str).chain(chosen).collect()
    }

    /// Whether a package was chosen.
    pub(crate) fn has(&self, package: &str) -> bool {
        self.packages.iter().any(|chosen| chosen == package)
    }
}

/// Settings for the interface besides its MAC address.
fn vif(text: &str) -> Result<String, Error> {
    let wrong = |why: String| Error::Vif { given: text.to_owned(), why };
    let vif = Vif::parse(text).map_err(|error| wrong(error.to_string()))?;
    if vif.mac.is_some() {
        return Err(wrong("the address has an option of its own, --mac".into()));
    }
    if text.contains(['\'', '\\', '\n']) {
        return Err(wrong("quotes and backslashes cannot be written into the file".into()));
    }
    Ok(text.to_owned())
}

/// MiB of the guest, enough for systemd, a shell and a web server.
const DEFAULT_MEMORY: u64 = 256;

fn size(option: &'static str, text: Option<&str>) -> Result<Option<Size>, Error> {
    text.map(|text| text.parse().map_err(|why| Error::Size { option, why })).transpose()
}

fn memory(text: &str) -> Result<u64, Error> {
    let (least, most) = (Memory::LEAST, Memory::MOST);
    let wrong = || Error::Memory { given: text.to_owned(), least, most };
    let mib = text.parse().map_err(|_| wrong())?;
    if (least..=most).contains(&mib) { Ok(mib) } else { Err(wrong()) }
}

fn url(option: &'static str, text: Option<&str>) -> Result<Option<String>, Error> {
    let Some(text) = text else { return Ok(None) };
    let wrong = |why| Err(Error::Url { option, url: text.to_owned(), why });
    let Some(rest) = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")) else {
        return wrong("it does not begin with http:// or https://");
    };
    let host = rest.split('/').next().unwrap_or_default();
    if host.is_empty() {
        return wrong("there is no host in it");
    }
    if host.contains('@') {
        return wrong("a password in it would be readable in the guest");
    }
    // It becomes a part of a line of sources.list(5), where blanks and brackets mean something.
    if text.chars().any(|c| c.is_whitespace() || c.is_control() || "[]\"'\\".contains(c)) {
        return wrong("blanks, quotes and brackets are not allowed");
    }
    Ok(Some(text.trim_end_matches('/').to_owned()))
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::fs::canonicalize(path).map_err(Error::at("find", path))
}

fn password(text: Option<&str>) -> Result<Password, Error> {
    match text {
        None => Ok(Password::Random),
        Some("") => Ok(Password::Empty),
        Some(text) if text.chars().any(char::is_control) => Err(Error::Password),
        Some(text) => Ok(Password::Given(text.to_owned())),
    }
}

/// The lines of a file with public keys.
fn read_keys(path: &Path) -> Result<String, Error> {
    let wrong = |why| Error::SshKey { path: path.to_path_buf(), why };
    let facts = std::fs::metadata(path).map_err(Error::at("read", path))?;
    if !facts.is_file() || facts.len() > LARGEST_KEY_FILE {
        return Err(wrong("it is no file of a few keys"));
    }
    let text = std::fs::read_to_string(path).map_err(Error::at("read", path))?;
    if text.contains("PRIVATE KEY") {
        return Err(wrong("it holds a private key"));
    }
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    let kind = |line: &str| ["ssh-", "ecdsa-", "sk-"].iter().any(|kind| line.starts_with(kind));
    if lines.is_empty() || !lines.iter().all(|line| kind(line) && line.contains(' ')) {
        return Err(wrong("it holds no public key of OpenSSH"));
    }
    Ok(lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options { release: "debian:12".into(), directory: "x".into(), ..Options::default() }
    }

    fn refused(change: impl FnOnce(&mut Options)) -> Error {
        let mut options = options();
        change(&mut options);
        Order::new(&options).unwrap_err()
    }

    #[test]
    fn defaults_are_those_of_the_lecture() {
        let order = Order::new(&options()).unwrap();
        assert_eq!((order.hostname.as_str(), order.memory), ("serv1", 256));
        assert_eq!((order.size, order.swap, order.password), (None, None, Password::Random));
    }

    #[test]
    fn each_bad_option_is_named() {
        let text = |error: Error| error.to_string();
        assert!(text(refused(|o| o.size = Some("big".into()))).starts_with("--size: "));
        assert!(text(refused(|o| o.swap = Some("0".into()))).starts_with("--swap: "));
        assert!(text(refused(|o| o.hostname = Some("a_b".into()))).starts_with("--hostname "));
        assert!(text(refused(|o| o.mac = Some("1:2".into()))).starts_with("--mac: "));
        assert!(text(refused(|o| o.memory = Some("1".into()))).starts_with("--memory "));
        assert!(text(refused(|o| o.packages = Some("-x".into()))).starts_with("--packages: "));
        assert!(text(refused(|o| o.root_password = Some("a\nb".into()))).starts_with("--root-p"));
        assert!(text(refused(|o| o.keyring = Some("/no/such".into()))).contains("/no/such"));
        assert!(text(refused(|o| o.release = "debain".into())).contains("did you mean debian:1"));
    }

    #[test]
    fn addresses_of_archives() {
        let url = |text| url("--mirror", Some(text));
        assert_eq!(url("http://a/debian/").unwrap().as_deref(), Some("http://a/debian"));
        for bad in
            ["", "ftp://a", "http://", "http:///x", "http://a/ x", "http://u:p@a/", "http://a/[x]"]
        {
            assert!(matches!(url(bad), Err(Error::Url { .. })), "{bad}");
        }
    }

    #[test]
    fn keys_must_be_public_ones() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read_keys(&path)
        };
        assert_eq!(read("# me\n ssh-ed25519 AAAA me \n\n").unwrap(), "ssh-ed25519 AAAA me\n");
        for bad in ["", "hello\n", "ssh-ed25519\n", "-----BEGIN OPENSSH PRIVATE KEY-----\n"] {
            assert!(matches!(read(bad), Err(Error::SshKey { .. })), "{bad}");
        }
        assert!(read_keys(folder.path()).is_err());
    }

    #[test]
    fn a_key_brings_the_server() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pub");
        std::fs::write(&path, "ssh-rsa AAAA\n").unwrap();
        let order = Order::new(&Options { ssh_key: Some(path), ..options() }).unwrap();
        assert!(order.has("openssh-server") && order.all_packages().contains(&"systemd"));
    }
}
