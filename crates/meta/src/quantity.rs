//! Quantity: the fixed-point number of resource amounts (`100m`, `1.5Gi`, `2e3`).
//! Reads and writes text only. Invariant: a quantity is a whole number of nanos, so every parsed value is exact
//! after upstream's own rounding (away from zero at the ninth decimal), and printing gives upstream's canonical form.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const NANOS: i128 = 1_000_000_000;
/// Upstream caps binary amounts here.
const MAX_ALLOWED: i128 = i64::MAX as i128 * NANOS;

/// How a quantity is printed. It is taken from the suffix it was written with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Format {
    /// `e3`, `e-3`
    DecimalExponent,
    /// `Ki`, `Mi`, `Gi`
    BinarySI,
    /// `m`, ``, `k`, `M`
    #[default]
    DecimalSI,
}

/// Why a text is not a quantity; the wording is upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseQuantityError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// An amount in nanos together with the format it prints in. Comparison ignores the format.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

impl Quantity {
    /// `value` whole units.
    pub const fn from_i64(value: i64, format: Format) -> Self {
        Self { nanos: value as i128 * NANOS, format }
    }

    /// `value` thousandths.
    pub const fn from_milli(value: i64, format: Format) -> Self {
        Self { nanos: value as i128 * 1_000_000, format }
    }

    pub const fn zero(format: Format) -> Self {
        Self { nanos: 0, format }
    }

    /// Reads a quantity such as `250m`, `1Gi`, `0.5` or `2e3`.
    pub fn parse(text: &str) -> Result<Self, ParseQuantityError> {
        let parts = Parts::split(text)?;
        let (base, exponent, format) = interpret_suffix(parts.suffix).ok_or(ParseQuantityError::Suffix)?;
        let mut nanos = match base {
            Base::Ten => decimal_nanos(parts.whole, parts.fraction, exponent),
            Base::Two => binary_nanos(parts.whole, parts.fraction, exponent),
        };
        let mut format = format;
        if format == Format::BinarySI {
            nanos = nanos.min(MAX_ALLOWED);
            // Compat: a binary amount below one prints as a decimal one.
            if parts.positive && nanos < NANOS {
                format = Format::DecimalSI;
            }
        }
        if !parts.positive {
            nanos = -nanos;
        }
        Ok(Self { nanos, format })
    }

    /// The text that an API server stores for `text`.
    ///
    /// Compat: upstream's decoder keeps a decimal text as written (`1.001`, `007`, `+1`) when the exponent of its last
    /// digit is a multiple of three and it does not end in three zeros; everything else becomes canonical.
    pub fn stored_text(text: &str) -> Result<Cow<'_, str>, ParseQuantityError> {
        let quantity = Self::parse(text)?;
        let parts = Parts::split(text)?;
        let (base, exponent, _) = interpret_suffix(parts.suffix).ok_or(ParseQuantityError::Suffix)?;
        let digits = parts.whole.len() + parts.fraction.len();
        let scale = exponent - parts.fraction.len() as i32;
        let last =
            |n: usize| parts.whole.bytes().chain(parts.fraction.bytes()).rev().take(n).filter(|b| *b == b'0').count();
        let kept = matches!(base, Base::Ten)
            && digits <= 18
            && scale >= -9
            && scale % 3 == 0
            && last(3) < 3
            && parts.whole.starts_with(|c| c != '0');
        Ok(if kept { Cow::Borrowed(text) } else { Cow::Owned(quantity.to_string()) })
    }

    pub fn format(&self) -> Format {
        self.format
    }

    /// The same amount, printed in another format.
    pub fn with_format(self, format: Format) -> Self {
        Self { format, ..self }
    }

    /// Whole units, rounded away from zero, saturating.
    pub fn value(&self) -> i64 {
        clamp(div_away(self.nanos, NANOS))
    }

    /// Thousandths, rounded away from zero, saturating.
    pub fn milli_value(&self) -> i64 {
        clamp(div_away(self.nanos, 1_000_000))
    }

    /// The amount as a floating-point number of units.
    pub fn as_f64(&self) -> f64 {
        self.nanos as f64 / NANOS as f64
    }

    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// -1, 0 or 1.
    pub fn sign(&self) -> i32 {
        self.nanos.signum() as i32
    }

    /// True when the amount has no fraction of a unit.
    pub fn is_whole(&self) -> bool {
        self.nanos % NANOS == 0
    }

    /// True when the amount has no fraction of a thousandth.
    pub fn is_whole_milli(&self) -> bool {
        self.nanos % 1_000_000 == 0
    }

    /// Rounds away from zero to whole thousandths, as the defaults of resource lists do.
    pub fn round_up_milli(self) -> Self {
        Self { nanos: div_away(self.nanos, 1_000_000) * 1_000_000, ..self }
    }

    /// Sum. Takes the format of `other` when self is zero, as upstream does.
    #[allow(clippy::should_implement_trait)]
    pub fn add(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nanos: self.nanos.saturating_add(other.nanos), format }
    }

    /// Difference. Takes the format of `other` when self is zero, as upstream does.
    #[allow(clippy::should_implement_trait)]
    pub fn sub(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nanos: self.nanos.saturating_sub(other.nanos), format }
    }

    pub fn negate(self) -> Self {
        Self { nanos: -self.nanos, ..self }
    }
}

