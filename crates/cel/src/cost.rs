//! What evaluating costs, in upstream's units: one rule per function, read twice, for the values of a run and for the
//! sizes of an estimate. Source: the costs that the published Kubernetes v1.37 environment reports, function by function.

use crate::types::Type;
use crate::value::{EvalError, Opaque, Result, Val};

/// One evaluation of one expression may cost this much.
pub const PER_CALL_LIMIT: u64 = 1_000_000;
/// All expressions of one custom resource, or of one policy binding.
pub const RUNTIME_BUDGET: u64 = 10_000_000;
/// All match conditions of one webhook or policy binding.
pub const MATCH_CONDITIONS_BUDGET: u64 = 2_500_000;
/// The most one rule of a CRD may be estimated at.
pub const ESTIMATED_LIMIT: u64 = 10_000_000;
/// The most all rules of a CRD together may be estimated at.
pub const ESTIMATED_CRD_LIMIT: u64 = 100_000_000;

pub const LIST: u64 = 10;
pub const MAP: u64 = 30;
pub const STRUCT: u64 = 40;
/// Looking at one character, byte or element without calling anything.
pub const TRAVERSAL: f64 = 0.1;
/// Steps that upstream's costs do not count (comparing deep values, lists and texts that functions make), bounded on
/// their own: what shares parts can be exponentially larger than what was paid for.
pub const WORK_MAX: u64 = 2_000_000;
/// Steps for an element of a new list.
pub const WORK_ELEMENT: u64 = 4;
/// Bytes of new text for one step.
pub const WORK_BYTES: u64 = 16;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    One,
    /// nothing when it runs, one in an estimate
    Free,
    Equal,
    Order,
    In,
    Add,
    Contains,
    Regex,
    /// the size of the argument at this index, times a tenth of this
    Traverse(usize, u8),
    Convert,
    IndexOf,
    Elements,
    Join,
    Copy,
    Slice,
    Range,
    Sort,
    Distinct,
    /// as many times all pairs
    Pairs(u8),
    ContainsIp,
    ContainsCidr,
    Validate,
    Authorize,
}

pub fn rule(name: &str) -> Rule {
    match name {
        "_==_" | "_!=_" => Rule::Equal,
        "_<_" | "_<=_" | "_>_" | "_>=_" => Rule::Order,
        "@in" => Rule::In,
        "_+_" => Rule::Add,
        "contains" => Rule::Contains,
        "matches" | "find" | "findAll" => Rule::Regex,
        "startsWith" | "endsWith" => Rule::Traverse(1, 1),
        "substring"
        | "trim"
        | "lowerAscii"
        | "upperAscii"
        | "strings.quote"
        | "format"
        | "url"
        | "ip"
        | "isIP"
        | "cidr"
        | "isCIDR"
        | "quantity"
        | "isQuantity"
        | "semver"
        | "isSemver"
        | "jsonpatch.escapeKey" => Rule::Traverse(0, 1),
        "replace" | "split" | "ip.isCanonical" => Rule::Traverse(0, 2),
        "string" | "bytes" => Rule::Convert,
        "indexOf" | "lastIndexOf" | "includes" => Rule::IndexOf,
        "sum" | "min" | "max" | "isSorted" => Rule::Elements,
        "join" => Rule::Join,
        "reverse" | "flatten" => Rule::Copy,
        "slice" => Rule::Slice,
        "lists.range" => Rule::Range,
        "sort" | "@sortByAssociatedKeys" => Rule::Sort,
        "distinct" => Rule::Distinct,
        "sets.contains" | "sets.intersects" => Rule::Pairs(1),
        "sets.equivalent" => Rule::Pairs(2),
        "containsIP" => Rule::ContainsIp,
        "containsCIDR" => Rule::ContainsCidr,
        "validate" => Rule::Validate,
        "check" => Rule::Authorize,
        "or" | "orValue" => Rule::Free,
        _ => Rule::One,
    }
}

pub const AUTHORIZE: u64 = 350_000;

/// `factor` tenths of a size, rounded up.
pub fn traverse(size: u64, factor: f64) -> u64 {
    (size as f64 * factor).ceil() as u64
}

