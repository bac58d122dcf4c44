//! Links the targets that hold the monitor as the space is linked: at its fixed address, with the
//! places that its gates name.

#[allow(dead_code)]
mod symbols {
    include!("../crates/monitor/src/layout_symbols.rs");
}

const TARGETS: [&str; 3] = ["monitor_hypercalls", "monitor_tables", "monitor_emulate"];

fn main() {
    println!("cargo:rerun-if-changed=../crates/monitor/src/layout_symbols.rs");
    for target in TARGETS {
        let arg = |arg: &str| println!("cargo:rustc-link-arg-bin={target}={arg}");
        // The compiler still takes its start files for PIE, which have no 32-bit addresses.
        arg("-Wl,--no-pie");
        arg("-Wl,--image-base=0x5c0000000000");
        for (name, value) in symbols::NAMED {
            arg(&format!("-Wl,--defsym={name}={value:#x}"));
        }
    }
}
