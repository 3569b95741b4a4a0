//! The strings extension and regular expressions. Positions count characters, as CEL's do.
//! Invariant: patterns are RE2's syntax, matched in linear time, compiled within a size limit.

use crate::cost::WORK_BYTES;
use crate::eval::{Builtin, Ctx};
use crate::validate::compile_regex;
use crate::value::{EvalError, Result, Val, failed};
use regex::Regex;
use std::sync::Arc;

pub fn find(name: &str) -> Option<Builtin> {
    Some(match name {
        "startsWith" => |_, args| Ok(Val::Bool(args[0].as_str()?.starts_with(args[1].as_str()?))),
        "endsWith" => |_, args| Ok(Val::Bool(args[0].as_str()?.ends_with(args[1].as_str()?))),
        "contains" => |_, args| Ok(Val::Bool(args[0].as_str()?.contains(args[1].as_str()?))),
        "matches" => |ctx, args| {
            let text = args[0].as_str()?;
            Ok(Val::Bool(regex(ctx, &args[1])?.is_match(text)))
        },
        "find" => |ctx, args| {
            let text = args[0].as_str()?;
            Ok(Val::text(regex(ctx, &args[1])?.find(text).map_or("", |m| m.as_str())))
        },
        "findAll" => |ctx, args| {
            let text = args[0].as_str()?;
            let limit = args.get(2).map_or(Ok(-1), Val::as_int)?;
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            Ok(Val::texts(regex(ctx, &args[1])?.find_iter(text).take(limit).map(|m| m.as_str())))
        },
        "charAt" => |_, args| {
            let (text, at) = (args[0].as_str()?, args[1].as_int()?);
            let at = usize::try_from(at).ok().filter(|at| *at <= text.chars().count()).ok_or_else(|| out(at))?;
            Ok(Val::text(text.chars().nth(at).map(String::from).unwrap_or_default()))
        },
        "substring" => substring,
        "replace" => |ctx, args| {
            let (text, old, new) = (args[0].as_str()?, args[1].as_str()?, args[2].as_str()?);
            let times = args.get(3).map_or(Ok(-1), Val::as_int)?;
            let times = usize::try_from(times).unwrap_or(usize::MAX);
            let found = text.matches(old).take(times).count() as u64;
            ctx.budget.work(found.saturating_mul(new.len() as u64) / WORK_BYTES)?;
            Ok(Val::text(text.replacen(old, new, times)))
        },
        "split" => split,
        "trim" => |_, args| Ok(Val::text(args[0].as_str()?.trim())),
        "lowerAscii" => |_, args| Ok(Val::text(args[0].as_str()?.to_ascii_lowercase())),
        "upperAscii" => |_, args| Ok(Val::text(args[0].as_str()?.to_ascii_uppercase())),
        "strings.quote" => |_, args| Ok(Val::text(quote(args[0].as_str()?))),
        "join" => |ctx, args| {
            let between = args.get(1).map_or(Ok(""), Val::as_str)?;
            let mut joined = String::new();
            for (i, item) in args[0].as_list()?.iter().enumerate() {
                if i > 0 {
                    joined.push_str(between);
                }
                let item = item.as_str()?;
                ctx.budget.work(1 + (item.len() + between.len()) as u64 / WORK_BYTES)?;
                joined.push_str(item);
            }
            Ok(Val::text(joined))
        },
        _ => return None,
    })
}

fn regex(ctx: &Ctx, pattern: &Val) -> Result<Arc<Regex>> {
    match &ctx.call.regex {
        Some(regex) => Ok(regex.clone()),
        None => compile_regex(pattern.as_str()?).map(Arc::new).or_else(failed),
    }
}

fn out(at: i64) -> EvalError {
    EvalError::Failed(format!("index out of range: {at}"))
}

fn substring<'a>(_: &mut Ctx<'a, '_>, args: &[Val<'a>]) -> Result<Val<'a>> {
    let text = args[0].as_str()?;
    let length = text.chars().count() as i64;
    let from = args[1].as_int()?;
    let to = args.get(2).map_or(Ok(length), Val::as_int)?;
    for at in [from, to] {
        if at < 0 || at > length {
            return Err(out(at));
        }
    }
    if from > to {
        return failed(format!("invalid substring range. start: {from}, end: {to}"));
    }
    Ok(Val::text(text.chars().skip(from as usize).take((to - from) as usize).collect::<String>()))
}

fn split<'a>(_: &mut Ctx<'a, '_>, args: &[Val<'a>]) -> Result<Val<'a>> {
    let (text, by) = (args[0].as_str()?, args[1].as_str()?);
    let limit = args.get(2).map_or(Ok(-1), Val::as_int)?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    Ok(match (limit, by.is_empty()) {
        (0, _) => Val::list(vec![]),
        (_, true) => {
            let mut rest = text;
            let mut parts = Vec::new();
            while let Some(c) = rest.chars().next() {
                if parts.len() + 1 >= limit {
                    parts.push(rest);
                    break;
                }
                parts.push(&rest[..c.len_utf8()]);
                rest = &rest[c.len_utf8()..];
            }
            Val::texts(parts)
        }
        _ => Val::texts(text.splitn(limit, by)),
    })
}

/// `indexOf` and `lastIndexOf` of text.
pub fn index_of<'a>(args: &[Val<'a>], last: bool) -> Result<Val<'a>> {
    let (text, part) = (args[0].as_str()?, args[1].as_str()?);
    let length = text.chars().count() as i64;
    let offset = args.get(2).map(Val::as_int).transpose()?;
    if let Some(offset) = offset.filter(|o| *o < 0) {
        return Err(out(offset));
    }
    if offset.is_some_and(|o| o > length) {
        return Ok(Val::Int(-1));
    }
    let byte_of = |at: i64| text.char_indices().nth(at as usize).map_or(text.len(), |(byte, _)| byte);
    let found = match (last, offset) {
        (false, offset) => {
            let from = byte_of(offset.unwrap_or(0));
            text[from..].find(part).map(|at| at + from)
        }
        (true, None) => text.rfind(part),
        // the match begins at the offset at the latest
        (true, Some(offset)) => {
            let from = byte_of(offset);
            text[..(from + part.len()).min(text.len())].rfind(part).or_else(|| {
                // a match may end inside of a character that the slice would cut
                text.match_indices(part).map(|(at, _)| at).take_while(|at| *at <= from).last()
            })
        }
    };
    Ok(Val::Int(found.map_or(-1, |byte| text[..byte].chars().count() as i64)))
}

/// A text as a CEL literal.
pub fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '\x07' => quoted.push_str("\\a"),
            '\x08' => quoted.push_str("\\b"),
            '\x0c' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\x0b' => quoted.push_str("\\v"),
            '\\' => quoted.push_str("\\\\"),
            '"' => quoted.push_str("\\\""),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
