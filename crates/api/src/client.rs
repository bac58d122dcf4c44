//! The tools' side.

use crate::error::Error;
use crate::http::{self, After, Answer, percent_encoded};
use crate::place::reach;
use crate::types::{
    Claim, Create, Destroyed, Domain, Event, Host, Managed, Past, Rename, Replace, Shutdown, Start,
    Started, Status, Store, Stored, Who,
};
use control::{Dirs, ErrorCode, Failure, ShutdownKind, Uuid, kill_point};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How long an answer may take; a destroyed domain has 10 s to answer and 10 s to die.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest answer, in bytes: some thousand domains.
const LONGEST: u64 = 256 << 20;
/// Longest event, in bytes.
const LONGEST_EVENT: u64 = 1 << 20;
/// Attempts at a request whose connection broke.
const MOST_ATTEMPTS: u32 = 5;
/// How often a domain is looked at that another attempt is starting.
const POLL: Duration = Duration::from_millis(50);

/// The daemon of these directories.
#[derive(Clone, Debug)]
pub struct Daemon {
    dirs: Dirs,
}

/// A request whose answer may take long: the descriptor becomes readable with it. Dropping it
/// calls the request off.
#[derive(Debug)]
pub struct Pending {
    stream: UnixStream,
}

impl AsFd for Pending {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// The stream of events.
#[derive(Debug)]
pub struct Events {
    answer: Answer,
    lines: control::LineReader,
}

impl Events {
    /// The next event; `None` when the stream or `patience` has ended: then begin a new stream, and
    /// look at the list for what was missed.
    ///
    /// # Errors
    /// When something arrives that is no event.
    pub fn next(&mut self, patience: Option<Duration>) -> Result<Option<Event>, Error> {
        let patience = patience.map(|time| time.max(Duration::from_millis(1)));
        self.answer.stream().set_read_timeout(patience).map_err(Error::Broken)?;
        match self.lines.read(&mut self.answer) {
            Ok(event) => Ok(event),
            // The place in the stream is lost.
            Err(control::LineError::Io(_) | control::LineError::Torn) => Ok(None),
            Err(error) => Err(Error::Unexpected(error.to_string())),
        }
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.answer.stream().as_fd()
    }
}

/// Whether a connection broke as it does when the daemon is killed or ends.
fn is_break(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::ConnectionAborted
    )
}

/// Is the domain that an order is for no more, or stored and not started (any more), or did it end before
/// it answered?
fn has_ended(error: &Error) -> bool {
    matches!(error.code(), Some(ErrorCode::NotFound | ErrorCode::WrongState | ErrorCode::Ended))
}

/// What an answer says.
fn parse<T: DeserializeOwned>(answer: Answer) -> Result<T, Error> {
    let unexpected = |error: serde_json::Error| Error::Unexpected(error.to_string());
    serde_json::from_slice(&bytes(answer)?).map_err(unexpected)
}

/// An answer as it is, unless the daemon refuses.
pub(crate) fn bytes(answer: Answer) -> Result<Vec<u8>, Error> {
    let status = answer.status;
    let body = answer.body(LONGEST).map_err(Error::Broken)?;
    if (200..300).contains(&status) {
        return Ok(body);
    }
    match serde_json::from_slice::<Failure>(&body) {
        Ok(failure) => Err(Error::Refused(failure)),
        Err(_) => Err(Error::Unexpected(format!("HTTP status {status}"))),
    }
}

/// A request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    method: &'a str,
    path: &'a str,
    body: Option<&'a [u8]>,
    after: After<'a>,
}

impl<'a> Asked<'a> {
    pub(crate) fn new(method: &'a str, path: &'a str, body: Option<&'a [u8]>) -> Self {
        Self { method, path, body, after: After::Close }
    }

    /// With another protocol after the answer.
    pub(crate) fn upgrade(self, protocol: &'a str) -> Self {
        Self { after: After::Upgrade(protocol), ..self }
    }
}

/// An answer, and whether the request may have been carried out before: its connection broke.
pub(crate) struct Told<T> {
    pub(crate) answer: T,
    again: bool,
}

