//! Arithmetic, comparison, `in`, and conversions between the basic types. Invariant: overflow is an error, never a wrap.

use crate::cost::WORK_ELEMENT;
use crate::eval::{Builtin, Ctx};
use crate::library::{format, time};
use crate::value::{Opaque, Result, Val, failed, no_overload};
use jiff::{SignedDuration, Timestamp};
use std::cmp::Ordering;

pub fn find(name: &str) -> Option<Builtin> {
    Some(match name {
        "_==_" => |ctx, args| Ok(Val::Bool(equal(ctx, &args[0], &args[1])?)),
        "_!=_" => |ctx, args| Ok(Val::Bool(!equal(ctx, &args[0], &args[1])?)),
        "_<_" => |_, args| Ok(Val::Bool(args[0].compare(&args[1])?.is_some_and(Ordering::is_lt))),
        "_<=_" => |_, args| Ok(Val::Bool(args[0].compare(&args[1])?.is_some_and(Ordering::is_le))),
        "_>_" => |_, args| Ok(Val::Bool(args[0].compare(&args[1])?.is_some_and(Ordering::is_gt))),
        "_>=_" => |_, args| Ok(Val::Bool(args[0].compare(&args[1])?.is_some_and(Ordering::is_ge))),
        "!_" => |_, args| Ok(Val::Bool(!args[0].as_bool()?)),
        "-_" => |_, args| match &args[0] {
            Val::Int(i) => i.checked_neg().map(Val::Int).map_or_else(|| failed("integer overflow"), Ok),
            Val::Double(f) => Ok(Val::Double(-f)),
            _ => no_overload(),
        },
        "_+_" => |ctx, args| {
            if let (Val::List(a), Val::List(b)) = (&args[0], &args[1]) {
                ctx.budget.work((a.len() + b.len()) as u64 * WORK_ELEMENT)?;
            }
            add(&args[0], &args[1])
        },
        "_-_" => |_, args| subtract(&args[0], &args[1]),
        "_*_" => |_, args| arithmetic(args, i64::checked_mul, u64::checked_mul, |a, b| a * b),
        "_/_" => |_, args| {
            if matches!(args[1], Val::Int(0) | Val::Uint(0)) && !matches!(args[0], Val::Double(_)) {
                return failed("division by zero");
            }
            arithmetic(args, i64::checked_div, u64::checked_div, |a, b| a / b)
        },
        "_%_" => |_, args| {
            if matches!(args[1], Val::Int(0) | Val::Uint(0)) {
                return failed("modulus by zero");
            }
            match (&args[0], &args[1]) {
                (Val::Double(_), _) => no_overload(),
                _ => arithmetic(args, i64::checked_rem, u64::checked_rem, |a, b| a % b),
            }
        },
        "@in" => contained,
        "cel.@mapInsert" => |_, _| no_overload(), // always the step of a fold, which does it in place
        "size" => |_, args| match &args[0] {
            Val::String(_) | Val::Bytes(_) | Val::List(_) | Val::Map(_) => Ok(Val::Int(args[0].size() as i64)),
            _ => no_overload(),
        },
        "type" => |_, args| Ok(Val::Type(args[0].type_name().into())),
        "dyn" => |_, args| Ok(args[0].clone()),
        "bool" => |_, args| match &args[0] {
            Val::Bool(b) => Ok(Val::Bool(*b)),
            Val::String(s) => match &**s {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Val::Bool(true)),
                "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Val::Bool(false)),
                _ => not_convertible(&args[0], "bool"),
            },
            _ => no_overload(),
        },
        "int" => to_int,
        "uint" => to_uint,
        "double" => |_, args| match &args[0] {
            Val::Int(i) => Ok(Val::Double(*i as f64)),
            Val::Uint(u) => Ok(Val::Double(*u as f64)),
            Val::Double(f) => Ok(Val::Double(*f)),
            Val::String(s) => s.parse().map(Val::Double).or_else(|_| not_convertible(&args[0], "double")),
            _ => no_overload(),
        },
        "bytes" => |_, args| match &args[0] {
            Val::String(s) => Ok(Val::Bytes(s.as_bytes().into())),
            Val::Bytes(b) => Ok(Val::Bytes(b.clone())),
            _ => no_overload(),
        },
        "string" => to_string,
        _ => return None,
    })
}

pub fn equal<'a>(ctx: &mut Ctx<'a, '_>, a: &Val<'a>, b: &Val<'a>) -> Result<bool> {
    let mut work = 0;
    let equal = a.equals(b, &mut work);
    // the first look is in the cost
    ctx.budget.work(work.saturating_sub(1))?;
    Ok(equal)
}

fn not_convertible<T>(value: &Val, to: &str) -> Result<T> {
    failed(format!("type conversion error from '{}' to '{to}'", value.type_name()))
}

type Checked<T> = fn(T, T) -> Option<T>;

fn arithmetic<'a>(
    args: &[Val<'a>],
    int: Checked<i64>,
    uint: Checked<u64>,
    double: fn(f64, f64) -> f64,
) -> Result<Val<'a>> {
    match (&args[0], &args[1]) {
        (Val::Int(a), Val::Int(b)) => int(*a, *b).map(Val::Int).map_or_else(|| failed("integer overflow"), Ok),
        (Val::Uint(a), Val::Uint(b)) => {
            uint(*a, *b).map(Val::Uint).map_or_else(|| failed("unsigned integer overflow"), Ok)
        }
        (Val::Double(a), Val::Double(b)) => Ok(Val::Double(double(*a, *b))),
        _ => no_overload(),
    }
}

