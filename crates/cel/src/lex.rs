//! Text to tokens: CEL's lexical grammar. Positions count characters. Invariant: never panics, whatever the text.

use crate::ast::Const;
use compact_str::CompactString;

#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    Ident(CompactString),
    /// `` `quoted` ``, only after a dot
    Quoted(CompactString),
    Const(Const),
    /// An operator, bracket or separator.
    Sign(&'static str),
    End,
}

#[derive(Clone, Debug)]
pub struct Lexeme {
    pub token: Token,
    /// characters before it
    pub pos: u32,
    pub text: CompactString,
}

const SIGNS: &[&str] = &[
    "&&", "||", "<=", ">=", "==", "!=", "<", ">", "!", "-", "+", "*", "/", "%", "?", ":", ",", ".", "(", ")", "[", "]",
    "{", "}",
];

/// What could not be read, and where.
pub type Fault = (u32, String);

/// All tokens; what is none is told and left out.
pub fn lex(text: &str) -> (Vec<Lexeme>, Vec<Fault>) {
    let chars: Vec<char> = text.chars().collect();
    let mut lexer = Lexer { chars: &chars, at: 0 };
    let (mut found, mut faults) = (Vec::new(), Vec::new());
    loop {
        lexer.skip_blank();
        let start = lexer.at;
        if start >= chars.len() {
            found.push(Lexeme { token: Token::End, pos: start as u32, text: "<EOF>".into() });
            return (found, faults);
        }
        let token = match lexer.next() {
            Ok(token) => token,
            Err(fault) => {
                let readable = !fault.1.starts_with("Syntax error");
                faults.push(fault);
                lexer.at = lexer.at.max(start + 1);
                if !readable {
                    continue;
                }
                // a literal as grammar goes, only of no value
                Token::Const(Const::Null)
            }
        };
        let text = chars[start..lexer.at].iter().collect();
        found.push(Lexeme { token, pos: start as u32, text });
    }
}

/// What a name between backquotes is made of.
fn is_quotable(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_.-/ ".contains(c)
}

