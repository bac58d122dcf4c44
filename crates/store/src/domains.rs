//! Domains that the store knows: introduced, shut down, released, or serving another one.

use std::sync::Arc;

use crate::error::StoreError;
use crate::permissions::Domid;
use crate::store::Store;
use crate::watch::{INTRODUCE_DOMAIN, RELEASE_DOMAIN};

/// The first domain id that names no ordinary domain (`DOMID_FIRST_RESERVED` in `xen.h`).
pub const FIRST_RESERVED_DOMID: Domid = 0x7ff0;

/// A domain that has been introduced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntroducedDomain {
    /// Guest frame number of the ring page, as given; signed on the wire.
    pub gfn: i64,
    /// Event channel port of the domain for the store.
    pub port: u32,
    /// The domain whose device model this domain is.
    pub target: Option<Domid>,
    /// Whether the domain has shut down and `@releaseDomain` has been fired for it.
    pub has_shut_down: bool,
}

impl Store {
    /// Introduces a domain, or updates frame and port of one that is known, and fires
    /// `@introduceDomain` for a new one.
    ///
    /// # Errors
    /// [`StoreError::BadDomain`] for domain 0 and reserved ids.
    pub fn introduce(&mut self, domid: Domid, gfn: i64, port: u32) -> Result<(), StoreError> {
        if domid == 0 || domid >= FIRST_RESERVED_DOMID {
            return Err(StoreError::BadDomain { domid });
        }
        let target = self.domains.get(&domid).and_then(|domain| domain.target);
        let domain = IntroducedDomain { gfn, port, target, has_shut_down: false };
        let is_new = self.domains.insert(domid, domain).is_none();
        self.note_domain(domid, is_new.then_some(INTRODUCE_DOMAIN));
        if is_new {
            self.fire_special(INTRODUCE_DOMAIN, domid);
        }
        Ok(())
    }

    /// Forgets a domain that is gone: its nodes go to domain 0, its id leaves all permission
    /// lists, its connections lose watches and transactions, and `@releaseDomain` fires. Its nodes
    /// stay; its connections are closed by the caller.
    ///
    /// # Errors
    /// [`StoreError::NotIntroduced`] if the domain is not known.
    pub fn release(&mut self, domid: Domid) -> Result<(), StoreError> {
        self.domains.get(&domid).ok_or(StoreError::NotIntroduced { domid })?;
        let clients = self.clients.iter().filter(|(_, client)| client.domid == domid);
        for client in clients.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.reset_client(client);
        }
        self.forget(domid);
        self.note_domain(domid, Some(RELEASE_DOMAIN));
        self.fire_special(RELEASE_DOMAIN, domid);
        Ok(())
    }

    /// Takes a domain out of everything but the tree of names.
    pub(crate) fn forget(&mut self, domid: Domid) {
        self.domains.remove(&domid);
        self.quotas.remove(&domid);
        for domain in self.domains.values_mut() {
            domain.target = domain.target.filter(|target| *target != domid);
        }
        let stamp = self.tick();
        self.tree.forget(domid, stamp);
        for permissions in self.special.values_mut() {
            if let Some(without) = permissions.without(domid) {
                *permissions = Arc::new(without);
            }
        }
    }

    /// Notes that a domain shut down, crashed or suspended, and fires `@releaseDomain` once.
    ///
    /// # Errors
    /// [`StoreError::NotIntroduced`] if the domain is not known.
    pub fn shut_down(&mut self, domid: Domid) -> Result<(), StoreError> {
        let domain = self.introduced_mut(domid)?;
        if !std::mem::replace(&mut domain.has_shut_down, true) {
            self.note_domain(domid, Some(RELEASE_DOMAIN));
            self.fire_special(RELEASE_DOMAIN, domid);
        }
        Ok(())
    }

    /// Takes a shutdown back after a cancelled suspend, so that the next one fires again.
    ///
    /// # Errors
    /// [`StoreError::NotIntroduced`] if the domain is not known.
    pub fn resume(&mut self, domid: Domid) -> Result<(), StoreError> {
        self.introduced_mut(domid)?.has_shut_down = false;
        self.note_domain(domid, None);
        Ok(())
    }

    /// Gives `domid`, a device model domain, the rights of `target` as well.
    ///
    /// # Errors
    /// [`StoreError::NotIntroduced`] if either domain is not known.
    pub fn set_target(&mut self, domid: Domid, target: Domid) -> Result<(), StoreError> {
        self.introduced_mut(target)?;
        self.introduced_mut(domid)?.target = Some(target);
        self.note_domain(domid, None);
        Ok(())
    }

    /// What is known of an introduced domain.
    pub fn domain(&self, domid: Domid) -> Option<IntroducedDomain> {
        self.domains.get(&domid).copied()
    }

    /// All introduced domains in ascending order of their ids; domain 0 is not among them.
    pub fn domains(&self) -> impl Iterator<Item = (Domid, IntroducedDomain)> {
        self.domains.iter().map(|(domid, domain)| (*domid, *domain))
    }

    fn introduced_mut(&mut self, domid: Domid) -> Result<&mut IntroducedDomain, StoreError> {
        self.domains.get_mut(&domid).ok_or(StoreError::NotIntroduced { domid })
    }
}