pub fn add<'a>(a: &Val<'a>, b: &Val<'a>) -> Result<Val<'a>> {
    match (a, b) {
        (Val::String(a), Val::String(b)) => Ok(Val::text([&**a, &**b].concat())),
        (Val::Bytes(a), Val::Bytes(b)) => Ok(Val::Bytes([&**a, &**b].concat().into())),
        (Val::List(a), Val::List(b)) => Ok(Val::List(a.plus(b))),
        (Val::Duration(a), Val::Duration(b)) => {
            a.checked_add(*b).map(Val::Duration).map_or_else(|| failed("duration overflow"), Ok)
        }
        (Val::Timestamp(t), Val::Duration(d)) | (Val::Duration(d), Val::Timestamp(t)) => moved(*t, *d),
        _ => arithmetic(&[a.clone(), b.clone()], i64::checked_add, u64::checked_add, |a, b| a + b),
    }
}

fn subtract<'a>(a: &Val<'a>, b: &Val<'a>) -> Result<Val<'a>> {
    match (a, b) {
        (Val::Duration(a), Val::Duration(b)) => {
            a.checked_sub(*b).map(Val::Duration).map_or_else(|| failed("duration overflow"), Ok)
        }
        (Val::Timestamp(t), Val::Duration(d)) => match d.checked_neg() {
            Some(d) => moved(*t, d),
            None => failed("duration overflow"),
        },
        (Val::Timestamp(a), Val::Timestamp(b)) => {
            let nanos = a.as_nanosecond() - b.as_nanosecond();
            i64::try_from(nanos).map(Val::Duration).or_else(|_| failed("timestamp overflow"))
        }
        _ => arithmetic(&[a.clone(), b.clone()], i64::checked_sub, u64::checked_sub, |a, b| a - b),
    }
}

fn moved<'a>(t: Timestamp, nanos: i64) -> Result<Val<'a>> {
    match t.checked_add(SignedDuration::from_nanos(nanos)) {
        Ok(t) if time::in_range(t) => Ok(Val::Timestamp(t)),
        _ => failed("timestamp overflow"),
    }
}

fn contained<'a>(ctx: &mut Ctx<'a, '_>, args: &[Val<'a>]) -> Result<Val<'a>> {
    Ok(Val::Bool(match &args[1] {
        Val::List(list) => {
            let mut found = false;
            for item in list.iter() {
                if equal(ctx, &args[0], &item)? {
                    found = true;
                    break;
                }
            }
            found
        }
        Val::Map(members) => members.get(&args[0]).is_some(),
        _ => return no_overload(),
    }))
}

fn to_int<'a>(_: &mut Ctx<'a, '_>, args: &[Val<'a>]) -> Result<Val<'a>> {
    match &args[0] {
        Val::Int(i) => Ok(Val::Int(*i)),
        Val::Uint(u) => i64::try_from(*u).map(Val::Int).or_else(|_| failed("integer overflow")),
        Val::Double(f) if *f > -9_223_372_036_854_775_808.0 && *f < 9_223_372_036_854_775_808.0 => {
            Ok(Val::Int(*f as i64))
        }
        Val::Double(_) => failed("integer overflow"),
        Val::String(s) => s.parse().map(Val::Int).or_else(|_| not_convertible(&args[0], "int")),
        Val::Timestamp(t) => Ok(Val::Int(t.as_nanosecond().div_euclid(1_000_000_000) as i64)),
        Val::Duration(d) => Ok(Val::Int(*d)),
        _ => no_overload(),
    }
}

fn to_uint<'a>(_: &mut Ctx<'a, '_>, args: &[Val<'a>]) -> Result<Val<'a>> {
    match &args[0] {
        Val::Uint(u) => Ok(Val::Uint(*u)),
        Val::Int(i) => u64::try_from(*i).map(Val::Uint).or_else(|_| failed("unsigned integer overflow")),
        Val::Double(f) if *f >= 0.0 && *f < 18_446_744_073_709_551_616.0 => Ok(Val::Uint(*f as u64)),
        Val::Double(_) => failed("unsigned integer overflow"),
        Val::String(s) => s.parse().map(Val::Uint).or_else(|_| not_convertible(&args[0], "uint")),
        _ => no_overload(),
    }
}

fn to_string<'a>(_: &mut Ctx<'a, '_>, args: &[Val<'a>]) -> Result<Val<'a>> {
    match &args[0] {
        Val::Bytes(b) => match std::str::from_utf8(b) {
            Ok(text) => Ok(Val::text(text)),
            Err(_) => failed("invalid UTF-8 in bytes, cannot convert to string"),
        },
        Val::Opaque(o) => match &**o {
            Opaque::Ip(ip) => Ok(Val::text(ip.to_string())),
            Opaque::Cidr(cidr) => Ok(Val::text(cidr.to_string())),
            _ => no_overload(),
        },
        Val::String(_) => Ok(args[0].clone()),
        Val::Bool(_) | Val::Int(_) | Val::Uint(_) | Val::Double(_) | Val::Timestamp(_) | Val::Duration(_) => {
            Ok(Val::text(format::text(&args[0])))
        }
        _ => no_overload(),
    }
}
