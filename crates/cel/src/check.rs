//! The static type check: a tree to a checked tree, or all its faults. Messages are cel-go's.
//! Reads the environment's declarations; invariant: a checked tree has a type on every node, without variables.

use crate::Env;
use crate::ast::{Const, Expr, Fold, Kind};
use crate::functions::{named_function, type_named};
use crate::lex::Fault;
use crate::node::{self, Node, NodeKind};
use crate::parse::qualified;
use crate::types::{Bound, Type};
use crate::{cost, library};
use compact_str::CompactString;
use std::sync::Arc;

pub fn check(env: &Env, expr: &Expr) -> Result<Node, Vec<Fault>> {
    let mut checker = Checker { env, bound: Bound::default(), locals: Vec::new(), faults: Vec::new() };
    let mut node = checker.expr(expr);
    if !checker.faults.is_empty() {
        return Err(checker.faults);
    }
    let bound = checker.bound;
    node.each_type(&mut |t| bound.resolve(t, true));
    let faults = crate::validate::validate(&mut node);
    if faults.is_empty() { Ok(node) } else { Err(faults) }
}

struct Checker<'e> {
    env: &'e Env,
    bound: Bound,
    /// name, type and slot, innermost last
    locals: Vec<(CompactString, Type, usize)>,
    faults: Vec<Fault>,
}

