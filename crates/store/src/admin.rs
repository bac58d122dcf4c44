//! Requests that are for domain 0: domains, features, quotas, and what `CONTROL` can do.

use crate::domains::FIRST_RESERVED_DOMID;
use crate::error::StoreError;
use crate::permissions::Domid;
use crate::quota::Quota;
use crate::requests::{OK, Request};
use crate::ring::FEATURES;
use crate::store::Store;
use crate::wire::{MessageType, decimal};

impl Request<'_> {
    fn privileged(&self, request: &'static str) -> Result<(), StoreError> {
        if self.caller.is_privileged() {
            return Ok(());
        }
        Err(StoreError::Privileged { domid: self.caller.domid, request })
    }

    pub(crate) fn domain(
        &self,
        store: &mut Store,
        kind: MessageType,
    ) -> Result<Vec<u8>, StoreError> {
        match kind {
            MessageType::Introduce => self.introduce(store)?,
            MessageType::SetTarget => self.set_target(store)?,
            MessageType::Release => {
                self.privileged("RELEASE")?;
                store.release(self.only_domid("RELEASE")?)?;
            }
            _ => {
                self.privileged("RESUME")?;
                store.resume(self.only_domid("RESUME")?)?;
            }
        }
        Ok(OK.to_vec())
    }

    fn introduce(&self, store: &mut Store) -> Result<(), StoreError> {
        let (request, expected) = ("INTRODUCE", "domid|gfn|port|");
        self.privileged(request)?;
        let [domid, gfn, port] = self.strings(request, expected)?;
        let bad = || StoreError::BadRequest { request, expected };
        let gfn = std::str::from_utf8(gfn).ok().and_then(|gfn| gfn.parse().ok());
        store.introduce(
            decimal(domid).ok_or_else(bad)?,
            gfn.ok_or_else(bad)?,
            decimal(port).ok_or_else(bad)?,
        )
    }

    fn set_target(&self, store: &mut Store) -> Result<(), StoreError> {
        let (request, expected) = ("SET_TARGET", "domid|target|");
        self.privileged(request)?;
        let [domid, target] = self.strings(request, expected)?;
        let bad = || StoreError::BadRequest { request, expected };
        store.set_target(decimal(domid).ok_or_else(bad)?, decimal(target).ok_or_else(bad)?)
    }

    pub(crate) fn control(&self, store: &Store) -> Result<Vec<u8>, StoreError> {
        let (request, expected) = ("CONTROL", "help|, check| or quota|domid|");
        self.privileged(request)?;
        let bad = || StoreError::BadRequest { request, expected };
        let (command, rest) = self.first(request, expected)?;
        match (command, rest.strip_suffix(b"\0")) {
            (b"help", None) => Ok(b"check\nhelp\nquota <domid>\n\0".to_vec()),
            (b"check", None) if store.is_consistent() => Ok(OK.to_vec()),
            (b"check", None) => Ok(b"node counts are wrong\n\0".to_vec()),
            (b"quota", Some(domid)) => {
                let domid = decimal(domid).ok_or_else(bad)?;
                Ok(format!("{}\0", store.usage(domid)).into_bytes())
            }
            _ => Err(bad()),
        }
    }

    /// What this store can do, which is the same for all domains.
    pub(crate) fn get_feature(&self) -> Result<Vec<u8>, StoreError> {
        self.privileged("GET_FEATURE")?;
        if !self.payload.is_empty() {
            self.only_domid("GET_FEATURE")?;
        }
        Ok(format!("{FEATURES}\0").into_bytes())
    }

    /// Without a name: all names. Without a domain: what holds for domains without one of their own.
    pub(crate) fn get_quota(&self, store: &Store) -> Result<Vec<u8>, StoreError> {
        let (request, expected) = ("GET_QUOTA", "nothing, name| or domid|name|");
        self.privileged(request)?;
        let bad = || StoreError::BadRequest { request, expected };
        if self.payload.is_empty() {
            return Ok(format!("{}\0", Quota::NAMES.join(" ")).into_bytes());
        }
        let (domid, name) = match self.strings(request, expected) {
            Ok([name]) => (None, name),
            Err(_) => {
                let [domid, name] = self.strings(request, expected)?;
                (Some(ordinary(domid).ok_or_else(bad)?), name)
            }
        };
        let mut quota = quota_of(store, domid);
        let value = quota.field(name).ok_or_else(bad)?;
        Ok(format!("{value}\0").into_bytes())
    }

    pub(crate) fn set_quota(&self, store: &mut Store) -> Result<Vec<u8>, StoreError> {
        let (request, expected) = ("SET_QUOTA", "name|value| or domid|name|value|");
        self.privileged(request)?;
        let bad = || StoreError::BadRequest { request, expected };
        let (domid, name, value) = match self.strings(request, expected) {
            Ok([name, value]) => (None, name, value),
            Err(_) => {
                let [domid, name, value] = self.strings(request, expected)?;
                (Some(ordinary(domid).ok_or_else(bad)?), name, value)
            }
        };
        let mut quota = quota_of(store, domid);
        *quota.field(name).ok_or_else(bad)? = decimal(value).ok_or_else(bad)?;
        match domid {
            Some(domid) => store.set_quota(domid, Some(quota)),
            None => store.set_default_quota(quota),
        }
        Ok(OK.to_vec())
    }
}

fn ordinary(domid: &[u8]) -> Option<Domid> {
    decimal(domid).filter(|domid| *domid < FIRST_RESERVED_DOMID)
}

fn quota_of(store: &Store, domid: Option<Domid>) -> Quota {
    domid.map_or(store.default_quota, |domid| store.quota(domid))
}
