//! What functions do. One file per group; `find` names them all. Arguments were evaluated and paid for; a wrong type
//! here means that the checker only saw `dyn`, and is "no such overload".

pub mod format;
mod lists;
pub mod net;
mod operators;
pub mod semver;
mod strings;
pub mod time;

use crate::eval::{Builtin, Ctx};
use crate::value::{Opaque, Result, Val, failed, no_overload};
use meta::quantity::{Format, Quantity};

pub fn find(name: &str, member: bool) -> Builtin {
    match name {
        "optional.of" => |_, args| Ok(Val::some(args[0].clone())),
        "optional.none" => |_, _| Ok(Val::Optional(None)),
        "optional.ofNonZeroValue" => |_, args| match args[0].is_zero() {
            true => Ok(Val::Optional(None)),
            false => Ok(Val::some(args[0].clone())),
        },
        "hasValue" => |_, args| Ok(Val::Bool(inner(args)?.is_some())),
        "value" => |_, args| match inner(args)? {
            Some(value) => Ok(value),
            None => failed("optional.none() dereference"),
        },
        "quantity" => |_, args| read_quantity(args).map(quantity),
        "isQuantity" => |_, args| Ok(Val::Bool(Quantity::parse(args[0].as_str()?).is_ok())),
        "asInteger" => |_, args| match as_quantity(&args[0])? {
            q if whole(&q) => Ok(Val::Int(q.value())),
            _ => failed("cannot convert value to integer"),
        },
        "isInteger" => |_, args| Ok(Val::Bool(whole(&as_quantity(&args[0])?))),
        "asApproximateFloat" => |_, args| Ok(Val::Double(as_quantity(&args[0])?.as_f64())),
        "sign" => |_, args| Ok(Val::Int(as_quantity(&args[0])?.sign().into())),
        "add" => |_, args| Ok(quantity(as_quantity(&args[0])?.add(amount(&args[1])?))),
        "sub" => |_, args| Ok(quantity(as_quantity(&args[0])?.sub(amount(&args[1])?))),
        "compareTo" => |_, args| Ok(Val::Int(compare(args)? as i64)),
        "isGreaterThan" => |_, args| Ok(Val::Bool(compare(args)?.is_gt())),
        "isLessThan" => |_, args| Ok(Val::Bool(compare(args)?.is_lt())),
        "path" | "group" | "resource" | "subresource" | "namespace" | "name" | "fieldSelector" | "labelSelector"
        | "serviceAccount" => |ctx, args| match &args[0] {
            Val::Opaque(o) => match &**o {
                Opaque::Check(check) => check.with(ctx.call.name, &args[1..]),
                _ => no_overload(),
            },
            _ => no_overload(),
        },
        "check" => authorize,
        "allowed" | "errored" | "error" | "reason" => decision,
        "jsonpatch.escapeKey" => |_, args| Ok(Val::text(args[0].as_str()?.replace('~', "~0").replace('/', "~1"))),
        _ => operators::find(name)
            .or_else(|| strings::find(name))
            .or_else(|| lists::find(name))
            .or_else(|| net::find(name, member))
            .or_else(|| time::find(name))
            .or_else(|| format::find(name))
            .or_else(|| semver::find(name))
            .unwrap_or(|ctx: &mut Ctx, _: &[Val]| failed(format!("no such overload: {}", ctx.call.name))),
    }
}

fn inner<'a>(args: &[Val<'a>]) -> Result<Option<Val<'a>>> {
    match &args[0] {
        Val::Optional(inner) => Ok(inner.as_ref().map(|v| Val::clone(v))),
        _ => no_overload(),
    }
}

fn quantity<'a>(q: Quantity) -> Val<'a> {
    Val::opaque(Opaque::Quantity(q))
}

fn read_quantity(args: &[Val]) -> Result<Quantity> {
    Quantity::parse(args[0].as_str()?).or_else(|e| failed(e.to_string()))
}

fn as_quantity(value: &Val) -> Result<Quantity> {
    match value {
        Val::Opaque(o) => match **o {
            Opaque::Quantity(q) => Ok(q),
            _ => no_overload(),
        },
        _ => no_overload(),
    }
}

fn amount(value: &Val) -> Result<Quantity> {
    match value {
        Val::Int(i) => Ok(Quantity::from_i64(*i, Format::DecimalSI)),
        other => as_quantity(other),
    }
}

fn whole(q: &Quantity) -> bool {
    q.is_whole() && Quantity::from_i64(q.value(), Format::DecimalSI) == *q
}

fn compare(args: &[Val]) -> Result<std::cmp::Ordering> {
    if let (Val::Opaque(a), Val::Opaque(b)) = (&args[0], &args[1]) {
        match (&**a, &**b) {
            (Opaque::Quantity(a), Opaque::Quantity(b)) => return Ok(a.cmp(b)),
            (Opaque::Semver(a), Opaque::Semver(b)) => return Ok(a.compare(b)),
            _ => {}
        }
    }
    no_overload()
}

fn authorize<'a>(ctx: &mut Ctx<'a, '_>, args: &[Val<'a>]) -> Result<Val<'a>> {
    let (Val::Opaque(o), Val::String(verb)) = (&args[0], &args[1]) else { return no_overload() };
    let Opaque::Check(check) = &**o else { return no_overload() };
    match ctx.authorizer {
        Some(authorizer) => Ok(Val::opaque(Opaque::Decision(authorizer.authorize(check, verb)))),
        None => failed("no authorizer is bound here"),
    }
}

fn decision<'a>(ctx: &mut Ctx<'a, '_>, args: &[Val<'a>]) -> Result<Val<'a>> {
    let Val::Opaque(o) = &args[0] else { return no_overload() };
    let Opaque::Decision(decision) = &**o else { return no_overload() };
    Ok(match ctx.call.name {
        "allowed" => Val::Bool(decision.allowed),
        "errored" => Val::Bool(decision.error.is_some()),
        "reason" => Val::text(&decision.reason),
        _ => Val::text(decision.error.as_deref().unwrap_or("")),
    })
}
