//! Scheduler operations and the one-shot timer (sched.h).

use abi::{errno::*, sched};

use super::{Answer, fault};
use crate::{crash, event, state::Monitor};

/// Most ports in one poll.
const PORTS: u32 = 128;

impl Monitor {
    pub(super) fn sched_op(&mut self, op: u64, at: u64) -> Answer {
        match op {
            sched::YIELD => Ok(0),
            sched::BLOCK => {
                event::set_masked(false);
                self.idle();
                Ok(0)
            }
            sched::SHUTDOWN => {
                let reason: u32 = fault(self.read_value(at))?;
                crash::shut_down(self, reason);
                Ok(0)
            }
            sched::POLL => self.poll_ports(at),
            _ => self.unknown(abi::hypercall::SCHED_OP, op),
        }
    }

    /// Waits until one of the ports is pending or the time is over; the event
    /// mask does not matter.
    fn poll_ports(&mut self, at: u64) -> Answer {
        let p: sched::Poll = fault(self.read_value(at))?;
        if p.nr_ports > PORTS {
            return Err(EINVAL);
        }
        let mut pending = p.nr_ports == 0;
        for i in 0..u64::from(p.nr_ports) {
            let port: u32 = fault(self.read_value(p.ports.wrapping_add(i * 4)))?;
            if port >= event_limit() {
                return Err(EINVAL);
            }
            pending |= self.is_pending(port);
        }
        if !pending && (p.timeout == 0 || p.timeout > self.now()) {
            // The deadline is the earlier of the poll's and the timer's; the
            // guest looks again itself.
            let timer = self.timer.deadline;
            let until = if p.timeout == 0 {
                timer
            } else if timer == 0 {
                p.timeout
            } else {
                timer.min(p.timeout)
            };
            self.wait_until(until);
        }
        Ok(0)
    }

    pub(super) fn set_timer(&mut self, deadline: u64) -> Answer {
        self.set_deadline(deadline);
        Ok(0)
    }
}

fn event_limit() -> u32 {
    abi::event::TWO_LEVEL_CHANNELS
}
