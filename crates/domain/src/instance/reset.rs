//! A hard reset: the guest ends at once and starts anew.

use super::Instance;
use super::end::{Exit, not_restarted, restarted};
use crate::server::{Answer, Id};
use control::{
    Ended, EndedAs, ErrorCode, Failure, Record, Response, ShutdownReason, WaitUntil, kill_point,
    launch,
};

impl Instance {
    /// Ends the guest without asking it and starts it anew under another number, as its
    /// configuration says; the tool is answered when that is done. A reset is no failure of the
    /// guest's: it does not count as a restart that came too fast.
    pub(super) fn reset(mut self, asker: Id) -> Exit {
        self.guest.group.kill();
        self.devices.end();
        kill_point("xendomain.reset.dead");
        self.log.write(Record::info("reset"));
        let successor = self.spec.successor_after_reset(self.last_crash.clone());
        let Self { registration, guest, mut server, console, mut log, .. } = self;
        // The new one needs the memory, the name and the UUID.
        drop(guest);
        drop(registration);
        kill_point("xendomain.reset.left");
        let reason = ShutdownReason::Reboot;
        let (outcome, answer) = match launch(&successor) {
            Ok(started) => {
                kill_point("xendomain.reset.launched");
                log.write(restarted(&started));
                let outcome = EndedAs::Restarted { domid: started.domid };
                (outcome, Response::Ended(Ended { reason, outcome }))
            }
            Err(error) => {
                log.write(not_restarted(&error));
                let message = format!("The domain ended, but did not start again: {error}");
                (EndedAs::Destroyed, Response::Error(Failure::new(ErrorCode::Host, message)))
            }
        };
        server.answer(asker, Answer::Line(answer), console.history());
        server.ended(WaitUntil::Shutdown, Ended { reason, outcome });
        server.gone(Ended { reason, outcome });
        kill_point("xendomain.reset.answered");
        server.close(console.history());
        Exit
    }
}
