//! The bytes of a domain configuration file, read, printed and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    match config::parse_str("fuzz", &text, &[]) {
        Ok(loaded) => {
            // What was accepted reads back as itself and can be shown.
            loaded.config.validate().expect("the same configuration");
            assert!(loaded.config.to_sxp().to_string().starts_with("(vm"));
        }
        Err(error) => {
            // What is printed cannot drive a terminal.
            let shown = error.to_string();
            assert!(!shown.is_empty() && !shown.chars().any(|c| c.is_control() && c != '\n'));
        }
    }
});
