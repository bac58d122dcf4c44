//! Opening and locking of what `disk=` entries name, and errors that help.

mod common;

use common::*;
use config::Disk;
use devices::block::{OpenError, Opened, open};
use devices::wire::{BlockConfig, BlockFormat, Report};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A child that another test forks has our descriptors, and so our locks, until it executes its
/// program: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

struct Place {
    folder: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Place {
    fn new() -> Self {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let place = Self { folder: tempfile::tempdir().unwrap(), _alone };
        place.file("raw.img", &pattern(1, 8192));
        place
    }

    fn file(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.folder.path().join(name), bytes).unwrap();
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn open(&self, spec: &str, domain: &str) -> Result<Opened, OpenError> {
        let spec = spec.replace('@', self.folder.path().to_str().unwrap());
        let disk = Disk::parse(&spec).unwrap_or_else(|error| panic!("{spec}: {error}"));
        open("disk[3]", &disk, domain, &self.folder.path().join("run"))
    }

    fn fails(&self, spec: &str) -> (String, String) {
        let error = self.open(spec, "new").unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("disk[3] '"), "{text}");
        eprintln!("{text}\n  {}", error.hint());
        (text, error.hint())
    }

    /// Domains noted in records.
    fn records(&self) -> usize {
        std::fs::read_dir(self.folder.path().join("run/locks")).map_or(0, Iterator::count)
    }

    fn qemu_img(&self, arguments: &[&str]) -> bool {
        let Some(tool) = qemu_img() else {
            eprintln!("skipped: there is no qemu-img");
            return false;
        };
        let done = Command::new(tool).args(arguments).current_dir(self.folder.path()).output();
        let done = done.unwrap();
        assert!(done.status.success(), "{arguments:?}: {done:?}");
        true
    }
}

#[test]
fn what_is_wrong_is_named_with_what_to_do() {
    let place = Place::new();
    place.file("empty.img", b"");
    place.file("raw.vhd", &[0; 1024]);
    std::fs::create_dir(place.folder.path().join("folder")).unwrap();
    for (spec, problem, hint) in [
        ("file:@/none.img,xvda,w", "none.img does not exist", "truncate -s"),
        ("file:none.img,xvda,w", "none.img does not exist", "from / on"),
        ("file:@/folder,xvda,w", "is a directory, not a file", "block device"),
        ("file:/dev/null,xvda,w", "is a character device, not a file", "block device"),
        ("phy:@/raw.img,xvda,w", "is a file, not a block device", "Use file:"),
        ("phy:no-such-device,xvda,w", "/dev/no-such-device does not exist", "path"),
        ("file:@/empty.img,xvda,w", "is empty", "truncate"),
        ("tap:qcow2:@/raw.img,xvda,w", "is no qcow2 image", "qemu-img info"),
        ("tap:vhd:@/raw.vhd,xvda,w", "format vhd are not supported", "convert -f vpc -O qcow2"),
        ("@/raw.img,vmdk,xvda,rw", "format vmdk are not supported", "convert -f vmdk"),
        ("nbd:host:10809,xvda,r", "script block-nbd is not supported", "of this host"),
        ("file:@/raw.img,xvda,w,driver", "driver domain driver", "of this host"),
        ("file:@/raw.img,xvda,w,0,x86_32-abi", "ring protocol", "of this host"),
        ("vdev=xvda,specification=virtio,target=@/raw.img", "virtio", "of this host"),
        ("vdev=xvda,backing=@/x,target=@/raw.img", "has no backing file", "Leave backing= out"),
    ] {
        let (text, found) = place.fails(spec);
        assert!(text.contains(problem), "{spec}: {text}");
        assert!(found.contains(hint), "{spec}: {found}");
    }
    assert_eq!(place.records(), 0, "nothing half-opened remains");
    assert!(place.open("file:@/raw.img,xvda,w", "free").is_ok(), "nor a lock");
}