impl Daemon {
    /// The daemon of these directories, which need not run yet.
    pub fn new(dirs: Dirs) -> Self {
        Self { dirs }
    }

    /// Sends a request, to a new daemon if the present one is killed meanwhile.
    pub(crate) fn tell<T>(
        &self,
        asked: Asked<'_>,
        read: impl Fn(Answer) -> Result<T, Error>,
    ) -> Result<Told<Result<T, Error>>, Error> {
        let mut attempt = 1;
        loop {
            let result = self.begin(asked).and_then(|pending| pending.read(&read));
            match result {
                Err(Error::Broken(error)) if is_break(&error) && attempt < MOST_ATTEMPTS => {
                    attempt += 1;
                }
                Err(error @ Error::Refused(_)) => {
                    return Ok(Told { answer: Err(error), again: attempt > 1 });
                }
                Err(error) => return Err(error),
                Ok(answer) => return Ok(Told { answer: Ok(answer), again: attempt > 1 }),
            }
        }
    }

    fn begin(&self, asked: Asked<'_>) -> Result<Pending, Error> {
        let stream = reach(&self.dirs)?;
        kill_point("request.connected");
        let set = stream.set_read_timeout(Some(PATIENCE));
        set.and_then(|()| stream.set_write_timeout(Some(PATIENCE))).map_err(Error::Broken)?;
        match http::send(&stream, asked.method, asked.path, asked.body, asked.after) {
            // It may have refused before it read everything; its answer tells.
            Err(error) if !is_break(&error) => Err(Error::Broken(error)),
            _ => {
                kill_point("request.sent");
                Ok(Pending { stream })
            }
        }
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.tell(Asked::new("GET", path, None), parse)?.answer
    }

    fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Told<Result<T, Error>>, Error> {
        self.tell(Asked::new("POST", path, Some(&json(body)?)), parse)
    }

    /// `GET /v1/host`.
    ///
    /// # Errors
    /// As [`Error`] says; so for all methods.
    pub fn host(&self) -> Result<Host, Error> {
        self.get("/v1/host")
    }

    /// `GET /v1/domains`, in brief: without the configurations of domains that run.
    #[expect(clippy::missing_errors_doc, reason = "see host")]
    pub fn domains(&self) -> Result<Vec<Domain>, Error> {
        self.get("/v1/domains?brief=true")
    }

    /// `GET /v1/domains`, all of it.
    #[expect(clippy::missing_errors_doc, reason = "see host")]
    pub fn domains_in_full(&self) -> Result<Vec<Domain>, Error> {
        self.get("/v1/domains")
    }

    /// `GET /v1/domains/{domain}`.
    #[expect(clippy::missing_errors_doc, reason = "see host")]
    pub fn domain(&self, word: &str) -> Result<Domain, Error> {
        self.get(&path(word, ""))
    }

    /// `GET /v1/claims`.
    #[expect(clippy::missing_errors_doc, reason = "see host")]
    pub fn claims(&self) -> Result<Vec<Claim>, Error> {
        self.get("/v1/claims")
    }

    /// A connection on which nothing was said yet, for whoever speaks HTTP himself.
    #[expect(clippy::missing_errors_doc, reason = "see host")]
    pub fn connect(&self) -> Result<UnixStream, Error> {
        Ok(reach(&self.dirs)?)
    }

    /// `GET /v1/history`.
    #[expect(clippy::missing_errors_doc, reason = "see host")]
    pub fn history(&self) -> Result<Vec<Past>, Error> {
        self.get("/v1/history")
    }