impl Checker<'_> {
    fn fault(&mut self, pos: u32, message: String) -> Type {
        self.faults.push((pos, message));
        Type::Error
    }

    fn show(&self, t: &Type) -> String {
        self.bound.resolve(t, true).to_string()
    }

    fn undeclared(&mut self, pos: u32, name: &str) -> Type {
        self.fault(pos, format!("undeclared reference to '{name}' (in container '')"))
    }

    fn expect(&mut self, node: &Node, want: &Type) {
        if !self.bound.assignable(want, &node.ty) {
            let message = format!("expected type '{}' but found '{}'", self.show(want), self.show(&node.ty));
            self.fault(node.pos, message);
        }
    }

    fn expr(&mut self, expr: &Expr) -> Node {
        let pos = expr.pos;
        let (kind, ty) = match &expr.kind {
            Kind::Const(value) => (NodeKind::Const(value.clone()), type_of(value)),
            Kind::Ident(name) => match self.name(name) {
                Some(found) => found,
                None => (NodeKind::Const(Const::Null), self.undeclared(pos, name)),
            },
            Kind::Select { operand, field, test, optional } => {
                return self.select(expr, operand, field, *test, *optional);
            }
            Kind::Call { function, member, args } => return self.call(pos, function, *member, args),
            Kind::List(items) => self.list(items),
            Kind::Map(entries) => self.map(entries),
            Kind::Struct { name, fields } => self.message(pos, name, fields),
            Kind::Fold(fold) => self.fold(fold),
        };
        Node { pos, ty, kind }
    }

    /// A variable or a type: the innermost local, then what is declared.
    fn name(&mut self, name: &str) -> Option<(NodeKind, Type)> {
        if let Some((_, ty, slot)) = self.locals.iter().rev().find(|(local, ..)| local == name) {
            return Some((NodeKind::Local(*slot), ty.clone()));
        }
        if let Some(at) = self.env.find(name) {
            return Some((NodeKind::Var(at), self.env.variables[at].1.cel_type()));
        }
        let t = type_named(name)?;
        Some((NodeKind::TypeName(runtime_name(&t)), Type::Type(Arc::new(t))))
    }

    fn select(&mut self, expr: &Expr, operand: &Expr, field: &CompactString, test: bool, optional: bool) -> Node {
        let pos = expr.pos;
        // `authorizer.requestResource` is one variable's name.
        if let Some(name) = qualified(expr).filter(|name| !self.shadowed(name))
            && let Some((kind, ty)) = self.name(&name)
        {
            return Node { pos, ty, kind };
        }
        let operand = self.expr(operand);
        let mut target = self.bound.resolve(&operand.ty, false);
        let mut wrap = optional;
        if let Type::Optional(inner) = &target {
            target = Type::clone(inner);
            wrap = true;
        }
        let found = match &target {
            Type::Dyn | Type::Any | Type::Error | Type::Var(_) => Type::Dyn,
            Type::Map(both) => both.1.clone(),
            Type::Object(object) => match object.field(field) {
                Some(found) => found.decl.cel_type(),
                None => self.fault(pos, format!("undefined field '{field}'")),
            },
            // Compat: addresses and ranges are declared otherwise than the rest.
            Type::Opaque(name) if !name.starts_with("net.") => {
                self.fault(pos, format!("unexpected failed resolution of '{name}'"))
            }
            other => {
                let message = format!("type '{}' does not support field selection", self.show(other));
                self.fault(pos, message);
                Type::Dyn
            }
        };
        let ty = match found {
            Type::Error => Type::Error,
            _ if test => Type::Bool,
            found if wrap => Type::optional(found),
            found => found,
        };
        let kind = NodeKind::Select { operand: Box::new(operand), field: field.clone(), optional, test };
        Node { pos, ty, kind }
    }

    fn shadowed(&self, name: &str) -> bool {
        let first = name.split('.').next().unwrap_or(name);
        self.locals.iter().any(|(local, ..)| local == first)
    }

    fn call(&mut self, pos: u32, function: &str, member: bool, args: &[Expr]) -> Node {
        // A namespace's function that does not exist is told as upstream does: as a method of a variable.
        if let (false, Some((prefix, name))) = (member, function.rsplit_once('.'))
            && (named_function(function).is_none() || (prefix == "jsonpatch" && !self.env.mutation))
        {
            self.undeclared(pos.saturating_sub(function.chars().count() as u32), prefix);
            self.undeclared(pos, name);
            args.iter().for_each(|arg| drop(self.expr(arg)));
            return Node { pos, ty: Type::Error, kind: NodeKind::Const(Const::Null) };
        }
        let args: Vec<Node> = args.iter().map(|arg| self.expr(arg)).collect();
        let Some((name, signatures)) = named_function(function) else {
            let ty = self.undeclared(pos, function);
            return Node { pos, ty, kind: NodeKind::Const(Const::Null) };
        };
        if name == "_&&_" || name == "_||_" {
            let told = self.faults.len();
            args.iter().for_each(|arg| self.expect(arg, &Type::Bool));
            let ty = if self.faults.len() > told { Type::Error } else { Type::Bool };
            let sides = Box::new(args.try_into().expect("the parser gives two"));
            return Node { pos, ty, kind: NodeKind::Logical { or: name == "_||_", sides } };
        }
        let mut result: Option<Type> = None;
        for signature in signatures.iter().filter(|s| s.member == member && s.params.len() == args.len()) {
            let saved = self.bound.save();
            let (params, its_result) = signature.instantiate(&mut self.bound);
            if params.iter().zip(&args).all(|(param, arg)| self.bound.assignable(param, &arg.ty)) {
                let found = self.bound.resolve(&its_result, false);
                result = Some(match result {
                    Some(earlier) if earlier != found => Type::Dyn,
                    _ => found,
                });
            } else {
                self.bound.restore(saved);
            }
        }
        let ty = match result {
            Some(ty) => ty,
            None => {
                let shown: Vec<String> = args.iter().map(|arg| self.show(&arg.ty)).collect();
                let applied = match shown.split_first() {
                    Some((target, rest)) if member => format!("{target}.({})", rest.join(", ")),
                    _ => format!("({})", shown.join(", ")),
                };
                self.fault(pos, format!("found no matching overload for '{name}' applied to '{applied}'"))
            }
        };
        Node { pos, ty, kind: call_kind(name, member, args) }
    }

    fn list(&mut self, items: &[(Expr, bool)]) -> (NodeKind, Type) {
        let mut item_type: Option<Type> = None;
        let mut nodes = Vec::with_capacity(items.len());
        for (item, optional) in items {
            let node = self.expr(item);
            let ty = if *optional { self.unwrapped(&node) } else { node.ty.clone() };
            item_type = Some(self.joined(item_type, ty));
            nodes.push((node, *optional));
        }
        let item_type = item_type.unwrap_or_else(|| self.bound.fresh());
        let constant = nodes.iter().all(|(node, optional)| node.is_const() && !optional);
        (NodeKind::List { items: nodes, constant }, Type::list(item_type))
    }

    fn map(&mut self, entries: &[crate::ast::Entry]) -> (NodeKind, Type) {
        let (mut key_type, mut value_type) = (None, None);
        let mut nodes = Vec::with_capacity(entries.len());
        for entry in entries {
            let (key, value) = (self.expr(&entry.key), self.expr(&entry.value));
            let ty = if entry.optional { self.unwrapped(&value) } else { value.ty.clone() };
            key_type = Some(self.joined(key_type, key.ty.clone()));
            value_type = Some(self.joined(value_type, ty));
            nodes.push((key, value, entry.optional));
        }
        let ty = match (key_type, value_type) {
            (Some(key), Some(value)) => Type::map(key, value),
            _ => Type::map(self.bound.fresh(), self.bound.fresh()),
        };
        let constant = nodes.iter().all(|(key, value, optional)| key.is_const() && value.is_const() && !optional);
        (NodeKind::Map { entries: nodes, constant }, ty)
    }

    fn joined(&mut self, so_far: Option<Type>, next: Type) -> Type {
        match so_far {
            Some(so_far) => self.bound.join(&so_far, &next),
            None => next,
        }
    }

    /// The type within an optional: `?element`.
    fn unwrapped(&mut self, node: &Node) -> Type {
        match self.bound.resolve(&node.ty, false) {
            Type::Optional(inner) => Type::clone(&inner),
            other if other.is_dyn() => Type::Dyn,
            other => {
                let message = format!("expected type 'optional_type({other})' but found '{}'", self.show(&other));
                self.fault(node.pos, message)
            }
        }
    }

    fn message(&mut self, pos: u32, name: &str, fields: &[(CompactString, u32, Expr, bool)]) -> (NodeKind, Type) {
        // Compat: what is applied to objects of any kind is checked when it is applied (MutatingAdmissionPolicy).
        let is_any = self.env.mutation && (name == "Object" || name.starts_with("Object."));
        if is_any && !self.env.objects.iter().any(|object| object.name == name) {
            let each =
                fields.iter().map(|(field, _, value, optional)| (field.to_string(), self.expr(value), *optional));
            let object = crate::schema::Object { name: name.into(), fields: Vec::new() };
            return (NodeKind::Struct(each.collect()), Type::Object(Arc::new(object)));
        }
        let Some(object) = self.env.objects.iter().find(|object| object.name == name).cloned() else {
            fields.iter().for_each(|(_, _, value, _)| drop(self.expr(value)));
            return (NodeKind::Const(Const::Null), self.undeclared(pos, name));
        };
        let mut nodes = Vec::new();
        for (field, at, value, optional) in fields {
            let mut node = self.expr(value);
            let Some(found) = object.field(field) else {
                self.fault(*at, format!("undefined field '{field}'"));
                continue;
            };
            let want = found.decl.cel_type();
            let its = node.ty.clone();
            if *optional {
                node.ty = self.unwrapped(&node);
            }
            if !self.bound.assignable(&want, &node.ty) {
                let shown = self.show(&node.ty);
                self.fault(*at, format!("expected type of field '{field}' is '{want}' but provided type is '{shown}'"));
            }
            node.ty = its;
            nodes.push((found.json.clone(), node, *optional));
        }
        (NodeKind::Struct(nodes), Type::Object(object))
    }

    fn fold(&mut self, fold: &Fold) -> (NodeKind, Type) {
        let range = self.expr(&fold.range);
        let two = fold.vars.len() == 2;
        let range_type = self.bound.resolve(&range.ty, false);
        let (first, second) = match &range_type {
            Type::List(item) if two => (Type::Int, Type::clone(item)),
            Type::List(item) => (Type::clone(item), Type::Dyn),
            Type::Map(both) => (both.0.clone(), both.1.clone()),
            Type::Dyn | Type::Error => (Type::Dyn, Type::Dyn),
            Type::Var(_) => {
                self.bound.assignable(&Type::Dyn, &range.ty);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                let message = format!(
                    "expression of type '{}' cannot be range of a comprehension (must be list, map, or dynamic)",
                    self.show(other)
                );
                self.fault(range.pos, message);
                (Type::Error, Type::Error)
            }
        };
        let init = self.expr(&fold.init);
        let slot = self.locals.last().map_or(0, |(_, _, slot)| slot + 1);
        let outside = self.locals.len();
        self.locals.push((fold.accu.clone(), init.ty.clone(), slot));
        for (i, (var, ty)) in fold.vars.iter().zip([first, second]).enumerate() {
            self.locals.push((var.clone(), ty, slot + 1 + i));
        }
        let condition = self.expr(&fold.condition);
        self.expect(&condition, &Type::Bool);
        let step = self.expr(&fold.step);
        self.expect(&step, &init.ty);
        self.locals.truncate(outside + 1);
        let result = self.expr(&fold.result);
        self.locals.truncate(outside);
        let ty = self.bound.resolve(&result.ty, false);
        (NodeKind::Fold(Box::new(node::Fold { range, two, slot, init, condition, step, result })), ty)
    }
}

