//! Walks a checked tree over bindings. Invariant: every step is paid for before it is taken (`Budget`), and recursion
//! is as deep as the tree, which the parser bounds.

use crate::ast::Const;
use crate::authorizer::Authorizer;
use crate::cost::{self, Budget, LIST, MAP, STRUCT};
use crate::node::{Call, Fold, Node, NodeKind};
use crate::value::{EvalError, Items, Key, List, Members, OwnMap, Result, Text, Val, failed, no_overload};
use crate::{Binding, Bindings, Program};
use std::rc::Rc;

/// What a function has besides its arguments.
pub struct Ctx<'a, 'c> {
    pub call: &'a Call,
    pub authorizer: Option<&'a dyn Authorizer>,
    pub budget: &'c mut Budget,
}

pub type Builtin = for<'a, 'b, 'c, 'v> fn(&'b mut Ctx<'a, 'c>, &'v [Val<'a>]) -> Result<Val<'a>>;

pub fn run<'a>(program: &'a Program, bindings: &Bindings<'a>, budget: &mut Budget) -> Result<Val<'a>> {
    let outer = budget.begin();
    let mut eval = Eval { program, bindings, budget, locals: Vec::new() };
    let value = eval.node(&program.root);
    budget.end(outer);
    value
}

struct Eval<'a, 'b> {
    program: &'a Program,
    bindings: &'b Bindings<'a>,
    budget: &'b mut Budget,
    locals: Vec<Val<'a>>,
}

impl<'a> Eval<'a, '_> {
    fn node(&mut self, node: &'a Node) -> Result<Val<'a>> {
        match &node.kind {
            NodeKind::Const(value) => Ok(constant(value)),
            NodeKind::TypeName(name) => Ok(Val::Type(name.as_str().into())),
            NodeKind::Var(_) | NodeKind::Local(_) => {
                self.budget.spend(1)?;
                self.name(node)
            }
            NodeKind::Select { .. } | NodeKind::Index { .. } => {
                self.budget.spend(start_cost(node))?;
                self.chain(node)
            }
            NodeKind::Logical { or, sides } => self.logical(*or, sides),
            NodeKind::Cond(parts) => {
                let taken = self.branch(parts)?;
                self.chosen(taken)
            }
            NodeKind::List { items, constant } => {
                let mut list = Vec::with_capacity(items.len());
                for (item, optional) in items {
                    match (self.node(item)?, optional) {
                        (Val::Optional(inner), true) => list.extend(inner.map(|v| Val::clone(&v))),
                        (_, true) => return no_overload(),
                        (value, false) => list.push(value),
                    }
                }
                self.budget.spend(if *constant { 0 } else { LIST })?;
                Ok(Val::list(list))
            }
            NodeKind::Map { entries, constant } => self.map(entries, *constant),
            NodeKind::Struct(fields) => {
                self.budget.spend(STRUCT)?;
                let mut map = OwnMap::new();
                for (name, value, optional) in fields {
                    let value = match (self.node(value)?, optional) {
                        (Val::Optional(None), true) => continue,
                        (Val::Optional(Some(inner)), true) => Val::clone(&inner),
                        (value, _) => value,
                    };
                    map.insert(Key::String(name.as_str().into()), (Val::String(Text::Doc(name)), value));
                }
                Ok(Val::Map(Members::Own(Rc::new(map))))
            }
            NodeKind::Call(call) => self.call(call),
            NodeKind::Fold(fold) => self.fold(fold),
        }
    }

    /// A variable or local, which was paid for.
    fn name(&mut self, node: &'a Node) -> Result<Val<'a>> {
        match &node.kind {
            NodeKind::Local(slot) => match &self.locals[*slot] {
                Val::Fault(message) => failed(&**message),
                value => Ok(value.clone()),
            },
            NodeKind::Var(at) => {
                let (name, decl) = &self.program.variables[*at];
                match self.bindings.get(name) {
                    Some((_, Binding::Doc(value))) => Ok(Val::from_doc(value, decl)),
                    Some((_, Binding::Value(value))) => Ok(value.clone()),
                    Some((at, Binding::Programs(_))) => Ok(Val::Lazy(at)),
                    None => failed(format!("no such attribute(s): {name}")),
                }
            }
            _ => self.node(node),
        }
    }

    /// The conditional's side to take.
    fn branch(&mut self, parts: &'a [Node; 3]) -> Result<&'a Node> {
        match self.node(&parts[0])? {
            Val::Bool(true) => Ok(&parts[1]),
            Val::Bool(false) => Ok(&parts[2]),
            _ => no_overload(),
        }
    }

    /// A conditional's side. Compat: upstream does not charge for the name there, only for what is selected from it.
    fn chosen(&mut self, node: &'a Node) -> Result<Val<'a>> {
        match &node.kind {
            NodeKind::Var(_) | NodeKind::Local(_) => self.name(node),
            NodeKind::Select { test: false, .. } | NodeKind::Index { .. } => {
                self.budget.spend(start_cost(node).saturating_sub(1))?;
                self.chain(node)
            }
            _ => self.node(node),
        }
    }

    /// Selections and indexes from a name, whose start was paid for.
    fn chain(&mut self, node: &'a Node) -> Result<Val<'a>> {
        match &node.kind {
            NodeKind::Select { operand, field, optional, test } => {
                let mut target = self.chain(operand)?;
                let mut optional = *optional;
                if let Val::Optional(inner) = target {
                    let Some(inner) = inner else {
                        return Ok(if *test { Val::Bool(false) } else { Val::Optional(None) });
                    };
                    target = Val::clone(&inner);
                    optional = true;
                }
                let found = self.field(&target, field)?;
                if found.is_some() || !optional || *test {
                    self.budget.spend(1)?;
                }
                match found {
                    found if *test => Ok(Val::Bool(found.is_some())),
                    found if optional => Ok(Val::Optional(found.map(Rc::new))),
                    Some(found) => Ok(found),
                    None => failed(format!("no such key: {field}")),
                }
            }
            NodeKind::Index { operand, key, optional } => {
                let mut target = self.chain(operand)?;
                let mut optional = *optional;
                if let Val::Optional(inner) = target {
                    let Some(inner) = inner else { return Ok(Val::Optional(None)) };
                    target = Val::clone(&inner);
                    optional = true;
                }
                let key = self.chosen(key)?;
                let found = index(&target, &key);
                if found.is_ok() || !optional {
                    self.budget.spend(1)?;
                }
                match found {
                    Ok(found) => Ok(if optional { Val::some(found) } else { found }),
                    Err(EvalError::Failed(_)) if optional => Ok(Val::Optional(None)),
                    Err(error) => Err(error),
                }
            }
            NodeKind::Var(_) | NodeKind::Local(_) => self.name(node),
            _ => self.node(node),
        }
    }

    fn field(&mut self, target: &Val<'a>, field: &'a str) -> Result<Option<Val<'a>>> {
        match target {
            Val::Map(members) => Ok(members.field(field)),
            Val::Lazy(at) => self.lazy(*at, field).map(Some),
            _ => no_overload(),
        }
    }

    /// A field that is a program: run once, with the same bindings.
    fn lazy(&mut self, at: usize, field: &str) -> Result<Val<'a>> {
        let (_, Binding::Programs(programs)) = &self.bindings.entries[at] else { return no_overload() };
        let Some(one) = programs.iter().find(|one| one.name == field) else {
            return failed(format!("no such key: {field}"));
        };
        if let Some(done) = &*one.done.borrow() {
            return done.clone();
        }
        let value = run(one.program, self.bindings, self.budget);
        // A budget's end is the request's end; everything else stays as it is.
        *one.done.borrow_mut() = Some(value.clone());
        value
    }

    fn logical(&mut self, or: bool, sides: &'a [Node; 2]) -> Result<Val<'a>> {
        let left = self.node(&sides[0]);
        match &left {
            Ok(Val::Bool(b)) if *b == or => return left,
            Err(error @ (EvalError::CostLimit | EvalError::Budget)) => return Err(error.clone()),
            _ => {}
        }
        let right = match (self.node(&sides[1]), &left) {
            (Ok(right), _) => right,
            // of two faults the first is told
            (Err(EvalError::Failed(_)), Err(first)) => return Err(first.clone()),
            (Err(error), _) => return Err(error),
        };
        match (left, right) {
            (_, Val::Bool(b)) if b == or => Ok(Val::Bool(or)),
            (Err(error), _) => Err(error),
            (Ok(Val::Bool(_)), right @ Val::Bool(_)) => Ok(right),
            _ => no_overload(),
        }
    }

    fn map(&mut self, entries: &'a [(Node, Node, bool)], constant: bool) -> Result<Val<'a>> {
        let mut map = OwnMap::new();
        for (key, value, optional) in entries {
            let key = self.node(key)?;
            let value = match (self.node(value)?, optional) {
                (Val::Optional(None), true) => continue,
                (Val::Optional(Some(inner)), true) => Val::clone(&inner),
                (_, true) => return no_overload(),
                (value, false) => value,
            };
            let Some(known) = key.key() else { return failed("unsupported key type") };
            map.insert(known, (key, value));
        }
        self.budget.spend(if constant { 0 } else { MAP })?;
        Ok(Val::Map(Members::Own(Rc::new(map))))
    }

    fn call(&mut self, call: &'a Call) -> Result<Val<'a>> {
        if call.name == "@not_strictly_false" {
            let value = self.node(&call.args[0]);
            self.budget.spend(1)?;
            return match value {
                Ok(Val::Bool(false)) => Ok(Val::Bool(false)),
                Err(error @ (EvalError::CostLimit | EvalError::Budget)) => Err(error),
                _ => Ok(Val::Bool(true)),
            };
        }
        // `orValue` and `or` look at their argument only when they need it.
        if matches!(call.name, "orValue" | "or") {
            return match self.node(&call.args[0])? {
                Val::Optional(None) => self.node(&call.args[1]),
                Val::Optional(Some(value)) if call.name == "orValue" => Ok(Val::clone(&value)),
                some @ Val::Optional(_) => Ok(some),
                _ => no_overload(),
            };
        }
        let mut args = Vec::with_capacity(call.args.len());
        for arg in &call.args {
            args.push(self.node(arg)?);
        }
        let by_result = matches!(call.cost, cost::Rule::Join | cost::Rule::Slice | cost::Rule::Range);
        let free = call.constant || (call.cost == cost::Rule::In && call.args[1].is_const());
        if !free && !by_result {
            self.budget.spend(cost::of_call(call.cost, &args, None))?;
        }
        let authorizer = self.bindings.authorizer;
        let value = (call.run)(&mut Ctx { call, authorizer, budget: self.budget }, &args);
        if by_result {
            let cost = cost::of_call(call.cost, &args, Some(value.as_ref().unwrap_or(&Val::Null)));
            self.budget.spend(cost)?;
        }
        value
    }

    fn fold(&mut self, fold: &'a Fold) -> Result<Val<'a>> {
        let range = self.node(&fold.range)?;
        let init = self.node(&fold.init)?;
        let outside = self.locals.len();
        self.locals.push(init);
        let folded = match &range {
            Val::List(list) => {
                let pairs = list.iter().enumerate().map(|(i, item)| match fold.two {
                    true => (Val::Int(i as i64), item),
                    false => (item, Val::Null),
                });
                self.steps(fold, pairs)
            }
            Val::Map(members) => self.steps(fold, members.iter()),
            _ => no_overload(),
        };
        self.locals.truncate(outside + 1);
        let result = folded.and_then(|()| self.node(&fold.result));
        self.locals.truncate(outside);
        result
    }

    fn steps(&mut self, fold: &'a Fold, pairs: impl Iterator<Item = (Val<'a>, Val<'a>)>) -> Result<()> {
        for (first, second) in pairs {
            self.locals.truncate(fold.slot + 1);
            self.locals.push(first);
            if fold.two {
                self.locals.push(second);
            }
            if let Val::Bool(false) = self.node(&fold.condition)? {
                break;
            }
            // `all` and `exists` carry an error on: a later element may decide.
            match self.step(&fold.step, fold.slot) {
                Ok(()) => {}
                Err(EvalError::Failed(message)) if matches!(fold.step.kind, NodeKind::Logical { .. }) => {
                    self.locals[fold.slot] = Val::Fault(message.into());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// One step into the accumulator, in place where it only grows.
    fn step(&mut self, node: &'a Node, slot: usize) -> Result<()> {
        let is_accu = |node: &Node| matches!(node.kind, NodeKind::Local(s) if s == slot);
        match &node.kind {
            NodeKind::Cond(parts) => {
                let taken = self.branch(parts)?;
                if is_accu(taken) { Ok(()) } else { self.step(taken, slot) }
            }
            NodeKind::Call(call) if call.name == "_+_" && is_accu(&call.args[0]) => match &call.args[1].kind {
                NodeKind::List { items, constant } if items.len() == 1 => {
                    self.budget.spend(2 + if *constant { 0 } else { LIST })?;
                    let value = self.node(&items[0].0)?;
                    match &mut self.locals[slot] {
                        Val::List(List { items: Items::Own(list), kind: None }) => Rc::make_mut(list).push(value),
                        _ => return no_overload(),
                    }
                    Ok(())
                }
                _ => self.replace(node, slot),
            },
            NodeKind::Call(call) if call.name == "cel.@mapInsert" && is_accu(&call.args[0]) => {
                self.budget.spend(2)?;
                let first = self.node(&call.args[1])?;
                let new: Vec<(Val, Val)> = match (call.args.get(2), first) {
                    (Some(value), key) => vec![(key, self.node(value)?)],
                    (None, Val::Map(members)) => members.iter().collect(),
                    _ => return no_overload(),
                };
                let Val::Map(Members::Own(map)) = &mut self.locals[slot] else { return no_overload() };
                for (key, value) in new {
                    let Some(known) = key.key() else { return failed("unsupported key type") };
                    if map.contains_key(&known) {
                        return failed(format!(
                            "insert failed: key {} already exists",
                            crate::library::format::text(&key)
                        ));
                    }
                    Rc::make_mut(map).insert(known, (key, value));
                }
                Ok(())
            }
            _ => self.replace(node, slot),
        }
    }

    fn replace(&mut self, node: &'a Node, slot: usize) -> Result<()> {
        let value = self.node(node)?;
        self.locals[slot] = value;
        Ok(())
    }
}

fn constant(value: &Const) -> Val<'_> {
    match value {
        Const::Null => Val::Null,
        Const::Bool(b) => Val::Bool(*b),
        Const::Int(i) => Val::Int(*i),
        Const::Uint(u) => Val::Uint(*u),
        Const::Double(f) => Val::Double(*f),
        Const::String(s) => Val::String(Text::Doc(s)),
        Const::Bytes(b) => Val::Bytes(b.as_slice().into()),
    }
}

/// What a chain's start costs: a name is paid here, other starts pay for themselves and for being one.
fn start_cost(node: &Node) -> u64 {
    match &node.kind {
        NodeKind::Select { operand, test: true, .. } => match operand.kind {
            NodeKind::Select { .. } | NodeKind::Index { .. } | NodeKind::Var(_) | NodeKind::Local(_) => {
                start_cost(operand)
            }
            _ => 0,
        },
        NodeKind::Select { operand, .. } | NodeKind::Index { operand, .. } => start_cost(operand),
        NodeKind::Cond(_) => 0,
        _ => 1,
    }
}

fn index<'a>(target: &Val<'a>, key: &Val<'a>) -> Result<Val<'a>> {
    match target {
        Val::List(list) => {
            let Some(Key::Int(at)) = key.key().filter(|_| !matches!(key, Val::String(_) | Val::Bool(_))) else {
                return no_overload();
            };
            usize::try_from(at)
                .ok()
                .and_then(|at| list.get(at))
                .ok_or_else(|| EvalError::Failed(format!("index out of bounds: {at}")))
        }
        Val::Map(members) => members
            .get(key)
            .ok_or_else(|| EvalError::Failed(format!("no such key: {}", crate::library::format::text(key)))),
        _ => no_overload(),
    }
}
