//! What the domain has used and moved so far.

use super::Instance;
use crate::devices::{DeviceCounters, Wish};
use crate::server::{Answer, Id};
use crate::space::usable_cpus;
use control::{DomainStats, ErrorCode, Failure, Record, Response, VcpuStats};

/// KiB in a page.
const KIB_PER_PAGE: u64 = 4;
/// Field of `/proc/PID/stat` with the CPU that it ran on last, counted from 0 behind the name
/// (proc_pid_stat(5)).
const PROCESSOR: usize = 36;
/// Keys of `debug-keys`: what each writes into the log.
const DEBUG_KEYS: [(char, &str); 4] = [
    ('h', "this list"),
    ('q', "the domain: memory, vCPU, processes"),
    ('r', "the registers of the guest's vCPU"),
    ('s', "the counters of the domain's monitor"),
];

impl Instance {
    /// Asks the backends for their counters, if there are any.
    pub(super) fn ask_stats(&mut self, id: Id) -> Answer {
        if self.stopped.is_some() {
            return Answer::Line(self.stats(DeviceCounters::default()));
        }
        self.devices.wish(Wish::Count(id));
        Answer::Pending
    }

    /// The backends told their counters.
    pub(super) fn tell_stats(&mut self, id: Id, counters: DeviceCounters) {
        let stats = self.stats(counters);
        self.answer(id, Answer::Line(stats));
    }

    fn stats(&self, counters: DeviceCounters) -> Response {
        let entry = self.registration.entry();
        let memory = &self.guest.memory;
        let cpu_seconds = self.guest.time.seconds();
        let state = self.state();
        let cpus = usable_cpus();
        let vcpu = |number| VcpuStats {
            number,
            online: self.stopped.is_none(),
            blocked: state.blocked,
            cpu: if self.stopped.is_none() { self.cpu() } else { None },
            // One vCPU has all of it.
            cpu_seconds,
            affinity: cpus.iter().filter_map(|cpu| u32::try_from(*cpu).ok()).collect(),
        };
        Response::Stats(Box::new(DomainStats {
            domid: entry.domid,
            name: entry.name.clone(),
            state,
            cpu_seconds,
            memory_kib: self.guest.pages().saturating_mul(KIB_PER_PAGE),
            maxmem_kib: memory.setup.max_pages.saturating_mul(KIB_PER_PAGE),
            resident_kib: memory.ram.resident() / 1024,
            vcpus: (0..memory.setup.vcpus).map(vcpu).collect(),
            disks: counters.disks,
            interfaces: counters.interfaces,
        }))
    }

    /// The host's CPU that the guest's kernel ran on last.
    fn cpu(&self) -> Option<u32> {
        let leader = self.guest.group.leader().as_raw_nonzero();
        let text = std::fs::read_to_string(format!("/proc/{leader}/stat")).ok()?;
        // The name before the last parenthesis may hold anything.
        text.rsplit_once(')')?.1.split_ascii_whitespace().nth(PROCESSOR)?.parse().ok()
    }

    /// Writes something about the inside into the log.
    pub(super) fn debug_key(&mut self, key: char) -> Result<(), Failure> {
        match key {
            'h' => {
                for (key, what) in DEBUG_KEYS {
                    self.log.write(Record::info(format!("debug key {key}: {what}")));
                }
            }
            'q' => self.log_inside(),
            'r' => self.log_registers()?,
            's' => {
                self.check_running()?;
                self.guest.page().post(boundary::inbox::STATISTICS);
                self.guest.interrupt();
            }
            _ => {
                let keys: Vec<String> =
                    DEBUG_KEYS.iter().map(|(key, what)| format!("{key} ({what})")).collect();
                let message = format!("There is no debug key '{}'", key.escape_default());
                return Err(Failure::new(ErrorCode::BadRequest, message)
                    .with_hint(format!("Keys are {}.", keys.join(", "))));
            }
        }
        Ok(())
    }

    fn log_inside(&mut self) {
        let setup = &self.guest.memory.setup;
        let lines = [
            format!(
                "frames: {} of at most {}, and {} of the monitor's; {} KiB are in the host's memory",
                self.guest.pages(),
                setup.max_pages,
                setup.nr_frames.saturating_sub(setup.max_pages),
                self.guest.memory.ram.resident() / 1024
            ),
            format!(
                "frames of shared_info {:#x}, console {:#x}, xenstore {:#x}, grants {:#x}, M2P {:#x}",
                setup.shared_info_mfn,
                setup.console_mfn,
                setup.store_mfn,
                setup.grant_mfn,
                setup.m2p_mfn
            ),
            format!(
                "vCPU 0: {}, {:.3} s, on CPU {}; first space: process {}",
                self.state(),
                self.guest.time.seconds(),
                self.cpu().map_or_else(|| "?".to_owned(), |cpu| cpu.to_string()),
                self.guest.group.leader().as_raw_nonzero()
            ),
        ];
        for line in lines {
            self.log.write(Record::info(line));
        }
    }
}
