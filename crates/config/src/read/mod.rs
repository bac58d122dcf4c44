//! From the names and values of a file to the typed configuration.

mod device_lists;
mod fields;
mod sections;

use fields::Fields;

use crate::eval::Namespace;
use crate::model::DomainConfig;
use crate::source::Fault;

/// The configuration and the remarks, or every fault found.
pub(crate) type Reading = Result<(DomainConfig, Vec<Fault>), Vec<Fault>>;

/// Reads the configuration out of `names`; `default_name` serves if there is no `name`.
pub(crate) fn read(names: &Namespace, default_name: &str) -> Reading {
    let mut fields = Fields::new(names);
    let config = sections::domain(&mut fields, default_name);
    fields.finish(config)
}

/// The keys that [`read`] looks at.
#[cfg(test)]
pub(crate) fn keys_read() -> std::collections::BTreeSet<&'static str> {
    let names = Namespace::default();
    let mut fields = Fields::new(&names);
    sections::domain(&mut fields, "x");
    fields.asked
}
