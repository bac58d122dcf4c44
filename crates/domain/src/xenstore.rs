//! The guest's xenstore: a store of its own, its nodes, and the ring that carries it.

use crate::space::DomainMemory;
use boundary::{PAGE, port};
use config::DomainConfig;
use control::Uuid;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use store::ring::{Ring, SharedPage};
use store::{Connection, Permissions, Quota, Store, StoreError};

/// Console output that is kept, in bytes, as the guest is told (`console/limit`).
const CONSOLE_LIMIT: usize = 1 << 20;
/// Nodes below the domain's own that the guest may write.
const GUEST_NODES: [&str; 11] = [
    "control/shutdown",
    "control/feature-poweroff",
    "control/feature-reboot",
    "control/feature-suspend",
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
    store: Store,
    connection: Connection,
    ring: Ring,
    page: RingPage,
    home: String,
    vm: String,
}

/// What pumping the ring did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pumped {
    /// The guest is to be notified.
    pub notify: bool,
    /// There is more to do at once.
    pub again: bool,
    /// The guest broke its ring: why.
    pub broken: Option<String>,
}

impl GuestStore {
    /// Makes the nodes of a domain and connects its ring.
    ///
    /// # Errors
    /// When a node cannot be made, which its checked configuration rules out.
    pub fn new(
        memory: &Arc<DomainMemory>,
        identity: &Identity<'_>,
        config: &DomainConfig,
    ) -> Result<Self, StoreError> {
        let setup = &memory.setup;
        let domid = u16::try_from(identity.domid).unwrap_or(u16::MAX);
        let mut store = Store::new(Quota::default());
        let home = format!("/local/domain/{domid}");
        let vm = format!("/vm/{}", identity.uuid);
        write_nodes(&mut store, &home, &vm, memory, identity, config)?;
        share_nodes(&mut store, &home, &vm, domid)?;
        let gfn = i64::try_from(setup.store_mfn).unwrap_or(i64::MAX);
        store.introduce(domid, gfn, port::STORE)?;
        let connection = Connection::open(&mut store, domid);
        let base = setup.store_mfn.saturating_mul(PAGE);
        let page = RingPage { memory: memory.clone(), base };
        let ring = Ring::attach(&page);
        Ok(Self { store, connection, ring, page, home, vm })
    }

    /// Moves requests, replies and events.
    pub fn pump(&mut self) -> Pumped {
        let was_broken = self.ring.error().is_some();
        match self.ring.pump(&self.page, &mut self.connection, &mut self.store) {
            Ok(pumped) => Pumped { notify: pumped.notify, again: pumped.more, broken: None },
            Err(_) if was_broken => Pumped::default(),
            Err(error) => Pumped { notify: true, again: false, broken: Some(error.to_string()) },
        }
    }

    /// Asks the guest to do something: `poweroff`, `halt`, `reboot`.
    ///
    /// # Errors
    /// When the node cannot be written.
    pub fn request_shutdown(&mut self, word: &str) -> Result<(), StoreError> {
        self.store.write(&format!("{}/control/shutdown", self.home), word)
    }

    /// Sends a magic SysRq key.
    ///
    /// # Errors
    /// When the node cannot be written.
    pub fn sysrq(&mut self, key: char) -> Result<(), StoreError> {
        self.store.write(&format!("{}/control/sysrq", self.home), key.to_string())
    }

    /// Sets the balloon target.
    ///
    /// # Errors
    /// When the node cannot be written.
    pub fn set_memory(&mut self, mib: u64) -> Result<(), StoreError> {
        let kib = mib.saturating_mul(1024).to_string();
        self.store.write(&format!("{}/memory/target", self.home), kib)
    }

    /// Changes the name.
    ///
    /// # Errors
    /// When the nodes cannot be written.
    pub fn rename(&mut self, name: &str) -> Result<(), StoreError> {
        self.store.write(&format!("{}/name", self.home), name)?;
        self.store.write(&format!("{}/name", self.vm), name)
    }
}

fn write_nodes(
    store: &mut Store,
    home: &str,
    vm: &str,
    memory: &DomainMemory,
    identity: &Identity<'_>,
    config: &DomainConfig,
) -> Result<(), StoreError> {
    let setup = &memory.setup;
    let kib = |mib: u64| mib.saturating_mul(1024).to_string();
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
        store.write(&format!("{home}/{node}"), value)?;
    }
    for vcpu in 0..setup.vcpus {
        store.write(&format!("{home}/cpu/{vcpu}/availability"), "online")?;
    }
    let events = &config.events;
    let shared = [
        ("uuid", identity.uuid.to_string()),
        ("name", identity.name.to_owned()),
        ("start_time", identity.started.to_string()),
        ("on_poweroff", events.poweroff.as_str().to_owned()),
        ("on_reboot", events.reboot.as_str().to_owned()),
        ("on_crash", events.crash.as_str().to_owned()),
    ];
    for (node, value) in shared {
        store.write(&format!("{vm}/{node}"), value)?;
    }
    Ok(())
}

/// Lets the guest read its nodes, and write those that are its own.
fn share_nodes(store: &mut Store, home: &str, vm: &str, domid: u16) -> Result<(), StoreError> {
    let guest = format!("r{domid}");
    let readable = Permissions::parse([b"n0".as_slice(), guest.as_bytes()])?;
    for tree in [home, vm] {
        let nodes: Vec<String> =
            store.dump(tree)?.iter().map(|record| record.path.as_str().to_owned()).collect();
        for node in nodes {
            store.set_permissions(&node, readable.clone())?;
        }
    }
    for node in GUEST_NODES {
        let path = format!("{home}/{node}");
        let mut parent = home.to_owned();
        for name in node.split('/') {
            parent = format!("{parent}/{name}");
            if !store.exists(&parent) {
                store.write(&parent, "")?;
                store.set_permissions(&parent, readable.clone())?;
            }
        }
        store.set_permissions(&path, Permissions::owned_by(domid))?;
    }
    Ok(())
}