/// What this call costs with these arguments.
pub fn of_call(rule: Rule, args: &[Val], result: Option<&Val>) -> u64 {
    let size = |i: usize| args.get(i).map_or(0, Val::size);
    let pairs = || size(0).saturating_mul(size(0));
    match rule {
        Rule::One => 1,
        Rule::Free => 0,
        Rule::Equal => traverse(size(0).min(size(1)), TRAVERSAL),
        Rule::Order => match args {
            [Val::String(_) | Val::Bytes(_), ..] => traverse(size(0).min(size(1)), TRAVERSAL),
            _ => 1,
        },
        Rule::In => match args.get(1) {
            Some(Val::List(list)) => list.len() as u64,
            _ => 1,
        },
        Rule::Add => match args {
            [Val::String(_) | Val::Bytes(_), ..] => traverse(size(0) + size(1), TRAVERSAL),
            _ => 1,
        },
        Rule::Contains => traverse(size(0), TRAVERSAL) * traverse(size(1), TRAVERSAL),
        Rule::Regex => traverse(size(0) + 1, TRAVERSAL) * traverse(size(1), 0.25),
        Rule::Traverse(arg, factor) => traverse(size(arg), TRAVERSAL * f64::from(factor)),
        Rule::Convert => match args {
            [Val::String(_) | Val::Bytes(_), ..] => traverse(size(0), TRAVERSAL),
            _ => 1,
        },
        Rule::IndexOf => match &args[0] {
            Val::String(_) => size(0) / 10,
            list => elements(list),
        },
        Rule::Elements => elements(&args[0]),
        Rule::Join => traverse(result.map_or(0, Val::size), 2.0 * TRAVERSAL),
        Rule::Copy => LIST + size(0) + 1,
        Rule::Slice | Rule::Range => LIST + result.map_or(0, Val::size) + 1,
        Rule::Sort | Rule::Distinct => {
            let text =
                matches!(args.last(), Some(Val::List(l)) if matches!(l.get(0), Some(Val::String(_) | Val::Bytes(_))));
            LIST + 1 + pairs().saturating_mul(2) + if text { pairs() / 10 } else { 0 }
        }
        Rule::Pairs(times) => size(0).saturating_mul(size(1)).saturating_mul(times.into()) + 1,
        Rule::ContainsIp => {
            let text =
                args.get(1).map_or(0, |arg| if arg.as_str().is_ok() { traverse(arg.size(), TRAVERSAL) } else { 0 });
            text + if wide(&args[0]) { 4 } else { 1 }
        }
        Rule::ContainsCidr => {
            let text =
                args.get(1).map_or(0, |arg| if arg.as_str().is_ok() { traverse(arg.size(), TRAVERSAL) } else { 0 });
            text + if wide(&args[0]) { 7 } else { 3 }
        }
        Rule::Validate => {
            let factor = match &args[0] {
                Val::Opaque(o) => match **o {
                    Opaque::Format(name) => crate::library::format::regex_cost(name),
                    _ => 1,
                },
                _ => 1,
            };
            traverse(size(1), TRAVERSAL) * factor
        }
        Rule::Authorize => AUTHORIZE,
    }
}

/// Every element once: text by its length.
fn elements(list: &Val) -> u64 {
    let Val::List(list) = list else { return 1 };
    let each = match list.get(0) {
        Some(Val::String(first)) => first.chars().count() as u64 / 10,
        Some(Val::Bytes(first)) => first.len() as u64 / 10,
        _ => 1,
    };
    each.saturating_mul(list.len() as u64)
}

fn wide(cidr: &Val) -> bool {
    matches!(cidr, Val::Opaque(o) if matches!(&**o, Opaque::Cidr(c) if c.addr.is_ipv6()))
}

/// Text-like types are measured by their length.
pub fn is_text(t: &Type) -> bool {
    matches!(t, Type::String | Type::Bytes)
}

/// What may still be spent: by one call, and by everything that shares the budget.
#[derive(Clone, Debug)]
pub struct Budget {
    left: u64,
    call_limit: u64,
    call_left: u64,
    work_left: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Budget::new(RUNTIME_BUDGET)
    }
}

impl Budget {
    pub fn new(total: u64) -> Self {
        Budget { left: total, call_limit: PER_CALL_LIMIT, call_left: PER_CALL_LIMIT, work_left: WORK_MAX }
    }

    pub fn with_call_limit(self, call_limit: u64) -> Self {
        Budget { call_limit, ..self }
    }

    /// What is left for all.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Begins a call; answers what the one around it had left.
    pub(crate) fn begin(&mut self) -> u64 {
        std::mem::replace(&mut self.call_left, self.call_limit)
    }

    pub(crate) fn end(&mut self, outer: u64) {
        self.call_left = outer;
    }

    pub(crate) fn spend(&mut self, cost: u64) -> Result<()> {
        if cost > self.left {
            self.left = 0;
            return Err(EvalError::Budget);
        }
        self.left -= cost;
        self.call_left = self.call_left.checked_sub(cost).ok_or(EvalError::CostLimit)?;
        Ok(())
    }

    pub(crate) fn work(&mut self, steps: u64) -> Result<()> {
        self.work_left = self.work_left.checked_sub(steps).ok_or(EvalError::CostLimit)?;
        Ok(())
    }
}
