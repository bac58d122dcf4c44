//! Requests of the wire protocol: from payload to operation to reply payload.

use std::sync::Arc;

use crate::client::ClientId;
use crate::error::StoreError;
use crate::path::{Path, PathError};
use crate::permissions::{Caller, Domid, Need, Permissions};
use crate::store::Store;
use crate::transaction::Facet;
use crate::tree::{Change, Node};
use crate::watch::{Target, is_special};
use crate::wire::{Header, MAX_PAYLOAD, MessageType, decimal};

pub(crate) const OK: &[u8] = b"OK\0";

/// Carries one request out and gives the payload of the reply.
///
/// # Errors
/// What the client gets as `ERROR`. Nothing has changed then.
pub(crate) fn handle(
    store: &mut Store,
    client: ClientId,
    header: &Header,
    payload: &[u8],
) -> Result<Vec<u8>, StoreError> {
    let kind = MessageType::from_number(header.kind)
        .ok_or(StoreError::UnknownRequest { kind: header.kind })?;
    let caller = store.caller(client)?;
    let request = Request { client, caller, transaction: header.transaction, payload };
    let reply = match kind {
        MessageType::Control => request.control(store)?,
        MessageType::Directory => request.directory(store)?,
        MessageType::DirectoryPart => request.directory_part(store)?,
        MessageType::Read => {
            let path = request.only_path("READ")?;
            request.node(store, (&path, Facet::Content))?.value.to_vec()
        }
        MessageType::GetPerms => request.get_permissions(store)?,
        MessageType::SetPerms => request.set_permissions(store)?,
        MessageType::Write => request.write(store)?,
        MessageType::Mkdir => {
            let path = request.only_path("MKDIR")?;
            request.change(store, Change::Mkdir { path })?
        }
        MessageType::Rm => {
            let path = request.only_path("RM")?;
            request.change(store, Change::Remove { path })?
        }
        MessageType::Watch => {
            let (target, token) = request.watch()?;
            store.add_watch(client, &target, token).map(|()| OK.to_vec())?
        }
        MessageType::Unwatch => {
            let (target, token) = request.unwatch()?;
            store.remove_watch(client, &target, token).map(|()| OK.to_vec())?
        }
        MessageType::TransactionStart => request.start_transaction(store)?,
        MessageType::TransactionEnd => request.end_transaction(store)?,
        MessageType::ResetWatches => {
            store.reset_client(client);
            OK.to_vec()
        }
        MessageType::GetDomainPath => {
            let domid = request.only_domid("GET_DOMAIN_PATH")?;
            format!("{}\0", Path::home(domid)).into_bytes()
        }
        MessageType::IsDomainIntroduced => {
            let domid = request.only_domid("IS_DOMAIN_INTRODUCED")?;
            let is_known = domid == 0 || store.domain(domid).is_some();
            if is_known { b"T\0".to_vec() } else { b"F\0".to_vec() }
        }
        MessageType::Introduce
        | MessageType::Release
        | MessageType::Resume
        | MessageType::SetTarget => request.domain(store, kind)?,
        MessageType::GetFeature => request.get_feature()?,
        MessageType::GetQuota => request.get_quota(store)?,
        MessageType::SetQuota => request.set_quota(store)?,
        MessageType::WatchEvent | MessageType::Error => {
            return Err(StoreError::UnknownRequest { kind: header.kind });
        }
    };
    fitting(reply)
}

/// Adds a watch that a client had in a store that is gone; there is no first event.
///
/// # Errors
/// When the payload is not one of `WATCH`, or the watch cannot be.
pub(crate) fn register_watch(
    store: &mut Store,
    client: ClientId,
    payload: &[u8],
) -> Result<(), StoreError> {
    let caller = store.caller(client)?;
    let (target, token) = Request { client, caller, transaction: 0, payload }.watch()?;
    store.register_watch(client, &target, token).map(drop)
}

fn fitting(reply: Vec<u8>) -> Result<Vec<u8>, StoreError> {
    if reply.len() > MAX_PAYLOAD {
        return Err(StoreError::TooLong { length: reply.len(), limit: MAX_PAYLOAD });
    }
    Ok(reply)
}

pub(crate) struct Request<'a> {
    pub(crate) client: ClientId,
    pub(crate) caller: Caller,
    pub(crate) transaction: u32,
    pub(crate) payload: &'a [u8],
}

impl<'a> Request<'a> {
    /// Exactly `N` strings, each with its NUL, and nothing after them.
    pub(crate) fn strings<const N: usize>(
        &self,
        request: &'static str,
        expected: &'static str,
    ) -> Result<[&'a [u8]; N], StoreError> {
        let bad = || StoreError::BadRequest { request, expected };
        let body = self.payload.strip_suffix(b"\0").ok_or_else(bad)?;
        let mut strings: [&[u8]; N] = [&[]; N];
        let mut parts = body.split(|byte| *byte == 0);
        for string in &mut strings {
            *string = parts.next().ok_or_else(bad)?;
        }
        if parts.next().is_some() { Err(bad()) } else { Ok(strings) }
    }

    /// The first string, and the payload after its NUL.
    pub(crate) fn first(
        &self,
        request: &'static str,
        expected: &'static str,
    ) -> Result<(&'a [u8], &'a [u8]), StoreError> {
        let mut parts = self.payload.splitn(2, |byte| *byte == 0);
        match (parts.next(), parts.next()) {
            (Some(first), Some(rest)) => Ok((first, rest)),
            _ => Err(StoreError::BadRequest { request, expected }),
        }
    }

    fn path(&self, text: &[u8]) -> Result<Path, PathError> {
        Path::resolve(text, self.caller.domid)
    }

