//! `info -c`: the settings that xend's configuration file held, as they are here: where files are, and
//! what says so.

use control::{
    Dirs, FORMAT_VARIABLE, LEVEL_VARIABLE, RUNTIME_VARIABLE, STATE_VARIABLE, find_program,
};
use serde_json::{Map, Value};

use crate::error::Error;
use crate::output::put;

/// Programs behind the tools, and the variables that name others.
const PROGRAMS: [(&str, &str); 6] = [
    ("xendomain", "XENOLITH_XENDOMAIN"),
    ("space", "XENOLITH_SPACE"),
    ("xenstored", "XENOLITH_XENSTORED"),
    ("xenblock", "XENOLITH_XENBLOCK"),
    ("xennet", "XENOLITH_XENNET"),
    ("xenchannel", "XENOLITH_XENCHANNEL"),
];

/// Prints all settings.
///
/// # Errors
///
/// When standard output cannot be written.
pub fn print(json: bool) -> Result<(), Error> {
    let settings = settings(&Dirs::from_environment());
    if json {
        let map: Map<String, Value> =
            settings.into_iter().map(|(key, value)| (key, value.into())).collect();
        return put(&format!("{}\n", serde_json::to_string_pretty(&map)?));
    }
    let line = |(key, value): (String, Option<String>)| {
        format!("{key:<23}: {}\n", value.as_deref().unwrap_or("(none)"))
    };
    put(&settings.into_iter().map(line).collect::<String>())
}

fn settings(dirs: &Dirs) -> Vec<(String, Option<String>)> {
    let path = |path: &std::path::Path| Some(path.display().to_string());
    let mut settings = vec![
        ("runtime_dir".to_owned(), path(&dirs.runtime)),
        ("state_dir".to_owned(), path(&dirs.state)),
        ("core_dir".to_owned(), path(&dirs.state.join("dump"))),
        ("xenstored_socket".to_owned(), path(&dirs.runtime.join("xenstored/socket"))),
    ];
    for (program, variable) in PROGRAMS {
        let found = find_program(program, variable).ok();
        settings.push((program.to_owned(), found.and_then(|found| path(&found))));
    }
    let variables = PROGRAMS.map(|(_, variable)| variable);
    let own = [RUNTIME_VARIABLE, STATE_VARIABLE, LEVEL_VARIABLE, FORMAT_VARIABLE];
    for variable in own.into_iter().chain(variables) {
        if let Ok(value) = std::env::var(variable) {
            settings.push((variable.to_owned(), Some(value)));
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_and_programs_are_told() {
        let dirs = Dirs { runtime: "/run/x".into(), state: "/var/x".into() };
        let settings = settings(&dirs);
        let of = |key: &str| settings.iter().find(|(known, _)| known == key).unwrap().1.clone();
        assert_eq!(of("core_dir").as_deref(), Some("/var/x/dump"));
        assert_eq!(of("xenstored_socket").as_deref(), Some("/run/x/xenstored/socket"));
        assert!(settings.iter().any(|(key, _)| key == "space"));
    }
}
