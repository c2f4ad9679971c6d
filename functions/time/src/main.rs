//! `GET /time`: the current time, in UTC or in the IANA zone of `?tz=`.

use std::{fmt, process::ExitCode};

use handler::{Problem, Request, Response, negotiate, query};
use jiff::{
    Timestamp,
    fmt::temporal::DateTimePrinter,
    tz::{TimeZone, TimeZoneDatabase},
};
use serde::Serialize;

/// Twice the length of the longest name in the database.
const MAX_ZONE_CHARS: usize = 64;

fn main() -> ExitCode {
    handler::run(time)
}

async fn time(request: Request) -> Result<Response, Problem> {
    let zone = match query(&request, "tz", MAX_ZONE_CHARS)? {
        None => TimeZone::UTC,
        Some(name) => named(&name)
            .ok_or_else(|| Problem::invalid_parameter("`tz` is not a known IANA time zone such as Europe/Paris."))?,
    };
    negotiate(&request, &Now::at(Timestamp::now(), &zone))
}

/// The zone with this name, in any case. The compiled-in database is used, because Lambda's image has none.
fn named(name: &str) -> Option<TimeZone> {
    let zone = TimeZoneDatabase::bundled().get(name).ok()?;
    // jiff also takes the names for a zone that is not known or not set, and these have no time.
    (!zone.is_unknown() && zone.iana_name() != Some("Factory")).then_some(zone)
}

/// The response: JSON in this shape, or text from its [`Display`](fmt::Display).
#[derive(Debug, PartialEq, Serialize)]
struct Now {
    /// RFC 3339, always with six decimals: `Z` in UTC, a numeric offset elsewhere.
    time: String,
    unix_ms: i64,
    time_zone: String,
}

impl Now {
    fn at(timestamp: Timestamp, zone: &TimeZone) -> Self {
        let printer = DateTimePrinter::new().precision(Some(6));
        let time = if *zone == TimeZone::UTC {
            printer.timestamp_to_string(&timestamp)
        } else {
            printer.timestamp_with_offset_to_string(&timestamp, zone.to_offset(timestamp))
        };
        Self { time, unix_ms: timestamp.as_millisecond(), time_zone: zone.iana_name().unwrap_or("UTC").to_owned() }
    }
}

impl fmt::Display for Now {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Current time: {}", self.time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_its_events() {
        testbed::replay("time", time).await;
    }

    #[tokio::test]
    async fn the_time_is_this_machines() {
        let before = Timestamp::now().as_millisecond();
        let mut request = Request::default();
        request.headers_mut().insert("accept", "application/json".parse().unwrap());
        let response = time(request).await.unwrap();
        let handler::Body::Text(body) = response.body() else { panic!("no text") };
        let (_, unix_ms) = body.split_once("\"unix_ms\":").unwrap();
        let told: i64 = unix_ms.split_once([',', '}']).unwrap().0.parse().unwrap();
        assert!((before..=Timestamp::now().as_millisecond()).contains(&told), "{body}");
    }

    #[test]
    fn a_name_that_stands_for_no_zone_is_refused() {
        for name in ["Europe/Paris", "europe/PARIS", "UTC", "utc", "Etc/UTC", "Zulu", "GMT0", "EST5EDT", "Etc/GMT+12"] {
            assert!(named(name).is_some(), "{name}");
        }
        for name in [
            "Etc/Unknown",
            "etc/UNKNOWN",
            "Factory",
            "factory",
            "UTC0",
            "EST5EDT,M3.2.0,M11.1.0",
            "<+01>-1",
            ":UTC",
            "posix/Europe/Paris",
            "right/Europe/Paris",
            "posixrules",
            "localtime",
            "local",
            "Z",
            "+01:00",
            "../UTC",
            "/UTC",
            " UTC",
            "UTC ",
            "Europe",
            "Europe/",
        ] {
            assert!(named(name).is_none(), "{name}");
        }
    }

    #[test]
    fn uses_the_zones_offset_at_that_moment() {
        for (zone, seconds, time) in [
            ("UTC", 1_784_716_891, "2026-07-22T10:41:31.123456Z"),
            ("Europe/Paris", 1_784_716_891, "2026-07-22T12:41:31.123456+02:00"),
            ("Europe/Paris", 1_795_344_091, "2026-11-22T11:41:31.123456+01:00"),
            ("Asia/Kathmandu", 1_795_344_091, "2026-11-22T16:26:31.123456+05:45"),
        ] {
            let timestamp = Timestamp::new(seconds, 123_456_789).unwrap();
            let now = Now::at(timestamp, &TimeZoneDatabase::bundled().get(zone).unwrap());
            assert_eq!(now.time, time);
            assert_eq!(now.unix_ms, seconds * 1000 + 123);
            assert_eq!(now.time_zone, zone);
        }
    }
}
