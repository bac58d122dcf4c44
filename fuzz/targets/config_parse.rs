//! The bytes of a domain configuration file, or of a file of the host's settings in its new or old
//! form, read, printed and read again.
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
        Err(error) => check(&error),
    }
    match config::HostConfig::parse("fuzz", &text) {
        Ok(host) => reads_back(&host),
        Err(error) => check(&error),
    }
    match config::HostConfig::parse_sxp("fuzz", &text) {
        Ok(migrated) => reads_back(&migrated.host),
        Err(error) => check(&error),
    }
});

/// What is printed cannot drive a terminal.
fn check(error: &config::Error) {
    let shown = error.to_string();
    assert!(!shown.is_empty() && !shown.chars().any(|c| c.is_control() && c != '\n'));
}

fn reads_back(host: &config::HostConfig) {
    let again = config::HostConfig::parse("again", &host.to_toml());
    assert_eq!(&again.expect("what was printed"), host);
}
