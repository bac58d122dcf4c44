//! The little of HTTP/1.1 that a client on a Unix socket needs (RFC 9112): one request for each
//! connection, and a body of known length, in chunks, or up to the end.

use control::receive_with;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

/// Longest head of an answer, in bytes.
const LONGEST_HEAD: u64 = 16 << 10;
/// Most header fields of an answer.
const MOST_FIELDS: usize = 64;
/// Longest line that gives a chunk's size, in bytes.
const LONGEST_SIZE: u64 = 256;

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// A word as a part of a path: everything but letters, digits and `-._~` as `%XX` (RFC 3986).
pub fn percent_encoded(word: &str) -> String {
    let mut text = String::new();
    for byte in word.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                text.push(char::from(byte));
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// What is to become of a connection after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After<'a> {
    /// It is closed.
    Close,
    /// This is spoken on it, if the server agrees (RFC 9110, 7.8).
    Upgrade(&'a str),
}

/// Sends a request.
pub(crate) fn send(
    mut stream: &UnixStream,
    method: &str,
    path: &str,
    body: Option<&[u8]>,
    after: After<'_>,
) -> io::Result<()> {
    let body = body.unwrap_or_default();
    let connection = match after {
        After::Close => "close".to_owned(),
        After::Upgrade(protocol) => format!("close, upgrade\r\nUpgrade: {protocol}"),
    };
    let mut text = format!(
        "{method} {path} HTTP/1.1\r\nHost: xend\r\nConnection: {connection}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    text.extend_from_slice(body);
    stream.write_all(&text)
}

/// A connection that keeps the descriptor that comes with its bytes.
#[derive(Debug)]
struct Carrier {
    stream: UnixStream,
    file: Option<OwnedFd>,
}

impl Read for Carrier {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (count, file) = receive_with(&self.stream, buffer)?;
        self.file = file.or(self.file.take());
        Ok(count)
    }
}

/// The beginning of an answer; its body can be read from it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    input: BufReader<Carrier>,
    left: Left,
}

/// What is to come of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// So many bytes.
    Bytes(u64),
    /// So many bytes of this chunk, then others.
    Chunk(u64),
    /// A new chunk; the first is not preceded by the end of another.
    NextChunk { is_first: bool },
    /// Whatever comes.
    UntilEnd,
}

/// Reads the head of an answer.
pub(crate) fn receive(stream: UnixStream) -> io::Result<Answer> {
    let mut input = BufReader::new(Carrier { stream, file: None });
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let room = LONGEST_HEAD.saturating_sub(head.len() as u64);
        let count = (&mut input).take(room).read_until(b'\n', &mut head)?;
        if count == 0 {
            return Err(match room {
                0 => wrong("the head of the answer is too long"),
                _ => io::ErrorKind::UnexpectedEof.into(),
            });
        }
    }
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let parsed = response.parse(&head).map_err(|error| wrong(&error.to_string()))?;
    let status = response.code.filter(|_| parsed.is_complete());
    let status = status.ok_or_else(|| wrong("the answer has no status"))?;
    let field = |name: &str| {
        let found = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
        found.and_then(|field| std::str::from_utf8(field.value).ok()).map(str::trim)
    };
    let left =
        if field("transfer-encoding").is_some_and(|word| word.eq_ignore_ascii_case("chunked")) {
            Left::NextChunk { is_first: true }
        } else {
            match field("content-length") {
                Some(length) => Left::Bytes(length.parse().map_err(|_| wrong("no length"))?),
                None => Left::UntilEnd,
            }
        };
    Ok(Answer { status, input, left })
}

impl Answer {
    /// The whole body, if it is not longer than `most`.
    pub(crate) fn body(mut self, most: u64) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        let count = (&mut self).take(most + 1).read_to_end(&mut body)?;
        if count as u64 > most { Err(wrong("the answer is too long")) } else { Ok(body) }
    }

    pub(crate) fn stream(&self) -> &UnixStream {
        &self.input.get_ref().stream
    }

    /// The descriptor that came with what was read so far.
    pub(crate) fn take_file(&mut self) -> Option<OwnedFd> {
        self.input.get_mut().file.take()
    }

    /// Reads the line that begins a chunk.
    fn next_chunk(&mut self, is_first: bool) -> io::Result<()> {
        let mut line = Vec::new();
        if !is_first {
            (&mut self.input).take(2).read_until(b'\n', &mut line)?;
            if line != b"\r\n" {
                return Err(wrong("a chunk is longer than it said"));
            }
            line.clear();
        }
        (&mut self.input).take(LONGEST_SIZE).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let text = std::str::from_utf8(&line).unwrap_or_default();
        let size = text.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(size, 16).map_err(|_| wrong("a chunk has no size"))?;
        // Trailers are of no interest.
        self.left = if size == 0 { Left::Bytes(0) } else { Left::Chunk(size) };
        Ok(())
    }
}

impl Read for Answer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if let Left::NextChunk { is_first } = self.left {
            self.next_chunk(is_first)?;
        }
        let (Left::Bytes(most) | Left::Chunk(most)) = self.left else {
            return self.input.read(buffer);
        };
        if most == 0 {
            return Ok(0);
        }
        let count = (&mut self.input).take(most).read(buffer)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let rest = most.saturating_sub(count as u64);
        self.left = match self.left {
            Left::Chunk(_) if rest == 0 => Left::NextChunk { is_first: false },
            Left::Chunk(_) => Left::Chunk(rest),
            _ => Left::Bytes(rest),
        };
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &[u8]) -> io::Result<(u16, Vec<u8>)> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(text).unwrap();
        drop(theirs);
        let answer = receive(ours)?;
        let status = answer.status;
        Ok((status, answer.body(100)?))
    }

    #[test]
    fn bodies_of_all_three_kinds() {
        let known = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef";
        assert_eq!(answer(known).unwrap(), (200, b"abc".to_vec()));
        let chunked = b"HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n\
            3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n";
        assert_eq!(answer(chunked).unwrap(), (404, b"abc0123456789".to_vec()));
        let open = b"HTTP/1.0 200 OK\r\n\r\nabc";
        assert_eq!(answer(open).unwrap(), (200, b"abc".to_vec()));
    }

    #[test]
    fn torn_and_endless_answers_are_errors() {
        for text in [
            &b""[..],
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\nabc",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n",
            b"SMTP\r\n\r\n",
        ] {
            assert!(answer(text).is_err(), "{}", String::from_utf8_lossy(text));
        }
        let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(20_000));
        assert!(answer(long.as_bytes()).is_err());
        let body = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(101));
        assert!(answer(body.as_bytes()).is_err());
    }

    #[test]
    fn words_become_parts_of_a_path() {
        assert_eq!(percent_encoded("serv1.x_y-z"), "serv1.x_y-z");
        assert_eq!(percent_encoded("a/b ?é"), "a%2Fb%20%3F%C3%A9");
    }
}