#[test]
fn writers_are_alone_and_named() {
    let place = Place::new();
    let reader = place.open("file:@/raw.img,xvda,r", "reader").unwrap();
    let second = place.open("file:@/raw.img,xvdb,r", "second").unwrap();
    let (text, hint) = place.fails("file:@/raw.img,xvda,w");
    assert!(text.contains("in use by domains 'reader', 'second'"), "{text}");
    assert!(hint.contains("w!"));
    // The lock goes with the last descriptor, wherever that is; the record with the domain process.
    let kept: OwnedFd = second.files[0].try_clone().unwrap();
    drop((reader, second));
    assert_eq!(place.records(), 0);
    let (text, _) = place.fails("file:@/raw.img,xvda,w");
    assert!(text.contains("in use by another process"), "{text}");
    drop(kept);
    let writer = place.open("file:@/raw.img,xvda,w", "writer").unwrap();
    // By another name of the file, too.
    std::os::unix::fs::symlink(place.path("raw.img"), place.path("link.img")).unwrap();
    for spec in ["file:@/link.img,xvda,r", "file:@/link.img,xvda,w"] {
        let (text, _) = place.fails(spec);
        assert!(text.contains("in use by domain 'writer'"), "{text}");
    }
    let forced = place.open("file:@/raw.img,xvda,w!", "forced").unwrap();
    let (text, _) = place.fails("file:@/raw.img,xvda,w");
    assert!(text.contains("in use by domains 'forced', 'writer'"), "{text}");
    drop((writer, forced));
    // A record whose owner died is nobody's.
    let stat = std::fs::metadata(place.path("raw.img")).unwrap();
    use std::os::unix::fs::MetadataExt;
    let stale = format!("run/locks/{:x}-{:x}.1.0", stat.dev(), stat.ino());
    place.file(&stale, b"dead");
    let _live = place.open("file:@/raw.img,xvda,w", "live").unwrap();
    let (text, _) = place.fails("file:@/raw.img,xvda,w");
    assert!(text.contains("in use by domain 'live'"), "{text}");
    assert_eq!(place.records(), 1);
}

#[test]
fn what_is_opened_is_described() {
    let place = Place::new();
    let disk = place.open("file:@/raw.img,xvda,w", "d").unwrap();
    let config = BlockConfig { persistent: disk.config.persistent, ..raw() };
    assert_eq!((disk.config, disk.kind, disk.files.len()), (config, "file", 2));
    assert_eq!((disk.params, disk.physical_device), (place.path("raw.img"), None));
    assert!(disk.warnings.is_empty());
    let drive = place.open("@/raw.img,raw,hdc,rw,cdrom", "e").map(|_| ()).unwrap_err();
    assert!(drive.to_string().contains("in use by domain 'd'"));
    let empty = place.open(",hdc:cdrom,r", "d").unwrap();
    assert!(empty.config.cdrom && !empty.config.writable);
    let front = Front::new(1, 0);
    let process = Process::start(&front.guest, true);
    let files: Vec<&OwnedFd> = empty.files.iter().collect();
    assert!(matches!(process.attach(empty.config.clone(), &files), Report::Attached { .. }));
    match process.connect(front.nodes()) {
        Report::Connected { nodes, .. } => {
            assert_eq!((nodes["sectors"].as_str(), nodes["info"].as_str()), ("0", "5"));
        }
        other => panic!("{other:?}"),
    }
    place.file("odd.img", &[0; 1000]);
    let odd = place.open("file:@/odd.img,xvda,w", "d").unwrap();
    assert!(odd.warnings[0].contains("last 488 bytes"), "{:?}", odd.warnings);
}

#[test]
fn qcow2_with_backing_files_that_are_named() {
    let place = Place::new();
    if !place.qemu_img(&["create", "-q", "-f", "qcow2", "-F", "raw", "-b", "raw.img", "mid.qcow2"])
    {
        return;
    }
    let top = ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "mid.qcow2", "top.qcow2", "1M"];
    place.qemu_img(&top);
    let (text, hint) = place.fails("tap:qcow2:@/top.qcow2,xvda,w");
    assert!(text.contains("has the backing file 'mid.qcow2'"), "{text}");
    assert!(hint.contains("backing=mid.qcow2"), "{hint}");
    let chain = "format=qcow2,vdev=xvda,backing=@/mid.qcow2";
    let (text, _) = place.fails(&format!("{chain},target=@/top.qcow2"));
    assert!(text.contains("has the backing file 'raw.img'"), "{text}");
    let (text, _) = place.fails(&format!("{chain},backing=@/none,target=@/top.qcow2"));
    assert!(text.contains("none does not exist"), "{text}");
    let whole = format!("{chain},backing=@/raw.img,target=@/top.qcow2");
    let (text, _) = place.fails(&whole.replace(",target", ",backing=@/raw.img,target"));
    assert!(text.contains("raw.img has no backing file"), "{text}");

    let disk = place.open(&whole, "d").unwrap();
    assert_eq!(disk.config.backing, [BlockFormat::Qcow2, BlockFormat::Raw]);
    let (text, _) = place.fails("file:@/raw.img,xvda,w");
    assert!(text.contains("in use by another process"), "{text}");
    let warned = place.open("file:@/mid.qcow2,xvdb,r", "other").unwrap();
    assert!(warned.warnings.iter().any(|line| line.contains("looks like a qcow2 image")));
    for with_uring in [true, false] {
        serve(&place, &disk, with_uring);
    }
    drop(disk);
    assert_eq!(std::fs::read(place.path("raw.img")).unwrap(), pattern(1, 8192));
    place.qemu_img(&["check", "-q", "top.qcow2"]);
    place.qemu_img(&["convert", "-O", "raw", "top.qcow2", "out.img"]);
    let content = std::fs::read(place.path("out.img")).unwrap();
    assert_eq!(content[..4096], pattern(1, 8192)[..4096]);
    assert_eq!(content[4096..4608], pattern(5, 512));
    assert_eq!(content[4608..8192], pattern(1, 8192)[4608..]);
    assert!(content[8192..].iter().all(|byte| *byte == 0));
}

