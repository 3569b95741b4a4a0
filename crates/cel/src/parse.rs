//! Tokens to a tree: CEL's grammar by precedence climbing, macros expanded on the way (`macros`).
//! Invariant: nesting and size are bounded (`ast::DEPTH_MAX`, `NODES_MAX`), so hostile text ends in an error.

use crate::ast::{CHARS_MAX, Const, DEPTH_MAX, Entry, Expr, Kind, NESTING_MAX, NODES_MAX};
use crate::lex::{Fault, Lexeme, Token, lex};
use crate::macros;
use compact_str::CompactString;

/// Operators of two sides: sign, function, strength.
const BINARY: &[(&str, &str, u8)] = &[
    ("||", "_||_", 1),
    ("&&", "_&&_", 2),
    ("==", "_==_", 3),
    ("!=", "_!=_", 3),
    ("<=", "_<=_", 3),
    (">=", "_>=_", 3),
    ("<", "_<_", 3),
    (">", "_>_", 3),
    ("in", "@in", 3),
    ("+", "_+_", 4),
    ("-", "_-_", 4),
    ("*", "_*_", 5),
    ("/", "_/_", 5),
    ("%", "_%_", 5),
];
const STARTS: &str =
    "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}";
/// Words that cannot be names. Source: the CEL language definition.
pub(crate) const RESERVED: &[&str] = &[
    "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let", "loop", "package",
    "namespace", "return", "var", "void", "while",
];

/// Of more, upstream only says that there are.
const SYNTAX_FAULTS_MAX: usize = 100;

/// `binds` turns on the macro `cel.bind`.
pub fn parse(text: &str, binds: bool) -> Result<Expr, Vec<Fault>> {
    let length = text.chars().count();
    if length > CHARS_MAX {
        return Err(vec![(0, format!("expression code point size exceeds limit: size: {length}, limit {CHARS_MAX}"))]);
    }
    let (tokens, mut faults) = lex(text);
    faults.truncate(SYNTAX_FAULTS_MAX);
    let mut parser = Parser { tokens, at: 0, nesting: 0, nodes: 0, binds, faults };
    let parsed = parser.expr().and_then(|expr| match (parser.peek(), parser.after()) {
        (Token::End, _) => Ok(expr),
        (_, Token::End) => Err(parser.fault(|text| format!("extraneous input '{text}' expecting <EOF>"))),
        _ => Err(parser.fault(|text| format!("mismatched input '{text}' expecting <EOF>"))),
    });
    let mut faults = parser.faults;
    match parsed {
        Ok(expr) if faults.is_empty() => Ok(expr),
        Ok(_) => Err(faults),
        Err(fault) => {
            faults.push(fault);
            Err(faults)
        }
    }
}

