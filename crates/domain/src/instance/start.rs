//! Starting a domain: register, build, jail.

use super::{Guest, Instance};
use crate::builder::{self, ClockStart, Order, Ramdisk};
use crate::console::Console;
use crate::devices::{Devices, Opened, Owner};
use crate::file::open_regular;
use crate::processor;
use crate::server::{Id, Server};
use crate::space::{self, CpuTime, DomainMemory, Doorbell, StartError};
use crate::spec::Spec;
use crate::xenstore::{GuestStore, Identity};
use control::xenstore::StoreError;
use control::{
    DeviceSpec, Dirs, Entry, ErrorCode, Failure, Hint, Log, Record, Registration, Registry,
    RegistryError, Started, Uuid, kill_point, kill_point_of,
};
use kernel::{KernelImage, Limits};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// vCPUs of a domain. The monitor runs one.
const VCPUS: u32 = 1;
/// Environment variable with the number for `Setup::flags`, for work on the monitor.
const FLAGS_VARIABLE: &str = "XENOLITH_FLAGS";

fn host(what: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(ErrorCode::Host, format!("Cannot {what}: {error}"))
}

impl Instance {
    /// Starts a domain.
    ///
    /// # Errors
    /// When it cannot be registered, built or started; nothing is left of it.
    pub fn start(mut spec: Spec) -> Result<Self, Failure> {
        let clock = ClockStart::now();
        let registration = register(&spec)?;
        kill_point("xendomain.registered");
        // From here on everybody finds the domain. Before, whoever wanted to call its start off by way of
        // another daemon was told that there is none: so it may not come up. Who still wants it asks again.
        if !spec.follows && !is_awaited() {
            let message = "Whoever asked for the domain has gone";
            return Err(Failure::new(ErrorCode::Ended, message));
        }
        // A restart keeps a UUID that was drawn.
        spec.create.config.general.uuid = Some(config::Uuid(registration.entry().uuid.0));
        let dirs = registration.registry().dirs();
        let entry = registration.entry();
        let path = dirs.log(&entry.name);
        let (mut log, log_error) = Log::of_domain(&path, "xendomain", &entry.name, entry.domid);
        log.write(Record::info("creating the domain").with("uuid", entry.uuid));
        kill_point("xendomain.logged");
        let started = Self::start_guest(&spec, &registration, clock);
        let (guest, devices, walls, server) = started.inspect_err(|failure| {
            log.write(Record::error("not started").with("error", failure));
            kill_point("xendomain.failed");
        })?;
        log.write(Record::info("started").with("jail", walls.join(" ")));
        let isolation = guest.memory.isolation;
        log.write(Record::info(format!("guest programs kept from their kernel by {isolation}")));
        log.write(Record::info(processor::describe(&spec.config().cpus.cpuid)));
        let mut instance = Self {
            console: Console::new(guest.memory.setup.console_mfn),
            paused: spec.create.paused,
            held: None,
            last_crash: spec.last_crash.clone(),
            spec,
            registration,
            guest,
            devices,
            server,
            log,
            walls,
            stopped: None,
        };
        if let Some(error) = log_error {
            let path = instance.log.path().display().to_string();
            instance.console.print(format!("xenolith: no log: {path}: {error}\r\n").as_bytes());
        }
        Ok(instance)
    }

    /// What the tool that asked for the domain is told.
    pub fn started(&self) -> Started {
        let entry = self.registration.entry();
        Started { domid: entry.domid, name: entry.name.clone() }
    }

    /// The log's file.
    pub fn log_path(&self) -> PathBuf {
        self.log.path().to_path_buf()
    }

    fn start_guest(
        spec: &Spec,
        registration: &Registration,
        clock: ClockStart,
    ) -> Result<(Guest, Devices<Id>, Vec<String>, Server), Failure> {
        let memory = Arc::new(build(spec, registration, clock)?);
        kill_point("xendomain.built");
        let entry = registration.entry();
        let dirs = registration.registry().dirs();
        let opened = open_devices(&spec.config().devices, entry, dirs)?;
        kill_point("xendomain.opened");
        let identity = Identity {
            domid: entry.domid,
            name: &entry.name,
            uuid: entry.uuid,
            started: entry.started,
        };
        let store =
            GuestStore::new(&memory, dirs, &identity, spec.config()).map_err(store_failure)?;
        kill_point("xendomain.in-store");
        let owner = Owner {
            dirs: dirs.clone(),
            domid: entry.domid,
            name: entry.name.clone(),
            memory: memory.clone(),
        };
        let devices = Devices::start(owner, opened)?;
        kill_point("xendomain.devices");
        let server = control::bind(&entry.socket())
            .and_then(Server::new)
            .map_err(|error| host("open the domain's control socket", &error))?;
        kill_point("xendomain.bound");
        let empty_root = space::empty_directory(&registration.registry().dirs().runtime)
            .map_err(|error| host("make an empty directory", &error))?;
        kill_point("xendomain.empty-root");
        let time = CpuTime::new();
        let start = space::Start {
            memory: &memory,
            name: &entry.name,
            empty_root: &empty_root,
            paused: spec.create.paused,
        };
        let (group, walls) = space::start(&start).map_err(|error| start_failure(&error))?;
        kill_point("xendomain.spaces");
        kill_point_of(group.leader(), "space.started");
        group.kill_points();
        space::keep_placed(entry.domid, group.leader(), memory.isolation);
        let doorbell = Doorbell::new(&memory)
            .map_err(|error| host("listen for the domain's events", &error))?;
        Ok((Guest::new(group, doorbell, memory, store, time), devices, walls.names(), server))
    }
}