    fn only_path(&self, request: &'static str) -> Result<Path, StoreError> {
        let [text] = self.strings(request, "path|")?;
        Ok(self.path(text)?)
    }

    pub(crate) fn only_domid(&self, request: &'static str) -> Result<Domid, StoreError> {
        let [text] = self.strings(request, "domid|")?;
        decimal(text).ok_or(StoreError::BadRequest { request, expected: "domid|" })
    }

    fn watch(&self) -> Result<(Target, &'a [u8]), StoreError> {
        let (request, expected) = ("WATCH", "path|token| or path|token|depth|");
        if let Ok([path, token]) = self.strings(request, expected) {
            return Ok((Target::resolve(path, self.caller.domid, None)?, token));
        }
        let [path, token, depth] = self.strings(request, expected)?;
        let depth = decimal(depth).ok_or(StoreError::BadRequest { request, expected })?;
        Ok((Target::resolve(path, self.caller.domid, Some(depth))?, token))
    }

    fn unwatch(&self) -> Result<(Target, &'a [u8]), StoreError> {
        let [path, token] = self.strings("UNWATCH", "path|token|")?;
        Ok((Target::resolve(path, self.caller.domid, None)?, token))
    }

    fn node<'s>(&self, store: &'s mut Store, what: (&Path, Facet)) -> Result<&'s Node, StoreError> {
        store.node(self.client, self.transaction, what, Need::Read)
    }

    fn change(&self, store: &mut Store, change: Change) -> Result<Vec<u8>, StoreError> {
        store.change(self.client, self.transaction, change)?;
        Ok(OK.to_vec())
    }

    fn write(&self, store: &mut Store) -> Result<Vec<u8>, StoreError> {
        let (path, value) = self.first("WRITE", "path|value")?;
        let path = self.path(path)?;
        self.change(store, Change::Write { path, value: Arc::from(value) })
    }

    fn directory(&self, store: &mut Store) -> Result<Vec<u8>, StoreError> {
        let path = self.only_path("DIRECTORY")?;
        Ok(listing(self.node(store, (&path, Facet::Children))?))
    }

    /// A part of the listing from a byte offset, whole names only. The end is marked by an empty
    /// name; the generation tells the client whether parts belong together.
    fn directory_part(&self, store: &mut Store) -> Result<Vec<u8>, StoreError> {
        let expected = "path|offset|, the offset being the start of a name";
        let bad = || StoreError::BadRequest { request: "DIRECTORY_PART", expected };
        let [path, offset] = self.strings("DIRECTORY_PART", expected)?;
        let path = self.path(path)?;
        let offset = decimal::<usize>(offset).ok_or_else(bad)?;
        let node = self.node(store, (&path, Facet::Children))?;
        let mut reply = format!("{}\0", node.children_generation).into_bytes();
        let names = listing(node);
        if offset > 0 && names.get(offset - 1) != Some(&0) {
            return Err(bad());
        }
        let rest = names.get(offset..).ok_or_else(bad)?;
        let mut room = MAX_PAYLOAD - reply.len() - 1;
        for name in rest.split_inclusive(|byte| *byte == 0) {
            if name.len() > room {
                return Ok(reply);
            }
            room -= name.len();
            reply.extend_from_slice(name);
        }
        reply.push(0);
        Ok(reply)
    }

    fn get_permissions(&self, store: &mut Store) -> Result<Vec<u8>, StoreError> {
        let [text] = self.strings("GET_PERMS", "path|")?;
        let permissions = match special(text) {
            Some(name) => Arc::clone(store.special(self.caller, name, Need::Read)?),
            None => {
                let path = self.path(text)?;
                Arc::clone(&self.node(store, (&path, Facet::Content))?.permissions)
            }
        };
        let entries = permissions.entries();
        Ok(entries.flat_map(|entry| format!("{entry}\0").into_bytes()).collect())
    }

    fn set_permissions(&self, store: &mut Store) -> Result<Vec<u8>, StoreError> {
        let expected = "path|perm|...";
        let (path, list) = self.first("SET_PERMS", expected)?;
        let list = list
            .strip_suffix(b"\0")
            .ok_or(StoreError::BadRequest { request: "SET_PERMS", expected })?;
        let permissions = Permissions::parse(list.split(|byte| *byte == 0))?;
        if let Some(name) = special(path) {
            return store.set_special(self.caller, name, permissions).map(|()| OK.to_vec());
        }
        let path = self.path(path)?;
        let permissions = Arc::new(permissions);
        self.change(store, Change::SetPermissions { path, permissions })
    }

    fn start_transaction(&self, store: &mut Store) -> Result<Vec<u8>, StoreError> {
        if self.transaction != 0 {
            return Err(StoreError::NestedTransaction);
        }
        let [_empty] = self.strings("TRANSACTION_START", "|")?;
        Ok(format!("{}\0", store.start_transaction(self.client)?).into_bytes())
    }

    fn end_transaction(&self, store: &mut Store) -> Result<Vec<u8>, StoreError> {
        let is_commit = match self.payload {
            b"T\0" => true,
            b"F\0" => false,
            _ => {
                return Err(StoreError::BadRequest {
                    request: "TRANSACTION_END",
                    expected: "T| or F|",
                });
            }
        };
        store.end_transaction(self.client, self.transaction, is_commit)?;
        Ok(OK.to_vec())
    }
}

/// The special name, if the text is one.
fn special(text: &[u8]) -> Option<&str> {
    std::str::from_utf8(text).ok().filter(|name| is_special(name))
}

fn listing(node: &Node) -> Vec<u8> {
    let mut names = Vec::new();
    for name in node.children.keys() {
        names.extend_from_slice(name.as_bytes());
        names.push(0);
    }
    names
}
