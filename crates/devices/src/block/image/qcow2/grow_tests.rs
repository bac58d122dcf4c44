//! Every moment of a growth is an image that QEMU's tools find whole.

use super::super::tables::Place;
use super::*;
use std::cell::{Cell, RefCell};
use std::path::Path;
use std::process::{Command, Output};

/// A file in memory that remembers what was done to it, and fails at a step if it shall.
#[derive(Debug, Default)]
struct Recorder {
    bytes: RefCell<Vec<u8>>,
    steps: RefCell<Vec<Step>>,
    fails_at: Cell<Option<usize>>,
}

#[derive(Clone, Debug)]
enum Step {
    Write(u64, Vec<u8>),
    Sync,
}

fn put(bytes: &mut Vec<u8>, at: u64, what: &[u8]) {
    let (at, end) = (at as usize, at as usize + what.len());
    bytes.resize(bytes.len().max(end), 0);
    bytes[at..end].copy_from_slice(what);
}

impl Recorder {
    fn of(bytes: Vec<u8>) -> Self {
        Self { bytes: RefCell::new(bytes), ..Self::default() }
    }

    fn step(&self, step: Step) -> io::Result<()> {
        let number = self.steps.borrow().len();
        let fails = self.fails_at.get() == Some(number);
        if let Step::Write(at, what) = &step {
            // One that fails has written a part.
            let part = if fails { &what[..what.len() / 2] } else { what };
            put(&mut self.bytes.borrow_mut(), *at, part);
        }
        self.steps.borrow_mut().push(step);
        if fails { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl Place for Recorder {
    fn read(&self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        bytes.fill(0);
        let all = self.bytes.borrow();
        let start = usize::try_from(at).unwrap().min(all.len());
        let end = start.saturating_add(bytes.len()).min(all.len());
        bytes[..end - start].copy_from_slice(&all[start..end]);
        Ok(())
    }

    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.step(Step::Write(at, bytes.to_vec()))
    }

    fn sync(&self) -> io::Result<()> {
        self.step(Step::Sync)
    }

    fn length(&self) -> io::Result<Option<u64>> {
        Ok(Some(self.bytes.borrow().len() as u64))
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        self.bytes.borrow_mut().truncate(length as usize);
        Ok(())
    }
}

/// QEMU's tools; `None` where there are none.
fn qemu(tool: &str, arguments: &[&str]) -> Option<Output> {
    Command::new(tool).args(arguments).output().ok()
}

const WRITTEN: u64 = 300 << 10;

/// An image with something at its start, and not all of its clusters in order.
fn image(folder: &Path, options: &str, size: &str) -> Option<Vec<u8>> {
    let path = folder.join("image.qcow2");
    let name = path.to_str().unwrap();
    let made = qemu("qemu-img", &["create", "-q", "-f", "qcow2", "-o", options, name, size])?;
    assert!(made.status.success(), "{made:?}");
    let write = |pattern: u8, at: u64, length: u64| {
        let order = format!("write -P {pattern} {at} {length}");
        let done = qemu("qemu-io", &["-f", "qcow2", "-c", &order, name])?;
        assert!(done.status.success(), "{done:?}");
        Some(())
    };
    write(7, WRITTEN / 2, WRITTEN / 2)?;
    write(7, 0, WRITTEN / 2)?;
    Some(std::fs::read(path).unwrap())
}

/// Has QEMU look at an image: it is whole, has that size, and what was written is there.
fn is_whole(folder: &Path, bytes: &[u8], sizes: &[u64], what: &str) {
    let path = folder.join("moment.qcow2");
    std::fs::write(&path, bytes).unwrap();
    let name = path.to_str().unwrap();
    let checked = qemu("qemu-img", &["check", "-f", "qcow2", name]).unwrap();
    assert!(checked.status.success(), "{what}: {checked:?}");
    let info = qemu("qemu-img", &["info", "--output=json", "-f", "qcow2", name]).unwrap();
    let info: serde_json::Value = serde_json::from_slice(&info.stdout).unwrap();
    let size = info["virtual-size"].as_u64().unwrap();
    assert!(sizes.contains(&size), "{what}: {size}");
    let read = format!("read -P 7 0 {WRITTEN}");
    let mut orders = vec!["-f", "qcow2", "-c", &read];
    let end = format!("read -P 0 {} 512", size - 512);
    orders.extend(["-c", &end, name]);
    let read = qemu("qemu-io", &orders).unwrap();
    let text = String::from_utf8_lossy(&read.stdout).into_owned();
    assert!(read.status.success() && !text.contains("failed"), "{what}: {text}");
}

const IMAGES: [(&str, &str, u64); 9] = [
    ("cluster_size=65536", "1G", 1 << 30 | 512),
    ("cluster_size=65536", "1G", 5 << 30),
    // 4 TiB is what one cluster of the first table covers.
    ("cluster_size=65536", "4T", 9 << 40),
    ("cluster_size=4096", "100M", 3 << 30),
    ("cluster_size=512", "1M", 20 << 20),
    ("cluster_size=512,refcount_bits=1", "1M", 64 << 20),
    ("cluster_size=512,refcount_bits=64", "1M", 64 << 20),
    ("cluster_size=1024,compat=0.10", "2M", 64 << 20),
    ("cluster_size=2M", "1G", 1 << 50),
];

#[test]
fn an_image_is_whole_at_every_step_of_its_growth() {
    let folder = tempfile::tempdir().unwrap();
    for (options, size, wanted) in IMAGES {
        let Some(before) = image(folder.path(), options, size) else {
            eprintln!("skipped: there is no qemu-img or no qemu-io");
            return;
        };
        let file = Recorder::of(before.clone());
        let old = Header::read(&file).unwrap().pointers;
        let what = format!("{options} {size} to {wanted}");
        grow(&file, wanted).unwrap_or_else(|error| panic!("{what}: {error}"));
        let steps = file.steps.take();
        // Whatever order the host's cache writes in: the header follows when the rest is on the medium.
        let [fresh @ .., Step::Sync, Step::Write(Pointers::AT, header), Step::Sync] = &steps[..]
        else {
            panic!("{what}: {steps:?}")
        };
        assert!(header.len() <= 512 - Pointers::AT as usize, "one sector");
        assert!(fresh.iter().all(|step| matches!(step, Step::Write(..))), "{what}");
        let mut bytes = before;
        for (number, step) in steps.iter().enumerate() {
            let Step::Write(at, data) = step else { continue };
            if *at != Pointers::AT {
                let mut half = bytes.clone();
                put(&mut half, *at, &data[..data.len() / 2]);
                is_whole(folder.path(), &half, &[old.size], &format!("{what}, half of {number}"));
            }
            put(&mut bytes, *at, data);
            let sizes = [if *at == Pointers::AT { wanted } else { old.size }];
            is_whole(folder.path(), &bytes, &sizes, &format!("{what}, step {number}"));
        }
        // Once more, from where it is now.
        let again = Recorder::of(bytes);
        grow(&again, wanted * 2).unwrap();
        is_whole(folder.path(), &again.bytes.take(), &[wanted * 2], &format!("{what}, twice"));
    }
}

#[test]
fn an_image_is_as_it_was_if_a_step_fails() {
    let folder = tempfile::tempdir().unwrap();
    for (options, size, wanted) in IMAGES {
        let Some(before) = image(folder.path(), options, size) else { return };
        for number in 0..64 {
            let file = Recorder::of(before.clone());
            file.fails_at.set(Some(number));
            let result = grow(&file, wanted);
            if file.steps.borrow().len() <= number {
                assert!(number > 2 && result.is_ok());
                break;
            }
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::StorageFull);
            assert!(file.bytes.take() == before, "{options} {size}: step {number}");
        }
    }
}

#[test]
fn a_way_back_leads_back() {
    let folder = tempfile::tempdir().unwrap();
    let Some(before) = image(folder.path(), "cluster_size=512", "1M") else { return };
    let file = Recorder::of(before.clone());
    let undo = grow(&file, 1 << 30).unwrap();
    assert!(file.bytes.borrow().len() > before.len());
    undo.undo(&file).unwrap();
    assert!(file.bytes.take() == before);
}

#[test]
fn what_cannot_grow_is_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let Some(good) = image(folder.path(), "cluster_size=512", "1M") else { return };
    let refused = |change: &dyn Fn(&mut Vec<u8>), size: u64, why: &str| {
        let mut bytes = good.clone();
        change(&mut bytes);
        let file = Recorder::of(bytes);
        let error = grow(&file, size).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        assert!(file.steps.borrow().is_empty());
    };
    refused(&|_| (), 512, "longer than that");
    refused(&|_| (), u64::MAX - 511, "clusters of 512 bytes has 137438953472 bytes at most");
    refused(&|bytes| bytes[79] = 1, 2 << 30, "not clean");
    refused(&|bytes| bytes[95] = 1, 2 << 30, "bitmaps");
    refused(&|bytes| bytes[0] = 1, 2 << 30, "not that of a qcow2 image");
    refused(&|bytes| bytes[55] = 1, 2 << 30, "not where they can be");
    // The count of the first table is 0.
    let counts = |bytes: &mut Vec<u8>| {
        let file = Recorder::of(bytes.clone());
        let header = Header::read(&file).unwrap();
        let index = header.pointers.l1_at / header.cluster;
        let block = header.reftable(&file).unwrap()[(index / header.counts()) as usize];
        let at = (block + index % header.counts() * 2) as usize;
        bytes[at..at + 2].fill(0);
    };
    refused(&counts, 2 << 30, "check -r all");
}