/// Whether somebody waits for the answer on standard output (poll(2): `POLLERR` when a pipe has no reader).
fn is_awaited() -> bool {
    let output = rustix::stdio::stdout();
    let mut fds = [PollFd::new(&output, PollFlags::OUT)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let [fd] = match poll(&mut fds, Some(&at_once)) {
        Ok(_) => fds,
        Err(_) => return true,
    };
    !fd.revents().contains(PollFlags::ERR)
}

fn open_devices(
    config: &config::Devices,
    entry: &Entry,
    dirs: &Dirs,
) -> Result<Vec<Opened>, Failure> {
    let disks = config.disks.iter().cloned().map(DeviceSpec::Disk);
    let disks = disks.enumerate().map(|(at, disk)| ("disk", at, disk));
    let vifs = config.vifs.iter().map(|vif| DeviceSpec::Vif(Box::new(vif.clone())));
    let vifs = vifs.enumerate().map(|(at, vif)| ("vif", at, vif));
    let open = |(list, at, spec): (&str, usize, DeviceSpec)| {
        let index = u32::try_from(at).unwrap_or(u32::MAX);
        crate::devices::open(&format!("{list}[{at}]"), index, &spec, entry, dirs)
    };
    let channel = |(at, channel): (usize, &config::Channel)| {
        let index = u32::try_from(at).unwrap_or(u32::MAX);
        crate::devices::open_channel(&format!("channel[{at}]"), index, channel)
    };
    let channels = config.channels.iter().enumerate().map(channel);
    disks.chain(vifs).map(open).chain(channels).collect()
}

fn store_failure(error: StoreError) -> Failure {
    let failure = host("connect the domain to its xenstore", &error);
    match error {
        StoreError::Reach(error) => match error.hint() {
            Some(hint) => failure.with_hint(hint),
            None => failure,
        },
        _ => failure,
    }
}

fn start_failure(error: &StartError) -> Failure {
    let failure = Failure::new(ErrorCode::Host, error.to_string());
    match error {
        StartError::Missing(missing) => match missing.hint() {
            Some(hint) => failure.with_hint(hint),
            None => failure,
        },
        StartError::Memory(_) => failure,
        StartError::Open { .. } | StartError::Spawn { .. } => {
            failure.with_hint("The program must be readable and executable for everybody.")
        }
    }
}

fn register(spec: &Spec) -> Result<Registration, Failure> {
    let general = &spec.config().general;
    let uuid = match &general.uuid {
        Some(uuid) => Uuid(uuid.0),
        None => Uuid::random().map_err(|error| host("draw a UUID", &error))?,
    };
    let registered = Registry::open().and_then(|registry| registry.register(&general.name, uuid));
    registered.map_err(|error| {
        let code = match error {
            RegistryError::NameTaken { .. } | RegistryError::UuidTaken { .. } => ErrorCode::Busy,
            RegistryError::BadName { .. } => ErrorCode::Config,
            _ => ErrorCode::Host,
        };
        let failure = Failure::new(code, error.to_string());
        match error.hint() {
            Some(hint) => failure.with_hint(hint),
            None => failure,
        }
    })
}

fn build(
    spec: &Spec,
    registration: &Registration,
    clock: ClockStart,
) -> Result<DomainMemory, Failure> {
    let config = spec.config();
    let (memory_mib, maxmem_mib) = (config.memory.initial, config.memory.maximum);
    let path = spec.kernel()?;
    let file_bytes = std::fs::metadata(&path).map_or(0, |data| data.len());
    let (kernel, ram) = std::thread::scope(|scope| {
        let ram = scope.spawn(|| builder::prepare(memory_mib, maxmem_mib, file_bytes));
        let kernel = load_kernel(&path);
        (kernel, ram.join())
    });
    let kernel = kernel?;
    let ram = ram.map_err(|_| Failure::new(ErrorCode::Host, "Making the memory failed"))??;
    let order = Order {
        kernel: &kernel,
        ramdisk: spec.ramdisk().map(Ramdisk::open).transpose()?,
        command_line: &config.boot.command_line(),
        memory_mib,
        maxmem_mib,
        vcpus: VCPUS,
        domid: registration.entry().domid,
        uuid: registration.entry().uuid.0,
        cpuid: processor::policy(&config.cpus.cpuid)?,
    };
    let built = builder::build_in(&order, ram)?;
    let flags = std::env::var(FLAGS_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    DomainMemory::new(built, clock.finish(), flags)
        .map_err(|error| Failure::from(builder::BuildError::Memory(error)))
}

fn load_kernel(path: &Path) -> Result<KernelImage, Failure> {
    let limits = Limits::default();
    let failed = |error: &dyn std::fmt::Display| {
        Failure::new(ErrorCode::Kernel, format!("Kernel {}: {error}", path.display()))
    };
    let read = || -> io::Result<Vec<u8>> {
        let (file, size) = open_regular(path)?;
        let mut bytes = Vec::with_capacity(size.min(limits.max_output) as usize + 1);
        file.take(limits.max_output).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|error| {
        failed(&error).with_hint(match error.kind() {
            io::ErrorKind::PermissionDenied => {
                "Check the rights of the file and of the directories above it."
            }
            _ => "Check the path in 'kernel'.",
        })
    })?;
    KernelImage::load(bytes, &limits).map_err(|error| failed(&error))
}
