//! The tools' side of what is asked of a running domain's process.

use crate::client::{Asked, Daemon, bytes, path};
use crate::error::Error;
use crate::http::{Answer, percent_encoded};
use crate::types::{AllStats, CONNECTION, Device, Who};
use control::DomainStats;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixStream;

/// Longest line that comes with a connection, in bytes.
const LONGEST_LINE: u64 = 4096;

impl Daemon {
    /// `GET /v1/stats`.
    ///
    /// # Errors
    /// As [`Error`] says; so for all methods.
    pub fn all_stats(&self) -> Result<AllStats, Error> {
        self.get("/v1/stats")
    }

    /// `GET /v1/domains/{domain}/stats`.
    #[expect(clippy::missing_errors_doc, reason = "see all_stats")]
    pub fn stats(&self, word: &str) -> Result<DomainStats, Error> {
        self.get(&path(word, "/stats"))
    }

    /// `GET /v1/domains/{domain}/devices/{class}`.
    #[expect(clippy::missing_errors_doc, reason = "see all_stats")]
    pub fn devices(&self, word: &str, class: &str) -> Result<Vec<Device>, Error> {
        self.get(&path(word, &format!("/devices/{}", percent_encoded(class))))
    }

    /// `GET /v1/domains/{domain}/log`.
    #[expect(clippy::missing_errors_doc, reason = "see all_stats")]
    pub fn log(&self, word: &str) -> Result<Vec<u8>, Error> {
        self.tell(Asked::new("GET", &path(word, "/log"), None), bytes)?.answer
    }

    /// `GET /v1/domains/{domain}/crash-report`.
    #[expect(clippy::missing_errors_doc, reason = "see all_stats")]
    pub fn crash_report(&self, word: &str) -> Result<Vec<u8>, Error> {
        self.tell(Asked::new("GET", &path(word, "/crash-report"), None), bytes)?.answer
    }

    /// `POST /v1/domains/{domain}/connection`: a connection to its process, on which nothing was said
    /// yet. It does not end with the daemon.
    #[expect(clippy::missing_errors_doc, reason = "see all_stats")]
    pub fn connection(&self, word: &str) -> Result<(Who, UnixStream), Error> {
        let path = path(word, "/connection");
        let asked = Asked::new("POST", &path, None).upgrade(CONNECTION);
        self.tell(asked, handed_over)?.answer
    }
}

/// The domain in a line of JSON, and the descriptor that comes with it.
fn handed_over(mut answer: Answer) -> Result<(Who, UnixStream), Error> {
    if answer.status != 101 {
        bytes(answer)?;
        return Err(Error::Unexpected("no connection comes with it".into()));
    }
    let mut line = Vec::new();
    let limited = &mut BufReader::new((&mut answer).take(LONGEST_LINE));
    limited.read_until(b'\n', &mut line).map_err(Error::Broken)?;
    if !line.ends_with(b"\n") {
        return Err(Error::Broken(std::io::ErrorKind::UnexpectedEof.into()));
    }
    let who = serde_json::from_slice(&line);
    let who = who.map_err(|error| Error::Unexpected(error.to_string()))?;
    let file = answer.take_file();
    let file = file.ok_or_else(|| Error::Unexpected("no connection comes with it".into()))?;
    Ok((who, file.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::receive;
    use std::io::Write;

    const HEAD: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n";
    const WHO: &[u8] =
        b"{\"domid\":3,\"name\":\"one\",\"uuid\":\"00000000-0000-4000-8000-000000000001\"}\n";

    /// What a client makes of these bytes, the second part of which brings a connection along.
    fn handed(head: &[u8], line: &[u8], with: bool) -> Result<(Who, UnixStream), Error> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (end, mut other) = UnixStream::pair().unwrap();
        theirs.write_all(head).unwrap();
        if with {
            control::send_with(&theirs, line, &end).unwrap();
        } else {
            theirs.write_all(line).unwrap();
        }
        drop(theirs);
        other.write_all(b"hello").unwrap();
        handed_over(receive(ours).map_err(Error::Broken)?)
    }

    #[test]
    fn a_connection_comes_with_its_domain() {
        let (who, mut stream) = handed(HEAD, WHO, true).unwrap();
        assert_eq!((who.domid, who.name.as_str()), (Some(3), "one"));
        let mut text = [0; 5];
        stream.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"hello");
    }

    #[test]
    fn half_of_it_is_an_error() {
        assert!(matches!(handed(HEAD, WHO, false), Err(Error::Unexpected(_))));
        let torn = handed(HEAD, WHO.split_last().unwrap().1, true).unwrap_err();
        assert!(torn.is_break(), "{torn}");
        assert!(handed(HEAD, b"", false).unwrap_err().is_break());
        assert!(matches!(handed(HEAD, b"{}\n", true), Err(Error::Unexpected(_))));
        let refusal = b"HTTP/1.1 409 Conflict\r\n\r\n";
        let body = br#"{"code":"wrong-state","message":"Domain 'one' is not started"}"#;
        assert!(matches!(handed(refusal, body, false), Err(Error::Refused(_))));
    }
}
