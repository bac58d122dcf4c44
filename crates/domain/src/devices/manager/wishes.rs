//! What tools and the main loop want of the devices, and how long they wait for it.

use super::{LITTLE_PATIENCE, Manager, PATIENCE, failure, growth, no_such_device};
use crate::devices::device::{Device, Waiter};
use crate::devices::nodes::State;
use crate::devices::opened::{Class, Key, Opened};
use crate::devices::{News, Wish, backend, channel};
use control::{ErrorCode, Failure, kill_point};
use devices::wire::{Nodes, Order};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

impl<A> Manager<A> {
    pub(super) fn take_wishes(&mut self) {
        let mut count = [0; 8];
        let _was_clear = rustix::io::read(&*self.wake, &mut count);
        while let Ok(wish) = self.wishes.try_recv() {
            match wish {
                Wish::Attach(opened, asker) => self.wish_attach(*opened, asker),
                Wish::Detach { class, number, force, asker } => {
                    self.wish_detach((class, number), force, asker);
                }
                Wish::Change { opened, disk, asker } => self.wish_change(*opened, disk, asker),
                Wish::Refresh { number, asker } => {
                    let key = (Class::Vbd, number);
                    let answer = match self.devices.get(&key) {
                        Some(device) => growth::has_a_size_to_look_at(&device.opened),
                        None => Err(no_such_device(key)),
                    };
                    if answer.is_ok() {
                        self.order(key, &Order::Refresh { device: number });
                        kill_point("devices.refresh.ordered");
                    }
                    self.teller.tell(News::Answer(asker, answer));
                }
                Wish::Resize { number, size, asker } => self.wish_resize(number, size, asker),
                Wish::Retry => {
                    if let Some(process) = self.process(Class::Vbd) {
                        let _found_with_its_reports = process.order(&Order::Retry, &[]);
                    }
                }
                Wish::Talk(asker) => {
                    let news = match self.wish_talk() {
                        Ok(socket) => News::Channel(asker, socket),
                        Err(failure) => News::Answer(asker, Err(failure)),
                    };
                    self.teller.tell(news);
                }
                Wish::Count(asker) => self.wish_count(asker),
                Wish::End => self.ended = true,
            }
        }
    }

    fn wish_count(&mut self, asker: A) {
        let asked = |class: &Class| {
            let process = self.process(*class);
            process.is_some_and(|process| process.order(&Order::Statistics, &[]).is_ok())
        };
        let missing = [Class::Vbd, Class::Vif].into_iter().filter(asked).collect();
        kill_point("devices.count.ordered");
        self.questions.ask(asker, self.devices.keys().copied(), missing);
    }

    /// A socket to the guest's agent.
    fn wish_talk(&mut self) -> Result<OwnedFd, Failure> {
        let host = |why: String| failure(ErrorCode::Host, format!("No channel: {why}"));
        let class = channel::AGENT.0;
        backend::find(class.backend()).map_err(|error| host(error.to_string()))?;
        if !self.devices.contains_key(&channel::AGENT) {
            self.bring_in(channel::agent())?;
            if self.process(class).is_some() {
                self.attach(channel::AGENT);
            }
        }
        if self.process(class).is_none() {
            self.revive(class);
        }
        let process = self.process(class).ok_or_else(|| {
            host("its process does not start; the domain's log says why".to_owned())
        })?;
        let (ours, theirs) = channel::sockets().map_err(|error| host(error.to_string()))?;
        let order = Order::Client { device: channel::AGENT.1 };
        process.order(&order, &[theirs.as_fd()]).map_err(|error| host(error.to_string()))?;
        Ok(ours)
    }

    fn wish_attach(&mut self, opened: Opened, asker: A) {
        let class = opened.class;
        let key = match self.bring_in(opened) {
            Ok(key) => key,
            Err(failure) => return self.teller.tell(News::Answer(asker, Err(failure))),
        };
        if let Some(device) = self.devices.get_mut(&key) {
            device.waiters.push(Waiter { asker, until: Instant::now() + PATIENCE });
        }
        if self.process(class).is_some() { self.attach(key) } else { self.revive(class) }
    }

    fn wish_detach(&mut self, key: Key, force: bool, asker: A) {
        let is_busy = self.is_away(key).then(|| self.busy(key));
        // Who wants it to go too waits with this one; who waits for it to come does so in vain.
        if self.devices.get(&key).is_some_and(|device| !device.goes_for_good()) {
            let message = "The device is detached by somebody else".to_owned();
            self.answer(key, &Err(failure(ErrorCode::Busy, message)));
        }
        let Some(device) = self.devices.get_mut(&key) else {
            let failure = is_busy.unwrap_or_else(|| no_such_device(key));
            return self.teller.tell(News::Answer(asker, Err(failure)));
        };
        (device.leaving, device.forced) = (true, device.forced || force);
        (device.successor, device.presented) = (None, None);
        let patience = if force { LITTLE_PATIENCE } else { PATIENCE };
        device.waiters.push(Waiter { asker, until: Instant::now() + patience });
        self.show(key, &Nodes::from([("online".into(), "0".into())]), State::Closing);
        kill_point("devices.detach.shown");
        self.look(key);
    }

    /// Tells those who waited for too long.
    pub(super) fn look_at_clock(&mut self) {
        let now = Instant::now();
        for (_, waiter) in self.going.extract_if(.., |(_, waiter)| waiter.until <= now) {
            self.teller.tell(News::Answer(waiter.asker, Ok(())));
        }
        self.look_at_growth(now);
        for (asker, counters) in self.questions.done(now) {
            self.teller.tell(News::Counters(asker, counters));
        }
        let is_late = |waiter: &Waiter<A>| waiter.until <= now;
        let late = |device: &Device<A>| device.waiters.iter().any(is_late);
        let keys: Vec<Key> =
            self.devices.iter().filter(|(_, device)| late(device)).map(|(key, _)| *key).collect();
        for key in keys {
            let Some(device) = self.devices.get_mut(&key) else { continue };
            if device.forced {
                kill_point("devices.detach.forced");
                self.remove(key);
                continue;
            }
            if device.leaving && device.comes_again() {
                self.call_off(key);
                continue;
            }
            let name = &device.opened.name;
            let answer = if device.leaving {
                let message = format!("The guest does not let go of {name}");
                let hint = "Unmount or shut it down in the guest, or use --force.";
                failure(ErrorCode::Busy, message).with_hint(hint)
            } else {
                failure(ErrorCode::Host, format!("The backend of {name} does not answer"))
            };
            for waiter in device.waiters.extract_if(.., |waiter| waiter.until <= now) {
                self.teller.tell(News::Answer(waiter.asker, Err(answer.clone())));
            }
        }
    }
}
