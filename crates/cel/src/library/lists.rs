//! The functions of lists and sets: Kubernetes' (`isSorted`, `sum`, `min`, `max`, `indexOf`) and the lists extension.

use crate::cost::WORK_ELEMENT;
use crate::eval::{Builtin, Ctx};
use crate::library::operators::{add, equal};
use crate::library::strings;
use crate::value::{List, Result, Val, failed, no_overload};
use std::cmp::Ordering;
use std::rc::Rc;

pub fn find(name: &str) -> Option<Builtin> {
    Some(match name {
        "indexOf" => |ctx, args| index_of(ctx, args, false),
        "lastIndexOf" => |ctx, args| index_of(ctx, args, true),
        "includes" => |ctx, args| match &args[0] {
            Val::List(list) => Ok(Val::Bool(holds(ctx, list, &args[1])?)),
            one => Ok(Val::Bool(equal(ctx, one, &args[1])?)),
        },
        "isSorted" => |_, args| {
            let mut previous: Option<Val> = None;
            for item in args[0].as_list()?.iter() {
                if let Some(previous) = &previous
                    && previous.compare(&item)?.is_some_and(Ordering::is_gt)
                {
                    return Ok(Val::Bool(false));
                }
                previous = Some(item);
            }
            Ok(Val::Bool(true))
        },
        "sum" => |_, args| {
            let mut items = args[0].as_list()?.iter();
            // Compat: the sum of nothing is the integer 0, whatever the list's type.
            let Some(first) = items.next() else { return Ok(Val::Int(0)) };
            match first {
                Val::Int(_) | Val::Uint(_) | Val::Double(_) | Val::Duration(_) => {
                    items.try_fold(first, |sum, item| add(&sum, &item))
                }
                _ => no_overload(),
            }
        },
        "min" => |_, args| extreme(&args[0], Ordering::Less, "min"),
        "max" => |_, args| extreme(&args[0], Ordering::Greater, "max"),
        "first" => |_, args| Ok(Val::Optional(args[0].as_list()?.get(0).map(Rc::new))),
        "last" => |_, args| {
            let list = args[0].as_list()?;
            Ok(Val::Optional(list.len().checked_sub(1).and_then(|at| list.get(at)).map(Rc::new)))
        },
        "reverse" => |_, args| {
            let mut items: Vec<Val> = args[0].as_list()?.iter().collect();
            items.reverse();
            Ok(Val::list(items))
        },
        "slice" => slice,
        "distinct" => |ctx, args| {
            let mut kept: Vec<Val> = Vec::new();
            let mut keys = std::collections::HashSet::new();
            for item in args[0].as_list()?.iter() {
                let new = match item.key() {
                    Some(key) => keys.insert(key),
                    None => !any(ctx, &kept, &item)?,
                };
                if new {
                    kept.push(item);
                }
            }
            Ok(Val::list(kept))
        },
        "flatten" => |ctx, args| {
            let depth = args.get(1).map_or(Ok(1), Val::as_int)?;
            if depth < 0 {
                return failed("level must be non-negative");
            }
            let mut flat = Vec::new();
            flatten(ctx, args[0].as_list()?, depth, &mut flat)?;
            Ok(Val::list(flat))
        },
        "lists.range" => |_, args| match args[0].as_int()? {
            n if n < 0 => failed(format!("lists.range: size must be non-negative, got {n}")),
            n if n as u64 > crate::cost::PER_CALL_LIMIT => Err(crate::value::EvalError::CostLimit),
            n => Ok(Val::list((0..n).map(Val::Int).collect())),
        },
        "sort" => |_, args| sorted(args[0].as_list()?, args[0].as_list()?),
        "@sortByAssociatedKeys" => |_, args| sorted(args[0].as_list()?, args[1].as_list()?),
        "sets.contains" => |ctx, args| Ok(Val::Bool(all_in(ctx, args[0].as_list()?, args[1].as_list()?)?)),
        "sets.equivalent" => |ctx, args| {
            let (a, b) = (args[0].as_list()?, args[1].as_list()?);
            Ok(Val::Bool(all_in(ctx, a, b)? && all_in(ctx, b, a)?))
        },
        "sets.intersects" => |ctx, args| {
            let list = args[0].as_list()?;
            for item in args[1].as_list()?.iter() {
                if holds(ctx, list, &item)? {
                    return Ok(Val::Bool(true));
                }
            }
            Ok(Val::Bool(false))
        },
        "optional.unwrap" | "unwrapOpt" => |_, args| {
            let items = args[0].as_list()?.iter().filter_map(|item| match item {
                Val::Optional(inner) => inner.map(|v| Val::clone(&v)),
                other => Some(other),
            });
            Ok(Val::list(items.collect()))
        },
        _ => return None,
    })
}