pub struct Parser {
    tokens: Vec<Lexeme>,
    at: usize,
    nesting: u16,
    nodes: usize,
    pub binds: bool,
    /// Those after which it goes on.
    faults: Vec<Fault>,
}

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.at].token
    }

    fn after(&self) -> &Token {
        &self.tokens[(self.at + 1).min(self.tokens.len() - 1)].token
    }

    fn pos(&self) -> u32 {
        self.tokens[self.at].pos
    }

    fn next(&mut self) -> Lexeme {
        let found = self.tokens[self.at].clone();
        self.at = (self.at + 1).min(self.tokens.len() - 1); // the last one is End
        found
    }

    fn fault(&self, message: impl Fn(&str) -> String) -> Fault {
        let found = &self.tokens[self.at];
        (found.pos, format!("Syntax error: {}", message(&found.text)))
    }

    fn take(&mut self, sign: &'static str) -> bool {
        let found = *self.peek() == Token::Sign(sign);
        if found {
            self.next();
        }
        found
    }

    /// Compat: it is told which mend is nearest: a token less, a token more, or none.
    fn expect(&mut self, sign: &'static str) -> Result<(), Fault> {
        if self.take(sign) {
            return Ok(());
        }
        let goes_on = if sign == ":" { starts(self.peek()) } else { self.follows() };
        Err(self.fault(|text| match (self.after() == &Token::Sign(sign), goes_on) {
            (true, _) => format!("extraneous input '{text}' expecting '{sign}'"),
            (false, true) => format!("missing '{sign}' at '{text}'"),
            (false, false) => format!("mismatched input '{text}' expecting '{sign}'"),
        }))
    }

    /// Whether what stands in brackets can go on so behind them.
    fn follows(&self) -> bool {
        let within = self.nesting > 1;
        match self.peek() {
            Token::Sign(")" | "]" | "}" | "," | ":") => within,
            Token::Sign(sign) => !["(", "{", "!"].contains(sign),
            Token::End => !within,
            _ => false,
        }
    }

    /// What a macro makes; one that was used wrongly stands for nothing, and is told with all others.
    fn expanded(&mut self, made: Result<Expr, Fault>) -> Result<Expr, Fault> {
        match made {
            Ok(expr) => self.bounded(expr),
            Err(fault) => {
                let nothing = Expr::constant(fault.0, Const::Null);
                self.faults.push(fault);
                Ok(nothing)
            }
        }
    }

    /// Every node goes through here: that is what bounds the tree.
    pub fn make(&mut self, expr: Expr) -> Result<Expr, Fault> {
        self.nodes += 1;
        self.bounded(expr)
    }

    pub fn bounded(&mut self, expr: Expr) -> Result<Expr, Fault> {
        if expr.depth > DEPTH_MAX {
            return Err((expr.pos, format!("expression recursion limit exceeded: {DEPTH_MAX}")));
        }
        if self.nodes > NODES_MAX {
            return Err((expr.pos, format!("expression is too large: more than {NODES_MAX} nodes")));
        }
        Ok(expr)
    }

    /// Counts a copy that a macro makes.
    pub fn copied(&mut self, expr: &Expr) -> Expr {
        self.nodes += count(expr);
        expr.clone()
    }

    fn expr(&mut self) -> Result<Expr, Fault> {
        self.nesting += 1;
        if self.nesting > NESTING_MAX {
            return Err((self.pos(), format!("expression recursion limit exceeded: {NESTING_MAX}")));
        }
        let condition = self.binary(1)?;
        let pos = self.pos();
        let expr = if self.take("?") {
            let yes = self.binary(1)?;
            self.expect(":")?;
            let no = self.expr()?;
            self.make(Expr::call(pos, "_?_:_", vec![condition, yes, no]))?
        } else {
            condition
        };
        self.nesting -= 1;
        Ok(expr)
    }

    fn binary(&mut self, strength: u8) -> Result<Expr, Fault> {
        let mut left = self.unary()?;
        while let Token::Sign(sign) = *self.peek() {
            let Some((_, function, its)) = BINARY.iter().find(|(s, _, its)| *s == sign && *its >= strength) else {
                break;
            };
            if *its <= 2 {
                left = self.logical(left, sign, function, *its)?;
                continue;
            }
            let pos = self.next().pos;
            let right = self.binary(its + 1)?;
            left = self.make(Expr::call(pos, function, vec![left, right]))?;
        }
        Ok(left)
    }

    /// A chain of one logical operator, made into a balanced tree: chains of hundreds are usual.
    fn logical(&mut self, first: Expr, sign: &'static str, function: &str, strength: u8) -> Result<Expr, Fault> {
        let (mut terms, mut signs) = (vec![first], Vec::new());
        while *self.peek() == Token::Sign(sign) {
            signs.push(self.next().pos);
            terms.push(self.binary(strength + 1)?);
        }
        self.nodes += signs.len();
        let tree = balance(&mut terms.into_iter(), &signs, function);
        self.bounded(tree)
    }

    fn unary(&mut self) -> Result<Expr, Fault> {
        let pos = self.pos();
        let sign = match self.peek() {
            Token::Sign(sign @ ("!" | "-")) => *sign,
            _ => return self.member(),
        };
        let mut count = 0;
        while *self.peek() == Token::Sign(sign) {
            if sign == "-" && count == 0 && self.tokens.get(self.at + 1).is_some_and(|t| is_number(&t.token)) {
                break;
            }
            self.next();
            count += 1;
        }
        let operand = self.member()?;
        if count % 2 == 0 {
            return Ok(operand);
        }
        self.make(Expr::call(pos, if sign == "!" { "!_" } else { "-_" }, vec![operand]))
    }

    fn member(&mut self) -> Result<Expr, Fault> {
        let primary = self.primary()?;
        self.tail(primary)
    }

    /// `.field`, `.method(...)`, `[index]`, as many as follow.
    fn tail(&mut self, mut expr: Expr) -> Result<Expr, Fault> {
        loop {
            let pos = self.pos();
            if self.take(".") {
                let optional = self.take("?");
                // `in` and the literals' words are no names, even here
                let (Token::Ident(name) | Token::Quoted(name)) = self.peek().clone() else {
                    if optional {
                        let what = if matches!(self.after(), Token::Ident(_)) { "extraneous" } else { "mismatched" };
                        let fault =
                            |text: &str| format!("{what} input '{text}' expecting {{IDENTIFIER, ESC_IDENTIFIER}}");
                        return Err(self.fault(fault));
                    }
                    let shown = |text: &str| text.replace("<EOF>", "");
                    return Err(self.fault(|text| format!("no viable alternative at input '.{}'", shown(text))));
                };
                self.next();
                let open = self.pos();
                if !optional && self.take("(") {
                    let args = self.args()?;
                    expr = self.method(open, name, expr, args)?;
                } else {
                    let kind = Kind::Select { operand: Box::new(expr), field: name, test: false, optional };
                    expr = self.make(Expr::new(pos, kind))?;
                }
            } else if self.take("[") {
                let optional = self.take("?");
                let index = self.expr()?;
                self.expect("]")?;
                expr = self.make(Expr::call(pos, if optional { "_[?_]" } else { "_[_]" }, vec![expr, index]))?;
            } else if *self.peek() == Token::Sign("{") {
                let Some(name) = qualified(&expr) else { return Ok(expr) };
                expr = self.message(name)?;
            } else {
                return Ok(expr);
            }
        }
    }

    fn method(&mut self, pos: u32, name: CompactString, target: Expr, args: Vec<Expr>) -> Result<Expr, Fault> {
        if let Some(expanded) = macros::method(self, pos, &name, &target, &args) {
            self.nodes += 12;
            return self.expanded(expanded);
        }
        // A function with dots in its name looks like a method of a variable.
        if let Some(prefix) = qualified(&target).filter(|prefix| crate::functions::is_namespace(prefix)) {
            return self.make(Expr::call(pos, &format!("{prefix}.{name}"), args));
        }
        let mut all = vec![target];
        all.extend(args);
        self.make(Expr::method(pos, &name, all))
    }

    fn args(&mut self) -> Result<Vec<Expr>, Fault> {
        let mut args = Vec::new();
        while !self.take(")") {
            if !args.is_empty() && !self.take(",") {
                self.expect(")")?;
            }
            args.push(self.expr()?);
        }
        Ok(args)
    }

    fn primary(&mut self) -> Result<Expr, Fault> {
        let Lexeme { token, pos, .. } = self.next();
        match token {
            Token::Const(Const::Int(i64::MIN)) => Err((pos, "invalid int literal".into())),
            Token::Const(value) => self.make(Expr::constant(pos, value)),
            Token::Ident(name) => self.name(pos, name),
            // the sign of a number belongs to it: `!-3`
            Token::Sign("-") if is_number(self.peek()) => {
                let number = match self.next().token {
                    Token::Const(Const::Int(i)) => Const::Int(i.wrapping_neg()),
                    Token::Const(Const::Double(f)) => Const::Double(-f),
                    _ => unreachable!("a number was seen"),
                };
                self.make(Expr::constant(pos, number))
            }
            // `.name` is the name at the root, where all of ours are
            Token::Sign(".") => match self.peek().clone() {
                Token::Ident(name) => {
                    self.next();
                    self.name(pos, name)
                }
                _ => Err(self.fault(|text| format!("mismatched input '{text}' expecting IDENTIFIER"))),
            },
            Token::Sign("(") => {
                let inner = self.expr()?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Sign("[") => {
                let mut items = Vec::new();
                while !self.take("]") {
                    if !items.is_empty() {
                        if !self.take(",") {
                            return Err(self.fault(|text| format!("mismatched input '{text}' expecting {{']', ','}}")));
                        }
                        if self.take("]") {
                            break;
                        }
                        if !starts(self.peek()) && *self.peek() != Token::Sign("?") {
                            self.expect("]")?;
                        }
                    }
                    let optional = self.take("?");
                    items.push((self.expr()?, optional));
                }
                self.make(Expr::new(pos, Kind::List(items)))
            }
            Token::Sign("{") => {
                let mut entries = Vec::new();
                self.entries(|parser, optional| {
                    let key = parser.expr()?;
                    let value = parser.after_colon()?;
                    entries.push(Entry { key, value, optional });
                    Ok(())
                })?;
                self.make(Expr::new(pos, Kind::Map(entries)))
            }
            _ => {
                // At the end `next` stays where it is.
                self.at = self.tokens.iter().position(|t| t.pos == pos && t.token == token).unwrap_or(self.at);
                let what = if starts(self.after()) { "extraneous" } else { "mismatched" };
                Err(self.fault(|text| format!("{what} input '{text}' expecting {STARTS}")))
            }
        }
    }

    fn after_colon(&mut self) -> Result<Expr, Fault> {
        self.expect(":")?;
        self.expr()
    }

    fn entries(&mut self, mut one: impl FnMut(&mut Self, bool) -> Result<(), Fault>) -> Result<(), Fault> {
        let mut first = true;
        while !self.take("}") {
            if !first {
                if !self.take(",") {
                    return Err(self.fault(|text| format!("missing '}}' at '{text}'")));
                }
                if self.take("}") {
                    break;
                }
            }
            first = false;
            let optional = self.take("?");
            one(self, optional)?;
        }
        Ok(())
    }

    fn name(&mut self, pos: u32, name: CompactString) -> Result<Expr, Fault> {
        if RESERVED.contains(&name.as_str()) {
            return Err((pos, format!("reserved identifier: {name}")));
        }
        let open = self.pos();
        if !self.take("(") {
            return self.make(Expr::ident(pos, &name));
        }
        let args = self.args()?;
        if name == "has" && args.len() == 1 {
            self.nodes += 1;
            return self.expanded(macros::has(open, &args[0]));
        }
        self.make(Expr::call(open, &name, args))
    }

    /// `Name{field: value}`, at the brace.
    fn message(&mut self, name: String) -> Result<Expr, Fault> {
        let pos = self.next().pos;
        let mut fields = Vec::new();
        self.entries(|parser, optional| {
            let at = parser.pos();
            let (Token::Ident(field) | Token::Quoted(field)) = parser.next().token else {
                return Err((at, "Syntax error: expecting a field's name".into()));
            };
            let value = parser.after_colon()?;
            fields.push((field, at, value, optional));
            Ok(())
        })?;
        self.make(Expr::new(pos, Kind::Struct { name, fields }))
    }
}

