//! `string.format`: clauses, what they take, how values print; and the named formats of `format.*`.
//! Messages are upstream's.

use crate::cost::WORK_BYTES;
use crate::eval::{Builtin, Ctx};
use crate::library::{net, time};
use crate::types::Type;
use crate::value::{EvalError, Opaque, Result, Val, failed, no_overload};
use base64::Engine;
use meta::names;

/// A piece of a format string: text as it is, then perhaps a verb.
pub struct Clause<'t> {
    pub text: &'t str,
    pub verb: Option<char>,
    precision: Option<usize>,
}

const PRECISION_MAX: usize = 100;
/// Bytes of one printed value.
const PRINTED_MAX: usize = 1 << 22;

pub fn clauses(text: &str) -> std::result::Result<Vec<Clause<'_>>, String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        let (before, mut after) = (&rest[..at], &rest[at + 1..]);
        if let Some(tail) = after.strip_prefix('%') {
            found.push(Clause { text: &rest[..at + 1], verb: None, precision: None });
            rest = tail;
            continue;
        }
        let mut precision = None;
        if let Some(digits) = after.strip_prefix('.') {
            let length = digits.bytes().take_while(u8::is_ascii_digit).count();
            let number = digits[..length].parse().ok().filter(|n| *n <= PRECISION_MAX);
            precision = Some(number.ok_or("could not parse formatting clause: error while converting precision")?);
            after = &digits[length..];
        }
        let verb = after.chars().next().ok_or("unexpected end of string")?;
        if !"sdfebxXo".contains(verb) {
            return Err(format!("could not parse formatting clause: unrecognized formatting clause \"{verb}\""));
        }
        found.push(Clause { text: before, verb: Some(verb), precision });
        rest = &after[verb.len_utf8()..];
    }
    found.push(Clause { text: rest, verb: None, precision: None });
    Ok(found)
}

fn takes(verb: char) -> &'static str {
    match verb {
        's' => {
            "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps"
        }
        'd' => "decimal clause can only be used on integers",
        'f' => "fixed-point clause can only be used on doubles",
        'e' => "scientific clause can only be used on doubles",
        'b' => "only integers and bools can be formatted as binary",
        'o' => "octal clause can only be used on integers",
        _ => "only integers, byte buffers, and strings can be formatted as hex",
    }
}

/// Why a verb does not take values of a type; `None` when it does.
pub fn refuses(verb: char, t: &Type) -> Option<String> {
    let fits = match (verb, t) {
        (_, Type::Dyn | Type::Any | Type::Error)
        | ('d', Type::Int | Type::Uint)
        | ('f' | 'e', Type::Double | Type::String) => true,
        ('s', t) => !matches!(t, Type::Object(_) | Type::Optional(_) | Type::Opaque(_)),
        ('b', Type::Int | Type::Uint | Type::Bool) | ('o', Type::Int | Type::Uint) => true,
        ('x' | 'X', Type::Int | Type::Uint | Type::String | Type::Bytes) => true,
        _ => false,
    };
    let name = match t {
        Type::Optional(_) => "optional_type".to_string(),
        Type::List(_) => "list".into(),
        Type::Map(_) => "map".into(),
        Type::Timestamp => "google.protobuf.Timestamp".into(),
        Type::Duration => "google.protobuf.Duration".into(),
        other => other.to_string(),
    };
    (!fits).then(|| format!("{}, was given {name}", takes(verb)))
}

fn format<'a>(ctx: &mut Ctx<'a, '_>, args: &[Val<'a>]) -> Result<Val<'a>> {
    let (pattern, list) = (args[0].as_str()?, args[1].as_list()?);
    let mut out = String::new();
    let mut at = 0;
    for clause in clauses(pattern).map_err(EvalError::Failed)? {
        out.push_str(clause.text);
        let Some(verb) = clause.verb else { continue };
        let Some(value) = list.get(at) else { return failed(format!("index {at} out of range")) };
        at += 1;
        let piece = one(verb, clause.precision.unwrap_or(6), &value)?;
        ctx.budget.work(piece.len() as u64 / WORK_BYTES)?;
        out.push_str(&piece);
    }
    if list.len() > at {
        return failed(format!("too many arguments supplied to string.format (expected {at}, got {})", list.len()));
    }
    Ok(Val::text(out))
}