    /// `GET /v1/events`; what happens after this returns is in the stream.
    #[expect(clippy::missing_errors_doc, reason = "see host")]
    pub fn events(&self) -> Result<Events, Error> {
        let mut attempt = 1;
        loop {
            let pending = self.begin(Asked::new("GET", "/v1/events", None))?;
            match http::receive(pending.stream) {
                Ok(answer) if answer.status == 200 => {
                    let lines = control::LineReader::new(LONGEST_EVENT as usize);
                    let mut events = Events { answer, lines };
                    // The first says that the stream has begun.
                    if events.next(Some(PATIENCE))?.is_some() {
                        return Ok(events);
                    }
                }
                Ok(answer) => {
                    return Err(parse::<()>(answer)
                        .err()
                        .unwrap_or_else(|| Error::Unexpected("no stream of events".into())));
                }
                Err(error) if is_break(&error) => {}
                Err(error) => return Err(Error::Broken(error)),
            }
            if attempt >= MOST_ATTEMPTS {
                return Err(Error::Broken(io::ErrorKind::UnexpectedEof.into()));
            }
            attempt += 1;
        }
    }

    /// `POST /v1/domains`, whose answer comes when the domain runs. The configuration must have a
    /// UUID: by it the domain is known again if the daemon is killed meanwhile.
    #[expect(clippy::missing_errors_doc, reason = "see host")]
    pub fn create(&self, create: &Create) -> Result<Pending, Error> {
        self.begin(Asked::new("POST", "/v1/domains", Some(&json(create)?)))
    }

    /// `POST /v1/managed/{domain}/start`, whose answer comes when the domain runs.
    #[expect(clippy::missing_errors_doc, reason = "see host")]
    pub fn start(&self, word: &str, start: &Start) -> Result<Pending, Error> {
        let path = format!("/v1/managed/{}/start", percent_encoded(word));
        self.begin(Asked::new("POST", &path, Some(&json(start)?)))
    }

    /// What became of a start whose answer did not come because the daemon was killed: `None` if
    /// there is no such domain and it can be started again.
    #[expect(clippy::missing_errors_doc, reason = "see host")]
    pub fn started_meanwhile(
        &self,
        uuid: Uuid,
        patience: Duration,
    ) -> Result<Option<Started>, Error> {
        let end = Instant::now() + patience;
        loop {
            let domain = match self.domain(&uuid.to_string()) {
                Ok(domain) => domain,
                Err(error) if error.code() == Some(ErrorCode::NotFound) => return Ok(None),
                Err(error) => return Err(error),
            };
            match (domain.status, domain.run) {
                (Status::Up, Some(run)) => {
                    return Ok(Some(Started { domid: run.domid, name: domain.name }));
                }
                (Status::Halted, _) | (Status::Up, None) => return Ok(None),
                _ if Instant::now() < end => std::thread::sleep(POLL),
                _ => return Err(Error::Timeout { seconds: patience.as_secs() }),
            }
        }
    }

    /// `POST /v1/domains/{domain}/pause`.
    #[expect(clippy::missing_errors_doc, reason = "see host")]
    pub fn pause(&self, word: &str) -> Result<(), Error> {
        self.post::<Who>(&path(word, "/pause"), &())?.answer.map(drop)
    }

    /// `POST /v1/domains/{domain}/unpause`.
    #[expect(clippy::missing_errors_doc, reason = "see host")]
    pub fn unpause(&self, word: &str) -> Result<(), Error> {
        self.post::<Who>(&path(word, "/unpause"), &())?.answer.map(drop)
    }

    /// `POST /v1/domains/{domain}/rename`. The word should be a UUID, which stays when the daemon is
    /// killed meanwhile.
    #[expect(clippy::missing_errors_doc, reason = "see host")]
    pub fn rename(&self, word: &str, name: &str) -> Result<(), Error> {
        let rename = Rename { name: name.to_owned() };
        self.post::<Who>(&path(word, "/rename"), &rename)?.answer.map(drop)
    }

