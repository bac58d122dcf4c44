//! Copies into the guest and out of it.

use super::session::{Input, Link};
use crate::exit;
use crate::message::{Kind, Outcome};
use crate::place::Place;
use crate::tree::{self, Progress};
use std::ffi::OsStr;
use std::io::{self, BufReader, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// The host is trusted with all bits of a mode.
const MODES: u32 = 0o7777;
/// Small entries travel together.
const BUFFER: usize = 16 << 10;

/// A path in the guest; relative ones begin at root's home.
fn absolute(path: &[u8]) -> PathBuf {
    super::command::home().join(OsStr::from_bytes(path))
}

/// Takes a tree of files from the host.
pub(super) fn put(link: &Link, input: Input, path: &[u8], name: &[u8]) {
    let mut input = BufReader::with_capacity(BUFFER, input);
    let placed = Place::find(&absolute(path), OsStr::from_bytes(name));
    let mut ignore = |_: Progress<'_>| {};
    match placed.and_then(|place| place.receive(&mut input, MODES, &mut ignore)) {
        Ok(()) => link.done(Outcome::Exited(0)),
        Err(error) => link.refuse(exit::FAULT, &format!("In the guest: {error}")),
    }
}

/// A session's output as a stream.
struct Output<'a>(&'a Link);

impl Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send_data(Kind::Data, bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Gives the host a tree of files.
pub(super) fn get(link: &Link, path: &[u8]) {
    let mut output = BufWriter::with_capacity(BUFFER, Output(link));
    let sent = tree::send(&absolute(path), &mut output)
        .and_then(|()| output.flush().map_err(tree::TreeError::Stream));
    match sent {
        Ok(()) => link.done(Outcome::Exited(0)),
        Err(error) => link.refuse(exit::FAULT, &format!("In the guest: {error}")),
    }
}