struct Lexer<'t> {
    chars: &'t [char],
    at: usize,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> char {
        self.chars.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn skip_blank(&mut self) {
        loop {
            match self.peek(0) {
                ' ' | '\t' | '\r' | '\n' | '\x0c' => self.at += 1,
                '/' if self.peek(1) == '/' => {
                    while self.at < self.chars.len() && self.peek(0) != '\n' {
                        self.at += 1;
                    }
                }
                _ => return,
            }
        }
    }

    /// Compat: what begins as a token is left out together with the character that breaks it off.
    fn broken_off(&mut self) -> Fault {
        let start = self.at;
        self.at += match self.chars[start] {
            '`' => 2 + self.chars[start + 1..].iter().take_while(|c| is_quotable(**c)).count(),
            '&' | '|' | '=' => 2,
            _ => 1,
        };
        self.refused(start)
    }

    fn refused(&self, start: usize) -> Fault {
        let end = self.at.max(start + 1).min(self.chars.len());
        let text: String = self.chars[start..end].iter().collect();
        (start as u32, format!("Syntax error: token recognition error at: '{text}'"))
    }

    fn next(&mut self) -> Result<Token, Fault> {
        let c = self.peek(0);
        if let Some(token) = self.string()? {
            return Ok(token);
        }
        if c.is_ascii_alphabetic() || c == '_' {
            let start = self.at;
            while self.peek(0).is_ascii_alphanumeric() || self.peek(0) == '_' {
                self.at += 1;
            }
            let word: CompactString = self.chars[start..self.at].iter().collect();
            return Ok(match word.as_str() {
                "true" => Token::Const(Const::Bool(true)),
                "false" => Token::Const(Const::Bool(false)),
                "null" => Token::Const(Const::Null),
                "in" => Token::Sign("in"),
                _ => Token::Ident(word),
            });
        }
        if c.is_ascii_digit() || (c == '.' && self.peek(1).is_ascii_digit()) {
            return self.number();
        }
        if c == '`' {
            let start = self.at + 1;
            let length = self.chars[start..].iter().position(|c| *c == '`');
            let word: CompactString = self.chars[start..start + length.unwrap_or(0)].iter().collect();
            if word.is_empty() || !word.chars().all(is_quotable) {
                return Err(self.broken_off());
            }
            self.at = start + word.len() + 1;
            return Ok(Token::Quoted(word));
        }
        for sign in SIGNS {
            if sign.chars().enumerate().all(|(i, c)| self.peek(i) == c) {
                self.at += sign.len();
                return Ok(Token::Sign(sign));
            }
        }
        Err(self.broken_off())
    }

    fn number(&mut self) -> Result<Token, Fault> {
        let start = self.at;
        if self.peek(0) == '0' && matches!(self.peek(1), 'x' | 'X') && self.peek(2).is_ascii_hexdigit() {
            self.at += 2;
            while self.peek(0).is_ascii_hexdigit() {
                self.at += 1;
            }
            let digits: String = self.chars[start + 2..self.at].iter().collect();
            return self.whole(start, &digits, 16);
        }
        let digits = |lexer: &mut Self| {
            while lexer.peek(0).is_ascii_digit() {
                lexer.at += 1;
            }
        };
        digits(self);
        let mut float = false;
        if self.peek(0) == '.' && self.peek(1).is_ascii_digit() {
            float = true;
            self.at += 1;
            digits(self);
        }
        if matches!(self.peek(0), 'e' | 'E') {
            let signed = usize::from(matches!(self.peek(1), '+' | '-'));
            if self.peek(1 + signed).is_ascii_digit() {
                float = true;
                self.at += 1 + signed;
                digits(self);
            }
        }
        let text: String = self.chars[start..self.at].iter().collect();
        if !float {
            return self.whole(start, &text, 10);
        }
        match text.parse::<f64>() {
            Ok(f) if f.is_finite() => Ok(Token::Const(Const::Double(f))),
            _ => Err((start as u32, "invalid double literal".into())),
        }
    }

    /// An integer; `-9223372036854775808` is put together by the parser, so one more than the largest passes as uint.
    fn whole(&mut self, start: usize, digits: &str, radix: u32) -> Result<Token, Fault> {
        let value = u64::from_str_radix(digits, radix).ok();
        if matches!(self.peek(0), 'u' | 'U') {
            self.at += 1;
            return value.map(|v| Token::Const(Const::Uint(v))).ok_or((start as u32, "invalid uint literal".into()));
        }
        match value {
            Some(v) if v <= i64::MAX as u64 => Ok(Token::Const(Const::Int(v as i64))),
            Some(v) if v == 1 << 63 => Ok(Token::Const(Const::Int(i64::MIN))),
            _ => Err((start as u32, "invalid int literal".into())),
        }
    }

    /// A string or bytes literal with its prefixes, if one stands here.
    fn string(&mut self) -> Result<Option<Token>, Fault> {
        let start = self.at;
        let (mut raw, mut bytes, mut ahead) = (false, false, 0);
        while ahead < 2 {
            match self.peek(ahead) {
                'r' | 'R' if !raw => raw = true,
                'b' | 'B' if !bytes && !raw => bytes = true,
                _ => break,
            }
            ahead += 1;
        }
        let quote = self.peek(ahead);
        if quote != '"' && quote != '\'' {
            return Ok(None);
        }
        self.at += ahead;
        let triple = self.peek(1) == quote && self.peek(2) == quote;
        self.at += if triple { 3 } else { 1 };
        let mut text = String::new();
        let mut data = Vec::new();
        let mut wrong = None;
        loop {
            if self.at >= self.chars.len() {
                return Err(self.refused(start));
            }
            let c = self.peek(0);
            if c == quote && (!triple || (self.peek(1) == quote && self.peek(2) == quote)) {
                self.at += if triple { 3 } else { 1 };
                break;
            }
            if !triple && (c == '\n' || c == '\r') {
                return Err(self.refused(start));
            }
            self.at += 1;
            if c != '\\' || raw {
                if bytes {
                    data.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                } else {
                    text.push(c);
                }
                continue;
            }
            let Some((code, is_byte)) = self.escape() else { return Err(self.refused(start)) };
            match char::from_u32(code) {
                Some(_) if bytes && is_byte => data.push(code as u8),
                Some(_) if bytes => wrong = Some((start as u32, "unable to unescape string".into())),
                Some(c) => text.push(c),
                None => return Err((start as u32, "Syntax error: invalid unicode code point".into())),
            }
        }
        if let Some(fault) = wrong {
            return Err(fault);
        }
        Ok(Some(Token::Const(if bytes { Const::Bytes(data) } else { Const::String(text.into()) })))
    }

    /// The rest of an escape sequence: its code, and whether bytes literals take it as one byte.
    fn escape(&mut self) -> Option<(u32, bool)> {
        let c = self.peek(0);
        self.at += 1;
        let simple = match c {
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'n' => 10,
            'r' => 13,
            't' => 9,
            'v' => 11,
            '\\' | '\'' | '"' | '`' | '?' => c as u32,
            _ => 0,
        };
        if simple != 0 {
            return Some((simple, true));
        }
        let (length, radix, is_byte) = match c {
            'x' | 'X' => (2, 16, true),
            'u' => (4, 16, false),
            'U' => (8, 16, false),
            '0'..='3' => {
                self.at -= 1;
                (3, 8, true)
            }
            _ => return None,
        };
        let mut code = 0u32;
        for _ in 0..length {
            code = {
                let digit = self.peek(0).to_digit(radix);
                self.at += 1;
                code.checked_mul(radix)?.checked_add(digit?)?
            };
        }
        Some((code, is_byte))
    }
}
