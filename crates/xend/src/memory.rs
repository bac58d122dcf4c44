//! The host's memory: what there is, and what is promised.

use crate::daemon::Daemon;
use crate::look::Known;
use api::types::Claim;
use control::{ErrorCode, Failure};
use std::fs;
use std::sync::Arc;

/// The host's memory in MiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// All of it.
    pub total_mib: u64,
    /// What can be had without swapping (`MemAvailable`, proc_meminfo(5)).
    pub available_mib: u64,
}

impl Memory {
    /// Reads the figures now.
    pub fn now() -> Self {
        Self::parse(&fs::read_to_string("/proc/meminfo").unwrap_or_default())
    }

    fn parse(meminfo: &str) -> Self {
        let field = |name: &str| {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim_start_matches(':').trim().trim_end_matches("kB").trim().parse::<u64>().ok()
        };
        Self {
            total_mib: field("MemTotal").unwrap_or(0) / 1024,
            available_mib: field("MemAvailable").unwrap_or(0) / 1024,
        }
    }
}

/// What domains may still take of the memory that is available, in MiB: a domain's memory becomes
/// the host's only when its guest touches it.
pub fn claimed(known: &[Known]) -> u64 {
    known.iter().filter_map(claim).fold(0, u64::saturating_add)
}

/// The same of one domain; `None` if it takes no more, or does not say.
fn claim(known: &Known) -> Option<u64> {
    let info = known.info.as_ref().and_then(|info| info.as_ref().ok())?;
    let alive = !(info.state.shutdown || info.state.crashed);
    let missing = info.memory_mib.saturating_sub(info.resident_mib.unwrap_or(info.memory_mib));
    alive.then_some(missing)
}

impl Daemon {
    /// What domains that are being started will take, in MiB.
    pub(crate) fn claimed_by_starting(&self) -> u64 {
        self.state().starting.iter().fold(0, |sum, starting| sum.saturating_add(starting.mib))
    }

    /// What each domain was promised.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub(crate) async fn claims(self: &Arc<Self>) -> Result<Vec<Claim>, Failure> {
        let known = self.known().await?;
        let running = known.iter().filter_map(|known| {
            let info = known.info.as_ref().and_then(|info| info.as_ref().ok())?;
            Some(Claim {
                name: known.entry.name.clone(),
                uuid: known.entry.uuid,
                domid: Some(known.entry.domid),
                memory_mib: info.memory_mib,
                claimed_mib: claim(known).unwrap_or(0),
            })
        });
        let running: Vec<Claim> = running.collect();
        let starting: Vec<Claim> = self
            .state()
            .starting
            .iter()
            .filter(|starting| !running.iter().any(|claim| claim.uuid == starting.uuid))
            .map(|starting| Claim {
                name: starting.name.clone(),
                uuid: starting.uuid,
                domid: known
                    .iter()
                    .find(|known| known.entry.uuid == starting.uuid)
                    .map(|known| known.entry.domid),
                memory_mib: starting.mib,
                claimed_mib: starting.mib,
            })
            .collect();
        Ok(running.into_iter().chain(starting).collect())
    }

    /// Refuses a domain that the host cannot hold.
    ///
    /// # Errors
    /// With the figures.
    pub(crate) fn check_memory(
        &self,
        name: &str,
        mib: u64,
        known: &[Known],
    ) -> Result<(), Failure> {
        let available = Memory::now().available_mib;
        let claimed = claimed(known).saturating_add(self.claimed_by_starting());
        let reserve = self.reserve_mib;
        let free = available.saturating_sub(claimed).saturating_sub(reserve);
        if mib <= free {
            return Ok(());
        }
        let kept = match reserve {
            0 => String::new(),
            mib => format!(", {mib} MiB are kept for the host"),
        };
        let message = format!(
            "Domain '{name}' needs {mib} MiB, but the host has {free} MiB for new domains \
             ({available} MiB are available, running domains may still take {claimed} MiB{kept})"
        );
        let hint = "Give it less 'memory', or end another domain ('xm list').";
        Err(Failure::new(ErrorCode::Memory, message).with_hint(hint))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_in_mib() {
        let text = "MemTotal:       24117248 kB\nMemFree: 1 kB\nMemAvailable:    2048 kB\n";
        assert_eq!(Memory::parse(text), Memory { total_mib: 23552, available_mib: 2 });
        assert_eq!(Memory::parse("junk"), Memory::default());
    }
}
