//! Starting a domain's process: with a time limit, and called off when nobody waits for it.
//!
//! `xendomain` reads a [`CreateSpec`] on its standard input, detaches itself and answers with one
//! [`StartReply`] line. If it takes too long, or the client goes away, or the domain is destroyed
//! meanwhile, its process is killed: nothing half-done is left.

use crate::daemon::{Daemon, Starting, now};
use crate::look::Known;
use crate::refusal::check_config;
use crate::talk::{hinted, registry_failure};
use api::types::Started;
use config::DomainConfig;
use control::{
    CreateSpec, Entry, ErrorCode, Failure, Hint, LaunchError, MAX_REPLY, PathError, Record,
    RegistryError, StartReply, Uuid, check_name, find_program, in_scope, kill_point,
};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, timeout};

/// How long a domain may take to start: the device wait limit of Xen's xend.
const LIMIT: Duration = Duration::from_secs(100);
/// How long a killed domain's process may take to end once it listens no more.
const LAST_MOMENTS: Duration = Duration::from_secs(5);
/// Pause before another look at it.
const PAUSE: Duration = Duration::from_millis(10);
/// What finds the program for domains.
const PROGRAM_VARIABLE: &str = "XENOLITH_XENDOMAIN";

/// What is to be started.
#[derive(Debug)]
pub(crate) struct Order {
    pub config: DomainConfig,
    pub paused: bool,
    pub directory: PathBuf,
    pub environment: BTreeMap<String, String>,
    /// Whether it is a stored domain, whose name and UUID are its own.
    pub is_stored: bool,
}

/// A domain that is being started. Dropping it calls the start off.
struct Attempt {
    daemon: Arc<Daemon>,
    starting: Arc<Starting>,
    child: Option<Child>,
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let (daemon, starting) = (Arc::clone(&self.daemon), Arc::clone(&self.starting));
        let Some(mut child) = self.child.take() else { return daemon.forget(&starting) };
        let _dead_already = child.start_kill();
        kill_point("xend.create.abandoned");
        // Without a runtime the daemon itself ends.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                let _reaped = child.wait().await;
                daemon.forget(&starting);
            });
        }
    }
}

impl Daemon {
    /// Forgets a start that is over, and what it left.
    fn forget(self: &Arc<Self>, starting: &Arc<Starting>) {
        self.state().starting.retain(|other| !Arc::ptr_eq(other, starting));
        let _swept_at_the_next_look = self.scan();
        self.changed.notify_one();
    }

    /// Starts a domain and returns when it runs (or is paused, as asked).
    ///
    /// # Errors
    /// When the name is taken, the host cannot hold it, or it does not start; there is no such
    /// domain then.
    pub(crate) async fn launch(self: &Arc<Self>, mut order: Order) -> Result<Started, Failure> {
        kill_point("xend.create.begun");
        check_config(&order.config)?;
        let name = order.config.general.name.clone();
        let uuid = match &order.config.general.uuid {
            Some(uuid) => Uuid(uuid.0),
            None => Uuid::random().map_err(|error| host("draw a UUID", &error))?,
        };
        order.config.general.uuid = Some(config::Uuid(uuid.0));
        let mut attempt = self.reserve(&order, &name, uuid).await?;
        kill_point("xend.create.reserved");
        self.log(Record::info("starting domain").about(&name).with("uuid", uuid));
        let started = {
            let starting = Arc::clone(&attempt.starting);
            let run = timeout(LIMIT, attempt.run(order));
            tokio::select! {
                result = run => result.unwrap_or_else(|_| Err(too_slow(&name))),
                () = starting.cancel.notified() => Err(called_off(&name)),
            }
        };
        kill_point("xend.create.answered");
        match started {
            Ok(started) => {
                let entry = attempt.entry(&started);
                attempt.keep();
                entry.into_iter().for_each(|entry| self.welcome(entry));
                kill_point("xend.create.kept");
                Ok(started)
            }
            Err(failure) => {
                let record = Record::error("the domain did not start").about(&name);
                self.log(record.with("error", &failure));
                if let Some(mut child) = attempt.child.take() {
                    kill_point("xend.create.failed");
                    // Reaped too: nothing is left of it when the failure is told.
                    let _dead_already = child.kill().await;
                    kill_point("xend.create.reaped");
                }
                Err(failure)
            }
        }
    }

