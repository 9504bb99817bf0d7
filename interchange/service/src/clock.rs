//! The wall clock, in the form in which times are stored.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch.
pub(crate) type Milliseconds = i64;

/// The time now.
pub(crate) fn now() -> Milliseconds {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
}

/// A span of time as it is added to a time.
pub(crate) fn milliseconds(span: Duration) -> Milliseconds {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

/// As clients read completion times: seconds since the Unix epoch, as text.
pub(crate) fn as_seconds(time: Milliseconds) -> String {
    format!("{}.{:03}", time.div_euclid(1000), time.rem_euclid(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_completion_time_keeps_its_milliseconds() {
        assert_eq!(as_seconds(1_234_567_890_042), "1234567890.042");
    }
}
