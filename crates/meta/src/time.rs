//! Time as the API writes it.
//!
//! `Time` has seconds (`2026-01-02T03:04:05Z`), `MicroTime` six digits after them. This is the one place in `meta` that
//! reads the clock.

pub use jiff::Timestamp;

/// The current time. Everything pure takes it as an argument instead.
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// RFC 3339 with whole seconds, UTC.
pub fn seconds(t: Timestamp) -> String {
    t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// RFC 3339 with six digits, UTC.
pub fn micros(t: Timestamp) -> String {
    t.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Reads RFC 3339 with any offset.
pub fn parse(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// An age as kubectl's columns print it: `3s`, `5m30s`, `12m`, `3h5m`, `2d4h`, `15d`, `2y10d`.
///
/// Source: the behaviour of `kubectl get` (k8s.io/apimachinery `duration.HumanDuration`).
pub fn human_duration(age: jiff::SignedDuration) -> String {
    let s = age.as_secs();
    if s < -1 {
        return "<invalid>".into();
    }
    let s = s.max(0);
    let (m, h, d) = (s / 60, s / 3600, s / 86400);
    let two = |big: i64, unit: char, small: i64, small_unit: char| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{small_unit}") }
    };
    match () {
        _ if s < 120 => format!("{s}s"),
        _ if m < 10 => two(m, 'm', s % 60, 's'),
        _ if m < 180 => format!("{m}m"),
        _ if h < 8 => two(h, 'h', m % 60, 'm'),
        _ if h < 48 => format!("{h}h"),
        _ if h < 192 => two(d, 'd', h % 24, 'h'),
        _ if d < 730 => format!("{d}d"),
        _ if d < 8 * 365 => two(d / 365, 'y', d % 365, 'd'),
        _ => format!("{}y", d / 365),
    }
}

/// As `human_duration`, for a whole number of seconds.
pub fn human_seconds(seconds: i64) -> String {
    human_duration(jiff::SignedDuration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_as_the_api_does() {
        let t = parse("2026-01-02T03:04:05.678901234+01:00").expect("time");
        assert_eq!(seconds(t), "2026-01-02T02:04:05Z");
        assert_eq!(micros(t), "2026-01-02T02:04:05.678901Z");
        assert!(parse("yesterday").is_none());
    }

    #[test]
    fn ages() {
        for (s, text) in [
            (-5, "<invalid>"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (330, "5m30s"),
            (720, "12m"),
            (11_100, "3h5m"),
            (36_000, "10h"),
            (187_200, "2d4h"),
            (1_296_000, "15d"),
            (63_936_000, "2y10d"),
        ] {
            assert_eq!(human_duration(jiff::SignedDuration::from_secs(s)), text, "{s}");
        }
    }
}
