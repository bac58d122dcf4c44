//! The facts of `info`, in the order and with the keys of the tools.

use abi::version::XEN_VERSION;
use api::types::Host;
use serde_json::{Map, Value};

use crate::host::{self, Processors};
use crate::tool::Tool;

/// Version of the configuration format that xm and xl report.
const CONFIG_FORMAT: u64 = 4;

/// One fact: key and value, an empty value when it is not known.
pub type Fact = (&'static str, Value);

/// All facts for `tool`, read now; `host` is what the daemon says.
pub fn facts(tool: Tool, host: &Host) -> Vec<Fact> {
    let mut facts = Vec::new();
    system(tool, &mut facts);
    processors(tool, &mut facts);
    memory(host, &mut facts);
    hypervisor(tool, &mut facts);
    facts
}

/// `key`, padded to 23 columns, colon, value; `(none)` for an empty one.
pub fn lines(facts: &[Fact]) -> String {
    let mut text = String::new();
    for (key, value) in facts {
        let shown = match value {
            Value::String(word) => word.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        };
        let shown = if shown.is_empty() { "(none)" } else { &shown };
        text.push_str(&format!("{key:<23}: {shown}\n"));
    }
    text
}

/// The facts as one JSON object.
pub fn json(facts: Vec<Fact>) -> Value {
    Value::Object(
        facts.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<Map<_, _>>(),
    )
}

fn system(tool: Tool, facts: &mut Vec<Fact>) {
    let kernel = |name: &str| Value::from(host::text(&format!("/proc/sys/kernel/{name}")).trim());
    if tool == Tool::Xm {
        facts.push(("system", kernel("ostype")));
    }
    facts.push(("host", kernel("hostname")));
    facts.push(("release", kernel("osrelease")));
    facts.push(("version", kernel("version")));
    facts.push(("machine", std::env::consts::ARCH.into()));
}

fn processors(tool: Tool, facts: &mut Vec<Fact>) {
    let processors = Processors::now();
    facts.push(("nr_cpus", processors.count.into()));
    if tool == Tool::Xl {
        facts.push(("max_cpu_id", processors.count.saturating_sub(1).into()));
    }
    facts.push(("nr_nodes", host::nodes().into()));
    facts.push(("cores_per_socket", processors.cores_per_socket.into()));
    facts.push(("threads_per_core", processors.threads_per_core.into()));
    facts.push(("cpu_mhz", (processors.mhz.round() as u64).into()));
    facts.push(("hw_caps", processors.flags.join(" ").into()));
    facts.push(("virt_caps", virt_caps(&processors.flags).into()));
}

/// What the processor offers for assisted domains, which the `pv` engine does not need.
fn virt_caps(flags: &[String]) -> &'static str {
    if flags.iter().any(|flag| flag == "vmx" || flag == "svm") { "hvm" } else { "" }
}

/// Free is what new domains can have.
fn memory(host: &Host, facts: &mut Vec<Fact>) {
    facts.push(("total_memory", host.total_mib.into()));
    facts.push(("free_memory", host.free_mib.into()));
    facts.push(("free_cpus", 0.into()));
}

/// The version is the one that guests are told.
fn hypervisor(tool: Tool, facts: &mut Vec<Fact>) {
    let (major, minor) = (XEN_VERSION >> 16, XEN_VERSION & 0xffff);
    let extra = concat!("-xenolith-", env!("CARGO_PKG_VERSION"));
    facts.push(("xen_major", major.into()));
    facts.push(("xen_minor", minor.into()));
    facts.push(("xen_extra", extra.into()));
    if tool == Tool::Xl {
        facts.push(("xen_version", format!("{major}.{minor}{extra}").into()));
    }
    facts.push(("xen_caps", "xen-3.0-x86_64".into()));
    facts.push(("xen_scheduler", "host".into()));
    facts.push(("xen_pagesize", rustix::param::page_size().into()));
    facts.push(("platform_params", "virt_start=0xffff800000000000".into()));
    facts.push(("xen_changeset", Value::Null));
    facts.push(("xen_commandline", Value::Null));
    facts.push(("cc_compiler", "rustc".into()));
    facts.push(("cc_compile_by", Value::Null));
    facts.push(("cc_compile_domain", Value::Null));
    facts.push(("cc_compile_date", Value::Null));
    facts.push(("xend_config_format", CONFIG_FORMAT.into()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_padded_and_empty_values_are_told() {
        let facts = [("nr_cpus", Value::from(2)), ("xen_commandline", Value::Null)];
        let expected = "nr_cpus                : 2\nxen_commandline        : (none)\n";
        assert_eq!(lines(&facts), expected);
    }

    #[test]
    fn the_order_is_that_of_xm_4_1() {
        let host = Host {
            version: String::new(),
            pid: 1,
            domains: 0,
            total_mib: 2,
            available_mib: 1,
            claimed_mib: 0,
            free_mib: 1,
        };
        let keys: Vec<&str> = facts(Tool::Xm, &host).iter().map(|(key, _)| *key).collect();
        let expected = [
            "system",
            "host",
            "release",
            "version",
            "machine",
            "nr_cpus",
            "nr_nodes",
            "cores_per_socket",
            "threads_per_core",
            "cpu_mhz",
            "hw_caps",
            "virt_caps",
            "total_memory",
            "free_memory",
            "free_cpus",
            "xen_major",
            "xen_minor",
            "xen_extra",
            "xen_caps",
            "xen_scheduler",
            "xen_pagesize",
            "platform_params",
            "xen_changeset",
            "xen_commandline",
            "cc_compiler",
            "cc_compile_by",
            "cc_compile_domain",
            "cc_compile_date",
            "xend_config_format",
        ];
        assert_eq!(keys, expected);
        assert_eq!(facts(Tool::Xl, &host).first().map(|(key, _)| *key), Some("host"));
    }
}
