//! What a change of the tree must keep to: rights and limits.

use std::sync::Arc;

use crate::error::{Errno, StoreError};
use crate::path::Path;
use crate::permissions::{Caller, Need, Permissions};
use crate::quota::Quota;
use crate::tree::Node;
use crate::wire::MAX_PAYLOAD;

/// Rules for a new permission list, which also hold for the special names.
pub(crate) fn check_permissions(
    caller: Caller,
    path: &dyn std::fmt::Display,
    old: &Permissions,
    new: &Permissions,
    quota: &Quota,
) -> Result<(), StoreError> {
    limit(caller, "permission entries per node", new.entries().count(), quota.permissions)?;
    if !caller.is_privileged() && new.owner() != old.owner() {
        return Err(StoreError::OwnerChange {
            domid: caller.domid,
            path: path.to_string(),
            owner: new.owner(),
        });
    }
    Ok(())
}

pub(crate) fn check_value(caller: Caller, value: &[u8], quota: &Quota) -> Result<(), StoreError> {
    if value.len() > MAX_PAYLOAD {
        return Err(StoreError::TooLong { length: value.len(), limit: MAX_PAYLOAD });
    }
    limit(caller, "bytes per value", value.len(), quota.value_bytes)
}

/// Refuses what goes beyond a quota, but not to domain 0.
pub(crate) fn limit(
    caller: Caller,
    what: &'static str,
    wanted: usize,
    limit: usize,
) -> Result<(), StoreError> {
    if caller.is_privileged() || wanted <= limit {
        return Ok(());
    }
    Err(StoreError::Quota { domid: caller.domid, what, limit, errno: Errno::Enospc })
}

pub(crate) fn permit(
    node: &Node,
    caller: Caller,
    path: &Path,
    need: Need,
) -> Result<(), StoreError> {
    if node.permissions.rights(caller).allow(need) {
        return Ok(());
    }
    Err(StoreError::Denied { domid: caller.domid, path: path.to_string(), need: need.verb() })
}

pub(crate) fn audience(
    own: &Arc<Permissions>,
    parent: Option<Arc<Permissions>>,
) -> Vec<Arc<Permissions>> {
    std::iter::once(Arc::clone(own)).chain(parent).collect()
}

pub(crate) fn not_found(path: &Path) -> StoreError {
    StoreError::NotFound { path: path.to_string() }
}
