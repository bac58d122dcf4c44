//! Settings of the host that hold for all domains: `xenolith.toml`.
//!
//! ```toml
//! [network]
//! bridge = "xenbr0"
//! [memory]
//! reserve = 512
//! [log]
//! level = "debug"
//! ```

mod log;
mod old;

pub use log::{HostLog, LogFormat, LogLevel, UnknownWord};
pub use old::Migrated;

use crate::diagnostic::{Diagnostic, Level};
use crate::error::Error;
use crate::load::read_text;
use crate::model::{DomainConfig, Vif};
use crate::source::{Fault, Source, Span};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Environment variable that names the file.
pub const HOST_VARIABLE: &str = "XENOLITH_HOST_CONFIG";
/// Where the file of the system's domains is.
const SYSTEM_FILE: &str = "/etc/xen/xenolith.toml";
/// Longest name of a network interface in bytes (`IFNAMSIZ` in linux/if.h, less its end).
const LONGEST_INTERFACE: usize = 15;
/// How long the daemon stays after the last domain and client, in seconds.
const IDLE: u32 = 5;

/// Settings of the host; what a file leaves out has its default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostConfig {
    /// Networks of domains.
    pub network: HostNetwork,
    /// The host's memory.
    pub memory: HostMemory,
    /// The control daemon.
    pub daemon: HostDaemon,
    /// Logs of all programs.
    pub log: HostLog,
}

/// Networks of domains.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostNetwork {
    /// Where interfaces lead that name neither a bridge nor ports; a user-mode network if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
}

/// The host's memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostMemory {
    /// What no domain gets, in MiB.
    pub reserve: u32,
}

/// The control daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostDaemon {
    /// How long it stays after the last domain and client, if a tool started it, in seconds.
    pub idle: u32,
}

impl Default for HostDaemon {
    fn default() -> Self {
        Self { idle: IDLE }
    }
}

impl HostConfig {
    /// The file of this user: what [`HOST_VARIABLE`] names, else that of the system for root, and of
    /// the user's configuration directory for others. The first may not be missing, the others may.
    pub fn place() -> (PathBuf, bool) {
        let root = rustix::process::geteuid().is_root();
        choose(root, &|name| {
            std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
        })
    }

    /// Reads the file of this user; defaults if there is none.
    ///
    /// # Errors
    /// A file that is named and missing, that cannot be read, or that is not understood.
    pub fn load() -> Result<Self, Error> {
        let (path, is_named) = Self::place();
        if !is_named && !path.exists() {
            return Ok(Self::default());
        }
        Self::read(&path)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// As [`HostConfig::load`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        Self::parse(&path.display().to_string(), &present(path)?)
    }

    /// Understands `text` as the file called `name`.
    ///
    /// # Errors
    /// With the place of the fault.
    pub fn parse(name: &str, text: &str) -> Result<Self, Error> {
        understood(text).map_err(|fault| {
            let source = Source { name: name.to_owned(), text: text.to_owned() };
            Error::Invalid(vec![Diagnostic::new(Level::Error, *fault, &[source])])
        })
    }

    /// Reads the settings of Xen's xend (`xend-config.sxp`).
    ///
    /// # Errors
    /// A file that cannot be read, or is no S-expressions, with the place.
    pub fn from_sxp(path: &Path) -> Result<Migrated, Error> {
        Self::parse_sxp(&path.display().to_string(), &present(path)?)
    }

    /// Understands `text` as the `xend-config.sxp` called `name`.
    ///
    /// # Errors
    /// When it is no S-expressions, with the place.
    pub fn parse_sxp(name: &str, text: &str) -> Result<Migrated, Error> {
        old::migrate(name, text)
    }

    /// The settings as a file has them.
    pub fn to_toml(&self) -> String {
        // Strings and numbers only: nothing that TOML has not.
        toml::to_string(self).unwrap_or_default()
    }

    /// Gives a domain's interfaces what holds for all.
    pub fn apply(&self, domain: &mut DomainConfig) {
        domain.devices.vifs.iter_mut().for_each(|vif| self.apply_to_vif(vif));
    }

    /// Gives an interface what holds for all.
    pub fn apply_to_vif(&self, vif: &mut Vif) {
        let has_own_way = vif.bridge.is_some() || !vif.ports.is_empty() || vif.script.is_some();
        if !has_own_way {
            vif.bridge.clone_from(&self.network.bridge);
        }
    }
}

/// The text of a file that has to be there.
fn present(path: &Path) -> Result<String, Error> {
    if path.exists() {
        return read_text(path);
    }
    let searched = vec![path.to_owned()];
    Err(Error::NotFound { name: path.display().to_string(), searched })
}

/// The rule behind [`HostConfig::place`].
fn choose(root: bool, variable: &dyn Fn(&str) -> Option<PathBuf>) -> (PathBuf, bool) {
    if let Some(path) = variable(HOST_VARIABLE) {
        return (path, true);
    }
    let home = || variable("HOME").map(|home| home.join(".config"));
    let own = variable("XDG_CONFIG_HOME").filter(|path| path.is_absolute()).or_else(home);
    match own {
        Some(folder) if !root => (folder.join("xenolith/xenolith.toml"), false),
        _ => (PathBuf::from(SYSTEM_FILE), false),
    }
}