fn call_kind(name: &'static str, member: bool, mut args: Vec<Node>) -> NodeKind {
    match (name, args.len()) {
        ("_?_:_", 3) => {
            let parts: [Node; 3] = args.try_into().expect("three were counted");
            NodeKind::Cond(Box::new(parts))
        }
        ("_[_]" | "_[?_]", 2) => {
            let key = Box::new(args.pop().expect("two were counted"));
            let operand = Box::new(args.pop().expect("two were counted"));
            NodeKind::Index { operand, key, optional: name == "_[?_]" }
        }
        _ => {
            let converts = matches!(
                name,
                "bool" | "bytes" | "double" | "duration" | "dyn" | "int" | "string" | "timestamp" | "type" | "uint"
            );
            let constant = converts && !member && args.iter().all(Node::is_const);
            let call = node::Call {
                name,
                run: library::find(name, member),
                cost: cost::rule(name),
                args,
                constant,
                regex: None,
            };
            NodeKind::Call(Box::new(call))
        }
    }
}

fn type_of(value: &Const) -> Type {
    match value {
        Const::Null => Type::Null,
        Const::Bool(_) => Type::Bool,
        Const::Int(_) => Type::Int,
        Const::Uint(_) => Type::Uint,
        Const::Double(_) => Type::Double,
        Const::String(_) => Type::String,
        Const::Bytes(_) => Type::Bytes,
    }
}

/// What `type(x)` answers for a value of this type.
fn runtime_name(t: &Type) -> String {
    match t {
        Type::List(_) => "list".into(),
        Type::Map(_) => "map".into(),
        Type::Optional(_) => "optional_type".into(),
        Type::Type(_) => "type".into(),
        Type::Null => "null_type".into(),
        Type::Timestamp => "google.protobuf.Timestamp".into(),
        Type::Duration => "google.protobuf.Duration".into(),
        other => other.to_string(),
    }
}
