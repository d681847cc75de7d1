//! Times and waits in the headers of HTTP answers (RFC 9110, 5.6.7 and 10.2.3).

use std::time::{Duration, UNIX_EPOCH};

use super::Timestamp;

/// Parses an HTTP date, such as the value of `Date`. Returns `None` for other text and for times before 1970.
pub fn parse_http_date(value: &str) -> Option<Timestamp> {
    let date = httpdate::parse_http_date(value.trim()).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(Timestamp::from_millis(u64::try_from(date.as_millis()).unwrap_or(u64::MAX)))
}

/// Returns the wait that `Retry-After` asks for: seconds, or the span until an HTTP date. A number of any length is a
/// wait, and the longest one if it does not fit. A date counts from `date`, the `Date` of the same answer, and from `now`
/// without it. Returns `None` for other text.
pub fn parse_retry_after(value: &str, date: Option<&str>, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // Only a number that is too large fails to parse here.
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let until = parse_http_date(value)?;
    Some(until.since(date.and_then(parse_http_date).unwrap_or(now)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_795_000_000_987);
    const IN_A_MINUTE: &str = "Wed, 18 Nov 2026 11:07:40 GMT";

    #[test]
    fn number_of_any_length_is_a_wait() {
        for (value, seconds) in [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", Some(u64::MAX)),
            ("999999999999999999999999999999", Some(u64::MAX)),
            ("-1", None),
            ("+1", None),
            ("1.5", None),
            ("", None),
            ("soon", None),
            ("Mon, 01 Jan 1990 00:00:00 GMT", Some(0)),
            ("Thu, 01 Jan 1969 00:00:00 GMT", None),
        ] {
            let wait = parse_retry_after(value, None, NOW);
            assert_eq!(wait, seconds.map(Duration::from_secs), "{value:?}");
        }
    }

    #[test]
    fn date_counts_from_the_clock_of_its_sender() {
        let wait = |date| parse_retry_after(IN_A_MINUTE, date, NOW);
        assert_eq!(wait(None), Some(Duration::from_millis(59_013)));
        assert_eq!(wait(Some("yesterday")), Some(Duration::from_millis(59_013)));
        assert_eq!(wait(Some("Wed, 18 Nov 2026 11:07:35 GMT")), Some(Duration::from_secs(5)));
        assert_eq!(wait(Some("Wed, 18 Nov 2026 11:08:35 GMT")), Some(Duration::ZERO));
    }
}