/// Reads through the chain, writes a sector, discards a cluster.
fn serve(place: &Place, disk: &Opened, with_uring: bool) {
    let mut front = Front::new(1, 0);
    let process = Process::start(&front.guest, with_uring);
    let files: Vec<&OwnedFd> = disk.files.iter().collect();
    let report = process.attach(disk.config.clone(), &files);
    assert!(matches!(report, Report::Attached { .. }), "{report:?}");
    match process.connect(front.nodes()) {
        Report::Connected { nodes, .. } => assert_eq!(nodes["sectors"], "2048"),
        other => panic!("{other:?}"),
    }
    assert_eq!(front.run(request(READ, 1, 0, &[Seg(DATA, 0, 7), Seg(DATA + 1, 0, 7)])), 0);
    assert_eq!(front.get(DATA, 0, 4096), pattern(1, 8192)[..4096]);
    front.set(DATA, 0, &pattern(5, 512));
    assert_eq!(front.run(request(WRITE, 2, 8, &[Seg(DATA, 0, 0)])), 0);
    front.set(DATA, 0, &pattern(6, 4096));
    assert_eq!(front.run(request(WRITE, 3, 512, &[Seg(DATA, 0, 7)])), 0);
    assert_eq!(front.run(request(FLUSH, 4, 0, &[])), 0);
    assert_eq!(front.run(request(READ, 5, 0, &[Seg(DATA, 0, 7), Seg(DATA + 1, 0, 7)])), 0);
    assert_eq!(front.get(DATA + 1, 0, 512), pattern(5, 512));
    assert_eq!(front.get(DATA + 1, 512, 3584), pattern(1, 8192)[4608..]);
    assert_eq!(front.run(discard(6, 256, 768, 0)), 0);
    assert_eq!(front.run(request(READ, 7, 512, &[Seg(DATA, 0, 7)])), 0);
    assert_eq!(front.get(DATA, 0, 4096), [0; 4096], "discarded");
    assert!(Path::new(&place.path("top.qcow2")).exists());
}

#[test]
fn a_qcow2_image_in_the_jail_opens_nothing_by_its_own() {
    let place = Place::new();
    if !place.qemu_img(&["create", "-q", "-f", "qcow2", "-F", "raw", "-b", "raw.img", "top.qcow2"])
    {
        return;
    }
    let front = Front::new(1, 0);
    let mut process = Process::start(&front.guest, true);
    let image = std::fs::File::options().read(true).write(true).open(place.path("top.qcow2"));
    let (image, requests) = (image.unwrap().into(), devices::block::in_flight_file().unwrap());
    let config = BlockConfig { format: BlockFormat::Qcow2, ..raw() };
    match process.attach(config.clone(), &[&image, &requests]) {
        Report::Refused { why, .. } => assert!(why.contains("names a backing file"), "{why}"),
        other => panic!("{other:?}"),
    }
    place.qemu_img(&["create", "-q", "-f", "qcow2", "-o", "data_file=data.raw", "out.qcow2", "1M"]);
    let (text, _) = place.fails("tap:qcow2:@/out.qcow2,xvda,w");
    assert!(text.contains("its data are in another file"), "{text}");
    let image = std::fs::File::options().read(true).write(true).open(place.path("out.qcow2"));
    match process.attach(config, &[&image.unwrap().into(), &requests]) {
        Report::Refused { why, .. } => eprintln!("{why}"),
        other => panic!("{other:?}"),
    }
    assert!(process.is_alive());
}
