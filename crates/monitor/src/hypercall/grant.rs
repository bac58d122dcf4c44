//! Grant tables (grant_table.h): the guest's own table; mapping comes with the
//! device backends.

use abi::grant as g;

use super::{Answer, fault};
use crate::state::Monitor;

/// Frames the builder reserved for the table.
const FRAMES: u32 = 32;

impl Monitor {
    pub(super) fn grant_table_op(&mut self, op: u64, at: u64, count: u64) -> Answer {
        if count != 1 {
            return if count == 0 {
                Ok(0)
            } else {
                self.unknown(abi::hypercall::GRANT_TABLE_OP, op)
            };
        }
        match op {
            g::QUERY_SIZE => {
                let mut q: g::QuerySize = fault(self.read_value(at))?;
                q.nr_frames = FRAMES;
                q.max_nr_frames = FRAMES;
                q.status = self.own_table(q.dom);
                fault(self.write_value(at, &q))?;
            }
            g::SETUP_TABLE => {
                let mut s: g::SetupTable = fault(self.read_value(at))?;
                s.status = if s.nr_frames > FRAMES {
                    g::STATUS_GENERAL_ERROR
                } else {
                    self.own_table(s.dom)
                };
                if s.status == g::STATUS_OKAY {
                    for i in 0..u64::from(s.nr_frames) {
                        let mfn = self.setup.grant_mfn + i;
                        fault(self.write_value(s.frame_list.wrapping_add(i * 8), &mfn))?;
                    }
                }
                fault(self.write_value(at, &s))?;
            }
            // Version 1 is what is offered.
            g::SET_VERSION => fault(self.write_value(at, &1u32))?,
            g::GET_VERSION => fault(self.write_value(at.wrapping_add(4), &1u32))?,
            _ => return self.unknown(abi::hypercall::GRANT_TABLE_OP, op),
        }
        Ok(0)
    }

    fn own_table(&self, dom: u16) -> i16 {
        if dom == abi::DOMID_SELF || u32::from(dom) == self.setup.domid {
            g::STATUS_OKAY
        } else {
            g::STATUS_GENERAL_ERROR
        }
    }
}