    /// `POST /v1/domains/{domain}/shutdown`, of the run with this number.
    #[expect(clippy::missing_errors_doc, reason = "see host")]
    pub fn shutdown(
        &self,
        word: &str,
        domid: Option<u32>,
        reason: ShutdownKind,
    ) -> Result<(), Error> {
        let order = Shutdown { reason, domid };
        let told = self.post::<Who>(&path(word, "/shutdown"), &order)?;
        match told.answer {
            // The first attempt was carried out, and the guest was quick.
            Err(error) if told.again && has_ended(&error) => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// `POST /v1/domains/{domain}/destroy`; returns when the domain is gone.
    #[expect(clippy::missing_errors_doc, reason = "see host")]
    pub fn destroy(&self, word: &str) -> Result<Destroyed, Error> {
        let told = self.post(&path(word, "/destroy"), &())?;
        match told.answer {
            // The first attempt was carried out.
            Err(error) if told.again && has_ended(&error) => Ok(Destroyed::default()),
            answer => answer,
        }
    }

    /// `POST /v1/managed`. The configuration must have a UUID, as with [`Daemon::create`].
    #[expect(clippy::missing_errors_doc, reason = "see host")]
    pub fn store(&self, store: &Store) -> Result<Stored, Error> {
        let told = self.post("/v1/managed", store)?;
        let (name, uuid) = (&store.config.general.name, &store.config.general.uuid);
        match told.answer {
            Err(error) if told.again && error.code() == Some(ErrorCode::Busy) => {
                match self.domain(name) {
                    Ok(domain) if domain.managed && Some(domain.uuid.0) == uuid.map(|u| u.0) => {
                        Ok(Stored { name: domain.name, uuid: domain.uuid })
                    }
                    _ => Err(error),
                }
            }
            answer => answer,
        }
    }

    /// `GET /v1/managed/{domain}`.
    #[expect(clippy::missing_errors_doc, reason = "see host")]
    pub fn managed(&self, word: &str) -> Result<Managed, Error> {
        self.get(&format!("/v1/managed/{}", percent_encoded(word)))
    }

    /// `PUT /v1/managed/{domain}`: nothing is changed if somebody else was faster.
    #[expect(clippy::missing_errors_doc, reason = "see host")]
    pub fn replace(&self, uuid: Uuid, replace: &Replace) -> Result<Managed, Error> {
        let path = format!("/v1/managed/{uuid}");
        let mut wanted = replace.config.clone();
        wanted.general.uuid = Some(config::Uuid(uuid.0));
        let told = self.tell::<Managed>(Asked::new("PUT", &path, Some(&json(replace)?)), parse)?;
        match told.answer {
            Err(error) if told.again && error.code() == Some(ErrorCode::Busy) => {
                match self.managed(&uuid.to_string()) {
                    // The first attempt was carried out.
                    Ok(now) if now.revision == replace.revision + 1 && now.config == wanted => {
                        Ok(now)
                    }
                    _ => Err(error),
                }
            }
            answer => answer,
        }
    }

    /// `DELETE /v1/managed/{domain}`.
    #[expect(clippy::missing_errors_doc, reason = "see host")]
    pub fn delete(&self, word: &str) -> Result<(), Error> {
        let path = format!("/v1/managed/{}", percent_encoded(word));
        let told = self.tell::<Stored>(Asked::new("DELETE", &path, None), parse)?;
        match told.answer {
            Err(error) if told.again && error.code() == Some(ErrorCode::NotFound) => Ok(()),
            answer => answer.map(drop),
        }
    }
}

impl Pending {
    /// Waits for the answer.
    ///
    /// # Errors
    /// When the daemon refuses, is killed ([`Error::is_break`]), or does not answer in time.
    pub fn finish<T: DeserializeOwned>(self) -> Result<T, Error> {
        self.read(parse)
    }

    fn read<T>(self, read: impl FnOnce(Answer) -> Result<T, Error>) -> Result<T, Error> {
        let late = |error: io::Error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                Error::Timeout { seconds: PATIENCE.as_secs() }
            }
            _ => Error::Broken(error),
        };
        read(http::receive(self.stream).map_err(late)?)
    }
}

impl Error {
    /// Whether the daemon was killed before it answered.
    pub fn is_break(&self) -> bool {
        matches!(self, Self::Broken(error) if is_break(error))
    }
}

pub(crate) fn path(word: &str, order: &str) -> String {
    format!("/v1/domains/{}{order}", percent_encoded(word))
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|error| Error::Unexpected(error.to_string()))
}
