//! What domains have used and moved, for monitoring systems (OpenMetrics 1.0, text format).

use crate::daemon::Daemon;
use crate::talk;
use api::types::{AllStats, Silent, Who};
use control::{
    ClientError, DeviceStats, DomainStats, Entry, Failure, Request, Response, StateFlags,
};
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// Type of the answer (OpenMetrics 1.0, "Protocol Negotiation").
pub const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// How long a domain may take to tell its figures: the others' are wanted too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

type Labels = Vec<(&'static str, String)>;
type Seconds = Family<Labels, Counter<f64, AtomicU64>>;
type Gauges = Family<Labels, Gauge>;
type Counts = Family<Labels, Counter>;

/// Metrics of one look at all domains.
struct Metrics {
    registry: Registry,
    up: Gauges,
    state: Gauges,
    cpu: Seconds,
    memory: Gauges,
    memory_max: Gauges,
    resident: Gauges,
    vcpu_cpu: Seconds,
    vcpu_online: Gauges,
    devices: BTreeMap<String, Counts>,
}

fn gauges(registry: &mut Registry, name: &str, help: &str) -> Gauges {
    let gauges = Gauges::default();
    registry.register(name, help, gauges.clone());
    gauges
}

fn bytes(registry: &mut Registry, name: &str, help: &str) -> Gauges {
    let gauges = Gauges::default();
    registry.register_with_unit(name, help, Unit::Bytes, gauges.clone());
    gauges
}

fn seconds(registry: &mut Registry, name: &str, help: &str) -> Seconds {
    let seconds = Seconds::default();
    registry.register_with_unit(name, help, Unit::Seconds, seconds.clone());
    seconds
}

impl Metrics {
    fn new() -> Self {
        let mut registry = Registry::with_prefix("xenolith");
        let to = &mut registry;
        Self {
            up: gauges(to, "domain_up", "Whether the domain answers"),
            state: gauges(to, "domain_state", "1 for the states that it is in"),
            cpu: seconds(to, "domain_cpu", "CPU time of all its vCPUs"),
            memory: bytes(to, "domain_memory", "Memory that the guest has"),
            memory_max: bytes(to, "domain_memory_max", "Memory that the guest may have"),
            resident: bytes(to, "domain_memory_resident", "Memory of the host's that it takes"),
            vcpu_cpu: seconds(to, "vcpu_cpu", "CPU time of a vCPU"),
            vcpu_online: gauges(to, "vcpu_online", "Whether the guest uses it"),
            devices: BTreeMap::new(),
            registry,
        }
    }

    fn add(&mut self, entry: &Entry, stats: Option<&DomainStats>) {
        let whose = vec![("domain", entry.name.clone()), ("domid", entry.domid.to_string())];
        self.up.get_or_create(&whose).set(i64::from(stats.is_some()));
        let Some(stats) = stats else { return };
        let and = |name, value: String| [whose.as_slice(), &[(name, value)]].concat();
        for (state, is_in_it) in states(stats.state) {
            self.state.get_or_create(&and("state", state.to_owned())).set(i64::from(is_in_it));
        }
        self.cpu.get_or_create(&whose).inc_by(stats.cpu_seconds);
        for (gauges, kib) in [
            (&self.memory, stats.memory_kib),
            (&self.memory_max, stats.maxmem_kib),
            (&self.resident, stats.resident_kib),
        ] {
            let bytes = i64::try_from(kib.saturating_mul(1024)).unwrap_or(i64::MAX);
            gauges.get_or_create(&whose).set(bytes);
        }
        for vcpu in &stats.vcpus {
            let which = and("vcpu", vcpu.number.to_string());
            self.vcpu_cpu.get_or_create(&which).inc_by(vcpu.cpu_seconds);
            self.vcpu_online.get_or_create(&which).set(i64::from(vcpu.online));
        }
        for disk in &stats.disks {
            self.add_device("disk", disk, &and("disk", disk.number.to_string()));
        }
        for vif in &stats.interfaces {
            self.add_device("vif", vif, &and("vif", vif.number.to_string()));
        }
    }

    fn add_device(&mut self, kind: &str, device: &DeviceStats, which: &Labels) {
        for (name, count) in &device.counters {
            let metric = format!("{kind}_{}", name.replace('-', "_"));
            let Self { registry, devices, .. } = self;
            let counts = devices.entry(metric).or_insert_with_key(|metric| {
                let counts = Counts::default();
                registry.register(metric, format!("{name} of a {kind}"), counts.clone());
                counts
            });
            counts.get_or_create(which).inc_by(*count);
        }
    }
}

fn states(flags: StateFlags) -> [(&'static str, bool); 6] {
    let StateFlags { running, blocked, paused, shutdown, crashed, dying } = flags;
    [
        ("running", running),
        ("blocked", blocked),
        ("paused", paused),
        ("shutdown", shutdown),
        ("crashed", crashed),
        ("dying", dying),
    ]
}

/// A domain, and what it has used and moved.
type Answered = (Entry, Result<Box<DomainStats>, ClientError>);

async fn ask(entry: Entry) -> Answered {
    let stats = match talk::ask(&entry, &Request::Stats, PATIENCE).await {
        Ok(Response::Stats(stats)) => Ok(stats),
        Ok(_) => Err(ClientError::Unexpected { domid: entry.domid }),
        Err(error) => Err(error),
    };
    (entry, stats)
}

impl Daemon {
    /// Asks all running domains at the same time.
    async fn ask_for_stats(self: &Arc<Self>) -> Result<Vec<Answered>, Failure> {
        let asked: Vec<_> =
            self.live()?.into_iter().map(|entry| tokio::spawn(ask(entry))).collect();
        let mut answers = Vec::new();
        for answer in asked {
            answers.extend(answer.await);
        }
        Ok(answers)
    }

    /// What all running domains have used and moved. One that has ended meanwhile is left out.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub(crate) async fn all_stats(self: &Arc<Self>) -> Result<AllStats, Failure> {
        let mut all = AllStats::default();
        for (entry, stats) in self.ask_for_stats().await? {
            match stats {
                Ok(stats) => all.domains.push(*stats),
                Err(ClientError::Ended { .. } | ClientError::Connect { .. }) => {}
                Err(error) => {
                    let (who, trouble) = (Who::running(&entry), error.to_string());
                    all.silent.push(Silent { who, trouble });
                }
            }
        }
        Ok(all)
    }

    /// The metrics of all running domains, as text.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub(crate) async fn metrics(self: &Arc<Self>) -> Result<String, Failure> {
        let mut metrics = Metrics::new();
        for (entry, stats) in self.ask_for_stats().await? {
            metrics.add(&entry, stats.as_deref().ok());
        }
        let mut text = String::new();
        // Only a writer can fail, and a string cannot.
        let _written = text::encode(&mut text, &metrics.registry);
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::{Uuid, VcpuStats};

    #[test]
    fn one_domain_that_answers_and_one_that_does_not() {
        let entry = |domid, name: &str| Entry {
            domid,
            name: name.to_owned(),
            uuid: Uuid([0; 16]),
            pid: 1,
            started: 0,
            directory: "/nowhere".into(),
        };
        let vcpu = VcpuStats {
            number: 0,
            online: true,
            blocked: true,
            cpu: None,
            cpu_seconds: 1.5,
            affinity: Vec::new(),
        };
        let device = |number, counters: &[(&str, u64)]| DeviceStats {
            number,
            counters: counters.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect(),
        };
        let stats = DomainStats {
            domid: 7,
            name: "serv1".to_owned(),
            state: StateFlags { blocked: true, ..StateFlags::default() },
            cpu_seconds: 1.5,
            memory_kib: 4,
            maxmem_kib: 8,
            resident_kib: 2,
            vcpus: vec![vcpu],
            disks: vec![device(51712, &[("sectors-read", 5)])],
            interfaces: vec![device(0, &[("tx-bytes", 9)]), device(1, &[("tx-bytes", 3)])],
        };
        let mut metrics = Metrics::new();
        metrics.add(&entry(7, "serv1"), Some(&stats));
        metrics.add(&entry(8, "\"odd\"\n"), None);
        let mut text = String::new();
        text::encode(&mut text, &metrics.registry).unwrap();
        for line in [
            r#"xenolith_domain_up{domain="serv1",domid="7"} 1"#,
            r#"xenolith_domain_up{domain="\"odd\"\n",domid="8"} 0"#,
            r#"xenolith_domain_state{domain="serv1",domid="7",state="blocked"} 1"#,
            r#"xenolith_domain_state{domain="serv1",domid="7",state="paused"} 0"#,
            "# UNIT xenolith_domain_memory_bytes bytes",
            r#"xenolith_domain_memory_bytes{domain="serv1",domid="7"} 4096"#,
            r#"xenolith_domain_memory_max_bytes{domain="serv1",domid="7"} 8192"#,
            r#"xenolith_domain_memory_resident_bytes{domain="serv1",domid="7"} 2048"#,
            r#"xenolith_domain_cpu_seconds_total{domain="serv1",domid="7"} 1.5"#,
            r#"xenolith_vcpu_cpu_seconds_total{domain="serv1",domid="7",vcpu="0"} 1.5"#,
            r#"xenolith_vcpu_online{domain="serv1",domid="7",vcpu="0"} 1"#,
            r#"xenolith_disk_sectors_read_total{domain="serv1",domid="7",disk="51712"} 5"#,
            r#"xenolith_vif_tx_bytes_total{domain="serv1",domid="7",vif="0"} 9"#,
            r#"xenolith_vif_tx_bytes_total{domain="serv1",domid="7",vif="1"} 3"#,
        ] {
            assert!(text.lines().any(|found| found == line), "no {line:?} in\n{text}");
        }
        assert_eq!(text.lines().filter(|line| line.contains("tx_bytes counter")).count(), 1);
        assert_eq!(text.lines().last(), Some("# EOF"));
        assert!(!text.contains(r#"cpu_seconds_total{domain="\"odd"#), "{text}");
    }
}
