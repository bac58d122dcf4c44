//! What a guest's agent, or a host, says on a channel: frames that begin and break off anywhere,
//! requests, and trees of files. Memory stays bounded, what was understood reads back as itself, and
//! a tree makes nothing but what it is let.
#![no_main]

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Instant;

use devices::channel::Sessions;
use guest_agent::frame::{Decoder, encode};
use guest_agent::request::Request;
use guest_agent::tree;
use libfuzzer_sys::fuzz_target;

/// A folder of this process, in memory where there is such a place.
fn folder() -> &'static PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let memory = PathBuf::from("/dev/shm");
        let base = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let folder = base.join(format!("channel-frames-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("inner")).expect("a folder");
        folder
    })
}

fn frames(data: &[u8]) {
    let mut decoder = Decoder::default();
    for piece in data.chunks(7) {
        decoder.push(piece);
    }
    while let Some(frame) = decoder.next_frame() {
        let mut bytes = Vec::new();
        encode(frame.session, frame.kind, &frame.payload, &mut bytes);
        let mut again = Decoder::default();
        again.push(&bytes);
        assert_eq!(again.next_frame().as_ref(), Some(&frame));
        if let Some(request) = Request::decode(&frame.payload) {
            assert_eq!(request.encode().as_deref(), Some(frame.payload.as_slice()));
        }
    }
}

fn sessions(data: &[u8]) {
    let now = Instant::now();
    let mut sessions = Sessions::new(1, now);
    sessions.connected(true);
    sessions.hear(data, now);
    // As frames, too: by chance few are whole.
    for piece in data.chunks(20) {
        if let [session, kind, payload @ ..] = piece {
            let mut bytes = Vec::new();
            encode(u16::from(session % 3), kind % 18, payload, &mut bytes);
            sessions.hear(&bytes, now);
            sessions.pump(now);
        }
    }
    assert!(sessions.to_guest().len() < 128 << 10);
}

fn trees(mut data: &[u8]) {
    let inner = folder().join("inner");
    let parent = File::open(&inner).expect("the folder");
    let _either = tree::receive(&mut data, parent.as_fd(), OsStr::new("new"), 0o700, &mut |_| {});
    let names = |path: &PathBuf| std::fs::read_dir(path).expect("the folder").count();
    assert!(names(folder()) == 1 && names(&inner) <= 1);
    let new = inner.join("new");
    let _was_not_there = std::fs::remove_file(&new).or_else(|_| std::fs::remove_dir_all(&new));
    assert_eq!(names(&inner), 0);
}

fuzz_target!(|data: &[u8]| {
    frames(data);
    sessions(data);
    trees(data);
});