fn any<'a>(ctx: &mut Ctx<'a, '_>, items: &[Val<'a>], wanted: &Val<'a>) -> Result<bool> {
    for item in items {
        if equal(ctx, item, wanted)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn holds<'a>(ctx: &mut Ctx<'a, '_>, list: &List<'a>, wanted: &Val<'a>) -> Result<bool> {
    for item in list.iter() {
        if equal(ctx, &item, wanted)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether `list` has every element of `wanted`.
fn all_in<'a>(ctx: &mut Ctx<'a, '_>, list: &List<'a>, wanted: &List<'a>) -> Result<bool> {
    for item in wanted.iter() {
        if !holds(ctx, list, &item)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn index_of<'a>(ctx: &mut Ctx<'a, '_>, args: &[Val<'a>], last: bool) -> Result<Val<'a>> {
    let Val::List(list) = &args[0] else { return strings::index_of(args, last) };
    let mut found = -1;
    for (i, item) in list.iter().enumerate() {
        if equal(ctx, &item, &args[1])? {
            found = i as i64;
            if !last {
                break;
            }
        }
    }
    Ok(Val::Int(found))
}

fn extreme<'a>(list: &Val<'a>, want: Ordering, name: &str) -> Result<Val<'a>> {
    let mut items = list.as_list()?.iter();
    let Some(mut best) = items.next() else { return failed(format!("{name} called on empty list")) };
    for item in items {
        if item.compare(&best)? == Some(want) {
            best = item;
        }
    }
    Ok(best)
}

fn slice<'a>(_: &mut Ctx<'a, '_>, args: &[Val<'a>]) -> Result<Val<'a>> {
    let (list, from, to) = (args[0].as_list()?, args[1].as_int()?, args[2].as_int()?);
    let length = list.len() as i64;
    let why = if from < 0 || to < 0 {
        "negative indexes not supported".to_string()
    } else if from > to {
        "start index must be less than or equal to end index".to_string()
    } else if to > length {
        format!("list is length {length}")
    } else {
        return Ok(Val::list((from..to).filter_map(|i| list.get(i as usize)).collect()));
    };
    failed(format!("cannot slice({from}, {to}), {why}"))
}

fn flatten<'a>(ctx: &mut Ctx<'a, '_>, list: &List<'a>, depth: i64, flat: &mut Vec<Val<'a>>) -> Result<()> {
    ctx.budget.work(list.len() as u64 * WORK_ELEMENT)?;
    for item in list.iter() {
        match &item {
            // documents nest a bounded number of times, and so do expressions
            Val::List(inner) if depth > 0 => flatten(ctx, inner, depth - 1, flat)?,
            _ => flat.push(item),
        }
    }
    Ok(())
}

/// The elements in their keys' order; equal keys stay in order.
fn sorted<'a>(list: &List<'a>, keys: &List<'a>) -> Result<Val<'a>> {
    if list.len() != keys.len() {
        return no_overload();
    }
    let mut pairs: Vec<(Val, Val)> = keys.iter().zip(list.iter()).collect();
    for pair in pairs.windows(2) {
        pair[0].0.compare(&pair[1].0)?;
    }
    pairs.sort_by(|a, b| a.0.compare(&b.0).ok().flatten().unwrap_or(Ordering::Equal));
    Ok(Val::list(pairs.into_iter().map(|(_, item)| item).collect()))
}
