//! The guest's xenstore: its nodes in the store that all domains share, and its ring.
//!
//! This process alone touches the ring. What goes through it is passed on to `xenstored` as whole
//! messages (see [`control::xenstore`]).

use crate::space::DomainMemory;
use boundary::{PAGE, port};
use config::DomainConfig;
use control::xenstore::{StoreClient, StoreError, StoreLink, Transaction};
use control::{Dirs, Uuid, kill_point};
use rustix::event::PollFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use store::ring::{NextLook, Ring, SharedPage};
use store::{Domid, Peer};

/// Console output that is kept, in bytes, as the guest is told (`console/limit`).
const CONSOLE_LIMIT: usize = 1 << 20;
/// Nodes below the domain's own that the guest may write.
const GUEST_NODES: [&str; 12] = [
    "control/shutdown",
    "control/feature-poweroff",
    "control/feature-reboot",
    "control/feature-suspend",
    "control/feature-sysrq",
    "control/sysrq",
    "device/suspend/event-channel",
    "data",
    "drivers",
    "feature",
    "attr",
    "error",
];

/// The frame of the ring, as the store wants to see it.
#[derive(Debug)]
struct RingPage {
    memory: Arc<DomainMemory>,
    base: u64,
}

impl RingPage {
    fn at(&self, offset: usize) -> u64 {
        self.base.saturating_add(offset as u64)
    }
}

impl SharedPage for RingPage {
    fn load_u32(&self, offset: usize) -> u32 {
        self.memory.ram.word(self.at(offset)).map_or(0, |word| word.load(Ordering::Acquire))
    }

    fn store_u32(&self, offset: usize, value: u32) {
        if let Some(word) = self.memory.ram.word(self.at(offset)) {
            word.store(value, Ordering::Release);
        }
    }

    fn read(&self, offset: usize, bytes: &mut [u8]) {
        let Some(shared) = self.memory.ram.bytes(self.at(offset), bytes.len()) else { return };
        for (to, from) in bytes.iter_mut().zip(shared) {
            *to = from.load(Ordering::Relaxed);
        }
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        let _ring_lies_in_ram = self.memory.ram.copy_in(self.at(offset), bytes);
    }
}

/// Who a domain is, as its nodes say.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// Domain number.
    pub domid: u32,
    /// Name.
    pub name: &'a str,
    /// UUID.
    pub uuid: Uuid,
    /// Start in seconds since the epoch.
    pub started: u64,
}

/// The xenstore of one guest.
pub struct GuestStore {
    dirs: Dirs,
    link: StoreLink,
    ring: Ring,
    page: RingPage,
    domid: Domid,
    home: String,
    vm: String,
}

/// What pumping the ring did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pumped {
    /// The guest is to be notified.
    pub notify: bool,
    /// When to pump again.
    pub next: NextLook,
    /// The guest broke its ring: why.
    pub broken: Option<String>,
    /// What else is to be logged.
    pub lines: Vec<String>,
}

impl GuestStore {
    /// Makes the nodes of a domain and connects its ring. The store is started if need be.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub fn new(
        memory: &Arc<DomainMemory>,
        dirs: &Dirs,
        identity: &Identity<'_>,
        config: &DomainConfig,
    ) -> Result<Self, StoreError> {
        let setup = &memory.setup;
        let domid = u16::try_from(identity.domid).unwrap_or(u16::MAX);
        let home = format!("/local/domain/{domid}");
        let vm = format!("/vm/{}", identity.uuid);
        StoreClient::at_once(dirs, |to| {
            write_home(to, &home, &vm, memory, identity, config)?;
            write_vm(to, &vm, domid, &vm_nodes(identity, config, setup.vcpus))
        })?;
        kill_point("xendomain.nodes-written");
        let peer = Peer {
            domid,
            incarnation: incarnation()?,
            gfn: i64::try_from(setup.store_mfn).unwrap_or(i64::MAX),
            port: port::STORE,
        };
        let link = StoreLink::connect(dirs, peer)?;
        let base = setup.store_mfn.saturating_mul(PAGE);
        let page = RingPage { memory: memory.clone(), base };
        let ring = Ring::attach(&page);
        Ok(Self { dirs: dirs.clone(), link, ring, page, domid, home, vm })
    }

    /// What to poll for the store's sake.
    pub fn poll_fd(&self) -> PollFd<'_> {
        self.link.poll_fd()
    }

    /// Moves requests, replies and events.
    pub fn pump(&mut self) -> Pumped {
        let lines = self.turn();
        let was_broken = self.ring.error().is_some();
        let result = self.ring.pump(&self.page, self.link.relay());
        self.link.flush_now();
        match result {
            Ok(pumped) => Pumped { notify: pumped.notify, next: pumped.next, broken: None, lines },
            Err(_) if was_broken => Pumped { lines, ..Pumped::default() },
            Err(error) => Pumped {
                notify: true,
                next: NextLook::WhenAsked,
                broken: Some(error.to_string()),
                lines,
            },
        }
    }

    /// Keeps the connection to the store, without the ring; gives lines for the log.
    pub fn turn(&mut self) -> Vec<String> {
        self.link.turn().lines
    }

    /// Lets those know who watch `@releaseDomain` that the guest stopped.
    pub fn shut_down(&mut self) {
        self.link.relay().shut_down();
        self.link.flush_now();
    }

    fn write(&self, node: &str, value: &str) -> Result<(), StoreError> {
        let path = format!("{}/{node}", self.home);
        StoreClient::order(&self.dirs, |client| client.direct().write(&path, value))
    }

    /// Asks the guest to do something: `poweroff`, `halt`, `reboot`.
    ///
    /// # Errors
    /// When the node cannot be written; so for all methods below.
    pub fn request_shutdown(&mut self, word: &str) -> Result<(), StoreError> {
        self.write("control/shutdown", word)
    }

    /// Sends a magic SysRq key.
    #[expect(clippy::missing_errors_doc, reason = "see request_shutdown")]
    pub fn sysrq(&mut self, key: char) -> Result<(), StoreError> {
        self.write("control/sysrq", &key.to_string())
    }

    /// Sets the balloon target.
    #[expect(clippy::missing_errors_doc, reason = "see request_shutdown")]
    pub fn set_memory(&mut self, mib: u64) -> Result<(), StoreError> {
        self.write("memory/target", &mib.saturating_mul(1024).to_string())
    }

    /// Changes the name.
    #[expect(clippy::missing_errors_doc, reason = "see request_shutdown")]
    pub fn rename(&mut self, name: &str) -> Result<(), StoreError> {
        let names = [format!("{}/name", self.home), format!("{}/name", self.vm)];
        StoreClient::at_once(&self.dirs, |to| {
            names.iter().try_for_each(|path| to.write(path, name))
        })
    }

    /// Gives the domain another name and UUID, since a new one takes its own.
    #[expect(clippy::missing_errors_doc, reason = "see request_shutdown")]
    pub fn set_aside(&mut self, name: &str, uuid: Uuid) -> Result<(), StoreError> {
        let vm = format!("/vm/{uuid}");
        StoreClient::at_once(&self.dirs, |to| {
            let mut nodes = Vec::new();
            for key in VM_NODES {
                let value = match key {
                    "uuid" => Some(uuid.to_string().into_bytes()),
                    "name" => Some(name.as_bytes().to_vec()),
                    key => to.read(&format!("{}/{key}", self.vm))?,
                };
                nodes.extend(value.map(|value| (key, value)));
            }
            write_vm(to, &vm, self.domid, &nodes)?;
            to.remove(&self.vm)?;
            to.write(&format!("{}/vm", self.home), &vm)?;
            to.write(&format!("{}/name", self.home), name)
        })?;
        self.vm = vm;
        Ok(())
    }
}

