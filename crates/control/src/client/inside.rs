//! Requests about a domain's inside: figures, memory, resets.

use super::{Client, ClientError, PATIENCE};
use crate::descriptor::receive_with;
use crate::image::MemoryImage;
use crate::line::{LineError, write_line};
use crate::protocol::{Ended, MAX_REQUEST, Request, Response};
use crate::stats::DomainStats;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// A domain that is reset starts anew before it answers.
const PATIENCE_OF_RESETS: Duration = Duration::from_secs(60);

impl Client {
    /// [`Request::Stats`].
    ///
    /// # Errors
    /// As [`Client::request`]; so for all methods below.
    pub fn stats(&mut self) -> Result<DomainStats, ClientError> {
        match self.request(&Request::Stats)? {
            Response::Stats(stats) => Ok(*stats),
            _ => Err(ClientError::Unexpected { domid: self.domid }),
        }
    }

    /// [`Request::MemoryLimit`].
    #[expect(clippy::missing_errors_doc, reason = "see stats")]
    pub fn limit_memory(&mut self, mib: u64) -> Result<(), ClientError> {
        self.order(&Request::MemoryLimit { mib })
    }

    /// [`Request::DebugKey`].
    #[expect(clippy::missing_errors_doc, reason = "see stats")]
    pub fn debug_key(&mut self, key: char) -> Result<(), ClientError> {
        self.order(&Request::DebugKey { key })
    }

    /// [`Request::Reset`].
    #[expect(clippy::missing_errors_doc, reason = "see stats")]
    pub fn reset(mut self) -> Result<Ended, ClientError> {
        let domid = self.domid;
        let patience = PATIENCE_OF_RESETS.max(PATIENCE);
        self.patience = patience;
        let set = self.stream.set_read_timeout(Some(patience));
        set.map_err(|source| ClientError::Connect { domid, source })?;
        match self.request(&Request::Reset)? {
            Response::Ended(ended) => Ok(ended),
            _ => Err(ClientError::Unexpected { domid }),
        }
    }

    /// [`Request::Memory`].
    #[expect(clippy::missing_errors_doc, reason = "see stats")]
    pub fn memory(mut self) -> Result<(MemoryImage, OwnedFd), ClientError> {
        let domid = self.domid;
        let written = write_line(&mut self.stream, &Request::Memory);
        written.map_err(|error| self.broken(error.into()))?;
        let (line, file) = self.line_with_descriptor().map_err(|error| self.broken(error))?;
        let response = serde_json::from_slice(&line).map_err(|error| self.broken(error.into()))?;
        match (response, file) {
            (Response::Memory(image), Some(file)) => Ok((*image, file)),
            (Response::Error(failure), _) => Err(ClientError::Refused(failure)),
            _ => Err(ClientError::Unexpected { domid }),
        }
    }

    /// [`Request::Channel`].
    #[expect(clippy::missing_errors_doc, reason = "see stats")]
    pub fn channel(mut self) -> Result<OwnedFd, ClientError> {
        let domid = self.domid;
        let written = write_line(&mut self.stream, &Request::Channel);
        written.map_err(|error| self.broken(error.into()))?;
        let (line, file) = self.line_with_descriptor().map_err(|error| self.broken(error))?;
        let response = serde_json::from_slice(&line).map_err(|error| self.broken(error.into()))?;
        match (response, file) {
            (Response::Channel, Some(file)) => Ok(file),
            (Response::Error(failure), _) => Err(ClientError::Refused(failure)),
            _ => Err(ClientError::Unexpected { domid }),
        }
    }

    /// One line, and the descriptor that comes with it.
    fn line_with_descriptor(&self) -> Result<(Vec<u8>, Option<OwnedFd>), LineError> {
        let (mut line, mut file) = (Vec::new(), None);
        loop {
            let mut bytes = [0; 4096];
            let (count, came) = receive_with(&self.stream, &mut bytes)?;
            file = came.or(file);
            if count == 0 {
                return Err(LineError::Torn);
            }
            line.extend_from_slice(bytes.get(..count).unwrap_or_default());
            if line.ends_with(b"\n") {
                return Ok((line, file));
            }
            if line.len() > MAX_REQUEST {
                return Err(LineError::TooLong { limit: MAX_REQUEST });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dirs, Registration, Registry, Uuid, bind};
    use std::fs::File;
    use std::io::{BufRead, BufReader, Read, Seek, Write};
    use std::thread::JoinHandle;

    /// A domain that answers one request with `reply`, and a descriptor of a file with it.
    fn serve(
        reply: &'static [u8],
        with: bool,
    ) -> (tempfile::TempDir, Registration, JoinHandle<()>) {
        let base = tempfile::tempdir().unwrap();
        let dirs = Dirs { runtime: base.path().join("run"), state: base.path().join("state") };
        let registry = Registry::with_dirs(dirs).unwrap();
        let registration = registry.register("one", Uuid::random().unwrap()).unwrap();
        let listener = bind(&registration.entry().socket()).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            BufReader::new(&stream).read_line(&mut String::new()).unwrap();
            let mut file: File = tempfile::tempfile().unwrap();
            file.write_all(b"memory").unwrap();
            let (first, rest) = reply.split_at(10);
            if with {
                crate::send_with(&stream, first, &file).unwrap();
            } else {
                stream.write_all(first).unwrap();
            }
            stream.write_all(rest).unwrap();
        });
        (base, registration, server)
    }

    const REPLY: &[u8] = b"{\"response\":\"memory\",\"frames\":7,\"shared_info\":8,\
        \"registers\":null,\"stopped\":true}\n";

    #[test]
    fn a_descriptor_comes_with_its_line() {
        let (_base, registration, server) = serve(REPLY, true);
        let (image, file) = Client::open(registration.entry()).unwrap().memory().unwrap();
        server.join().unwrap();
        assert_eq!((image.frames, image.stopped), (7, true));
        let (mut file, mut text) = (File::from(file), String::new());
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "memory");
    }

    #[test]
    fn a_line_without_its_descriptor_is_no_answer() {
        let (_base, registration, server) = serve(REPLY, false);
        let outcome = Client::open(registration.entry()).unwrap().memory();
        server.join().unwrap();
        assert!(matches!(outcome, Err(ClientError::Unexpected { .. })));
        let torn = &REPLY[..40];
        let (_base, registration, server) = serve(torn, true);
        let outcome = Client::open(registration.entry()).unwrap().memory();
        server.join().unwrap();
        assert!(matches!(outcome, Err(ClientError::Ended { .. })));
    }
}
