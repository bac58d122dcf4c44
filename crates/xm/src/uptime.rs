//! The lines of `uptime`.

/// The header line of the long form.
pub fn header() -> String {
    format!("{:<33} {:>4} {}\n", "Name", "ID", "Uptime")
}

/// One line of the long form: name, id and `[N day(s), ]H:MM:SS`.
pub fn line(name: &str, id: u32, seconds: u64) -> String {
    format!("{name:<32} {id:>5} {}\n", duration(seconds))
}

/// One line of the short form: ` HH:MM:SS up H:MM, NAME (ID)`.
///
/// `now` is the local time of day in seconds since midnight.
pub fn short_line(name: &str, id: u32, seconds: u64, now: u64) -> String {
    let days = match days(seconds) {
        Some(days) => format!("{days}, "),
        None => String::new(),
    };
    let (hours, minutes, _) = clock(seconds % DAY);
    let (hour, minute, second) = clock(now % DAY);
    format!(" {hour:02}:{minute:02}:{second:02} up {days}{hours:>2}:{minutes:02}, {name} ({id})\n")
}

/// Seconds in a day.
const DAY: u64 = 24 * 60 * 60;

fn duration(seconds: u64) -> String {
    let (hours, minutes, rest) = clock(seconds % DAY);
    let time = format!("{hours:>2}:{minutes:02}:{rest:02}");
    match days(seconds) {
        Some(days) => format!("{days}, {time}"),
        None => time,
    }
}

fn days(seconds: u64) -> Option<String> {
    match seconds / DAY {
        0 => None,
        1 => Some("1 day".to_owned()),
        many => Some(format!("{many} days")),
    }
}

fn clock(seconds: u64) -> (u64, u64, u64) {
    (seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Seconds since the host's start, from the text of `/proc/uptime`.
pub fn host_uptime(proc_uptime: &str) -> Option<u64> {
    proc_uptime.split(['.', ' ']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_form() {
        assert_eq!(header(), "Name                                ID Uptime\n");
        assert_eq!(line("serv1", 5, 62), "serv1                                5  0:01:02\n");
        let long = line("x", 12, 3 * DAY + 11 * 3600 + 5);
        assert_eq!(long, "x                                   12 3 days, 11:00:05\n");
        assert!(line("x", 1, DAY).ends_with(" 1 day,  0:00:00\n"));
    }

    #[test]
    fn short_form() {
        assert_eq!(short_line("serv1", 5, 3720, 43_202), " 12:00:02 up  1:02, serv1 (5)\n");
        assert_eq!(short_line("s", 1, 2 * DAY, 0), " 00:00:00 up 2 days,  0:00, s (1)\n");
    }

    #[test]
    fn host_figure() {
        assert_eq!(host_uptime("350735.47 234388.90\n"), Some(350_735));
        assert_eq!(host_uptime("nonsense"), None);
        assert_eq!(host_uptime(""), None);
    }
}
