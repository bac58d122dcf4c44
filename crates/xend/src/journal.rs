//! The thread that writes the register, so that a slow disk holds up nobody but those who wait
//! for it. What has gathered meanwhile is written at once.

use crate::register::{Change, Register};
use control::{PathError, kill_point};
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;

/// Most changes written at once.
const MOST: usize = 256;

type Done = oneshot::Sender<Result<(), String>>;
/// What is to be written, if anything, and who waits for it.
type Order = (Option<Change>, Done);

/// The way to the thread.
#[derive(Clone, Debug)]
pub struct Journal {
    orders: Sender<Order>,
}

impl Journal {
    /// Starts the thread. `complain` is told what could not be written.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(
        register: Register,
        complain: impl Fn(&PathError) + Send + 'static,
    ) -> io::Result<Self> {
        let (orders, received) = channel();
        std::thread::Builder::new()
            .name("register".into())
            .spawn(move || write_all(&register, &received, &complain))?;
        Ok(Self { orders })
    }

    /// Has a change written. It is, when the answer comes, whether anybody waits for it or not.
    pub fn write(&self, change: Change) -> oneshot::Receiver<Result<(), String>> {
        let (done, answer) = oneshot::channel();
        // A thread that is gone drops the other end, which answers.
        let _order = self.orders.send((Some(change), done));
        answer
    }

    /// Waits until all that was ordered is written, or could not be.
    pub async fn flush(&self) {
        let (done, answer) = oneshot::channel();
        let _order = self.orders.send((None, done));
        let _all_before_it = answer.await;
    }

    /// Has a change written and waits for it.
    ///
    /// # Errors
    /// Why it could not be written.
    pub async fn written(&self, change: Change) -> Result<(), String> {
        let answer = self.write(change).await;
        answer.unwrap_or_else(|_| Err("the register is closed".into()))
    }
}

fn write_all(register: &Register, orders: &Receiver<Order>, complain: &impl Fn(&PathError)) {
    while let Ok(first) = orders.recv() {
        let (mut changes, mut waiting) = (Vec::new(), Vec::new());
        for (change, done) in std::iter::once(first).chain(orders.try_iter()).take(MOST) {
            changes.extend(change);
            waiting.push(done);
        }
        kill_point("xend.journal.taken");
        let result = if changes.is_empty() { Ok(()) } else { register.apply(&changes) };
        if let Err(error) = &result {
            complain(error);
        }
        for done in waiting {
            let told = result.as_ref().copied().map_err(ToString::to_string);
            let _nobody_waits = done.send(told);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::Uuid;

    #[tokio::test]
    async fn changes_are_written_when_the_answer_comes() {
        let base = tempfile::tempdir().unwrap();
        let register = Register::open(base.path()).unwrap();
        let journal = Journal::start(register, |error| panic!("{error}")).unwrap();
        let answers: Vec<_> =
            (0..600).map(|_| journal.write(Change::Drop(Uuid([3; 16])))).collect();
        for answer in answers {
            answer.await.unwrap().unwrap();
        }
        journal.written(Change::Drop(Uuid([3; 16]))).await.unwrap();
    }
}
