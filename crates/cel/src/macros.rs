//! CEL's macros, from calls to folds. Reads and makes trees. The set is what Kubernetes v1.37 turns on: has, the
//! comprehensions with one and two variables, optMap and optFlatMap, sortBy; and `cel.bind` where it is asked for.

use crate::ast::{Const, Expr, Fold, Kind};
use crate::lex::Fault;
use crate::parse::Parser;
use compact_str::CompactString;

/// The accumulator's name: no expression can spell it.
pub const ACCU: &str = "@result";

pub fn has(pos: u32, arg: &Expr) -> Result<Expr, Fault> {
    match &arg.kind {
        Kind::Select { operand, field, test: false, optional: false } => Ok(Expr::new(
            pos,
            Kind::Select { operand: operand.clone(), field: field.clone(), test: true, optional: false },
        )),
        _ => Err((arg.pos, "invalid argument to has() macro".into())),
    }
}

/// The expansion of `target.name(args)`, if that is a macro.
pub fn method(parser: &mut Parser, pos: u32, name: &str, target: &Expr, args: &[Expr]) -> Option<Result<Expr, Fault>> {
    if let ("bind", [var, value, body], true) = (name, args, parser.binds)
        && matches!(&target.kind, Kind::Ident(namespace) if namespace == "cel")
    {
        return Some(match &var.kind {
            Kind::Ident(var) => Ok(bind(pos, var, value.clone(), body.clone())),
            _ => Err((var.pos, "cel.bind() variable names must be simple identifiers".into())),
        });
    }
    let two = args.len() >= 3 && !matches!((name, args.len()), ("map", 3));
    let known = match name {
        "all" | "exists" | "exists_one" => matches!(args.len(), 2 | 3),
        "existsOne" => args.len() == 3,
        "map" => matches!(args.len(), 2 | 3),
        "filter" | "optMap" | "optFlatMap" | "sortBy" => args.len() == 2,
        "transformList" | "transformMap" | "transformMapEntry" => matches!(args.len(), 3 | 4),
        _ => false,
    };
    if !known {
        return None;
    }
    let vars = match names(&args[..1 + usize::from(two)]) {
        Ok(vars) => vars,
        Err(fault) => return Some(Err(fault)),
    };
    let rest = &args[vars.len()..];
    Some(Ok(match name {
        "optMap" | "optFlatMap" => optional(parser, pos, target, vars, rest[0].clone(), name == "optMap"),
        "sortBy" if matches!(target.kind, Kind::Const(_) | Kind::Map(_) | Kind::Struct { .. }) => {
            let fault = "sortBy can only be applied to a list, identifier, comprehension, call or select expression";
            return Some(Err((target.pos, fault.into())));
        }
        "sortBy" => sort_by(pos, target, vars, rest[0].clone()),
        _ => comprehension(pos, name, target, vars, rest),
    }))
}

fn names(args: &[Expr]) -> Result<Vec<CompactString>, Fault> {
    let mut found: Vec<CompactString> = Vec::new();
    for arg in args {
        let Kind::Ident(name) = &arg.kind else {
            return Err((arg.pos, "argument must be a simple name".into()));
        };
        if found.contains(name) {
            return Err((arg.pos, format!("duplicate variable name: {name}")));
        }
        found.push(name.clone());
    }
    Ok(found)
}

fn comprehension(pos: u32, name: &str, target: &Expr, vars: Vec<CompactString>, rest: &[Expr]) -> Expr {
    let accu = || Expr::ident(pos, ACCU);
    let constant = |value| Expr::constant(pos, value);
    let call = |function: &str, args| Expr::call(pos, function, args);
    let yes = || constant(Const::Bool(true));
    let first_var = Expr::ident(pos, &vars[0]);
    let (last, filter) = match rest {
        [filter, last] => (last.clone(), Some(filter.clone())),
        [last, ..] => (last.clone(), None),
        [] => unreachable!("every macro has a last argument"),
    };
    let mut result = accu();
    let (init, condition, step) = match name {
        "all" => (yes(), call("@not_strictly_false", vec![accu()]), call("_&&_", vec![accu(), last])),
        "exists" => {
            let not = call("!_", vec![accu()]);
            (constant(Const::Bool(false)), call("@not_strictly_false", vec![not]), call("_||_", vec![accu(), last]))
        }
        "exists_one" | "existsOne" => {
            let one = || constant(Const::Int(1));
            result = call("_==_", vec![accu(), one()]);
            let more = call("_+_", vec![accu(), one()]);
            (constant(Const::Int(0)), yes(), call("_?_:_", vec![last, more, accu()]))
        }
        "filter" => {
            let more = call("_+_", vec![accu(), Expr::list(pos, vec![first_var])]);
            (Expr::list(pos, vec![]), yes(), call("_?_:_", vec![last, more, accu()]))
        }
        "map" | "transformList" => {
            let more = call("_+_", vec![accu(), Expr::list(pos, vec![last])]);
            (Expr::list(pos, vec![]), yes(), kept(pos, filter, more))
        }
        "transformMap" => {
            let more = call("cel.@mapInsert", vec![accu(), first_var, last]);
            (Expr::new(pos, Kind::Map(vec![])), yes(), kept(pos, filter, more))
        }
        _ => {
            let more = call("cel.@mapInsert", vec![accu(), last]);
            (Expr::new(pos, Kind::Map(vec![])), yes(), kept(pos, filter, more))
        }
    };
    fold(pos, target.clone(), vars, ACCU, [init, condition, step, result])
}

/// `filter ? step : @result`
fn kept(pos: u32, filter: Option<Expr>, step: Expr) -> Expr {
    match filter {
        Some(filter) => Expr::call(pos, "_?_:_", vec![filter, step, Expr::ident(pos, ACCU)]),
        None => step,
    }
}

fn fold(pos: u32, range: Expr, vars: Vec<CompactString>, accu: &str, parts: [Expr; 4]) -> Expr {
    let [init, condition, step, result] = parts;
    Expr::new(pos, Kind::Fold(Box::new(Fold { range, vars, accu: accu.into(), init, condition, step, result })))
}

/// `name` bound to `value` within `body`: a fold over nothing.
fn bind(pos: u32, name: &str, value: Expr, body: Expr) -> Expr {
    let no = Expr::constant(pos, Const::Bool(false));
    fold(pos, Expr::list(pos, vec![]), vec!["#unused".into()], name, [value, no, Expr::ident(pos, name), body])
}

fn optional(parser: &mut Parser, pos: u32, target: &Expr, vars: Vec<CompactString>, body: Expr, wrap: bool) -> Expr {
    let present = Expr::method(pos, "hasValue", vec![parser.copied(target)]);
    let bound = bind(pos, &vars[0], Expr::method(pos, "value", vec![parser.copied(target)]), body);
    let some = if wrap { Expr::call(pos, "optional.of", vec![bound]) } else { bound };
    Expr::call(pos, "_?_:_", vec![present, some, Expr::call(pos, "optional.none", vec![])])
}

fn sort_by(pos: u32, target: &Expr, vars: Vec<CompactString>, key: Expr) -> Expr {
    let input = || Expr::ident(pos, "@__sortBy_input__");
    let keys = comprehension(pos, "map", &input(), vars, &[key]);
    let sorted = Expr::method(pos, "@sortByAssociatedKeys", vec![input(), keys]);
    bind(pos, "@__sortBy_input__", target.clone(), sorted)
}
