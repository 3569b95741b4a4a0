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

/// Go's units of durations in nanoseconds, the longest first.
const GO_UNITS: [(&str, u64); 8] = [
    ("h", 3_600_000_000_000),
    ("ms", 1_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ns", 1),
];

/// A duration as Go prints it: `1h2m3.5s`.
pub fn go_duration(nanos: i64) -> String {
    if nanos == 0 {
        return "0s".into();
    }
    let sign = if nanos < 0 { "-" } else { "" };
    let all = nanos.unsigned_abs();
    let small = |unit: u64, name: &str| format!("{sign}{}{name}", all as f64 / unit as f64);
    match all {
        n if n < 1_000 => return format!("{sign}{n}ns"),
        n if n < 1_000_000 => return small(1_000, "µs"),
        n if n < 1_000_000_000 => return small(1_000_000, "ms"),
        _ => {}
    }
    let (hours, minutes) = (all / 3_600_000_000_000, all / 60_000_000_000 % 60);
    let seconds = (all % 60_000_000_000) as f64 / 1e9;
    match (hours, minutes) {
        (0, 0) => format!("{sign}{seconds}s"),
        (0, m) => format!("{sign}{m}m{seconds}s"),
        (h, m) => format!("{sign}{h}h{m}m{seconds}s"),
    }
}

/// Reads `0`, or signed decimal numbers each with a unit, as nanoseconds.
pub fn parse_go_duration(text: &str) -> Option<i64> {
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return Some(0);
    }
    let mut all: u64 = 0;
    let mut any = false;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let (number, after) = rest.split_at(digits);
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if part.contains('.') || (whole.is_empty() && part.is_empty()) {
            return None;
        }
        let (unit, nanos) = GO_UNITS.iter().find(|(unit, _)| after.starts_with(unit))?;
        rest = &after[unit.len()..];
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        // More digits than these are less than a nanosecond.
        let part = &part[..part.len().min(15)];
        let fraction = part.parse::<u128>().unwrap_or(0) * u128::from(*nanos) / 10u128.pow(part.len() as u32);
        all = all.checked_add(whole.checked_mul(*nanos)?)?.checked_add(u64::try_from(fraction).ok()?)?;
        any = true;
    }
    let limit = i64::MAX as u64;
    match text.starts_with('-') {
        _ if !any => None,
        true if all <= limit + 1 => Some((all as i64).wrapping_neg()),
        false if all <= limit => Some(all as i64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        golden::check!("tests/durations.txt", |text| {
            let Some(nanos) = parse_go_duration(text) else { return "no duration".into() };
            format!("{nanos} {} {}", go_duration(nanos), human_duration(jiff::SignedDuration::from_nanos(nanos)))
        });
    }

    #[test]
    fn written_as_the_api_does() {
        let t = parse("2026-01-02T03:04:05.678901234+01:00").expect("time");
        assert_eq!(seconds(t), "2026-01-02T02:04:05Z");
        assert_eq!(micros(t), "2026-01-02T02:04:05.678901Z");
        assert!(parse("yesterday").is_none());
    }
}
