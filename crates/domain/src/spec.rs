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
        let boot = &mut spec.create.config.boot;
        for path in [&mut boot.kernel, &mut boot.ramdisk].into_iter().flatten() {
            // A later restart is seen from another directory.
            *path = std::path::absolute(&path)
                .map_or_else(|_| path.clone(), |absolute| absolute.to_string_lossy().into_owned());
        }
        for disk in &mut spec.create.config.devices.disks {
            disk.make_absolute();
        }
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
        let boot = &self.config().boot;
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

    /// The ramdisk file.
    pub fn ramdisk(&self) -> Option<&Path> {
        self.config().boot.ramdisk.as_deref().filter(|path| !path.is_empty()).map(Path::new)
    }

    /// What starts anew after a reset by a tool, which does not count as a restart of the guest's.
    pub fn successor_after_reset(&self, crash: Option<CrashSummary>) -> Self {
        let create = CreateSpec { paused: false, ..self.create.clone() };
        Self {
            create,
            restarts: self.restarts,
            follows: true,
            last_restart: self.last_restart,
            last_crash: crash,
        }
    }

    /// The specification of the domain that follows this one.
    pub fn successor(&self, now: u64, crash: Option<CrashSummary>) -> Self {
        Self {
            create: CreateSpec { paused: false, ..self.create.clone() },
            restarts: self.restarts.saturating_add(1),
            follows: true,
            last_restart: Some(now),
            last_crash: crash,
        }
    }
}
