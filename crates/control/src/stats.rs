//! What a domain has used and moved so far, for `stats`, `top` and `vcpu-list`.

use crate::protocol::StateFlags;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Figures of one domain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DomainStats {
    /// Domain number.
    pub domid: u32,
    /// Name.
    pub name: String,
    /// State letters.
    pub state: StateFlags,
    /// CPU time of all its vCPUs in seconds.
    pub cpu_seconds: f64,
    /// Memory the guest has now, in KiB.
    pub memory_kib: u64,
    /// Memory the guest may have, in KiB.
    pub maxmem_kib: u64,
    /// Memory that the host spends on the guest's RAM: pages never touched cost nothing.
    pub resident_kib: u64,
    /// Its vCPUs.
    pub vcpus: Vec<VcpuStats>,
    /// Its disks.
    pub disks: Vec<DeviceStats>,
    /// Its network interfaces.
    pub interfaces: Vec<DeviceStats>,
}

/// Figures of one vCPU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct VcpuStats {
    /// Its number.
    pub number: u32,
    /// Whether the guest uses it.
    pub online: bool,
    /// Whether it waits for an event.
    pub blocked: bool,
    /// The host's CPU on which it ran last.
    pub cpu: Option<u32>,
    /// CPU time in seconds.
    pub cpu_seconds: f64,
    /// The host's CPUs that it may run on.
    pub affinity: Vec<u32>,
}

/// Counters of one device, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeviceStats {
    /// Its number in xenstore.
    pub number: u32,
    /// The counters.
    pub counters: BTreeMap<String, u64>,
}

impl DeviceStats {
    /// A counter, 0 if the device has none of this name.
    pub fn count(&self, name: &str) -> u64 {
        self.counters.get(name).copied().unwrap_or(0)
    }
}