fn clamp(value: i128) -> i64 {
    value.clamp(i64::MIN as i128, i64::MAX as i128) as i64
}

fn div_away(value: i128, by: i128) -> i128 {
    let quotient = value / by;
    if value % by == 0 { quotient } else { quotient + value.signum() }
}

struct Parts<'a> {
    positive: bool,
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

impl<'a> Parts<'a> {
    fn split(text: &'a str) -> Result<Self, ParseQuantityError> {
        let (positive, rest) = match text.as_bytes().first() {
            None => return Err(ParseQuantityError::Format),
            Some(b'-') => (false, &text[1..]),
            Some(b'+') => (true, &text[1..]),
            Some(_) => (true, text),
        };
        let (whole, rest) = take(rest, |b| b.is_ascii_digit());
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(rest) => take(rest, |b| b.is_ascii_digit()),
            None => ("", rest),
        };
        let (_, tail) = take(suffix, |b| b"eEinumkKMGTP".contains(&b));
        let tail = tail.strip_prefix(['+', '-']).unwrap_or(tail);
        let (_, tail) = take(tail, |b| b.is_ascii_digit());
        if !tail.is_empty() {
            return Err(ParseQuantityError::Format);
        }
        Ok(Self { positive, whole: whole.trim_start_matches('0'), fraction, suffix })
    }
}

fn take(text: &str, wanted: impl Fn(u8) -> bool) -> (&str, &str) {
    let end = text.bytes().position(|b| !wanted(b)).unwrap_or(text.len());
    text.split_at(end)
}

enum Base {
    Two,
    Ten,
}

