//! Links the `space` binary at its fixed address, gives the gates the addresses
//! they name, and compiles the seccomp filters.

use std::{env, fs, path::Path};

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, SeccompRule};

mod symbols {
    include!("src/layout_symbols.rs");
}
#[path = "src/jail_rules.rs"]
mod jail_rules;
use jail_rules::Jailed;

fn main() {
    println!("cargo:rerun-if-changed=src/layout_symbols.rs");
    println!("cargo:rerun-if-changed=src/jail_rules.rs");
    for arg in ["-nostartfiles", "-nostdlib", "-static", "-no-pie"] {
        println!("cargo:rustc-link-arg-bins={arg}");
    }
    println!("cargo:rustc-link-arg-bins=-Wl,--image-base=0x5c0000000000");
    println!("cargo:rustc-link-arg-bins=-Wl,-z,noexecstack,-z,norelro,--build-id=none");
    for (name, value) in symbols::NAMED {
        println!("cargo:rustc-link-arg-bins=-Wl,--defsym={name}={value:#x}");
    }
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    for (name, of) in
        [("keys", Jailed::Keys), ("space", Jailed::Space), ("nursery", Jailed::Nursery)]
    {
        let file = Path::new(&out).join(format!("jail-{name}.bpf"));
        fs::write(file, filter_bytes(of)).expect("write the filter");
    }
}

/// The filter of `jail_rules` as the bytes of `struct sock_filter[]`.
fn filter_bytes(of: Jailed) -> Vec<u8> {
    let rules: Vec<(i64, Vec<SeccompRule>)> = jail_rules::rules(of);
    let filter = SeccompFilter::new(
        rules.into_iter().collect(),
        SeccompAction::Trap,
        SeccompAction::Allow,
        seccompiler::TargetArch::x86_64,
    )
    .expect("the rules are valid");
    let program: BpfProgram = filter.try_into().expect("the filter compiles");
    program
        .iter()
        .flat_map(|i| {
            let mut b = i.code.to_le_bytes().to_vec();
            b.extend([i.jt, i.jf]);
            b.extend(i.k.to_le_bytes());
            b
        })
        .collect()
}
