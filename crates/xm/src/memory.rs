//! `mem-set` and `mem-max`.

use clap::ArgMatches;

use crate::daemon::connect;
use crate::error::Error;
use crate::tool::Tool;
use crate::word;

/// `mem-set D MEM`: asks the guest's balloon driver; success means that it was asked.
///
/// # Errors
///
/// When there is no such domain, or it cannot have as much.
pub fn mem_set(tool: Tool, matches: &ArgMatches) -> Result<(), Error> {
    let mib = size("mem-set", tool, matches)?;
    Ok(connect(word(matches, "domain"), "set the memory of")?.1.set_memory(mib)?)
}

/// `mem-max D MEM`: a limit that holds from now on, of which the guest is not told.
///
/// # Errors
///
/// As [`mem_set`].
pub fn mem_max(tool: Tool, matches: &ArgMatches) -> Result<(), Error> {
    let mib = size("mem-max", tool, matches)?;
    Ok(connect(word(matches, "domain"), "limit the memory of")?.1.limit_memory(mib)?)
}

fn size(command: &'static str, tool: Tool, matches: &ArgMatches) -> Result<u64, Error> {
    let text = word(matches, "memory");
    mebibytes(tool, text).ok_or_else(|| {
        Error::usage(command, format!("'{text}' is no memory size; expected 256, 256m or 1g."))
    })
}

/// A size in MiB, a bare number being MiB; `None` for less than one and for what is no size.
fn mebibytes(tool: Tool, text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let number = digits.parse::<u64>().ok()?;
    let unit = text.get(digits.len()..)?.to_ascii_lowercase();
    let kib = match (unit.as_str(), tool) {
        ("b", Tool::Xl) => number / 1024,
        ("k", _) => number,
        ("" | "m", _) => number.checked_mul(1 << 10)?,
        ("g", _) => number.checked_mul(1 << 20)?,
        ("t", Tool::Xl) => number.checked_mul(1 << 30)?,
        _ => return None,
    };
    Some(kib >> 10).filter(|mib| *mib > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_both_tools_read_them() {
        assert_eq!(mebibytes(Tool::Xm, "256"), Some(256));
        assert_eq!(mebibytes(Tool::Xm, "262144k"), Some(256));
        assert_eq!(mebibytes(Tool::Xm, "2G"), Some(2048));
        assert_eq!(mebibytes(Tool::Xl, "1t"), Some(1 << 20));
        assert_eq!(mebibytes(Tool::Xl, "268435456b"), Some(256));
        for bad in ["", "m", "1t", "-5", "1.5g", "12x", "512k", "99999999999999999999", "1gg"] {
            assert_eq!(mebibytes(Tool::Xm, bad), None, "{bad}");
        }
        assert_eq!(mebibytes(Tool::Xl, "18446744073709551615t"), None);
    }
}
