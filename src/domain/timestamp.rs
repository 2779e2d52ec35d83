//! Points in time, as the contract and the files have them.

use std::fmt;
use std::time::SystemTime;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use time::format_description::well_known::Rfc3339;
use time::macros::{datetime, format_description};
use time::{OffsetDateTime, PrimitiveDateTime, UtcOffset};

/// A point in time: RFC 3339 in UTC with `Z`, to the nanosecond where it is a file's.
///
/// Files of version "1.0" have times without a zone; these are UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(OffsetDateTime);

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self(OffsetDateTime::UNIX_EPOCH);

    /// Now, to the microsecond.
    pub fn now() -> Self {
        let now = OffsetDateTime::now_utc();
        Self(now.replace_microsecond(now.microsecond()).unwrap_or(now))
    }

    /// Seconds since 1970, whole; negative before.
    pub fn unix_seconds(self) -> i64 {
        self.0.unix_timestamp()
    }

    /// Milliseconds since 1970, whole; 0 before.
    pub(super) fn unix_millis(self) -> u64 {
        u64::try_from(self.0.unix_timestamp_nanos() / 1_000_000).unwrap_or(0)
    }

    /// The point in time that many whole seconds after 1970 in UTC; `None` beyond the year 9999.
    pub fn from_unix_seconds(seconds: i64) -> Option<Self> {
        OffsetDateTime::from_unix_timestamp(seconds).ok().map(Self)
    }

    /// The same as the standard library has it.
    pub fn to_system_time(self) -> SystemTime {
        self.0.into()
    }

    /// Reads RFC 3339, or the same without a zone (UTC).
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(time) = OffsetDateTime::parse(text, &Rfc3339) {
            return Some(Self(time.to_offset(UtcOffset::UTC)));
        }
        let zoneless = format_description!(
            version = 2,
            "[year]-[month]-[day][first [T] [ ]][hour]:[minute]:[second][optional [.[subsecond]]]"
        );
        PrimitiveDateTime::parse(text, zoneless).ok().map(|time| Self(time.assume_utc()))
    }
}

impl From<SystemTime> for Timestamp {
    /// A time before the year 0 or after 9999, which a file can bear and RFC 3339 can't, becomes the nearest it can.
    fn from(time: SystemTime) -> Self {
        const FIRST: OffsetDateTime = datetime!(0000-01-01 0:00 UTC);
        const LAST: OffsetDateTime = datetime!(9999-12-31 23:59:59.999_999_999 UTC);
        let since = |duration| time::Duration::try_from(duration).unwrap_or(time::Duration::MAX);
        let epoch = OffsetDateTime::UNIX_EPOCH;
        let time = match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => epoch.saturating_add(since(after)),
            Err(before) => epoch.saturating_sub(since(before.duration())),
        };
        Self(time.clamp(FIRST, LAST))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.format(&Rfc3339).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no RFC 3339 time")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_with_and_without_a_zone_are_read_as_utc() {
        for (text, shown) in [
            ("2024-10-24T07:50:00.000000", "2024-10-24T07:50:00Z"),
            ("2024-10-24T07:51:00.125000", "2024-10-24T07:51:00.125Z"),
            ("2024-10-24T07:50:00", "2024-10-24T07:50:00Z"),
            ("2024-10-24 07:50:00", "2024-10-24T07:50:00Z"),
            ("2024-10-24T07:50:00Z", "2024-10-24T07:50:00Z"),
            ("2024-10-24T09:50:00+02:00", "2024-10-24T07:50:00Z"),
            ("2024-10-24T07:50:00.123456789Z", "2024-10-24T07:50:00.123456789Z"),
        ] {
            assert_eq!(Timestamp::parse(text).map(|time| time.to_string()).as_deref(), Some(shown), "{text}");
        }
        for text in ["", "yesterday", "2024-10-24", "2024-13-01T00:00:00Z"] {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_files_time_that_no_calendar_has_is_the_nearest_one() {
        use std::time::Duration;
        let epoch = SystemTime::UNIX_EPOCH;
        for (time, shown) in [
            (epoch + Duration::new(1, 5), "1970-01-01T00:00:01.000000005Z"),
            (epoch - Duration::new(1, 0), "1969-12-31T23:59:59Z"),
            (epoch + Duration::from_secs(1 << 45), "9999-12-31T23:59:59.999999999Z"),
            (epoch - Duration::from_secs(1 << 45), "0000-01-01T00:00:00Z"),
        ] {
            assert_eq!(Timestamp::from(time).to_string(), shown);
        }
    }

    #[test]
    fn now_reads_back_as_itself() {
        let now = Timestamp::now();
        assert_eq!(Timestamp::parse(&now.to_string()), Some(now));
    }
}
