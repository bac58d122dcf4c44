//! Event-channel operations (event_channel.h).

use abi::{errno::*, event};
use boundary::bell;

use super::{Answer, fault};
use crate::{backends, event::Port, log, state::Monitor};

impl Monitor {
    pub(super) fn event_channel_op(&mut self, op: u64, at: u64) -> Answer {
        match op {
            // virq, vcpu, port
            event::BIND_VIRQ => {
                let a: [u32; 2] = fault(self.read_value(at))?;
                if a[0] >= event::NR_VIRQS || a[1] >= self.setup.vcpus {
                    return Err(EINVAL);
                }
                if self.events.virq(a[0]).is_some() {
                    return Err(EEXIST);
                }
                self.bind(Port::Virq(a[0]), at.wrapping_add(8))
            }
            // vcpu, port
            event::BIND_IPI => {
                let vcpu: u32 = fault(self.read_value(at))?;
                if vcpu >= self.setup.vcpus {
                    return Err(EINVAL);
                }
                self.bind(Port::Ipi, at.wrapping_add(4))
            }
            // dom, remote_dom (u16), port
            event::ALLOC_UNBOUND => {
                let doms: u32 = fault(self.read_value(at))?;
                let dom = doms as u16;
                if dom != abi::DOMID_SELF && u32::from(dom) != self.setup.domid {
                    return Err(EPERM);
                }
                self.bind(Port::Unbound { remote: (doms >> 16) as u16 }, at.wrapping_add(4))
            }
            event::CLOSE => {
                let port = self.port(at)?;
                self.events.close(port);
                Ok(0)
            }
            event::SEND => {
                let port = self.port(at)?;
                match self.events.get(port) {
                    Port::Console => log::ring(bell::CONSOLE),
                    Port::Store => log::ring(bell::STORE),
                    Port::Ipi => self.raise(port),
                    Port::Unbound { .. } => backends::notify(port),
                    Port::Virq(_) => {}
                    Port::Closed => return Err(EINVAL),
                }
                Ok(0)
            }
            event::STATUS => self.status(at),
            event::BIND_VCPU => {
                let a: [u32; 2] = fault(self.read_value(at))?;
                if a[1] >= self.setup.vcpus {
                    return Err(ENOENT);
                }
                Ok(0)
            }
            event::UNMASK => {
                let port: u32 = fault(self.read_value(at))?;
                if port >= event::TWO_LEVEL_CHANNELS {
                    return Err(EINVAL);
                }
                self.unmask(port);
                Ok(0)
            }
            event::RESET => {
                self.events.reset();
                Ok(0)
            }
            // The two-level ABI is what is offered.
            event::INIT_CONTROL | event::EXPAND_ARRAY | event::SET_PRIORITY => Err(ENOSYS),
            _ => self.unknown(abi::hypercall::EVENT_CHANNEL_OP, op),
        }
    }

    /// The bound port that a structure begins with.
    fn port(&mut self, at: u64) -> Result<u32, i64> {
        let port: u32 = fault(self.read_value(at))?;
        if self.events.get(port) == Port::Closed { Err(EINVAL) } else { Ok(port) }
    }

    fn bind(&mut self, to: Port, answer: u64) -> Answer {
        let port = self.events.bind(to).ok_or(ENOSPC)?;
        if let Err(e) = fault(self.write_value(answer, &port)) {
            self.events.close(port);
            return Err(e);
        }
        Ok(0)
    }

    /// `struct evtchn_status`: dom, port, status, vcpu, union.
    fn status(&mut self, at: u64) -> Answer {
        let port: u32 = fault(self.read_value(at.wrapping_add(4)))?;
        let (status, detail) = match self.events.get(port) {
            Port::Closed => (event::STATUS_CLOSED, 0),
            Port::Unbound { remote } => (event::STATUS_UNBOUND, remote.into()),
            Port::Store | Port::Console => (event::STATUS_INTERDOMAIN, 0),
            Port::Virq(v) => (event::STATUS_VIRQ, v),
            Port::Ipi => (event::STATUS_IPI, 0),
        };
        fault(self.write_value(at.wrapping_add(8), &[status, 0]))?;
        fault(self.write_value(at.wrapping_add(16), &detail))?;
        Ok(0)
    }
}
