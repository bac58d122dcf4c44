//! What the domain process is told to run.

use config::DomainConfig;
use control::{CrashSummary, CreateSpec, ErrorCode, Failure};
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Longest specification in bytes.
const LONGEST: u64 = 4 << 20;

/// A [`CreateSpec`], and for a domain that starts anew what came before.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// What was asked for.
    #[serde(flatten)]
    pub create: CreateSpec,
    /// Restarts so far.
    #[serde(default)]
    pub restarts: u32,
    /// Another life of the domain goes before this one, and starts it.
    #[serde(default)]
    pub follows: bool,
    /// The last restart, in seconds since the epoch.
    #[serde(default)]
    pub last_restart: Option<u64>,
    /// The last crash.
    #[serde(default)]
    pub last_crash: Option<CrashSummary>,
    /// The configuration of the next life, if it is another.
    #[serde(skip)]
    pub next: Option<Box<DomainConfig>>,
}

impl Spec {
    /// Reads a specification and makes its paths absolute.
    ///
    /// # Errors
    /// When it is no specification, or the kernel is not given as a file.
    pub fn read(from: impl Read) -> Result<Self, Failure> {
        let mut text = Vec::new();
        let bad = |why: String| {
            Failure::new(ErrorCode::BadRequest, format!("The domain's description is wrong: {why}"))
                .with_hint("This program is started by 'xm create'.")
        };
        from.take(LONGEST).read_to_end(&mut text).map_err(|error| bad(error.to_string()))?;
        let mut spec: Self =
            serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
        // A later restart is seen from another directory.
        spec.create.config.make_absolute();
        spec.kernel()?;
        Ok(spec)
    }

    /// The configuration.
    pub fn config(&self) -> &DomainConfig {
        &self.create.config
    }

    /// The kernel file.
    ///
    /// # Errors
    /// When the configuration names none.
    pub fn kernel(&self) -> Result<PathBuf, Failure> {
        kernel_of(self.config())
    }

    /// The ramdisk file.
    pub fn ramdisk(&self) -> Option<&Path> {
        self.config().boot.ramdisk.as_deref().filter(|path| !path.is_empty()).map(Path::new)
    }

    /// What starts anew after a reset by a tool, which does not count as a restart of the guest's.
    pub fn successor_after_reset(&self, crash: Option<CrashSummary>) -> Self {
        Self {
            create: self.following(),
            restarts: self.restarts,
            follows: true,
            last_restart: self.last_restart,
            last_crash: crash,
            next: None,
        }
    }

    /// What is to be made next time.
    fn following(&self) -> CreateSpec {
        let config = match &self.next {
            Some(next) => DomainConfig::clone(next),
            None => self.create.config.clone(),
        };
        CreateSpec { config, paused: false }
    }

    /// Another configuration for the next life, which has this domain's name and UUID.
    ///
    /// # Errors
    /// When it names another domain, or could not start.
    pub fn follow_with(&mut self, mut config: DomainConfig, name: &str) -> Result<(), Failure> {
        let refuse = |message: String, hint: &str| {
            Err(Failure::new(ErrorCode::Config, message).with_hint(hint))
        };
        if config.general.name != name {
            let message = format!("Domain '{name}' keeps its name when it restarts");
            return refuse(message, "'xm rename' gives it another one.");
        }
        let uuid = &self.config().general.uuid;
        if config.general.uuid.is_some() && config.general.uuid != *uuid {
            let message = format!("Domain '{name}' keeps its UUID when it restarts");
            return refuse(message, "Leave 'uuid' out.");
        }
        config.general.uuid = *uuid;
        let path = kernel_of(&config)?;
        if !path.is_absolute() || !path.is_file() {
            let message = format!("Kernel {}: there is no such file", path.display());
            return refuse(message, "Give 'kernel' with its whole path.");
        }
        self.next = Some(Box::new(config));
        Ok(())
    }

    /// The specification of the domain that follows this one.
    pub fn successor(&self, now: u64, crash: Option<CrashSummary>) -> Self {
        Self {
            create: self.following(),
            restarts: self.restarts.saturating_add(1),
            follows: true,
            last_restart: Some(now),
            last_crash: crash,
            next: None,
        }
    }
}

fn kernel_of(config: &DomainConfig) -> Result<PathBuf, Failure> {
    let boot = &config.boot;
    let none = || {
        let message = if boot.bootloader.is_some() {
            "Boot loaders are not supported yet"
        } else {
            "The configuration names no kernel"
        };
        Failure::new(ErrorCode::Config, message)
            .with_hint("Set kernel = \"/path/to/vmlinuz\" in the configuration.")
    };
    boot.kernel.as_ref().filter(|path| !path.is_empty()).map(PathBuf::from).ok_or_else(none)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(name: &str, memory: u32) -> DomainConfig {
        let kernel = std::env::current_exe().unwrap();
        let text = format!("kernel = '{}'\nname = '{name}'\nmemory = {memory}\n", kernel.display());
        config::parse_str("f", &text, &[]).unwrap().config
    }

    fn spec() -> Spec {
        let mut config = config("one", 64);
        config.general.uuid = Some(config::Uuid([7; 16]));
        let text = serde_json::to_vec(&CreateSpec { config, paused: true }).unwrap();
        Spec::read(text.as_slice()).unwrap()
    }

    #[test]
    fn the_next_life_has_the_new_configuration_and_this_one_the_old() {
        let mut spec = spec();
        spec.follow_with(config("one", 96), "one").unwrap();
        assert_eq!(spec.config().memory.initial, 64);
        for next in [spec.successor(1, None), spec.successor_after_reset(None)] {
            assert_eq!(next.config().memory.initial, 96);
            assert_eq!(next.config().general.uuid, spec.config().general.uuid);
            assert!(!next.create.paused && next.next.is_none());
        }
    }

    #[test]
    fn another_domains_configuration_is_refused() {
        let mut spec = spec();
        assert!(spec.follow_with(config("two", 96), "one").is_err());
        let mut other = config("one", 96);
        other.general.uuid = Some(config::Uuid([8; 16]));
        assert!(spec.follow_with(other, "one").is_err());
        let mut kernelless = config("one", 96);
        kernelless.boot.kernel = Some("/no/such/kernel".into());
        let failure = spec.follow_with(kernelless, "one").unwrap_err();
        assert!(failure.message.contains("/no/such/kernel"), "{failure}");
        assert!(spec.next.is_none());
    }
}
