//! Timestamps and durations: reading them, their parts in a time zone, printing them.
//! Invariant: timestamps are within the years 1 and 9999, durations within 64 bits of nanoseconds.

use crate::eval::{Builtin, Ctx};
use crate::value::{Result, Val, failed, no_overload};
use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};
pub use meta::time::parse_go_duration as read_duration;

const NANOS: i64 = 1_000_000_000;

pub fn find(name: &str) -> Option<Builtin> {
    Some(match name {
        "timestamp" => |_, args| match &args[0] {
            Val::Timestamp(t) => Ok(Val::Timestamp(*t)),
            Val::Int(seconds) => match Timestamp::from_second(*seconds).ok().filter(|t| in_range(*t)) {
                Some(t) => Ok(Val::Timestamp(t)),
                None => failed("timestamp overflow"),
            },
            Val::String(text) => match read_timestamp(text) {
                Some(t) => Ok(Val::Timestamp(t)),
                None => failed("type conversion error from 'string' to 'google.protobuf.Timestamp'"),
            },
            _ => no_overload(),
        },
        "duration" => |_, args| match &args[0] {
            Val::Duration(d) => Ok(Val::Duration(*d)),
            Val::String(text) => match read_duration(text) {
                Some(d) => Ok(Val::Duration(d)),
                None => failed("type conversion error from 'string' to 'google.protobuf.Duration'"),
            },
            _ => no_overload(),
        },
        "getFullYear" | "getMonth" | "getDate" | "getDayOfMonth" | "getDayOfWeek" | "getDayOfYear" | "getHours"
        | "getMinutes" | "getSeconds" | "getMilliseconds" => part,
        _ => return None,
    })
}

pub fn in_range(t: Timestamp) -> bool {
    (-62_135_596_800..=253_402_300_799).contains(&t.as_second())
}

/// RFC 3339 to the letter, or a date alone where a schema says so (`2020-01-02`: a format of its own).
pub fn read_timestamp(text: &str) -> Option<Timestamp> {
    let b = text.as_bytes();
    let shape = b"0000-00-00T00:00:00";
    let fits = |b: &u8, shape: &u8| if *shape == b'0' { b.is_ascii_digit() } else { b == shape };
    if b.len() < 20 || !b.iter().zip(shape).all(|(b, shape)| fits(b, shape)) {
        return None;
    }
    let mut rest = &text[19..];
    if let Some(fraction) = rest.strip_prefix('.') {
        let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return None;
        }
        rest = &fraction[digits..];
    }
    let offset = rest.as_bytes();
    let zoned = offset.len() == 6 && offset.iter().zip(b"+00:00").skip(1).all(|(b, shape)| fits(b, shape));
    if rest != "Z" && !(zoned && matches!(offset[0], b'+' | b'-')) {
        return None;
    }
    text.parse().ok().filter(|t| in_range(*t))
}

/// A schema's `format: date`.
pub fn read_date(text: &str) -> Option<Timestamp> {
    if text.len() != 10 {
        return None;
    }
    read_timestamp(&format!("{text}T00:00:00Z"))
}

/// Seconds with what fraction there is: `5400s`, `1.5s`.
pub fn duration_text(value: &Val) -> String {
    let Val::Duration(nanos) = value else { return String::new() };
    let (sign, nanos) = (if *nanos < 0 { "-" } else { "" }, nanos.unsigned_abs());
    let (seconds, fraction) = (nanos / NANOS as u64, nanos % NANOS as u64);
    if fraction == 0 {
        return format!("{sign}{seconds}s");
    }
    format!("{sign}{seconds}.{}s", format!("{fraction:09}").trim_end_matches('0'))
}

fn part<'a>(ctx: &mut Ctx<'a, '_>, args: &[Val<'a>]) -> Result<Val<'a>> {
    let name = ctx.call.name;
    let t = match &args[0] {
        Val::Timestamp(t) => *t,
        Val::Duration(nanos) => {
            return Ok(Val::Int(match name {
                "getHours" => nanos / (3600 * NANOS),
                "getMinutes" => nanos / (60 * NANOS),
                "getSeconds" => nanos / NANOS,
                "getMilliseconds" => nanos % NANOS / 1_000_000,
                _ => return no_overload(),
            }));
        }
        _ => return no_overload(),
    };
    let zone = match args.get(1) {
        Some(zone) => zone_named(zone.as_str()?)?,
        None => TimeZone::UTC,
    };
    let zoned = t.to_zoned(zone);
    Ok(Val::Int(match name {
        "getFullYear" => zoned.year().into(),
        "getMonth" => i64::from(zoned.month()) - 1,
        "getDate" => zoned.day().into(),
        "getDayOfMonth" => i64::from(zoned.day()) - 1,
        "getDayOfWeek" => zoned.weekday().to_sunday_zero_offset().into(),
        "getDayOfYear" => i64::from(zoned.day_of_year()) - 1,
        "getHours" => zoned.hour().into(),
        "getMinutes" => zoned.minute().into(),
        "getSeconds" => zoned.second().into(),
        _ => zoned.millisecond().into(),
    }))
}

/// `Europe/Berlin`, `UTC`, `-05:00`.
fn zone_named(name: &str) -> Result<TimeZone> {
    let (sign, digits) = match name.as_bytes().first() {
        None => return Ok(TimeZone::UTC),
        Some(b'-') => (-1, &name[1..]),
        Some(b'+') => (1, &name[1..]),
        Some(_) => (1, name),
    };
    if let Some((hours, minutes)) = digits.split_once(':') {
        let offset = hours.parse::<i32>().ok().zip(minutes.parse::<i32>().ok());
        let offset = offset.filter(|(h, m)| (0..24).contains(h) && (0..60).contains(m));
        return match offset.and_then(|(h, m)| Offset::from_seconds(sign * (h * 3600 + m * 60)).ok()) {
            Some(offset) => Ok(TimeZone::fixed(offset)),
            None => failed(format!("unknown time zone {name}")),
        };
    }
    TimeZone::get(name).or_else(|_| failed(format!("unknown time zone {name}")))
}