/// Whether an expression can begin so.
fn starts(token: &Token) -> bool {
    match token {
        Token::Sign(sign) => ["[", "{", "(", ".", "-", "!"].contains(sign),
        Token::Ident(_) | Token::Const(_) => true,
        Token::Quoted(_) | Token::End => false,
    }
}

fn is_number(token: &Token) -> bool {
    matches!(token, Token::Const(Const::Int(_) | Const::Double(_)))
}

/// `a.b.c` as one name, when the expression is nothing else.
pub fn qualified(expr: &Expr) -> Option<String> {
    match &expr.kind {
        Kind::Ident(name) => Some(name.to_string()),
        Kind::Select { operand, field, test: false, optional: false } => {
            Some(format!("{}.{field}", qualified(operand)?))
        }
        _ => None,
    }
}

fn balance(terms: &mut dyn Iterator<Item = Expr>, signs: &[u32], function: &str) -> Expr {
    let Some(middle) = signs.len().checked_sub(1).map(|n| n.div_ceil(2)) else {
        return terms.next().expect("one term more than signs");
    };
    let left = balance(terms, &signs[..middle], function);
    let right = balance(terms, &signs[middle + 1..], function);
    Expr::call(signs[middle], function, vec![left, right])
}

fn count(expr: &Expr) -> usize {
    1 + match &expr.kind {
        Kind::Const(_) | Kind::Ident(_) => 0,
        Kind::Select { operand, .. } => count(operand),
        Kind::Call { args, .. } => args.iter().map(count).sum(),
        Kind::List(items) => items.iter().map(|(e, _)| count(e)).sum(),
        Kind::Map(entries) => entries.iter().map(|e| count(&e.key) + count(&e.value)).sum(),
        Kind::Struct { fields, .. } => fields.iter().map(|(_, _, e, _)| count(e)).sum(),
        Kind::Fold(f) => [&f.range, &f.init, &f.condition, &f.step, &f.result].map(count).iter().sum(),
    }
}
