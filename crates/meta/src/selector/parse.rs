//! The text form of label selectors: tokens and grammar, with upstream's words for what does not fit.

use compact_str::CompactString;

use super::{Operator, Requirement};
use crate::field::{Error, Path};
use crate::names;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    /// One of `( ) , ! = == != > <`
    Sign(&'a str),
    End,
}

impl<'a> Token<'a> {
    fn text(self) -> &'a str {
        match self {
            Token::Word(t) | Token::Sign(t) => t,
            Token::End => "",
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
}

const SIGNS: &[char] = &['(', ')', ',', '!', '=', '>', '<'];
const OPERATORS: &str = "in, notin, =, ==, !=, gt, lt";

pub(super) fn requirements(text: &str) -> Result<Vec<Requirement>, String> {
    let mut parser = Parser { rest: text };
    let mut found = Vec::new();
    loop {
        match parser.peek() {
            Token::Word(_) | Token::Sign("!") => {
                let requirement = parser.requirement().map_err(|e| format!("unable to parse requirement: {e}"))?;
                found.push(requirement);
                match parser.next() {
                    Token::End => break,
                    Token::Sign(",") => match parser.peek() {
                        Token::Word(_) | Token::Sign("!") => {}
                        other => {
                            return Err(format!("found '{}', expected: identifier after ','", other.text()));
                        }
                    },
                    other => {
                        return Err(format!("found '{}', expected: ',' or 'end of string'", other.text()));
                    }
                }
            }
            Token::End => break,
            other => {
                return Err(format!("found '{}', expected: !, identifier, or 'end of string'", other.text()));
            }
        }
    }
    found.sort_by(|a, b| a.key.cmp(&b.key)); // stable: the order of one key's requirements stays
    Ok(found)
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Token<'a> {
        Parser { rest: self.rest }.next()
    }

    fn next(&mut self) -> Token<'a> {
        let text = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
        let (token, length) = match text.chars().next() {
            None => (Token::End, 0),
            Some(c) if SIGNS.contains(&c) => {
                let length = if text.starts_with("==") || text.starts_with("!=") { 2 } else { 1 };
                (Token::Sign(&text[..length]), length)
            }
            Some(_) => {
                let end = text.find(|c: char| SIGNS.contains(&c) || " \t\r\n".contains(c)).unwrap_or(text.len());
                (Token::Word(&text[..end]), end)
            }
        };
        self.rest = &text[length..];
        token
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let mut token = self.next();
        let absent = token == Token::Sign("!");
        if absent {
            token = self.next();
        }
        let Token::Word(key) = token else {
            return Err(format!("found '{}', expected: identifier", token.text()));
        };
        let wrong = names::qualified_name(key);
        if !wrong.is_empty() {
            return Err(Error::invalid(&Path::default(), key, wrong.join("; ")).to_string());
        }
        if absent {
            return Ok(Requirement::new(key, Operator::DoesNotExist, []));
        }
        if matches!(self.peek(), Token::End | Token::Sign(",")) {
            return Ok(Requirement::new(key, Operator::Exists, []));
        }
        let operator_token = self.next();
        let (operator, values) = match operator_token {
            Token::Sign("=" | "==") => (Operator::In, self.exact_value()?),
            Token::Sign("!=") => (Operator::NotIn, self.exact_value()?),
            Token::Sign(">") => (Operator::GreaterThan, self.exact_value()?),
            Token::Sign("<") => (Operator::LessThan, self.exact_value()?),
            Token::Word("in") => (Operator::In, self.values()?),
            Token::Word("notin") => (Operator::NotIn, self.values()?),
            other => return Err(format!("found '{}', expected: {OPERATORS}", other.text())),
        };
        check_values(key, operator, &values)?;
        Ok(Requirement::new(key, operator, values))
    }

    fn exact_value(&mut self) -> Result<Vec<CompactString>, String> {
        if matches!(self.peek(), Token::End | Token::Sign(",")) {
            return Ok(vec![CompactString::default()]);
        }
        match self.next() {
            Token::Word(value) => Ok(vec![value.into()]),
            other => Err(format!("found '{}', expected: identifier", other.text())),
        }
    }

    /// `(a, b)`; empty entries count as the empty value.
    fn values(&mut self) -> Result<Vec<CompactString>, String> {
        match self.next() {
            Token::Sign("(") => {}
            other => return Err(format!("found '{}' expected: '('", other.text())),
        }
        let mut values: Vec<CompactString> = Vec::new();
        loop {
            match self.next() {
                Token::Word(value) => {
                    values.push(value.into());
                    match self.peek() {
                        Token::Sign(",") => {
                            self.next();
                            if self.peek() == Token::Sign(")") {
                                values.push(CompactString::default());
                            }
                        }
                        Token::Sign(")") => {}
                        other => {
                            return Err(format!("found '{}', expected: ',' or ')'", other.text()));
                        }
                    }
                }
                Token::Sign(",") => {
                    values.push(CompactString::default());
                    if self.peek() == Token::Sign(")") {
                        values.push(CompactString::default());
                    }
                }
                Token::Sign(")") => break,
                other => {
                    return Err(format!("found '{}', expected: ',', ')' or identifier", other.text()));
                }
            }
        }
        if values.is_empty() {
            values.push(CompactString::default());
        }
        Ok(values)
    }
}

fn check_values(key: &str, operator: Operator, values: &[CompactString]) -> Result<(), String> {
    let path = Path::new("values");
    let numeric = matches!(operator, Operator::GreaterThan | Operator::LessThan);
    if let Some((i, value)) = values.iter().enumerate().find(|(_, v)| numeric && v.parse::<i64>().is_err()) {
        let detail = "for 'Gt', 'Lt' operators, the value must be an integer";
        return Err(Error::invalid(&path.index(i), value.as_str(), detail).to_string());
    }
    for (i, value) in values.iter().enumerate() {
        let wrong = names::label_value(value);
        if !wrong.is_empty() {
            return Err(Error::invalid(&path.index(i).key(key), value.as_str(), wrong.join("; ")).to_string());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_as_upstream() {
        golden::check!("../tests/selector.txt", |text| requirements(text)
            .err()
            .map_or(String::new(), |e| format!("!{e}")));
    }
}
