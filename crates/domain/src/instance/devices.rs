//! The domain's devices, as tools and the main loop see them.

use super::Instance;
use crate::devices::{Class, News, Opened, Wish};
use crate::server::{Answer, Id};
use control::{DeviceSpec, DiskSize, ErrorCode, Failure, Record, Response};

impl Instance {
    /// Interrupts the guest for its backends.
    pub(super) fn kick(&mut self) {
        let mut count = [0; 8];
        let _was_clear = rustix::io::read(self.guest.memory.kick(), &mut count);
        if self.stopped.is_none() {
            self.guest.interrupt();
        }
    }

    /// Takes the devices' news.
    pub(super) fn attend_devices(&mut self) {
        for news in self.devices.take_news() {
            match news {
                News::Record(record) => self.log.write(record),
                News::Answer(id, result) => self.answer(id, result.into()),
                News::Medium(disk) => self.keep_medium(&disk),
                News::Channel(id, socket) => {
                    self.answer(id, Answer::Descriptor(Response::Channel, socket));
                }
                News::Counters(id, counters) => self.tell_stats(id, counters),
                News::Ended => self.guest.notify_channels(),
                News::Full(why) => {
                    let name = &self.registration.entry().name;
                    let message = format!("paused; 'xm unpause {name}' tries again");
                    self.log.write(Record::error(message).with("error", why));
                    if let Err(failure) = self.pause() {
                        self.log.write(Record::error("cannot be paused").with("error", failure));
                    }
                }
            }
        }
    }

    fn open_device(&self, spec: &DeviceSpec) -> Result<Opened, Failure> {
        self.check_running()?;
        let entry = self.registration.entry();
        let place = match spec {
            DeviceSpec::Disk(_) => "disk",
            DeviceSpec::Vif(_) => "vif",
        };
        crate::devices::open(place, 0, spec, entry, self.registration.registry().dirs())
    }

    pub(super) fn attach_device(&mut self, id: Id, spec: &DeviceSpec) -> Answer {
        match self.open_device(spec) {
            Ok(opened) => {
                self.devices.wish(Wish::Attach(Box::new(opened), id));
                Answer::Pending
            }
            Err(failure) => Err(failure).into(),
        }
    }

    pub(super) fn talk(&mut self, id: Id) -> Answer {
        let name = &self.registration.entry().name;
        if self.stopped.is_none() && self.paused {
            return Err(Failure::new(ErrorCode::WrongState, format!("Domain '{name}' is paused"))
                .with_hint(format!("'xm unpause {name}' lets it run.")))
            .into();
        }
        match self.check_running() {
            Ok(()) => {
                self.devices.wish(Wish::Talk(id));
                Answer::Pending
            }
            Err(failure) => Err(failure).into(),
        }
    }

    pub(super) fn detach_device(
        &mut self,
        id: Id,
        class: &str,
        number: u32,
        force: bool,
    ) -> Answer {
        let class = Class::from_word(class).ok_or_else(|| {
            Failure::new(ErrorCode::BadRequest, "Devices are of the class vbd or vif")
        });
        match self.check_running().and(class) {
            Ok(class) => {
                self.devices.wish(Wish::Detach { class, number, force, asker: id });
                Answer::Pending
            }
            Err(failure) => Err(failure).into(),
        }
    }

    /// Puts another medium into a drive, or none.
    pub(super) fn change_medium(&mut self, id: Id, disk: &config::Disk) -> Answer {
        let spec = DeviceSpec::Disk(disk.clone());
        match self.open_device(&spec) {
            Ok(opened) => {
                let (opened, disk) = (Box::new(opened), Box::new(disk.clone()));
                self.devices.wish(Wish::Change { opened, disk, asker: id });
                Answer::Pending
            }
            Err(failure) => Err(failure).into(),
        }
    }

    /// A disc stays in its drive when the domain reboots.
    fn keep_medium(&mut self, disk: &config::Disk) {
        let number = disk.vdev.number();
        let next = self.spec.next.as_deref_mut();
        for config in std::iter::once(&mut self.spec.create.config).chain(next) {
            let mut disks = config.devices.disks.iter_mut();
            // One that was attached later is not there after a reboot, nor is its medium.
            if let Some(kept) = disks.find(|kept| kept.vdev.number() == number) {
                let (device, vdev) = (kept.device, kept.vdev.clone());
                *kept = config::Disk { device, vdev, ..disk.clone() };
            }
        }
    }

    pub(super) fn refresh_device(&mut self, id: Id, number: u32) -> Answer {
        match self.check_running() {
            Ok(()) => {
                self.devices.wish(Wish::Refresh { number, asker: id });
                Answer::Pending
            }
            Err(failure) => Err(failure).into(),
        }
    }

    pub(super) fn resize_device(&mut self, id: Id, number: u32, size: DiskSize) -> Answer {
        match self.check_running() {
            Ok(()) => {
                self.devices.wish(Wish::Resize { number, size, asker: id });
                Answer::Pending
            }
            Err(failure) => Err(failure).into(),
        }
    }
}
