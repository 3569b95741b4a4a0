//! The most an expression can cost, from the sizes its variables' schemas allow. Reads a checked tree; pure.
//! Invariant: arithmetic saturates, so that "unbounded" stays the largest number.

use crate::ast::Const;
use crate::cost::{self, LIST, MAP, Rule, STRUCT, TRAVERSAL, is_text};
use crate::node::{Call, Fold, Node, NodeKind};
use crate::schema::{Decl, Shape};
use crate::types::Type;

/// Least and most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    pub min: u64,
    pub max: u64,
}

const UNKNOWN: Range = Range { min: 0, max: u64::MAX };

impl Range {
    const fn of(n: u64) -> Range {
        Range { min: n, max: n }
    }

    fn plus(self, other: Range) -> Range {
        Range { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    fn times(self, other: Range) -> Range {
        Range { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    fn traversed(self, factor: f64) -> Range {
        Range { min: cost::traverse(self.min, factor), max: cost::traverse(self.max, factor) }
    }

    fn or(self, other: Range) -> Range {
        Range { min: self.min.min(other.min), max: self.max.max(other.max) }
    }

    fn least(self, other: Range) -> Range {
        Range { min: self.min.min(other.min), max: self.max.min(other.max) }
    }
}

/// What is known of an expression's value.
#[derive(Clone, Copy)]
struct Known<'e> {
    cost: Range,
    size: Range,
    /// its part of a schema
    decl: Option<&'e Decl>,
    /// an element's size where no schema tells it
    item: Option<Range>,
}

pub fn estimate<'e>(root: &'e Node, variables: &'e [(String, Decl)]) -> Range {
    Estimator { variables, locals: Vec::new() }.node(root).cost
}

struct Estimator<'e> {
    variables: &'e [(String, Decl)],
    locals: Vec<Known<'e>>,
}

fn bounds(decl: &Decl) -> Range {
    Range { min: 0, max: decl.size_max }
}

impl<'e> Estimator<'e> {
    fn node(&mut self, node: &'e Node) -> Known<'e> {
        let plain = |cost, size| Known { cost, size, decl: None, item: None };
        let has_size = matches!(node.ty, Type::String | Type::Bytes | Type::List(_) | Type::Map(_));
        let scalar = if has_size || node.ty.is_dyn() { UNKNOWN } else { Range::of(1) };
        match &node.kind {
            NodeKind::Const(value) => plain(Range::of(0), Range::of(const_size(value))),
            // Compat: upstream's sizes of names outside of the schema are the schema root's, which has none.
            NodeKind::TypeName(_) => plain(Range::of(1), Range::of(0)),
            NodeKind::Var(at) => {
                let decl = &self.variables[*at].1;
                Known { cost: Range::of(1), size: bounds(decl), decl: Some(decl), item: None }
            }
            NodeKind::Local(slot) => Known { cost: Range::of(1), ..self.locals[*slot] },
            NodeKind::Select { operand, field, optional, test } => {
                let known = self.node(operand);
                let its_type = match &operand.ty {
                    Type::Optional(_) if !optional => 0,
                    Type::Object(_) | Type::Map(_) => 1,
                    _ => u64::from(*optional),
                };
                let cost = known.cost.plus(Range::of(if *test { 0 } else { its_type }));
                self.member(known, cost, |decl| match &decl.shape {
                    Shape::Object(object) => object.field(field).map(|f| &*f.decl),
                    Shape::Map(value) => Some(value),
                    _ => None,
                })
            }
            NodeKind::Index { operand, key, .. } => {
                let known = self.node(operand);
                let cost = known.cost.plus(self.node(key).cost).plus(Range::of(1));
                self.member(known, cost, element)
            }
            NodeKind::Logical { sides, .. } => {
                let (left, right) = (self.node(&sides[0]).cost, self.node(&sides[1]).cost);
                plain(Range { min: left.min, max: left.max.saturating_add(right.max) }, Range::of(1))
            }
            NodeKind::Cond(parts) => {
                let condition = self.node(&parts[0]).cost;
                let (yes, no) = (self.node(&parts[1]), self.node(&parts[2]));
                let item = widest(items(&yes), items(&no));
                Known { item, ..plain(condition.plus(yes.cost.or(no.cost)), yes.size.or(no.size)) }
            }
            NodeKind::List { items, .. } => {
                let mut cost = Range::of(LIST);
                let mut item: Option<Range> = None;
                for (node, _) in items {
                    let known = self.node(node);
                    cost = cost.plus(known.cost);
                    item = Some(item.map_or(known.size, |so_far| so_far.or(known.size)));
                }
                Known { item, ..plain(cost, Range::of(items.len() as u64)) }
            }
            NodeKind::Map { entries, .. } => {
                let cost = entries.iter().fold(Range::of(MAP), |cost, (key, value, _)| {
                    cost.plus(self.node(key).cost).plus(self.node(value).cost)
                });
                plain(cost, Range::of(entries.len() as u64))
            }
            NodeKind::Struct(fields) => {
                let cost =
                    fields.iter().fold(Range::of(STRUCT), |cost, (_, value, _)| cost.plus(self.node(value).cost));
                plain(cost, Range::of(1))
            }
            NodeKind::Call(call) => {
                let args: Vec<Known> = call.args.iter().map(|arg| self.node(arg)).collect();
                let (cost, size) = of_call(call, &args);
                let total = args.iter().fold(cost, |sum, arg| sum.plus(arg.cost));
                let item = (call.name == "_+_").then(|| widest(items(&args[0]), items(&args[1]))).flatten();
                Known { item, ..plain(total, size.unwrap_or(scalar)) }
            }
            NodeKind::Fold(fold) => self.fold(fold),
        }
    }

    /// A part of `known`: with its own declaration, or of the size that upstream takes for parts it does not know.
    fn member(&self, known: Known<'e>, cost: Range, part: impl Fn(&'e Decl) -> Option<&'e Decl>) -> Known<'e> {
        let decl = known.decl.and_then(part);
        let size = match decl {
            Some(decl) => bounds(decl),
            None if known.decl.is_some() => Range::of(0),
            None => known.item.unwrap_or(UNKNOWN),
        };
        Known { cost, size, decl, item: None }
    }

    fn fold(&mut self, fold: &'e Fold) -> Known<'e> {
        let range = self.node(&fold.range);
        let init = self.node(&fold.init);
        let item = range.decl.and_then(element);
        let var = |decl: Option<&'e Decl>| Known {
            cost: Range::of(1),
            size: decl.map_or(Range::of(0), bounds),
            decl,
            item: None,
        };
        let is_map = matches!(fold.range.ty, Type::Map(_));
        // one variable: the element or the key; two: index or key, then the element
        let first = if is_map || fold.two { None } else { item };
        let outside = self.locals.len();
        self.locals.resize(fold.slot, range);
        self.locals.extend([init, var(first), var(item)]);
        let step = self.node(&fold.step);
        let each = self.node(&fold.condition).cost.plus(step.cost);
        let result = self.node(&fold.result);
        self.locals.truncate(outside);
        let cost = range.cost.plus(init.cost).plus(range.size.times(each)).plus(result.cost);
        let grows = matches!(&fold.result.kind, NodeKind::Local(slot) if *slot == fold.slot)
            && matches!(fold.result.ty, Type::List(_) | Type::Map(_));
        let skips = matches!(fold.step.kind, NodeKind::Cond(_));
        let size = match grows {
            true => Range { min: if skips { 0 } else { range.size.min }, max: range.size.max },
            false => result.size,
        };
        Known { cost, size, decl: None, item: step.item.filter(|_| grows) }
    }
}

fn element(decl: &Decl) -> Option<&Decl> {
    match &decl.shape {
        Shape::List(item, _) | Shape::Map(item) => Some(item),
        _ => None,
    }
}

fn const_size(value: &Const) -> u64 {
    match value {
        Const::String(s) => s.chars().count() as u64,
        Const::Bytes(b) => b.len() as u64,
        _ => 1,
    }
}

/// Cost of the call itself, and the size of its result where it is not its type's.
fn of_call(call: &Call, args: &[Known]) -> (Range, Option<Range>) {
    let size = |i: usize| args.get(i).map_or(Range::of(0), |arg| arg.size);
    let one = Range::of(1);
    let text = |i: usize| is_text(&call.args[i].ty) || call.args[i].ty.is_dyn();
    match call.cost {
        Rule::One | Rule::Free => (one, None),
        Rule::Equal => (size(0).least(size(1)).traversed(TRAVERSAL), None),
        Rule::Order if is_text(&call.args[0].ty) => (size(0).least(size(1)).traversed(TRAVERSAL), None),
        Rule::Order => (one, None),
        Rule::In if matches!(call.args[1].ty, Type::List(_)) => (size(1), None),
        Rule::In => (one, None),
        Rule::Add => match &call.args[0].ty {
            t if is_text(t) => (size(0).plus(size(1)).traversed(TRAVERSAL), Some(size(0).plus(size(1)))),
            Type::List(_) => (one, Some(size(0).plus(size(1)))),
            _ => (one, None),
        },
        Rule::Contains => (size(0).traversed(TRAVERSAL).times(size(1).traversed(TRAVERSAL)), None),
        Rule::Regex => {
            let cost = size(0).plus(one).traversed(TRAVERSAL).times(size(1).traversed(0.25));
            let result = (call.name != "matches").then_some(Range { min: 0, max: size(0).max });
            (cost, result)
        }
        Rule::Traverse(arg, factor) => {
            let whole = size(0).max;
            let most = match call.name {
                "substring" | "trim" | "lowerAscii" | "upperAscii" | "split" => Some(whole),
                "strings.quote" => Some(whole.saturating_mul(2).saturating_add(2)),
                "replace" => Some(whole.max(whole.saturating_mul(size(2).max))),
                _ => None,
            };
            let cost = size(arg).traversed(TRAVERSAL * f64::from(factor));
            (cost, most.map(|max| Range { min: 0, max }))
        }
        Rule::Convert if text(0) => (size(0).traversed(TRAVERSAL), Some(size(0))),
        Rule::Convert => (one, None),
        Rule::IndexOf if is_text(&call.args[0].ty) => (size(0).traversed(TRAVERSAL), None),
        Rule::IndexOf | Rule::Elements => (elements(call, args), None),
        Rule::Join => {
            let each = item_size(&args[0]);
            let between = Range { min: size(0).min.saturating_sub(1), max: size(0).max.saturating_sub(1) };
            let length = size(0).times(each).plus(between.times(size(1)));
            (length.traversed(TRAVERSAL), Some(length))
        }
        Rule::Copy => {
            let length = if call.name == "reverse" { size(0) } else { size(0).times(item_size(&args[0])) };
            (Range::of(LIST + 1).plus(size(0)), Some(length))
        }
        Rule::Slice => {
            let at = |i: usize| match call.args.get(i).map(|n| &n.kind) {
                Some(NodeKind::Const(Const::Int(n))) => u64::try_from(*n).ok(),
                _ => None,
            };
            let length = match (at(1), at(2)) {
                (Some(from), Some(to)) => Range::of(to.saturating_sub(from)),
                _ => Range { min: 0, max: size(0).max },
            };
            (Range::of(LIST + 1).plus(length), Some(length))
        }
        Rule::Range => {
            let length = match call.args[0].kind {
                NodeKind::Const(Const::Int(n)) => Range::of(n.max(0) as u64),
                _ => UNKNOWN,
            };
            (Range::of(LIST + 1).plus(length), Some(length))
        }
        Rule::Sort | Rule::Distinct => {
            let pairs = size(0).times(size(0));
            let text = call.cost == Rule::Sort
                && matches!(call.args.last().map(|a| &a.ty), Some(Type::List(item)) if is_text(item));
            let more = if text { Range { min: pairs.min / 10, max: pairs.max / 10 } } else { Range::of(0) };
            (pairs.times(Range::of(2)).plus(more).plus(Range::of(LIST + 1)), Some(size(0)))
        }
        Rule::Pairs(times) => (size(0).times(size(1)).times(Range::of(times.into())).plus(one), None),
        Rule::ContainsIp | Rule::ContainsCidr => {
            let (min, max) = if call.cost == Rule::ContainsIp { (1, 4) } else { (3, 7) };
            let read = if text(1) { size(1).traversed(TRAVERSAL) } else { Range::of(0) };
            (Range { min, max }.plus(read), None)
        }
        Rule::Validate => (size(1).traversed(TRAVERSAL).times(Range::of(32)), None),
        Rule::Authorize => (Range::of(cost::AUTHORIZE), None),
    }
}

/// The size of a list's elements.
fn items(list: &Known) -> Option<Range> {
    list.decl.and_then(element).map(bounds).or(list.item)
}

fn item_size(list: &Known) -> Range {
    items(list).unwrap_or(UNKNOWN)
}

fn widest(a: Option<Range>, b: Option<Range>) -> Option<Range> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.or(b)),
        (a, b) => a.or(b),
    }
}

/// Every element of the first argument once: one, and text by its length on top.
fn elements(call: &Call, args: &[Known]) -> Range {
    let text = match &call.args[0].ty {
        Type::List(item) => is_text(item),
        _ => false,
    };
    let each = if text { item_size(&args[0]).traversed(TRAVERSAL) } else { Range::of(0) };
    args[0].size.times(each.plus(Range::of(1)))
}
