//! The syntax tree of an expression, after macros were expanded: what `parse` makes and `check` reads.
//! Invariant: a tree is at most `DEPTH_MAX` nodes deep, so that walking it by recursion cannot overflow a stack.

use compact_str::CompactString;

/// Depth of a tree.
pub const DEPTH_MAX: u16 = 250;
/// Brackets, conditionals and calls within each other.
pub const NESTING_MAX: u16 = 64;
/// Nodes of a tree: macros copy their arguments.
pub const NODES_MAX: usize = 50_000;
/// Length of an expression's text.
pub const CHARS_MAX: usize = 100_000;

#[derive(Clone, Debug)]
pub struct Expr {
    /// Characters before it in the text: where an error about it points.
    pub pos: u32,
    pub depth: u16,
    pub kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Const {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(CompactString),
    Bytes(Vec<u8>),
}

#[derive(Clone, Debug)]
pub enum Kind {
    Const(Const),
    Ident(CompactString),
    /// `operand.field`; `test` is what `has()` makes; `optional` is `.?`.
    Select {
        operand: Box<Expr>,
        field: CompactString,
        test: bool,
        optional: bool,
    },
    /// A function, an operator (`_+_`), or a method when `member`: then the target is the first argument.
    Call {
        function: CompactString,
        member: bool,
        args: Vec<Expr>,
    },
    /// The flag marks `?element`.
    List(Vec<(Expr, bool)>),
    Map(Vec<Entry>),
    Struct {
        name: String,
        fields: Vec<(CompactString, u32, Expr, bool)>,
    },
    Fold(Box<Fold>),
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub key: Expr,
    pub value: Expr,
    pub optional: bool,
}

/// What every comprehension macro is made of.
#[derive(Clone, Debug)]
pub struct Fold {
    pub range: Expr,
    /// The element (or key) with one name; index or key and then value with two.
    pub vars: Vec<CompactString>,
    pub accu: CompactString,
    pub init: Expr,
    pub condition: Expr,
    pub step: Expr,
    pub result: Expr,
}

impl Expr {
    pub fn new(pos: u32, kind: Kind) -> Self {
        let deepest = match &kind {
            Kind::Const(_) | Kind::Ident(_) => 0,
            Kind::Select { operand, .. } => operand.depth,
            Kind::Call { args, .. } => args.iter().map(|e| e.depth).max().unwrap_or(0),
            Kind::List(items) => items.iter().map(|(e, _)| e.depth).max().unwrap_or(0),
            Kind::Map(entries) => entries.iter().map(|e| e.key.depth.max(e.value.depth)).max().unwrap_or(0),
            Kind::Struct { fields, .. } => fields.iter().map(|(_, _, e, _)| e.depth).max().unwrap_or(0),
            Kind::Fold(f) => {
                [&f.range, &f.init, &f.condition, &f.step, &f.result].iter().map(|e| e.depth).max().unwrap_or(0)
            }
        };
        Expr { pos, depth: deepest.saturating_add(1), kind }
    }

    pub fn ident(pos: u32, name: &str) -> Self {
        Expr::new(pos, Kind::Ident(name.into()))
    }

    pub fn constant(pos: u32, value: Const) -> Self {
        Expr::new(pos, Kind::Const(value))
    }

    pub fn call(pos: u32, function: &str, args: Vec<Expr>) -> Self {
        Expr::new(pos, Kind::Call { function: function.into(), member: false, args })
    }

    pub fn method(pos: u32, function: &str, args: Vec<Expr>) -> Self {
        Expr::new(pos, Kind::Call { function: function.into(), member: true, args })
    }

    pub fn list(pos: u32, items: Vec<Expr>) -> Self {
        Expr::new(pos, Kind::List(items.into_iter().map(|e| (e, false)).collect()))
    }
}
