//! The checked tree, which `eval` walks and `estimate` measures. Names are resolved: variables by index, locals by
//! slot, functions by what runs them. Invariant: slots are where the evaluator's stack of locals holds them.

use crate::ast::Const;
use crate::cost::Rule;
use crate::eval::Builtin;
use crate::types::Type;
use compact_str::CompactString;
use regex::Regex;
use std::sync::Arc;

#[derive(Clone, Debug)]
pub struct Node {
    pub pos: u32,
    pub ty: Type,
    pub kind: NodeKind,
}

#[derive(Clone, Debug)]
pub enum NodeKind {
    Const(Const),
    Var(usize),
    Local(usize),
    TypeName(String),
    Select {
        operand: Box<Node>,
        field: CompactString,
        optional: bool,
        test: bool,
    },
    Index {
        operand: Box<Node>,
        key: Box<Node>,
        optional: bool,
    },
    /// Both logical operators: `or` says which.
    Logical {
        or: bool,
        sides: Box<[Node; 2]>,
    },
    /// Condition, then, otherwise.
    Cond(Box<[Node; 3]>),
    Call(Box<Call>),
    /// `constant`: made of constants only, which costs nothing when it runs.
    List {
        items: Vec<(Node, bool)>,
        constant: bool,
    },
    Map {
        entries: Vec<(Node, Node, bool)>,
        constant: bool,
    },
    Struct(Vec<(String, Node, bool)>),
    Fold(Box<Fold>),
}

#[derive(Clone, Debug)]
pub struct Call {
    pub name: &'static str,
    pub args: Vec<Node>,
    pub run: Builtin,
    pub cost: Rule,
    /// a conversion of a constant: done once upstream, so it costs nothing when it runs
    pub constant: bool,
    /// the pattern, when it is a constant
    pub regex: Option<Arc<Regex>>,
}

#[derive(Clone, Debug)]
pub struct Fold {
    pub range: Node,
    pub two: bool,
    /// where the accumulator is; the variables are in the slots after it
    pub slot: usize,
    pub init: Node,
    pub condition: Node,
    pub step: Node,
    pub result: Node,
}

impl Node {
    pub fn is_const(&self) -> bool {
        match &self.kind {
            NodeKind::Const(_) | NodeKind::TypeName(_) => true,
            NodeKind::List { constant, .. } | NodeKind::Map { constant, .. } => *constant,
            NodeKind::Call(call) => call.constant,
            _ => false,
        }
    }

    pub fn const_str(&self) -> Option<&str> {
        match &self.kind {
            NodeKind::Const(Const::String(s)) => Some(s),
            _ => None,
        }
    }

    /// Visits every node, children after parents.
    pub fn walk<'n>(&'n self, visit: &mut dyn FnMut(&'n Node)) {
        visit(self);
        for child in self.children() {
            child.walk(visit);
        }
    }

    pub fn children(&self) -> Vec<&Node> {
        match &self.kind {
            NodeKind::Const(_) | NodeKind::Var(_) | NodeKind::Local(_) | NodeKind::TypeName(_) => vec![],
            NodeKind::Select { operand, .. } => vec![operand],
            NodeKind::Index { operand, key, .. } => vec![operand, key],
            NodeKind::Logical { sides, .. } => sides.iter().collect(),
            NodeKind::Cond(parts) => parts.iter().collect(),
            NodeKind::Call(call) => call.args.iter().collect(),
            NodeKind::List { items, .. } => items.iter().map(|(n, _)| n).collect(),
            NodeKind::Map { entries, .. } => entries.iter().flat_map(|(k, v, _)| [k, v]).collect(),
            NodeKind::Struct(fields) => fields.iter().map(|(_, n, _)| n).collect(),
            NodeKind::Fold(f) => vec![&f.range, &f.init, &f.condition, &f.step, &f.result],
        }
    }

    pub fn children_mut(&mut self) -> Vec<&mut Node> {
        match &mut self.kind {
            NodeKind::Const(_) | NodeKind::Var(_) | NodeKind::Local(_) | NodeKind::TypeName(_) => vec![],
            NodeKind::Select { operand, .. } => vec![operand],
            NodeKind::Index { operand, key, .. } => vec![operand, key],
            NodeKind::Logical { sides, .. } => sides.iter_mut().collect(),
            NodeKind::Cond(parts) => parts.iter_mut().collect(),
            NodeKind::Call(call) => call.args.iter_mut().collect(),
            NodeKind::List { items, .. } => items.iter_mut().map(|(n, _)| n).collect(),
            NodeKind::Map { entries, .. } => entries.iter_mut().flat_map(|(k, v, _)| [k, v]).collect(),
            NodeKind::Struct(fields) => fields.iter_mut().map(|(_, n, _)| n).collect(),
            NodeKind::Fold(f) => vec![&mut f.range, &mut f.init, &mut f.condition, &mut f.step, &mut f.result],
        }
    }

    pub fn each_type(&mut self, change: &mut dyn FnMut(&Type) -> Type) {
        self.ty = change(&self.ty);
        for child in self.children_mut() {
            child.each_type(change);
        }
    }
}
