//! A host for the tests: run-time directories of its own, domains served by threads of the test,
//! and pseudo-terminals.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use control::{
    Dirs, LineReader, MAX_REQUEST, Registration, Registry, Request, Uuid, WaitUntil, bind,
};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, tcgetattr};
use serde_json::{Value, json};

/// How long a test waits for what has to happen.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Directories of its own, removed at the end, and a daemon that serves them.
pub struct Host {
    daemon: Option<Daemon>,
    base: tempfile::TempDir,
    pub registry: Registry,
}

impl Host {
    pub fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        let dirs = Dirs { runtime: base.path().join("run"), state: base.path().join("state") };
        let registry = Registry::with_dirs(dirs).unwrap();
        Self { daemon: Some(Daemon::start(&registry)), registry, base }
    }

    /// The daemon is killed and another one takes over.
    pub fn restart_daemon(&mut self) {
        self.daemon = None;
        self.daemon = Some(Daemon::start(&self.registry));
    }

    /// No daemon serves them any more.
    pub fn end_daemon(&mut self) {
        self.daemon = None;
    }

    pub fn path(&self) -> &Path {
        self.base.path()
    }

    /// `xm`, to be run in this host.
    pub fn xm(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xm"));
        command
            .env("XENOLITH_RUNTIME_DIR", &self.registry.dirs().runtime)
            .env("XENOLITH_STATE_DIR", &self.registry.dirs().state)
            .env("TERM", "xterm")
            .env_remove("NO_COLOR")
            .current_dir(self.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs `xm` with `words` to its end.
    pub fn run(&self, words: &[&str]) -> Output {
        self.xm().args(words).output().unwrap()
    }

    /// A domain that is served by a thread until it is told to end.
    pub fn domain(&self, name: &str, writable: bool) -> Domain {
        let registration = self.registry.register(name, Uuid::random().unwrap()).unwrap();
        let listener = bind(&registration.entry().socket()).unwrap();
        let domid = registration.entry().domid;
        let info = info(&registration);
        let (tell, seen) = channel();
        let (console, consoles) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let (tell, console, info) = (tell.clone(), console.clone(), info.clone());
                std::thread::spawn(move || serve(stream, &info, writable, &tell, &console));
            }
        });
        Domain { registration: Some(registration), domid, seen, consoles }
    }
}

/// A daemon on a thread of the test; it ends when this is dropped.
struct Daemon {
    end: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Daemon {
    fn start(registry: &Registry) -> Self {
        let place = api::Place::new(registry.dirs());
        place.create().unwrap();
        drop(std::fs::remove_file(place.socket()));
        let listener = bind(&place.socket()).unwrap();
        let registry = registry.clone();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let daemon = xend::Daemon::open(registry, 0).unwrap();
                tokio::select! {
                    served = xend::serve(daemon, listener, None, None) => drop(served.unwrap()),
                    _ = ended => {}
                }
            });
        });
        Self { end: Some(end), thread: Some(thread) }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// A domain of the test.
pub struct Domain {
    registration: Option<Registration>,
    pub domid: u32,
    /// The requests that it got, without `info`.
    pub seen: Receiver<Request>,
    /// The guest's end of each console that was attached.
    pub consoles: Receiver<UnixStream>,
}

impl Domain {
    /// Leaves the registry.
    pub fn end(&mut self) {
        self.registration = None;
    }

    pub fn console(&self) -> UnixStream {
        self.consoles.recv_timeout(PATIENCE).unwrap()
    }

    pub fn request(&self) -> Request {
        self.seen.recv_timeout(PATIENCE).unwrap()
    }
}

fn info(registration: &Registration) -> Value {
    let entry = registration.entry();
    json!({
        "domid": entry.domid, "name": entry.name, "uuid": entry.uuid, "pid": entry.pid,
        "memory_mib": 128, "maxmem_mib": 256, "vcpus": 1,
        "state": {"running": false, "blocked": true, "paused": false, "shutdown": false,
                  "crashed": false, "dying": false},
        "shutdown_reason": null, "cpu_seconds": 1.25, "started": entry.started, "restarts": 0,
        "jail": ["seccomp"], "last_crash": null, "config": config_of(&entry.name),
    })
}