fn understood(text: &str) -> Result<HostConfig, Box<Fault>> {
    let host: HostConfig = toml::from_str(text).map_err(|error| {
        let message = error.message().to_owned();
        match error.span() {
            Some(range) => Fault::at(Span::new(0, range.start, range.end), message),
            None => Fault::nowhere(message),
        }
    })?;
    if let Some(bridge) = &host.network.bridge
        && !is_interface(bridge)
    {
        let at = text.find(bridge.as_str()).unwrap_or(0);
        let span = Span::new(0, at, at + bridge.len());
        let fault = Fault::at(span, format!("'{bridge}' is no name of a bridge"));
        let help = format!("1 to {LONGEST_INTERFACE} characters without blanks and '/'");
        return Err(fault.help(help));
    }
    Ok(host)
}

/// Whether Linux would take it (`dev_valid_name`).
fn is_interface(name: &str) -> bool {
    (1..=LONGEST_INTERFACE).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/' || c == ':')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::parse_str;

    fn fault(text: &str) -> String {
        HostConfig::parse("xenolith.toml", text).unwrap_err().to_string()
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        assert_eq!(HostConfig::parse("x", "").unwrap(), HostConfig::default());
        let host = HostConfig::parse("x", "[memory]\nreserve = 512\n").unwrap();
        assert_eq!((host.memory.reserve, host.daemon.idle, host.network.bridge), (512, 5, None));
    }

    #[test]
    fn printed_settings_are_read_back() {
        let mut host = HostConfig::default();
        host.network.bridge = Some("xenbr0".to_owned());
        host.memory.reserve = 196;
        assert_eq!(HostConfig::parse("x", &host.to_toml()).unwrap(), host);
        host.log = HostLog { level: LogLevel::Debug, format: LogFormat::Json };
        assert_eq!(HostConfig::parse("x", &host.to_toml()).unwrap(), host);
        let default = HostConfig::default();
        assert_eq!(HostConfig::parse("x", &default.to_toml()).unwrap(), default);
    }

    #[test]
    fn faults_have_a_place() {
        let text = fault("[network]\nbrigde = \"xenbr0\"\n");
        assert!(text.contains("unknown field `brigde`, expected `bridge`"), "{text}");
        assert!(text.contains("xenolith.toml:2:1") && text.contains("^^^^^^"), "{text}");
        let text = fault("[memory]\nreserve = \"much\"\n");
        assert!(text.contains("xenolith.toml:2:11"), "{text}");
        let text = fault("[network]\nbridge = \"a/b\"\n");
        assert!(text.contains("xenolith.toml:2:11") && text.contains("no name"), "{text}");
        assert!(fault("[memory\n").contains("xenolith.toml:1:"), "{}", fault("[memory\n"));
        let text = fault("[log]\nlevel = \"loud\"\n");
        assert!(text.contains("xenolith.toml:2:9") && text.contains("`warning`"), "{text}");
        assert!(fault("[log]\nformat = \"xml\"\n").contains("`json`"));
        assert!(fault("[memory]\nreserve = -1\n").contains("xenolith.toml:2:11"));
    }

    #[test]
    fn whose_file_it_is() {
        let place = |root, set: &[(&str, &str)]| {
            choose(root, &|name| {
                set.iter().find(|(key, _)| *key == name).map(|(_, value)| PathBuf::from(value))
            })
        };
        let at = |path: &str, is_named| (PathBuf::from(path), is_named);
        let home = ("HOME", "/home/u");
        assert_eq!(place(true, &[home]), at(SYSTEM_FILE, false));
        let own = "/home/u/.config/xenolith/xenolith.toml";
        assert_eq!(place(false, &[home]), at(own, false));
        let moved = ("XDG_CONFIG_HOME", "/c");
        assert_eq!(place(false, &[home, moved]), at("/c/xenolith/xenolith.toml", false));
        assert_eq!(place(false, &[]), at(SYSTEM_FILE, false));
        assert_eq!(place(false, &[home, (HOST_VARIABLE, "h.toml")]), at("h.toml", true));
    }

    #[test]
    fn interfaces_without_a_way_of_their_own_get_the_bridge() {
        let text = "kernel = \"/k\"\nvif = [\"\", \"bridge=other\", \"ports=80:80\"]\n";
        let mut domain = parse_str("d", text, &[]).unwrap().config;
        HostConfig::default().apply(&mut domain);
        let bridges = |domain: &DomainConfig| -> Vec<Option<String>> {
            domain.devices.vifs.iter().map(|vif| vif.bridge.clone()).collect()
        };
        assert_eq!(bridges(&domain), [None, Some("other".to_owned()), None]);
        let host = HostConfig::parse("x", "network = { bridge = \"xenbr0\" }").unwrap();
        host.apply(&mut domain);
        assert_eq!(bridges(&domain), [Some("xenbr0".to_owned()), Some("other".to_owned()), None]);
    }
}
