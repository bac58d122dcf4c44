//! The socket: who may connect, how many, and when the daemon ends.

use crate::daemon::Daemon;
use crate::notice::Notice;
use crate::own_socket::OwnSocket;
use crate::routes::router;
use control::{Record, kill_point};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

/// Most connections at a time.
const MOST: usize = 256;
/// How long a client may take to send the head of a request.
const HEAD: Duration = Duration::from_secs(10);
/// Pause after a connection could not be taken (no descriptors left, say).
const PAUSE: Duration = Duration::from_millis(100);
/// How long a refused client may take to read why.
const PARTING: Duration = Duration::from_millis(100);

/// Why the daemon ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A signal.
    Signal,
    /// Nobody needed it for a while, and it would miss nothing.
    Idle,
    /// Its run-time directory is gone, or clients do not find its socket any more.
    Homeless,
}

/// Serves the interface on `listener` until there is a reason to end; `own` is the socket if nobody else
/// keeps it, `idle` how long nobody may need the daemon.
///
/// # Errors
/// When the host refuses what it takes to begin.
pub async fn serve(
    daemon: Arc<Daemon>,
    listener: std::os::unix::net::UnixListener,
    own: Option<OwnSocket>,
    idle: Option<Duration>,
) -> io::Result<End> {
    listener.set_nonblocking(true)?;
    let listener = UnixListener::from_std(listener)?;
    let mut follow = tokio::spawn(Notice::new(&daemon, own)?.follow(Arc::clone(&daemon)));
    let mut signals = Signals::new()?;
    let room = Arc::new(Semaphore::new(MOST));
    let service = TowerToHyperService::new(router(Arc::clone(&daemon)));
    loop {
        tokio::select! {
            permit = Arc::clone(&room).acquire_owned() => {
                let Ok(permit) = permit else { return Ok(End::Signal) };
                tokio::select! {
                    taken = listener.accept() => match taken {
                        Ok((stream, _)) => {
                            kill_point("xend.client-taken");
                            tokio::spawn(converse(stream, service.clone(), Arc::clone(&daemon), permit));
                        }
                        Err(error) => {
                            daemon.log(Record::error("cannot take a connection").with("error", error));
                            sleep(PAUSE).await;
                        }
                    },
                    () = signals.any() => return Ok(End::Signal),
                    _ = &mut follow => return Ok(End::Homeless),
                    // Our own permit is one of them.
                    () = unneeded(&daemon, &room, idle) => return Ok(End::Idle),
                }
            }
            () = signals.any() => return Ok(End::Signal),
            _ = &mut follow => return Ok(End::Homeless),
        }
    }
}

/// Ends when nobody has needed the daemon for `idle`.
async fn unneeded(daemon: &Daemon, room: &Semaphore, idle: Option<Duration>) {
    let Some(idle) = idle else { return std::future::pending().await };
    let is_unneeded = || daemon.is_idle() && room.available_permits() == MOST - 1;
    loop {
        if is_unneeded() {
            tokio::select! {
                () = sleep(idle) => if is_unneeded() { return },
                () = daemon.changed.notified() => {}
            }
        } else {
            // Connections that end and domains that go tell so.
            daemon.changed.notified().await;
        }
    }
}

type Service = TowerToHyperService<axum::Router>;

async fn converse(
    stream: UnixStream,
    service: Service,
    daemon: Arc<Daemon>,
    permit: OwnedSemaphorePermit,
) {
    if is_allowed(&stream) {
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
            .await;
        if let Err(error) = served
            && !error.is_incomplete_message()
            && !error.is_closed()
            && error.is_parse()
        {
            daemon.log(Record::warning("a client does not speak HTTP").with("error", error));
        }
    } else {
        daemon.log(Record::warning("a client of another user was refused"));
        refuse(stream).await;
    }
    kill_point("xend.client-gone");
    drop(permit);
    daemon.changed.notify_one();
}

/// Whether the process at the other end may command our domains: the same user or root.
fn is_allowed(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == own)
}

async fn refuse(mut stream: UnixStream) {
    let body = r#"{"code":"not-permitted","message":"This is another user's xend"}"#;
    let text = format!(
        "HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    let _told_or_gone = timeout(PARTING, stream.write_all(text.as_bytes())).await;
}

/// Signals that end the daemon.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
