//! Devices of domains, as xenstore has them.

use crate::daemon::Daemon;
use api::types::Device;
use control::xenstore::{StoreClient, StoreError, Transaction};
use control::{Dirs, ErrorCode, Failure};
use serde_json::Value;
use std::sync::Arc;

/// Kinds of devices, as xenstore calls them.
const CLASSES: [&str; 3] = ["vbd", "vif", "console"];

impl Daemon {
    /// The devices of a class that a running domain has, by number.
    ///
    /// # Errors
    /// When there is no such class or domain, or the store does not answer.
    pub(crate) async fn devices(
        self: &Arc<Self>,
        word: &str,
        class: &str,
    ) -> Result<Vec<Device>, Failure> {
        if !CLASSES.contains(&class) {
            let message = format!("There are no such devices; expected {}", CLASSES.join(", "));
            return Err(Failure::new(ErrorCode::BadRequest, message));
        }
        let home = format!("/local/domain/{}/device/{class}", self.running(word)?.domid);
        let dirs = self.registry.dirs().clone();
        let host = |error: String| Failure::new(ErrorCode::Host, error);
        tokio::task::spawn_blocking(move || listed(&dirs, &home))
            .await
            .map_err(|error| host(error.to_string()))?
            .map_err(|error| host(error.to_string()))
    }
}

fn listed(dirs: &Dirs, home: &str) -> Result<Vec<Device>, StoreError> {
    StoreClient::order(dirs, |client| {
        let mut store = client.direct();
        let mut numbers = store.list(home)?;
        numbers.sort_by_key(|number| number.parse().unwrap_or(u64::MAX));
        numbers.iter().map(|number| read(&mut store, home, number)).collect()
    })
}

fn read(store: &mut Transaction<'_>, home: &str, number: &str) -> Result<Device, StoreError> {
    let base = format!("{home}/{number}");
    let mut nodes = nodes_of(store, &base)?;
    for key in ["event-channel", "ring-ref", "tx-ring-ref", "rx-ring-ref"] {
        if nodes.get(key).is_none_or(|value| value == "") {
            let value = store.read(&format!("{base}/queue-0/{key}"))?.unwrap_or_default();
            nodes.insert(key.into(), String::from_utf8_lossy(&value).into());
        }
    }
    nodes.entry("handle").or_insert_with(|| "0".into());
    nodes.insert("id".into(), number.into());
    let backend = nodes.get("backend").and_then(Value::as_str).unwrap_or_default().to_owned();
    let behind = if backend.is_empty() { Device::new() } else { nodes_of(store, &backend)? };
    nodes.insert("backend-nodes".into(), Value::Object(behind));
    Ok(nodes)
}

fn nodes_of(store: &mut Transaction<'_>, base: &str) -> Result<Device, StoreError> {
    let mut nodes = Device::new();
    for name in store.list(base)? {
        let value = store.read(&format!("{base}/{name}"))?.unwrap_or_default();
        nodes.insert(name, String::from_utf8_lossy(&value).into());
    }
    Ok(nodes)
}
