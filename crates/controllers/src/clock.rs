//! The one place where controllers read the wall clock. Reads: the clock. Invariant: `plan` functions take the time as an
//! argument and never call this.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

pub fn now() -> Timestamp {
    Timestamp::now()
}

/// For fields of an object.
pub fn now_time() -> Time {
    Time(now())
}

/// Seconds from `from` to `to`, negative if `to` is earlier.
pub fn seconds_between(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}

/// `from` later by whole seconds, held at the end of time.
pub fn after_s(from: Timestamp, seconds: i64) -> Timestamp {
    from.checked_add(k8s_openapi::jiff::SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}

/// How long from `now` until `at`; zero if past.
pub fn until(now: Timestamp, at: Timestamp) -> std::time::Duration {
    std::time::Duration::try_from(at.duration_since(now)).unwrap_or_default()
}
