//! The Common Expression Language as Kubernetes v1.37 uses it: CRD validation rules, admission policies, webhook match
//! conditions. An [`Env`] declares variables and compiles text into a [`Program`], which estimates its cost and runs
//! over [`Bindings`] within a [`Budget`]. Pure: no I/O but the system's time zones. Invariant: no text and no document
//! makes it panic, overflow the stack, or run without end.
//!
//! ```
//! let schema = meta::json!({"type": "object", "properties": {"replicas": {"type": "integer"}}});
//! let decl = cel::Decl::from_structural(&schema, "selfType", false).expect("an object");
//! let program = cel::Env::new().variable("self", decl).compile("self.replicas < 5", cel::Expect::Bool)?;
//! let object = meta::json!({"replicas": 3});
//! let bindings = cel::Bindings::new().document("self", &object);
//! assert_eq!(program.run(&bindings, &mut cel::Budget::default()).unwrap().as_bool(), Ok(true));
//! # Ok::<(), cel::Errors>(())
//! ```

pub mod admission;
mod ast;
mod authorizer;
mod check;
pub mod cost;
pub mod devices;
mod estimate;
mod eval;
mod functions;
mod lex;
mod library;
mod macros;
mod node;
mod parse;
mod schema;
#[cfg(test)]
mod tests;
mod types;
mod validate;
mod value;

pub use authorizer::{Authorizer, Check, Decision};
pub use cost::Budget;
pub use estimate::Range as Estimate;
pub use schema::{Decl, ListKind, Object, Shape, escape, unescape};
pub use types::Type;
pub use value::{EvalError, Val};

use meta::Value;
use meta::field::{self, Path};
use std::cell::RefCell;
use std::sync::Arc;

/// The variables that expressions see, with their types.
#[derive(Clone, Debug, Default)]
pub struct Env {
    variables: Vec<(String, Decl)>,
    objects: Vec<Arc<Object>>,
    mutation: bool,
    binds: bool,
}

/// The result that an expression must have.
#[derive(Clone, Debug, PartialEq)]
pub enum Expect {
    Bool,
    String,
    Any,
    Type(Type),
}

/// Why a text is no program: its faults, as cel-go prints them.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Errors {
    #[error("{}", shown(.text, .faults))]
    Compile { text: String, faults: Vec<(u32, String)> },
    #[error("must evaluate to {expected} but got {found}")]
    Result { expected: String, found: String },
    /// a constant that cannot be converted
    #[error("program instantiation failed: {0}")]
    Constant(String),
}

impl Errors {
    /// The fault of the field at `at`, which holds `text`.
    pub fn told(&self, text: &str, at: &Path) -> field::Error {
        match self {
            Errors::Compile { .. } => field::Error::invalid(at, text, format!("compilation failed: {self}")),
            Errors::Result { .. } => field::Error::invalid(at, text, self.to_string()),
            Errors::Constant(_) => field::Error::internal(at, self.to_string()),
        }
    }
}

impl Env {
    pub fn new() -> Self {
        Env::default()
    }

    /// A variable; a name with dots is one variable too (`authorizer.requestResource`).
    pub fn variable(mut self, name: &str, decl: impl Into<Decl>) -> Self {
        let decl = decl.into();
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.into(), decl));
        self
    }

    /// The `authorizer` and `authorizer.requestResource` variables.
    pub fn authorizer(self) -> Self {
        self.variable("authorizer", Type::Opaque("kubernetes.authorization.Authorizer"))
            .variable("authorizer.requestResource", Type::Opaque("kubernetes.authorization.ResourceCheck"))
    }

    /// Object types by name, for literals (`Object.spec{replicas: 1}`), and what mutations have besides.
    pub fn mutation(mut self, root: &Decl) -> Self {
        root.objects(&mut self.objects);
        self.mutation = true;
        self
    }

    /// The macro `cel.bind(name, value, expression)`.
    pub fn bind(mut self) -> Self {
        self.binds = true;
        self
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.variables.iter().position(|(known, _)| known == name)
    }

    pub fn compile(&self, text: &str, expect: Expect) -> Result<Program, Errors> {
        let errors = |faults| Errors::Compile { text: text.into(), faults };
        let tree = parse::parse(text, self.binds).map_err(errors)?;
        let root = check::check(self, &tree).map_err(errors)?;
        let fits = match &expect {
            Expect::Any => true,
            Expect::Bool => root.ty == Type::Bool,
            Expect::String => root.ty == Type::String,
            Expect::Type(wanted) => *wanted == root.ty,
        };
        if !fits {
            let expected = match expect {
                Expect::Type(t) => t.to_string(),
                Expect::String => "string".into(),
                _ => "bool".into(),
            };
            return Err(Errors::Result { expected, found: format!("{:#}", root.ty) });
        }
        let program = Program { root, variables: self.variables.clone() };
        program.check_constants().map_err(|error| Errors::Constant(error.to_string()))?;
        Ok(program)
    }
}

/// A checked expression: shared between threads, run any number of times.
#[derive(Clone, Debug)]
pub struct Program {
    root: node::Node,
    variables: Vec<(String, Decl)>,
}

impl Program {
    pub fn result_type(&self) -> &Type {
        &self.root.ty
    }

    /// The least and the most it can cost, by the sizes that its variables' schemas allow.
    pub fn estimate(&self) -> Estimate {
        estimate::estimate(&self.root, &self.variables)
    }