fn one(verb: char, precision: usize, value: &Val) -> Result<String> {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let signed = |i: i64, digits: String| if i < 0 { format!("-{digits}") } else { digits };
    let text = match (verb, value) {
        ('s', Val::Opaque(_) | Val::Optional(_) | Val::Lazy(_)) => None,
        ('s', value) => Some(text(value)),
        ('d', Val::Int(_) | Val::Uint(_)) => Some(text(value)),
        ('f' | 'e', Val::String(s)) if matches!(&**s, "NaN" | "Infinity" | "-Infinity") => Some(match &**s {
            "Infinity" => "∞".into(),
            "-Infinity" => "-∞".into(),
            other => other.to_string(),
        }),
        ('f' | 'e', Val::Double(f)) if f.is_nan() => Some("NaN".into()),
        ('f' | 'e', Val::Double(f)) if f.is_infinite() => Some(if *f > 0.0 { "∞".into() } else { "-∞".into() }),
        ('f', Val::Double(f)) => Some(format!("{f:.precision$}")),
        // Compat: cel-go's %e has six digits whatever is asked for.
        ('e', Val::Double(f)) => Some(scientific(*f, 6)),
        ('b', Val::Bool(b)) => Some(u8::from(*b).to_string()),
        ('b', Val::Int(i)) => Some(signed(*i, format!("{:b}", i.unsigned_abs()))),
        ('b', Val::Uint(u)) => Some(format!("{u:b}")),
        ('o', Val::Int(i)) => Some(signed(*i, format!("{:o}", i.unsigned_abs()))),
        ('o', Val::Uint(u)) => Some(format!("{u:o}")),
        ('x' | 'X', Val::Int(i)) => Some(signed(*i, format!("{:x}", i.unsigned_abs()))),
        ('x' | 'X', Val::Uint(u)) => Some(format!("{u:x}")),
        ('x' | 'X', Val::String(s)) => Some(hex(s.as_bytes())),
        ('x' | 'X', Val::Bytes(b)) => Some(hex(b)),
        _ => None,
    };
    match text {
        Some(text) if verb == 'X' => Ok(text.to_uppercase()),
        Some(text) => Ok(text),
        None => failed(format!("error during formatting: {}, was given {}", takes(verb), value.type_name())),
    }
}

/// `1.500000×10⁰⁰`
fn scientific(f: f64, precision: usize) -> String {
    let text = format!("{f:.precision$e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(("", exponent), |digits| ("⁻", digits));
    let raised: String =
        format!("{digits:0>2}").chars().filter_map(|c| "⁰¹²³⁴⁵⁶⁷⁸⁹".chars().nth(c.to_digit(10)? as usize)).collect();
    format!("{mantissa}×10{sign}{raised}")
}

/// How a value prints: `%s`, `string(...)`, keys in messages.
pub fn text(value: &Val) -> String {
    match value {
        Val::Double(f) => double_text(*f),
        Val::String(s) => s.to_string(),
        other => {
            let mut out = String::new();
            nested(other, &mut out);
            out
        }
    }
}

/// Within lists and maps text is quoted and numbers have six digits. What is endless ends at `PRINTED_MAX`.
fn nested(value: &Val, out: &mut String) {
    if out.len() > PRINTED_MAX {
        return;
    }
    let plain = match value {
        Val::Null => "null".into(),
        Val::Bool(b) => b.to_string(),
        Val::Int(i) => i.to_string(),
        Val::Uint(u) => u.to_string(),
        Val::Double(f) => format!("{f:.6}"),
        Val::String(s) => format!("{:?}", &**s),
        Val::Bytes(b) => String::from_utf8_lossy(b).into_owned(),
        Val::Timestamp(t) => t.to_string(),
        Val::Duration(_) => time::duration_text(value),
        Val::Type(name) => name.to_string(),
        Val::List(list) => {
            out.push('[');
            for (i, item) in list.iter().enumerate().take_while(|(i, _)| *i < PRINTED_MAX) {
                out.push_str(if i > 0 { ", " } else { "" });
                nested(&item, out);
            }
            "]".into()
        }
        Val::Map(members) => {
            out.push('{');
            for (i, (key, value)) in members.iter().enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                nested(&key, out);
                out.push(':');
                nested(&value, out);
            }
            "}".into()
        }
        Val::Opaque(o) => match &**o {
            Opaque::Quantity(q) => q.to_string(),
            Opaque::Ip(ip) => ip.to_string(),
            Opaque::Cidr(cidr) => cidr.to_string(),
            other => other.type_name().into(),
        },
        Val::Optional(_) | Val::Lazy(_) | Val::Fault(_) => value.type_name().into(),
    };
    out.push_str(&plain);
}