#[test]
fn images_that_lie_are_borne() {
    let folder = tempfile::tempdir().unwrap();
    let Some(good) = image(folder.path(), "cluster_size=512", "1M") else { return };
    let mut random = 9_u64;
    let mut next = move || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        random >> 33
    };
    let mut grown = 0;
    for _ in 0..4000 {
        let mut bytes = good.clone();
        for _ in 0..=next() % 3 {
            // Its header, and its first tables.
            let at = if next() % 3 == 0 { 4 + next() % 100 } else { next() % 4096 };
            bytes[at as usize] = (next() % 256) as u8;
        }
        let file = Recorder::of(bytes);
        grown += u32::from(grow(&file, 40 << 20).is_ok());
        assert!(file.bytes.borrow().len() < 64 << 20);
    }
    assert!(grown > 400, "{grown}");
}

#[test]
fn clusters_in_use_behind_the_end_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut bytes) = image(folder.path(), "cluster_size=512", "1M") else { return };
    let header = Header::read(&Recorder::of(bytes.clone())).unwrap();
    let first = header.clusters(bytes.len() as u64);
    let block = header.reftable(&Recorder::of(bytes.clone())).unwrap();
    let block = block[(first / header.counts()) as usize];
    for index in (first + 2) % header.counts()..header.counts() - 1 {
        put(&mut bytes, block + index * 2, &[0, 1]);
    }
    let file = Recorder::of(bytes);
    grow(&file, 40 << 20).unwrap();
    let start = Header::read(&file).unwrap().pointers.l1_at / 512;
    assert_eq!(start % header.counts(), header.counts() - 1);
}
