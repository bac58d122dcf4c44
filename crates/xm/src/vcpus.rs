//! `vcpu-list`: the virtual CPUs of domains.

use clap::ArgMatches;
use control::{DomainStats, VcpuStats};
use serde_json::json;

use crate::daemon::HOST_NAME;
use crate::error::Error;
use crate::host;
use crate::output::put;
use crate::stats::{Asked, ask};
use crate::tool::Tool;
use crate::words;

/// `vcpu-list [--json] [D...]`, and `list -v`.
///
/// # Errors
///
/// When a named domain does not exist.
pub fn vcpu_list(tool: Tool, matches: &ArgMatches) -> Result<(), Error> {
    let asked = ask(&words(matches, "domain"))?;
    let host_cpus = host_vcpus();
    let cpus = host_cpus.len();
    let domains: Vec<(String, u32, Vec<VcpuStats>)> = asked
        .into_iter()
        .map(|asked| match asked {
            Asked::Host => (HOST_NAME.to_owned(), 0, host_cpus.clone()),
            Asked::Domain(DomainStats { name, domid, vcpus, .. }) => (name, domid, vcpus),
        })
        .collect();
    if matches.get_flag("json") {
        let rows = domains.iter().flat_map(|(name, domid, vcpus)| {
            vcpus.iter().map(move |vcpu| {
                json!({
                    "name": name, "domid": domid, "vcpu": vcpu.number, "cpu": vcpu.cpu,
                    "online": vcpu.online, "blocked": vcpu.blocked,
                    "cpu_seconds": vcpu.cpu_seconds, "affinity": vcpu.affinity,
                })
            })
        });
        let rows: Vec<_> = rows.collect();
        return put(&format!("{}\n", serde_json::to_string_pretty(&rows)?));
    }
    let mut text = header(tool);
    for (name, domid, vcpus) in &domains {
        for vcpu in vcpus {
            text.push_str(&line(tool, name, *domid, vcpu, cpus));
        }
    }
    put(&text)
}

fn header(tool: Tool) -> String {
    let last = match tool {
        Tool::Xm => "CPU Affinity",
        Tool::Xl => "Affinity (Hard / Soft)",
    };
    format!(
        "{:<32} {:>5} {:>5} {:>5} {:>5} {:>9} {last}\n",
        "Name", "ID", "VCPU", "CPU", "State", "Time(s)"
    )
}

fn line(tool: Tool, name: &str, domid: u32, vcpu: &VcpuStats, cpus: usize) -> String {
    let cpu = match vcpu.cpu {
        Some(cpu) if vcpu.online => cpu.to_string(),
        _ => "-".to_owned(),
    };
    let letter = |set: bool, letter| if set { letter } else { '-' };
    let state = if vcpu.online {
        format!("{}{}-", letter(!vcpu.blocked, 'r'), letter(vcpu.blocked, 'b'))
    } else {
        "--p".to_owned()
    };
    let (number, seconds) = (vcpu.number, vcpu.cpu_seconds);
    let affinity = affinity(tool, &vcpu.affinity, cpus);
    match tool {
        Tool::Xm => format!(
            "{name:<32} {domid:>5} {number:>5} {cpu:>5} {state:>5}  {seconds:>8.1} {affinity}\n"
        ),
        Tool::Xl => format!(
            "{name:<32} {domid:>5} {number:>5} {cpu:>5} {state:>5} {seconds:>9.1}  {affinity} / all\n"
        ),
    }
}

/// `any cpu`, `no cpus` or ranges; xl's words are `all` and `none`.
fn affinity(tool: Tool, affinity: &[u32], cpus: usize) -> String {
    if affinity.len() >= cpus {
        return if tool == Tool::Xm { "any cpu" } else { "all" }.to_owned();
    }
    if affinity.is_empty() {
        return if tool == Tool::Xm { "no cpus" } else { "none" }.to_owned();
    }
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for cpu in affinity {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*cpu) => *last = *cpu,
            _ => ranges.push((*cpu, *cpu)),
        }
    }
    let words = ranges.iter().map(|(first, last)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    });
    words.collect::<Vec<_>>().join(",")
}

/// Domain-0's: the host's CPUs that are online.
pub fn host_vcpus() -> Vec<VcpuStats> {
    let cpus = host::busy_by_cpu();
    let all: Vec<u32> = cpus.iter().map(|(cpu, _)| *cpu).collect();
    let vcpu = |(cpu, cpu_seconds): &(u32, f64)| VcpuStats {
        number: *cpu,
        online: true,
        blocked: false,
        cpu: Some(*cpu),
        cpu_seconds: *cpu_seconds,
        affinity: all.clone(),
    };
    cpus.iter().map(vcpu).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vcpu(blocked: bool, online: bool) -> VcpuStats {
        let affinity = vec![0, 1, 3];
        VcpuStats { number: 0, online, blocked, cpu: Some(1), cpu_seconds: 12.34, affinity }
    }

    #[test]
    fn columns_of_xm() {
        let expected = "\
Name                                ID  VCPU   CPU State   Time(s) CPU Affinity
serv1                                5     0     1   -b-      12.3 any cpu
serv1                                5     0     -   --p      12.3 0-1,3
";
        let text = header(Tool::Xm)
            + &line(Tool::Xm, "serv1", 5, &vcpu(true, true), 3)
            + &line(Tool::Xm, "serv1", 5, &vcpu(false, false), 4);
        assert_eq!(text, expected);
    }

    #[test]
    fn columns_of_xl() {
        let expected = "\
Name                                ID  VCPU   CPU State   Time(s) Affinity (Hard / Soft)
serv1                                5     0     1   r--      12.3  0-1,3 / all
";
        let text = header(Tool::Xl) + &line(Tool::Xl, "serv1", 5, &vcpu(false, true), 4);
        assert_eq!(text, expected);
        assert_eq!(affinity(Tool::Xl, &[], 4), "none");
        assert_eq!(affinity(Tool::Xm, &[], 4), "no cpus");
        assert_eq!(affinity(Tool::Xl, &[0, 1], 2), "all");
    }
}