/// Figures as the domain process would report them: one disk, one vCPU that may run anywhere.
fn stats(info: &Value) -> Value {
    let affinity: Vec<u32> = (0..1024).collect();
    json!({
        "response": "stats", "domid": info["domid"], "name": info["name"], "state": info["state"],
        "cpu_seconds": 1.25, "memory_kib": 131_072, "maxmem_kib": 262_144, "resident_kib": 65_536,
        "vcpus": [{"number": 0, "online": true, "blocked": true, "cpu": 1, "cpu_seconds": 1.25,
                   "affinity": affinity}],
        "disks": [{"number": 51712, "counters": {"reads": 10, "sectors-read": 100}}],
        "interfaces": [],
    })
}

/// A configuration as the domain process would report it.
pub fn config_of(name: &str) -> Value {
    let text = format!("kernel = '/boot/vmlinuz'\nname = '{name}'\n");
    let loaded = config::parse_str(name, &text, &[]).unwrap();
    serde_json::to_value(loaded.config).unwrap()
}

fn serve(
    stream: UnixStream,
    info: &Value,
    writable: bool,
    tell: &Sender<Request>,
    console: &Sender<UnixStream>,
) {
    let mut lines = LineReader::new(MAX_REQUEST);
    while let Ok(Some(request)) = lines.read::<Request>(&mut &stream) {
        let reply = match &request {
            // The daemon waits for it to stop, which this one does not.
            Request::Wait { until: WaitUntil::Shutdown } => continue,
            Request::Info { .. } => {
                let mut reply = info.clone();
                reply["response"] = "info".into();
                reply
            }
            Request::Console => {
                let history = b"[    0.0] boot\r\n";
                let header =
                    json!({"response": "console", "history": history.len(), "writable": writable});
                (&stream).write_all(format!("{header}\n").as_bytes()).unwrap();
                (&stream).write_all(history).unwrap();
                drop(console.send(stream));
                return;
            }
            Request::Log => {
                let text = b"(XEN) first\n(XEN) second\n";
                (&stream).write_all(b"{\"response\":\"bytes\",\"length\":25}\n").unwrap();
                (&stream).write_all(text).unwrap();
                continue;
            }
            Request::Stats => stats(info),
            Request::Wait { .. } => {
                json!({"response": "ended", "reason": "poweroff", "as": "destroyed"})
            }
            Request::CrashReport => {
                json!({"response": "error", "code": "not-found", "message": "no report"})
            }
            _ => json!({"response": "ok"}),
        };
        if !matches!(request, Request::Info { .. } | Request::Stats) {
            drop(tell.send(request));
        }
        if (&stream).write_all(format!("{reply}\n").as_bytes()).is_err() {
            return;
        }
    }
}

/// A pseudo-terminal.
pub struct Pty {
    pub master: OwnedFd,
    pub slave: OwnedFd,
}

impl Pty {
    pub fn open() -> Self {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let flags =
            rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC;
        let slave = rustix::fs::open(name.as_c_str(), flags, rustix::fs::Mode::empty()).unwrap();
        Self { master, slave }
    }

    pub fn stdio(&self) -> Stdio {
        Stdio::from(self.slave.try_clone().unwrap())
    }

    /// What tells one setting of a terminal from another.
    pub fn settings(&self) -> String {
        fingerprint(&tcgetattr(&self.slave).unwrap())
    }

    pub fn type_in(&self, bytes: &[u8]) {
        rustix::io::write(&self.master, bytes).unwrap();
    }

    /// Reads the screen until it shows `wanted`.
    pub fn until(&self, wanted: &str) -> String {
        let mut screen = String::new();
        let deadline = Instant::now() + PATIENCE;
        while !screen.contains(wanted) {
            assert!(Instant::now() < deadline, "{wanted:?} did not come, only {screen:?}");
            let mut fds = [rustix::event::PollFd::new(&self.master, rustix::event::PollFlags::IN)];
            let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
            if rustix::event::poll(&mut fds, Some(&timeout)).unwrap() == 0 {
                continue;
            }
            let mut chunk = [0; 1024];
            let count = rustix::io::read(&self.master, &mut chunk).unwrap();
            screen.push_str(&String::from_utf8_lossy(&chunk[..count]));
        }
        screen
    }
}

fn fingerprint(termios: &Termios) -> String {
    format!(
        "{:?} {:?} {:?} {:?} {:?}",
        termios.input_modes,
        termios.output_modes,
        termios.control_modes,
        termios.local_modes,
        termios.special_codes
    )
}

/// Waits until `true`.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Reads everything in a thread.
pub fn drain(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        drop(from.read_to_end(&mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
