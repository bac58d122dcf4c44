//! The stream of events: one line of JSON for each.

use crate::daemon::{Daemon, now};
use api::types::{Event, Happening};
use axum::body::{Body, Bytes, HttpBody};
use hyper::body::Frame;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::sync::mpsc;

/// Lines that wait for the client; what it is further behind, it loses.
const WAITING: usize = 16;

struct Lines(mpsc::Receiver<Bytes>);

impl HttpBody for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}

/// A body that goes on until the client leaves or the daemon ends.
pub(crate) fn stream(daemon: &Arc<Daemon>) -> Body {
    let (lines, body) = mpsc::channel(WAITING);
    tokio::spawn(forward(daemon.listen(), lines));
    Body::new(Lines(body))
}

async fn forward(mut events: Receiver<Event>, lines: mpsc::Sender<Bytes>) {
    let mut event = Event { at: now(), what: Happening::Listening };
    loop {
        let Ok(mut line) = serde_json::to_vec(&event) else { return };
        line.push(b'\n');
        if lines.send(line.into()).await.is_err() {
            return;
        }
        let next = tokio::select! {
            next = events.recv() => next,
            () = lines.closed() => return,
        };
        event = match next {
            Ok(event) => event,
            Err(RecvError::Lagged(count)) => Event { at: now(), what: Happening::Lost { count } },
            Err(RecvError::Closed) => return,
        };
    }
}
