//! Times in logs and reports, in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

/// A time as `2026-11-22 23:59:59`.
pub fn utc(time: SystemTime) -> String {
    let (date, clock) = date_and_clock(time);
    format!("{date} {clock}")
}

/// A time as `2026-11-22T23:59:59.123Z` (RFC 3339).
pub(super) fn rfc3339(time: SystemTime) -> String {
    let (date, clock) = date_and_clock(time);
    let millis = time.duration_since(UNIX_EPOCH).unwrap_or_default().subsec_millis();
    format!("{date}T{clock}.{millis:03}Z")
}

fn date_and_clock(time: SystemTime) -> (String, String) {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, rest) = (seconds / 86400, seconds % 86400);
    // Civil date from days, in years that begin in March (proleptic Gregorian).
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    (format!("{year:04}-{month:02}-{day:02}"), format!("{hour:02}:{minute:02}:{second:02}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_dates() {
        let at = |seconds| utc(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01 00:00:00");
        assert_eq!(at(951_782_399), "2000-02-28 23:59:59");
        assert_eq!(at(951_782_400), "2000-02-29 00:00:00");
        assert_eq!(at(1_795_391_999), "2026-11-22 23:59:59");
        let late = UNIX_EPOCH + Duration::from_millis(1_795_391_999_007);
        assert_eq!(rfc3339(late), "2026-11-22T23:59:59.007Z");
    }
}