    /// Takes the name, the UUID and the memory.
    async fn reserve(
        self: &Arc<Self>,
        order: &Order,
        name: &str,
        uuid: Uuid,
    ) -> Result<Attempt, Failure> {
        check_name(name).map_err(|error| registry_failure(&error))?;
        let _held = self.names.lock().await;
        let known = self.known().await?;
        self.outlast(&known, name, uuid).await;
        self.check_free(name, uuid, order.is_stored)?;
        let mib = order.config.memory.initial;
        self.check_memory(name, mib, &known)?;
        kill_point("xend.create.checked");
        let cancel = tokio::sync::Notify::new();
        let starting = Arc::new(Starting { name: name.to_owned(), uuid, mib, cancel });
        self.state().starting.push(Arc::clone(&starting));
        Ok(Attempt { daemon: Arc::clone(self), starting, child: None })
    }

    /// Waits for the end of one of `known` that has the name or the UUID, if it was up and listens no more:
    /// a killed process lets go of its files one after the other. Lists leave it out already, so whoever
    /// saw it go may have its name. Returns after [`LAST_MOMENTS`] in any case.
    async fn outlast(&self, known: &[Known], name: &str, uuid: Uuid) {
        let is_meant = |entry: &Entry| entry.name == name || entry.uuid == uuid;
        for Known { entry, .. } in known.iter().filter(|known| known.info.is_none()) {
            let was_up = self.state().running.get(&entry.domid).is_some_and(|running| running.up);
            if is_meant(entry) && was_up {
                let end = Instant::now() + LAST_MOMENTS;
                while self.registry.lives(entry.domid) && Instant::now() < end {
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// Refuses a name or a UUID that a running, starting or stored domain has. A stored domain may
    /// have its own.
    ///
    /// # Errors
    /// With whoever has it.
    pub(crate) fn check_free(
        self: &Arc<Self>,
        name: &str,
        uuid: Uuid,
        is_stored: bool,
    ) -> Result<(), Failure> {
        self.check_name_free(name, is_stored.then_some(uuid))?;
        if let Some(entry) = self.live()?.into_iter().find(|entry| entry.uuid == uuid) {
            let domid = entry.domid;
            return Err(registry_failure(&RegistryError::UuidTaken { uuid, domid }));
        }
        let state = self.state();
        if state.starting.iter().any(|other| other.uuid == uuid) {
            return Err(starting_already(name));
        }
        match state.managed.iter().find(|kept| !is_stored && kept.uuid == uuid) {
            Some(kept) => {
                let text =
                    format!("UUID {uuid} already belongs to the stored domain {}", kept.name);
                Err(Failure::new(ErrorCode::Busy, text))
            }
            None => Ok(()),
        }
    }

    /// Refuses a name that a running, starting or stored domain has, but for the stored one that is
    /// meant.
    ///
    /// # Errors
    /// With whoever has it.
    pub(crate) fn check_name_free(
        self: &Arc<Self>,
        name: &str,
        stored: Option<Uuid>,
    ) -> Result<(), Failure> {
        if let Some(entry) = self.live()?.into_iter().find(|entry| entry.name == name) {
            let domid = entry.domid;
            return Err(registry_failure(&RegistryError::NameTaken { name: name.into(), domid }));
        }
        let state = self.state();
        if state.starting.iter().any(|other| other.name == name) {
            return Err(starting_already(name));
        }
        if state.managed.iter().any(|kept| kept.name == name && Some(kept.uuid) != stored) {
            let failure = format!("VM name '{name}' already exists as a stored domain");
            let hint = format!("'xm start {name}' starts it, 'xm delete {name}' removes it.");
            return Err(Failure::new(ErrorCode::Busy, failure).with_hint(hint));
        }
        Ok(())
    }
}

pub(crate) fn starting_already(name: &str) -> Failure {
    Failure::new(ErrorCode::Busy, format!("Domain '{name}' is being started already"))
}

impl Attempt {
    /// Runs the process until it says that the domain runs, or why not.
    async fn run(&mut self, order: Order) -> Result<Started, Failure> {
        let child = spawn(&self.daemon, &order)?;
        let child = self.child.insert(child);
        kill_point("xend.create.spawned");
        let spec = CreateSpec { config: order.config, paused: order.paused };
        let text = serde_json::to_vec(&spec).map_err(|error| host("write the order", &error))?;
        if let Some(mut input) = child.stdin.take() {
            match input.write_all(&text).await {
                // It ended without reading; its reply says why.
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                    return Err(host("talk to xendomain", &error));
                }
                _ => {}
            }
        }
        kill_point("xend.create.ordered");
        let output = child.stdout.take().ok_or_else(|| launch_failure(&LaunchError::Silent))?;
        let mut line = Vec::new();
        let mut output = BufReader::new(output).take(MAX_REPLY as u64);
        let read = output.read_until(b'\n', &mut line).await;
        read.map_err(|error| host("hear from xendomain", &error))?;
        kill_point("xend.create.replied");
        if line.is_empty() {
            return Err(launch_failure(&LaunchError::Silent));
        }
        match serde_json::from_slice(&line) {
            Ok(StartReply::Started(started)) => {
                Ok(Started { domid: started.domid, name: started.name })
            }
            Ok(StartReply::Failed(failure)) => Err(failure),
            Err(error) => Err(launch_failure(&LaunchError::Reply(error.into()))),
        }
    }

    /// The domain that has started.
    fn entry(&self, started: &Started) -> Option<Entry> {
        let domid = started.domid;
        Some(Entry {
            domid,
            name: started.name.clone(),
            uuid: self.starting.uuid,
            pid: self.child.as_ref()?.id()?,
            started: now(),
            directory: self.daemon.registry.dirs().domains().join(domid.to_string()),
        })
    }

    /// The domain stays.
    fn keep(mut self) {
        let Some(mut child) = self.child.take() else { return };
        let daemon = Arc::clone(&self.daemon);
        let Some(pid) = child.id() else { return };
        daemon.state().children.insert(pid, None);
        tokio::spawn(async move {
            let status = child.wait().await.ok();
            let mut state = daemon.state();
            // One that nobody watches (any more) has no use for it.
            if state.running.values().any(|running| running.entry.pid == pid) {
                state.children.insert(pid, status);
            } else {
                state.children.remove(&pid);
            }
        });
    }
}

fn spawn(daemon: &Daemon, order: &Order) -> Result<Child, Failure> {
    let program = program(&order.environment).map_err(|error| launch_failure(&error))?;
    let dirs = daemon.registry.dirs();
    let ours = |name: &str| {
        name.starts_with("XENOLITH_")
            && name != control::RUNTIME_VARIABLE
            && name != control::STATE_VARIABLE
    };
    let unrun = |error: io::Error| {
        let error = PathError::at("run", &program)(error);
        let directory = order.directory.display();
        host_failure(format!("{error} (in the directory {directory})"), error.hint())
    };
    let command = in_scope(&program, &order.config.general.name).map_err(unrun)?;
    let mut command = Command::from(command);
    // What systemd told its service is for no other process (sd_notify(3), sd_listen_fds(3)).
    for name in ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"] {
        command.env_remove(name);
    }
    command
        .envs(order.environment.iter().filter(|(name, _)| ours(name)))
        .env(control::RUNTIME_VARIABLE, &dirs.runtime)
        .env(control::STATE_VARIABLE, &dirs.state)
        .current_dir(&order.directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(unrun)
}

fn program(environment: &BTreeMap<String, String>) -> Result<PathBuf, LaunchError> {
    match environment.get(PROGRAM_VARIABLE).filter(|path| !path.is_empty()) {
        Some(path) if Path::new(path).is_file() => Ok(path.into()),
        Some(path) => Err(LaunchError::Missing { program: "xendomain", tried: vec![path.into()] }),
        None => find_program("xendomain", PROGRAM_VARIABLE),
    }
}

fn host(what: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(ErrorCode::Host, format!("Cannot {what}: {error}"))
}

fn host_failure(message: String, hint: Option<String>) -> Failure {
    hinted(Failure::new(ErrorCode::Host, message), hint)
}

fn launch_failure(error: &LaunchError) -> Failure {
    let hint = match error {
        LaunchError::Silent => Some("'xm dmesg NAME' prints its log, if it got that far.".into()),
        other => other.hint(),
    };
    host_failure(error.to_string(), hint)
}

fn too_slow(name: &str) -> Failure {
    let seconds = LIMIT.as_secs();
    let message = format!("Domain {name} did not start within {seconds} s; it was ended again.");
    Failure::new(ErrorCode::Timeout, message)
        .with_hint(format!("'xm dmesg {name}' shows how far it came."))
}

fn called_off(name: &str) -> Failure {
    Failure::new(ErrorCode::Ended, format!("Domain {name} was destroyed while it started."))
}
