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
        let domid = self.running(word)?.domid;
        let places = Places {
            front: format!("/local/domain/{domid}/device/{class}"),
            back: format!("/local/domain/0/backend/{class}/{domid}/"),
        };
        let dirs = self.registry.dirs().clone();
        let host = |error: String| Failure::new(ErrorCode::Host, error);
        tokio::task::spawn_blocking(move || listed(&dirs, &places))
            .await
            .map_err(|error| host(error.to_string()))?
            .map_err(|error| host(error.to_string()))
    }
}

/// Where a domain's devices of a class are.
struct Places {
    /// The frontends' directory.
    front: String,
    /// What the paths of its backends begin with.
    back: String,
}

impl Places {
    /// The path of a backend, which the guest can write: any other would be read with our rights.
    fn backend<'a>(&self, nodes: &'a Device) -> Option<&'a str> {
        let path = nodes.get("backend")?.as_str()?;
        let number = path.strip_prefix(&self.back)?;
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then_some(path)
    }
}

fn listed(dirs: &Dirs, places: &Places) -> Result<Vec<Device>, StoreError> {
    StoreClient::order(dirs, |client| {
        let mut store = client.direct();
        let mut numbers = store.list(&places.front)?;
        numbers.sort_by_key(|number| number.parse().unwrap_or(u64::MAX));
        numbers.iter().map(|number| read(&mut store, places, number)).collect()
    })
}

fn read(store: &mut Transaction<'_>, places: &Places, number: &str) -> Result<Device, StoreError> {
    let base = format!("{}/{number}", places.front);
    let mut nodes = nodes_of(store, &base)?;
    for key in ["event-channel", "ring-ref", "tx-ring-ref", "rx-ring-ref"] {
        if nodes.get(key).is_none_or(|value| value == "") {
            let value = store.read(&format!("{base}/queue-0/{key}"))?.unwrap_or_default();
            nodes.insert(key.into(), String::from_utf8_lossy(&value).into());
        }
    }
    nodes.entry("handle").or_insert_with(|| "0".into());
    nodes.insert("id".into(), number.into());
    let behind = match places.backend(&nodes) {
        Some(path) => nodes_of(store, path)?,
        None => Device::new(),
    };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_backends_are_looked_at() {
        let places = Places {
            front: "/local/domain/7/device/vbd".into(),
            back: "/local/domain/0/backend/vbd/7/".into(),
        };
        let of = |path: &str| {
            let nodes = Device::from_iter([("backend".to_owned(), Value::from(path))]);
            places.backend(&nodes).map(str::to_owned)
        };
        let own = "/local/domain/0/backend/vbd/7/51712";
        assert_eq!(of(own).as_deref(), Some(own));
        for other in [
            "",
            "/",
            "/local/domain/8",
            "/local/domain/0/backend/vbd/7/",
            "/local/domain/0/backend/vbd/71/51712",
            "/local/domain/0/backend/vbd/7/51712/../../8/1",
            "/local/domain/0/backend/vbd/7/5\u{0}1",
        ] {
            assert_eq!(of(other), None, "{other:?}");
        }
        assert_eq!(places.backend(&Device::new()), None);
    }
}