    /// Whether a variable is mentioned (`oldSelf` makes a rule a transition rule).
    pub fn uses(&self, variable: &str) -> bool {
        let mut found = false;
        self.root.walk(&mut |node| {
            found |= matches!(node.kind, node::NodeKind::Var(at) if self.variables[at].0 == variable);
        });
        found
    }

    pub fn run<'a>(&'a self, bindings: &Bindings<'a>, budget: &mut Budget) -> Result<Val<'a>, EvalError> {
        eval::run(self, bindings, budget)
    }

    /// Conversions of constants are done once, to find those that fail (`int('x')`).
    fn check_constants(&self) -> Result<(), EvalError> {
        let mut result = Ok(());
        self.root.walk(&mut |node| {
            if matches!(&node.kind, node::NodeKind::Call(call) if call.constant) && result.is_ok() {
                let one = Program { root: node.clone(), variables: Vec::new() };
                result = one.run(&Bindings::new(), &mut Budget::default()).map(drop);
            }
        });
        result
    }
}

/// What the variables are, for one run or several.
#[derive(Default)]
pub struct Bindings<'a> {
    entries: Vec<(&'a str, Binding<'a>)>,
    authorizer: Option<&'a dyn Authorizer>,
}

enum Binding<'a> {
    /// read lazily, by its declaration
    Doc(&'a Value),
    Value(Val<'a>),
    /// an object whose fields are programs, run when they are asked for
    Programs(Vec<Composed<'a>>),
}

struct Composed<'a> {
    name: &'a str,
    program: &'a Program,
    done: RefCell<Option<Result<Val<'a>, EvalError>>>,
}

impl<'a> Bindings<'a> {
    pub fn new() -> Self {
        Bindings::default()
    }

    fn with(mut self, name: &'a str, binding: Binding<'a>) -> Self {
        self.entries.retain(|(known, _)| *known != name);
        self.entries.push((name, binding));
        self
    }

    pub fn document(self, name: &'a str, value: &'a Value) -> Self {
        self.with(name, Binding::Doc(value))
    }

    pub fn value(self, name: &'a str, value: Val<'a>) -> Self {
        self.with(name, Binding::Value(value))
    }

    /// `optionalOldSelf`: there, or `optional.none()`.
    pub fn optional(self, name: &'a str, value: Option<&'a Value>, decl: &'a Decl) -> Self {
        self.value(name, Val::Optional(value.map(|v| Val::from_doc(v, decl).into())))
    }

    /// An object (`variables`) whose fields are programs over these same bindings, each run at most once.
    pub fn programs(self, name: &'a str, fields: impl IntoIterator<Item = (&'a str, &'a Program)>) -> Self {
        let fields = fields.into_iter().map(|(name, program)| Composed { name, program, done: RefCell::new(None) });
        self.with(name, Binding::Programs(fields.collect()))
    }

    /// Binds `authorizer`, and `authorizer.requestResource` to the check of the request's own resource.
    pub fn authorizer(self, authorizer: &'a dyn Authorizer, request: Check) -> Self {
        let check = |check| Val::opaque(value::Opaque::Check(check));
        let mut bindings =
            self.value("authorizer", check(Check::default())).value("authorizer.requestResource", check(request));
        bindings.authorizer = Some(authorizer);
        bindings
    }

    fn get(&self, name: &str) -> Option<(usize, &Binding<'a>)> {
        self.entries.iter().position(|(known, _)| *known == name).map(|at| (at, &self.entries[at].1))
    }
}

/// Of hundreds of faults, how many are told; and how long a line may be to be shown. Both as cel-go has them: a listing
/// shows the line with each fault.
const FAULTS_SHOWN: usize = 100;
const LINE_SHOWN_BYTES: usize = 16_384;

/// cel-go's listing: the message, the line, a caret below.
fn shown(text: &str, faults: &[(u32, String)]) -> String {
    let mut faults: Vec<&(u32, String)> = faults.iter().collect();
    faults.sort_by_key(|(pos, _)| *pos);
    let mut lines: Vec<String> =
        faults.iter().take(FAULTS_SHOWN).map(|(pos, message)| shown_one(text, *pos, message)).collect();
    if faults.len() > FAULTS_SHOWN {
        lines.push(format!("{} more errors were truncated", faults.len() - FAULTS_SHOWN));
    }
    lines.join("\n")
}

fn shown_one(text: &str, pos: u32, message: &str) -> String {
    if text.is_empty() {
        return format!("ERROR: <input>:1:0: {message}");
    }
    let mut left = pos as usize;
    let (mut number, mut line) = (1, "");
    for (i, candidate) in text.split('\n').enumerate() {
        (number, line) = (i + 1, candidate);
        let length = candidate.chars().count();
        if left <= length {
            break;
        }
        left -= length + 1;
    }
    let place = format!("ERROR: <input>:{number}:{}: {message}", left + 1);
    if line.len() > LINE_SHOWN_BYTES {
        return place;
    }
    // Compat: wide characters have wide marks below them.
    let mark = |c: Option<char>, narrow, wide| if c.is_none_or(|c| c.is_ascii()) { narrow } else { wide };
    let dots: String = line.chars().take(left).map(|c| mark(Some(c), '.', '．')).collect();
    let caret = mark(line.chars().nth(left), '^', '＾');
    format!("{place}\n | {}\n | {dots}{caret}", line.replace('\t', " "))
}
