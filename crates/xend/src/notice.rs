//! Changes of the registry of running domains, as the host's kernel tells them (inotify(7)).

use crate::daemon::Daemon;
use crate::own_socket::OwnSocket;
use control::{Record, kill_point};
use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use std::collections::BTreeSet;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::time::sleep;

/// Changes that follow each other closer than this are looked at once.
const TOGETHER: Duration = Duration::from_millis(5);

/// Follows the registry.
pub struct Notice {
    inotify: Arc<OwnedFd>,
    changes: mpsc::Receiver<()>,
    own: Option<OwnSocket>,
    watched: BTreeSet<u32>,
}

impl Notice {
    /// Begins to follow it, and what becomes of the daemon's own socket.
    ///
    /// # Errors
    /// When the host has no inotify instance or no thread left.
    pub fn new(daemon: &Daemon, own: Option<OwnSocket>) -> io::Result<Self> {
        let inotify = Arc::new(inotify::init(CreateFlags::CLOEXEC)?);
        let dirs = daemon.registry.dirs();
        let itself = WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF | WatchFlags::ONLYDIR;
        let coming = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::ONLYDIR;
        inotify::add_watch(&*inotify, dirs.domains(), itself | coming)?;
        if let Some(own) = &own {
            inotify::add_watch(&*inotify, own.directory(), coming)?;
        }
        // One that waits stands for all that have gathered.
        let (tell, changes) = mpsc::channel(1);
        let read = Arc::clone(&inotify);
        let wait = move || wait(&read, &tell);
        std::thread::Builder::new().name("registry".into()).spawn(wait)?;
        Ok(Self { inotify, changes, own, watched: BTreeSet::new() })
    }

    /// Scans the registry now and after every change, until its directory or the socket is taken away.
    pub async fn follow(mut self, daemon: Arc<Daemon>) {
        while daemon.registry.dirs().domains().exists() {
            if self.own.as_ref().is_some_and(|own| !own.is_in_place()) {
                daemon.log(Record::warning("another socket has taken the place of its own"));
                return;
            }
            self.look(&daemon);
            if self.changes.recv().await.is_none() {
                daemon
                    .log(Record::error("changes of the run-time directory are not told any more"));
                return;
            }
            sleep(TOGETHER).await;
        }
        daemon.log(Record::warning("the run-time directory is gone"));
    }

    fn look(&mut self, daemon: &Arc<Daemon>) {
        match daemon.scan() {
            Ok(live) => {
                let live: BTreeSet<u32> = live.iter().map(|entry| entry.domid).collect();
                // The watch of a directory that is gone is gone with it.
                self.watched.retain(|domid| live.contains(domid));
                let mut is_new = false;
                for domid in live {
                    if self.watched.insert(domid) {
                        let directory = daemon.registry.dirs().domains().join(domid.to_string());
                        // Its socket comes; its entry is replaced when it is renamed.
                        let flags = WatchFlags::CREATE | WatchFlags::MOVED_TO;
                        let _gone_already = inotify::add_watch(&*self.inotify, directory, flags);
                        is_new = true;
                        kill_point("xend.notice.watched");
                    }
                }
                if is_new {
                    // What happened before the watch was there.
                    let _seen_just_now = daemon.scan();
                }
            }
            Err(error) => daemon.log(Record::error(error.to_string())),
        }
    }
}

/// Waits for changes, in a thread of its own, until nobody wants to know.
fn wait(inotify: &OwnedFd, tell: &mpsc::Sender<()>) {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = Reader::new(inotify, &mut buffer);
    while reader.next().is_ok() {
        match tell.try_send(()) {
            Ok(()) | Err(TrySendError::Full(())) => {}
            Err(TrySendError::Closed(())) => return,
        }
    }
}