/// Go's shortest form: an exponent of two digits below 1e-4 and from 1e21 up.
fn double_text(f: f64) -> String {
    if f.is_nan() {
        return "NaN".into();
    }
    if f.is_infinite() {
        return if f > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    let text = format!("{f:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let digits = mantissa.bytes().filter(u8::is_ascii_digit).count() as i32;
    // %g: an exponent when it is shorter than the zeros
    if exponent < -4 || exponent >= digits.max(21).min(if digits > exponent { 21 } else { digits.max(6) }) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{mantissa}e{sign}{:02}", exponent.abs());
    }
    f.to_string()
}

type Validate = fn(&str) -> Vec<String>;

/// Name, what a match costs per tenth of the text, and the check. Source: the costs upstream reports.
const FORMATS: &[(&str, u64, Validate)] = &[
    ("dns1123Label", 8, names::dns1123_label),
    ("dns1123LabelPrefix", 8, |text| names::dns1123_label(&without_dash(text))),
    ("dns1123Subdomain", 15, names::dns1123_subdomain),
    ("dns1123SubdomainPrefix", 15, |text| names::dns1123_subdomain(&without_dash(text))),
    ("dns1035Label", 8, names::dns1035_label),
    ("dns1035LabelPrefix", 8, |text| names::dns1035_label(&without_dash(text))),
    ("qualifiedName", 15, names::qualified_name),
    ("labelValue", 10, names::label_value),
    ("uri", 276, |text| net::Url::parse(text).err().into_iter().collect()),
    ("uuid", 18, |text| refused(uuid(text), "does not match the UUID format")),
    ("byte", 21, |text| refused(base64::engine::general_purpose::STANDARD.decode(text).is_ok(), "invalid base64")),
    ("date", 18, |text| refused(time::read_date(text).is_some(), "invalid date")),
    ("datetime", 18, |text| refused(time::read_timestamp(text).is_some(), "invalid datetime")),
];

fn refused(valid: bool, why: &str) -> Vec<String> {
    if valid { Vec::new() } else { vec![why.into()] }
}

/// A prefix may end in a dash, which what follows it would not be after.
fn without_dash(text: &str) -> String {
    let mut chars: Vec<char> = text.chars().collect();
    if chars.len() > 1 && chars.last() == Some(&'-') {
        chars.truncate(chars.len() - 2);
        chars.push('a');
    }
    chars.into_iter().collect()
}

fn uuid(text: &str) -> bool {
    let dashes = [8, 13, 18, 23];
    let plain = text.replace('-', "");
    plain.len() == 32
        && plain.bytes().all(|b| b.is_ascii_hexdigit())
        && text.char_indices().all(|(i, c)| c != '-' || dashes.contains(&i))
}

pub fn regex_cost(name: &str) -> u64 {
    FORMATS.iter().find(|(its, ..)| *its == name).map_or(1, |(_, cost, _)| *cost)
}

fn named<'a>(name: &str) -> Option<Val<'a>> {
    FORMATS.iter().find(|(its, ..)| *its == name).map(|(name, ..)| Val::opaque(Opaque::Format(name)))
}

pub fn find(name: &str) -> Option<Builtin> {
    Some(match name {
        "format" => format,
        "format.named" => |_, args| Ok(Val::Optional(named(args[0].as_str()?).map(std::rc::Rc::new))),
        "validate" => |_, args| {
            let Val::Opaque(o) = &args[0] else { return no_overload() };
            let Opaque::Format(name) = **o else { return no_overload() };
            let text = args[1].as_str()?;
            let errors = FORMATS.iter().find(|(its, ..)| *its == name).map(|(_, _, check)| check(text));
            let errors = errors.unwrap_or_default();
            Ok(if errors.is_empty() { Val::Optional(None) } else { Val::some(Val::texts(errors)) })
        },
        name if name.starts_with("format.") => |ctx, _| match named(&ctx.call.name["format.".len()..]) {
            Some(format) => Ok(format),
            None => no_overload(),
        },
        _ => return None,
    })
}