/// A number that no other life of a domain's process has.
fn incarnation() -> std::io::Result<u64> {
    let bytes = Uuid::random()?.0;
    Ok(bytes.first_chunk().map_or(0, |chunk| u64::from_ne_bytes(*chunk)))
}

/// Nodes of the domain. New ones have the permissions of their parent: the guest may read them.
fn write_home(
    to: &mut Transaction<'_>,
    home: &str,
    vm: &str,
    memory: &DomainMemory,
    identity: &Identity<'_>,
    config: &DomainConfig,
) -> Result<(), StoreError> {
    let setup = &memory.setup;
    let kib = |mib: u64| mib.saturating_mul(1024).to_string();
    to.remove(home)?;
    to.write(home, "")?;
    to.permit(home, &["n0", &format!("r{}", identity.domid)])?;
    let own = [
        ("name", identity.name.to_owned()),
        ("domid", identity.domid.to_string()),
        ("vm", vm.to_owned()),
        ("memory/static-max", kib(config.memory.maximum)),
        ("memory/target", kib(config.memory.initial)),
        ("console/ring-ref", setup.console_mfn.to_string()),
        ("console/port", port::CONSOLE.to_string()),
        ("console/limit", CONSOLE_LIMIT.to_string()),
        ("console/type", "xenconsoled".to_owned()),
        ("console/output", "pty".to_owned()),
        ("store/ring-ref", setup.store_mfn.to_string()),
        ("store/port", port::STORE.to_string()),
        ("control/platform-feature-xs_reset_watches", "1".to_owned()),
        ("device", String::new()),
    ];
    for (node, value) in own {
        to.write(&format!("{home}/{node}"), value)?;
    }
    for vcpu in 0..setup.vcpus {
        to.write(&format!("{home}/cpu/{vcpu}/availability"), "online")?;
    }
    let guest = format!("n{}", identity.domid);
    for node in GUEST_NODES {
        let path = format!("{home}/{node}");
        to.write(&path, "")?;
        to.permit(&path, &[&guest])?;
    }
    Ok(())
}

/// Keys of [`vm_nodes`].
const VM_NODES: [&str; 9] = [
    "uuid",
    "name",
    "start_time",
    "on_poweroff",
    "on_reboot",
    "on_crash",
    "memory",
    "maxmem",
    "vcpus",
];

/// Nodes of the virtual machine, as xend made them.
fn vm_nodes(
    identity: &Identity<'_>,
    config: &DomainConfig,
    vcpus: u32,
) -> Vec<(&'static str, Vec<u8>)> {
    let events = &config.events;
    let values = [
        identity.uuid.to_string(),
        identity.name.to_owned(),
        identity.started.to_string(),
        events.poweroff.as_str().to_owned(),
        events.reboot.as_str().to_owned(),
        events.crash.as_str().to_owned(),
        config.memory.initial.to_string(),
        config.memory.maximum.to_string(),
        vcpus.to_string(),
    ];
    VM_NODES.into_iter().zip(values.map(String::into_bytes)).collect()
}

fn write_vm(
    to: &mut Transaction<'_>,
    vm: &str,
    domid: Domid,
    nodes: &[(&'static str, Vec<u8>)],
) -> Result<(), StoreError> {
    to.remove(vm)?;
    to.write(vm, "")?;
    to.permit(vm, &["n0", &format!("r{domid}")])?;
    nodes.iter().try_for_each(|(node, value)| to.write(&format!("{vm}/{node}"), value))
}
