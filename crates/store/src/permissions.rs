//! Permissions of a node: an owner with a default for everyone, and exceptions per domain.

use std::fmt;

use crate::domains::FIRST_RESERVED_DOMID;
use crate::error::StoreError;

/// A domain id.
pub type Domid = u16;

/// What an entry of a permission list grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// `n`: nothing.
    None,
    /// `r`: reading.
    Read,
    /// `w`: writing.
    Write,
    /// `b`: both.
    Both,
}

/// One entry of a permission list, such as `r5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permission {
    /// What is granted.
    pub access: Access,
    /// To which domain; in the first entry of a list, the owner.
    pub domid: Domid,
}

impl Permission {
    /// Parses a letter and a decimal domain id.
    ///
    /// # Errors
    /// [`StoreError::BadPermission`] if the text has another form or the id is a reserved one.
    pub fn parse(text: &[u8]) -> Result<Self, StoreError> {
        let bad = || StoreError::BadPermission { text: String::from_utf8_lossy(text).into_owned() };
        let (letter, digits) = text.split_first().ok_or_else(bad)?;
        let access = match letter {
            b'n' => Access::None,
            b'r' => Access::Read,
            b'w' => Access::Write,
            b'b' => Access::Both,
            _ => return Err(bad()),
        };
        let domid = crate::wire::decimal::<Domid>(digits).ok_or_else(bad)?;
        if domid >= FIRST_RESERVED_DOMID {
            return Err(bad());
        }
        Ok(Self { access, domid })
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = match self.access {
            Access::None => 'n',
            Access::Read => 'r',
            Access::Write => 'w',
            Access::Both => 'b',
        };
        write!(f, "{letter}{}", self.domid)
    }
}

/// On whose behalf a request runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The domain of the connection.
    pub domid: Domid,
    /// The domain that it serves as device model (`SET_TARGET`), whose rights it has as well.
    pub target: Option<Domid>,
}

impl Caller {
    /// Domain 0, which passes every check and has no quota.
    pub const HOST: Self = Self { domid: 0, target: None };

    /// Whether permissions and quotas do not apply.
    pub const fn is_privileged(self) -> bool {
        self.domid == 0
    }

    fn acts_for(self, domid: Domid) -> bool {
        self.domid == domid || self.target == Some(domid)
    }
}

/// What a caller may do with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Read value, children and permissions.
    pub read: bool,
    /// Write the value, create children, remove the node.
    pub write: bool,
    /// Change the permissions.
    pub own: bool,
}

/// The right that a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    Read,
    Write,
    Own,
}

impl Need {
    pub(crate) const fn verb(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Own => "change the permissions of",
        }
    }
}

impl Rights {
    const ALL: Self = Self { read: true, write: true, own: true };

    pub(crate) const fn allow(self, need: Need) -> bool {
        match need {
            Need::Read => self.read,
            Need::Write => self.write,
            Need::Own => self.own,
        }
    }
}

impl From<Access> for Rights {
    fn from(access: Access) -> Self {
        let (read, write) = match access {
            Access::None => (false, false),
            Access::Read => (true, false),
            Access::Write => (false, true),
            Access::Both => (true, true),
        };
        Self { read, write, own: false }
    }
}

/// The permission list of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permissions {
    /// The owner, and what every domain that is not listed may do.
    pub first: Permission,
    /// Exceptions; the first one that names a domain counts.
    pub others: Vec<Permission>,
}

impl Permissions {
    /// `nDOMID`: owned by the domain, closed to all others except domain 0.
    pub const fn owned_by(domid: Domid) -> Self {
        Self { first: Permission { access: Access::None, domid }, others: Vec::new() }
    }

    /// Parses entries in the order of the list.
    ///
    /// # Errors
    /// [`StoreError::BadPermission`] for a malformed entry or an empty list.
    pub fn parse<'a>(entries: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, StoreError> {
        let mut entries = entries.into_iter().map(Permission::parse);
        let first = entries.next().unwrap_or_else(|| Permission::parse(b""))?;
        Ok(Self { first, others: entries.collect::<Result<_, _>>()? })
    }

    /// The domain that owns the node.
    pub const fn owner(&self) -> Domid {
        self.first.domid
    }

    /// All entries, the owner's first.
    pub fn entries(&self) -> impl Iterator<Item = &Permission> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// What the caller may do with a node that has these permissions.
    pub fn rights(&self, caller: Caller) -> Rights {
        if caller.is_privileged() || caller.acts_for(self.owner()) {
            return Rights::ALL;
        }
        let listed = self.others.iter().find(|entry| caller.acts_for(entry.domid));
        listed.map_or(self.first.access, |entry| entry.access).into()
    }

    /// The list a node gets that `caller` creates below a node with this list.
    pub(crate) fn inherited_by(&self, caller: Caller) -> Self {
        let mut permissions = self.clone();
        if !caller.is_privileged() {
            permissions.first.domid = caller.domid;
        }
        permissions
    }

    /// The list without `domid`, whose nodes go to domain 0; `None` if it does not occur.
    pub(crate) fn without(&self, domid: Domid) -> Option<Self> {
        if !self.entries().any(|entry| entry.domid == domid) {
            return None;
        }
        let mut permissions = self.clone();
        permissions.others.retain(|entry| entry.domid != domid);
        if permissions.first.domid == domid {
            permissions.first.domid = 0;
        }
        Some(permissions)
    }
}

impl fmt::Display for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        self.others.iter().try_for_each(|entry| write!(f, ",{entry}"))
    }
}

/// Parses the form of [`Permissions`]' `Display`, such as `n0,r5`.
impl std::str::FromStr for Permissions {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, StoreError> {
        Self::parse(text.split(',').map(str::as_bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(domid: Domid) -> Caller {
        Caller { domid, target: None }
    }

    #[test]
    fn text_round_trips_and_bad_text_is_refused() {
        for text in ["n0", "n0,r5", "b12,w3,n4"] {
            assert_eq!(text.parse::<Permissions>().unwrap().to_string(), text);
        }
        for text in ["", "x1", "r", "r-1", "r+1", "r65536", "r32752", "r1,", "r 1"] {
            assert!(text.parse::<Permissions>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn first_match_decides() {
        let list: Permissions = "r1,n2,w3,b4,n4".parse().unwrap();
        let rights = |domid| {
            let r = list.rights(caller(domid));
            (r.read, r.write, r.own)
        };
        assert_eq!(rights(0), (true, true, true));
        assert_eq!(rights(1), (true, true, true));
        assert_eq!(rights(2), (false, false, false));
        assert_eq!(rights(3), (false, true, false));
        assert_eq!(rights(4), (true, true, false));
        assert_eq!(rights(9), (true, false, false));
        assert!(list.rights(Caller { domid: 2, target: Some(1) }).own);
    }

    #[test]
    fn forgetting_a_domain_keeps_the_default_access() {
        let list: Permissions = "r5,b5,w6".parse().unwrap();
        assert_eq!(list.without(5).unwrap().to_string(), "r0,w6");
        assert_eq!(list.without(7), None);
    }
}
