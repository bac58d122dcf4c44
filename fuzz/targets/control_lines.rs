//! What a peer sends over a control socket, in pieces of any length: requests as a domain process
//! reads them, replies as a tool does. A line is an object or an error, memory is bounded by the
//! limit, and what was understood reads back as itself.
#![no_main]

use std::io::{self, Read};

use control::{LineReader, Request, Response, Uuid, check_name, write_line};
use libfuzzer_sys::fuzz_target;

/// Longest line in bytes.
const LIMIT: usize = 600;

/// Bytes in pieces: each begins with its length; an empty one is a read that would have to wait.
struct Pieces<'a> {
    rest: &'a [u8],
    piece: &'a [u8],
}

impl Read for Pieces<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() {
            let Some((len, rest)) = self.rest.split_first() else { return Ok(0) };
            let (piece, rest) = rest.split_at(usize::from(*len).min(rest.len()));
            (self.piece, self.rest) = (piece, rest);
            if piece.is_empty() {
                return Err(io::ErrorKind::WouldBlock.into());
            }
        }
        let count = self.piece.len().min(to.len());
        let (now, later) = self.piece.split_at(count);
        to[..count].copy_from_slice(now);
        self.piece = later;
        Ok(count)
    }
}

/// Reads until the stream ends or a line is wrong; what a non-blocking reader does.
fn read_all<T: serde::de::DeserializeOwned>(data: &[u8], mut each: impl FnMut(T)) {
    let mut from = Pieces { rest: data, piece: &[] };
    let mut reader = LineReader::new(LIMIT);
    // Every read takes a byte at least, or one of length.
    for _ in 0..=data.len() {
        match reader.read(&mut from) {
            Ok(Some(value)) => each(value),
            Ok(None) => return,
            Err(control::LineError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                assert!(!error.to_string().is_empty());
                return;
            }
        }
    }
    panic!("more results than bytes");
}

fuzz_target!(|data: &[u8]| {
    read_all(data, |request: Request| {
        let mut line = Vec::new();
        write_line(&mut line, &request).expect("memory");
        let mut reader = LineReader::new(line.len());
        let again = reader.read::<Request>(&mut line.as_slice()).expect("a line");
        assert!(again == Some(request) && reader.into_rest().is_empty());
    });
    read_all(data, |response: Response| {
        let mut line = Vec::new();
        write_line(&mut line, &response).expect("memory");
        assert!(LineReader::new(line.len()).read::<Response>(&mut line.as_slice()).is_ok());
    });
    let text = String::from_utf8_lossy(data);
    if check_name(&text).is_ok() {
        // A name becomes the name of a file.
        assert!(!text.contains(['/', '\0']) && text != "." && text != ".." && !text.is_empty());
    }
    if let Ok(uuid) = text.parse::<Uuid>() {
        assert_eq!(uuid.to_string().parse::<Uuid>().ok(), Some(uuid));
    }
});
