//! Dates in HTTP: RFC 9110, section 5.6.7.

use std::time::SystemTime;

use httpdate::{fmt_http_date, parse_http_date};

/// Reads a date in any of the three forms. `httpdate` reads them all, but takes a two-digit year as one from 1970 to
/// 2069, whatever the current year is.
pub(crate) fn http_date(text: &str, now: SystemTime) -> Option<SystemTime> {
    let with_century = with_century(text, now);
    parse_http_date(with_century.as_deref().unwrap_or(text)).ok()
}

/// Converts the form of RFC 850 to the preferred form. The year is at most 50 years in the future.
fn with_century(text: &str, now: SystemTime) -> Option<String> {
    let (weekday, date) = text.split_once(", ")?;
    let [day, month, year_and_time] = date.splitn(3, '-').collect::<Vec<_>>().try_into().ok()?;
    let (year, time) = year_and_time.split_once(' ')?;
    let present: u32 = fmt_http_date(now).get(12..16)?.parse().ok()?;
    let mut year = year.parse::<u32>().ok().filter(|_| year.len() == 2)? + present / 100 * 100;
    if year > present + 50 {
        year -= 100;
    }
    Some(format!("{}, {day} {month} {year} {time}", weekday.get(..3)?))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn is_read_in_all_its_forms() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_344_091);
        for (text, expected) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some("Sun, 06 Nov 1994 08:49:37 GMT")),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some("Sun, 06 Nov 1994 08:49:37 GMT")),
            ("Sun Nov  6 08:49:37 1994", Some("Sun, 06 Nov 1994 08:49:37 GMT")),
            ("Thursday, 18-Aug-50 02:01:18 GMT", Some("Thu, 18 Aug 2050 02:01:18 GMT")),
            ("Wednesday, 01-Jan-76 00:00:00 GMT", Some("Wed, 01 Jan 2076 00:00:00 GMT")),
            ("Saturday, 01-Jan-77 00:00:00 GMT", Some("Sat, 01 Jan 1977 00:00:00 GMT")),
            ("Thu, 18 Aug 50 02:01:18 GMT", None),
            ("Thu, 18-Aug-2050 02:01:18 GMT", None),
            ("Thu, 18 Aug 2050 02:01:18 AEST", None),
            ("0", None),
            ("", None),
            (", - -", None),
            ("\u{e9}\u{e9}, 1-2-33 4", None),
        ] {
            assert_eq!(http_date(text, now).map(fmt_http_date).as_deref(), expected, "{text}");
        }
    }
}
