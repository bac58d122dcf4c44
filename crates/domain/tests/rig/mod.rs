//! Domains whose spaces run a stand-in for the monitor.

use control::{
    Client, Console, CreateSpec, Dirs, DomainInfo, Failure, LineReader, Registry, StartReply,
    Started,
};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The store's program, which lies beside the domain's; it is built if only this crate was.
fn store_program() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let folder = Path::new(env!("CARGO_BIN_EXE_xendomain")).parent().unwrap();
        let program = folder.join("xenstored");
        if !program.exists() {
            let mut build = Command::new(env!("CARGO"));
            build.args(["build", "--quiet", "--package", "xenstored", "--bin", "xenstored"]);
            if folder.ends_with("release") {
                build.arg("--release");
            }
            assert!(build.status().unwrap().success());
        }
        program
    })
}

/// The stand-in, built once; static, as a space's root is empty.
pub fn fake_space() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake/space.rs");
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fake-space");
        let built = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
            .args(["--edition", "2024", "-C", "opt-level=1", "-C", "target-feature=+crt-static"])
            .arg("-o")
            .args([&program, &source])
            .status()
            .unwrap();
        assert!(built.success(), "the stand-in compiles");
        program
    })
}

/// The smallest kernel that has what the builder wants: two segments and Xen notes.
fn kernel_file() -> Vec<u8> {
    const BASE: u64 = 0xffff_ffff_8000_0000;
    let mut notes = Vec::new();
    let mut note = |kind: u32, value: &[u8]| {
        notes.extend([4, value.len() as u32, kind].map(u32::to_le_bytes).concat());
        notes.extend(b"Xen\0");
        notes.extend(value);
        notes.resize(notes.len().next_multiple_of(4), 0);
    };
    note(1, &(BASE + (1 << 20)).to_le_bytes());
    note(3, &BASE.to_le_bytes());
    note(5, b"xen-3.0\0");
    note(6, b"linux\0");
    note(8, b"generic\0");
    note(15, &0x80_0000_0000u64.to_le_bytes());
    note(16, &1u32.to_le_bytes());
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend([2u16, 62].map(u16::to_le_bytes).concat());
    file.extend(1u32.to_le_bytes());
    file.extend([BASE + (1 << 20), 64, 0].map(u64::to_le_bytes).concat());
    file.extend(0u32.to_le_bytes());
    file.extend([64u16, 56, 2, 0, 0, 0].map(u16::to_le_bytes).concat());
    let data = 4096u64;
    let mut header = |kind: u32, from: u64, at: u64, length: u64| {
        file.extend([kind, 7].map(u32::to_le_bytes).concat());
        let fields = [from, BASE + at, at, length, length, 4096];
        file.extend(fields.map(u64::to_le_bytes).concat());
    };
    header(1, data, 1 << 20, 4096);
    header(4, data, 1 << 20, notes.len() as u64);
    file.resize(data as usize, 0);
    file.extend(&notes);
    file.resize(data as usize + 4096, 0x90);
    file
}

/// A place of its own for domains. Domains that are left are destroyed at the end.
pub struct Rig {
    base: tempfile::TempDir,
    pub registry: Registry,
}

impl Rig {
    pub fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        std::fs::write(base.path().join("vmlinuz-test"), kernel_file()).unwrap();
        let map = "ffffffff81000000 T start_of_test\n";
        std::fs::write(base.path().join("System.map-test"), map).unwrap();
        let dirs = Dirs { runtime: base.path().join("run"), state: base.path().join("state") };
        Self { registry: Registry::with_dirs(dirs).unwrap(), base }
    }

    pub fn path(&self) -> &Path {
        self.base.path()
    }

    /// A configuration whose command line is `script`; `more` are further lines.
    pub fn spec(&self, name: &str, script: &str, more: &str) -> CreateSpec {
        let text = format!(
            "name = \"{name}\"\nmemory = 32\nkernel = \"vmlinuz-test\"\nextra = \"{script}\"\n{more}\n"
        );
        let config = config::parse_str("test.cfg", &text, &[]).unwrap().config;
        CreateSpec { config, paused: false }
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xendomain"));
        command
            .current_dir(self.path())
            .env("XENOLITH_RUNTIME_DIR", self.path().join("run"))
            .env("XENOLITH_STATE_DIR", self.path().join("state"))
            .env("XENOLITH_SPACE", fake_space())
            .env("XENOLITH_XENSTORED", store_program())
            .env("XENOLITH_XENDOMAIN", env!("CARGO_BIN_EXE_xendomain"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        command
    }

    /// Starts a domain; also gives its process.
    pub fn launch(&self, spec: &CreateSpec) -> (Child, Result<Started, Failure>) {
        let mut child = self.command().spawn().unwrap();
        let text = serde_json::to_vec(spec).unwrap();
        child.stdin.take().unwrap().write_all(&text).unwrap();
        let mut output = child.stdout.take().unwrap();
        let reply = match LineReader::new(1 << 20).read(&mut output).unwrap().unwrap() {
            StartReply::Started(started) => Ok(started),
            StartReply::Failed(failure) => Err(failure),
        };
        (child, reply)
    }

    /// Starts a domain that is expected to work.
    pub fn start(&self, name: &str, script: &str, more: &str) -> Started {
        self.launch(&self.spec(name, script, more)).1.unwrap()
    }

    pub fn client(&self, domid: u32) -> Client {
        Client::connect(&self.registry, domid).unwrap()
    }

    pub fn info(&self, domid: u32) -> DomainInfo {
        self.client(domid).info().unwrap()
    }

    /// Waits until the information on a domain is as wanted.
    pub fn until(&self, domid: u32, wanted: impl Fn(&DomainInfo) -> bool) -> DomainInfo {
        let end = Instant::now() + PATIENCE;
        loop {
            let info = self.info(domid);
            if wanted(&info) {
                return info;
            }
            assert!(Instant::now() < end, "{info:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn console(&self, domid: u32) -> Reader {
        let console = self.client(domid).console().unwrap();
        console.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Reader { seen: console.received.clone(), console }
    }

    pub fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.registry.dirs().log(name)).unwrap()
    }

    /// Waits until no domain is left.
    pub fn until_empty(&self) {
        let end = Instant::now() + PATIENCE;
        while !self.registry.list().unwrap().is_empty() {
            assert!(Instant::now() < end, "{:?}", self.registry.list());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for entry in self.registry.list().unwrap_or_default() {
            if let Ok(mut client) = Client::open(&entry) {
                let _gone = client.destroy();
            }
        }
    }
}

/// A console that remembers what it read.
pub struct Reader {
    pub console: Console,
    pub seen: Vec<u8>,
}

impl Reader {
    /// Reads until `text` was seen; everything up to its end is then forgotten.
    pub fn expect(&mut self, text: &str) {
        let wanted = text.as_bytes();
        loop {
            let at = self.seen.windows(wanted.len()).position(|window| window == wanted);
            if let Some(at) = at {
                self.seen.drain(..at + wanted.len());
                return;
            }
            let mut bytes = [0; 4096];
            let count = self.console.stream.read(&mut bytes).unwrap();
            let seen = String::from_utf8_lossy(&self.seen);
            assert!(count > 0, "the console ended; expected {text:?}, saw {seen:?}");
            self.seen.extend(&bytes[..count]);
        }
    }

    /// Reads to the end.
    pub fn rest(mut self) -> Vec<u8> {
        self.console.stream.read_to_end(&mut self.seen).unwrap();
        self.seen
    }

    pub fn type_in(&mut self, text: &str) {
        self.console.stream.write_all(text.as_bytes()).unwrap();
    }
}