const DECIMAL_SUFFIXES: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY_SUFFIXES: [(&str, i32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];

fn interpret_suffix(suffix: &str) -> Option<(Base, i32, Format)> {
    if let Some((_, exponent)) = DECIMAL_SUFFIXES.iter().find(|(s, _)| *s == suffix) {
        return Some((Base::Ten, *exponent, Format::DecimalSI));
    }
    if let Some((_, exponent)) = BINARY_SUFFIXES.iter().find(|(s, _)| *s == suffix) {
        return Some((Base::Two, *exponent, Format::BinarySI));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
    Some((Base::Ten, exponent, Format::DecimalExponent))
}

/// The digits as nanos, rounded up; saturates far above anything a quantity can mean.
fn decimal_nanos(whole: &str, fraction: &str, exponent: i32) -> i128 {
    let shift = i64::from(exponent) + 9;
    let digits = whole.bytes().chain(fraction.bytes());
    // position of the digit's power of ten, counted down
    let mut power = whole.len() as i64 - 1 + shift;
    let mut nanos: i128 = 0;
    let mut rest = false;
    for digit in digits {
        let digit = i128::from(digit - b'0');
        if digit != 0 {
            if power < 0 {
                rest = true;
            } else if power > 37 {
                return i128::MAX / 4;
            } else {
                nanos = nanos.saturating_add(digit.saturating_mul(10i128.pow(power as u32)));
            }
        }
        power -= 1;
    }
    nanos.saturating_add(i128::from(rest)).min(i128::MAX / 4)
}

/// The digits times a power of two as nanos, rounded up.
fn binary_nanos(whole: &str, fraction: &str, exponent: i32) -> i128 {
    let factor = (1i128 << exponent) * NANOS; // at most 2^90
    let whole = decimal_nanos(whole, "", -9).min(1 << 80).checked_mul(factor).unwrap_or(i128::MAX / 4);
    // From the last digit to the first; floor((floor(x) + k) / 10) = floor((x + k) / 10), so only the last rounding is ours.
    let mut part: i128 = 0;
    let mut inexact = false;
    for digit in fraction.bytes().rev() {
        let sum = part + i128::from(digit - b'0') * factor;
        inexact |= sum % 10 != 0;
        part = sum / 10;
    }
    whole.saturating_add(part + i128::from(inexact)).min(i128::MAX / 4)
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        match self.format {
            Format::BinarySI if self.nanos.abs() >= 1024 * NANOS && self.is_whole() => {
                let mut amount = self.nanos / NANOS;
                let mut suffix = 0;
                while amount % 1024 == 0 && suffix < BINARY_SUFFIXES.len() {
                    amount /= 1024;
                    suffix += 1;
                }
                let suffix = if suffix == 0 { "" } else { BINARY_SUFFIXES[suffix - 1].0 };
                write!(f, "{amount}{suffix}")
            }
            Format::DecimalExponent => {
                let (amount, exponent) = self.shortest(i32::MAX);
                match exponent {
                    0 => write!(f, "{amount}"),
                    _ => write!(f, "{amount}e{exponent}"),
                }
            }
            _ => {
                let (amount, exponent) = self.shortest(18);
                let suffix = DECIMAL_SUFFIXES.iter().find(|(_, e)| *e == exponent).map_or("", |(s, _)| s);
                write!(f, "{amount}{suffix}")
            }
        }
    }
}

impl Quantity {
    /// Amount and exponent, the exponent the largest multiple of three (up to `max`) that leaves a whole amount.
    fn shortest(&self, max: i32) -> (i128, i32) {
        let (mut amount, mut exponent) = (self.nanos, -9);
        while amount % 1000 == 0 && exponent < max {
            amount /= 1000;
            exponent += 3;
        }
        (amount, exponent)
    }
}

impl FromStr for Quantity {
    type Err = ParseQuantityError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(text.trim()).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_form() {
        golden::check!("tests/quantity.txt", |text| match Quantity::parse(text) {
            Ok(got) => {
                assert_eq!(Quantity::parse(&got.to_string()), Ok(got), "{text}");
                let stored = Quantity::stored_text(text).expect(text);
                format!("{stored} {} {}", got.value(), got.milli_value())
            }
            Err(error) => format!("!{error:?}"),
        });
    }

    #[test]
    fn arithmetic_and_order() {
        let q = |t: &str| Quantity::parse(t).expect(t);
        assert_eq!(q("1").add(q("500m")).to_string(), "1500m");
        assert_eq!(q("0").add(q("1Gi")).to_string(), "1Gi");
        assert_eq!(q("1Gi").sub(q("512Mi")).to_string(), "512Mi");
        assert_eq!(q("1").sub(q("2")).to_string(), "-1");
        assert_eq!(q("1k"), q("1000"));
        assert!(q("1Ki") > q("1k") && q("1m") < q("1"));
        assert_eq!(Quantity::from_i64(2048, Format::BinarySI).to_string(), "2Ki");
        assert_eq!(Quantity::from_milli(1500, Format::DecimalSI).to_string(), "1500m");
        assert_eq!(q("100u").round_up_milli().to_string(), "1m");
    }
}
