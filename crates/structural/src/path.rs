//! The JSONPath that definitions use: for columns, for fields of selectors, for scale.
//!
//! Source: "Additional printer columns" and "Scale subresource" of the CRD documentation. Fields, quoted fields, indexes,
//! wildcards, filters that compare. Invariant: a path that was read never fails; it finds nothing.

use meta::Value;

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    /// Negative ones count from the end.
    Index(i64),
    All,
    Descend(String),
    Filter(Vec<Step>, Option<(Comparison, Value)>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    Equal,
    Differs,
    Less,
    Greater,
    AtMost,
    AtLeast,
}

#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath(Vec<Step>);

impl JsonPath {
    /// Reads a path such as `.status.conditions[?(@.type=="Ready")].status`.
    pub fn parse(text: &str) -> Result<JsonPath, String> {
        let mut reader = Reader { rest: text.trim().trim_start_matches('{').trim_end_matches('}') };
        if reader.rest.starts_with('$') {
            reader.rest = &reader.rest[1..];
        }
        let steps = reader.steps(&[])?;
        if reader.rest.is_empty() { Ok(JsonPath(steps)) } else { Err(format!("unrecognized character: {text}")) }
    }

    /// A path of fields only.
    pub fn simple(text: &str) -> Option<JsonPath> {
        let path = JsonPath::parse(text).ok()?;
        let plain = path.0.iter().all(|s| matches!(s, Step::Field(_)));
        (plain && text.starts_with('.') && !path.0.is_empty()).then_some(path)
    }

    /// The names of a path of fields.
    pub fn fields(&self) -> Vec<&str> {
        self.0.iter().filter_map(|s| if let Step::Field(name) = s { Some(name.as_str()) } else { None }).collect()
    }

    /// Everything that the path finds, in order.
    pub fn find<'v>(&self, value: &'v Value) -> Vec<&'v Value> {
        find(&self.0, value)
    }
}

fn find<'v>(steps: &[Step], value: &'v Value) -> Vec<&'v Value> {
    let mut found = vec![value];
    for step in steps {
        found = found.into_iter().flat_map(|v| follow(step, v)).collect();
    }
    found
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(map) => map.values().collect(),
        _ => Vec::new(),
    }
}

fn follow<'v>(step: &Step, value: &'v Value) -> Vec<&'v Value> {
    match step {
        Step::Field(name) => value.get(name).into_iter().collect(),
        Step::All => children(value),
        Step::Index(i) => {
            let Value::Array(items) = value else { return Vec::new() };
            let at = if *i < 0 { items.len() as i64 + i } else { *i };
            usize::try_from(at).ok().and_then(|at| items.get(at)).into_iter().collect()
        }
        Step::Descend(name) => {
            let mut found: Vec<&Value> = value.get(name).into_iter().collect();
            found.extend(children(value).into_iter().flat_map(|c| follow(step, c)));
            found
        }
        Step::Filter(path, test) => {
            let holds = |item: &&Value| {
                let found = find(path, item);
                match (test, found.first()) {
                    (_, None) => false,
                    (None, Some(_)) => true,
                    (Some((comparison, wanted)), Some(value)) => compare(*comparison, value, wanted),
                }
            };
            children(value).into_iter().filter(holds).collect()
        }
    }
}

fn compare(comparison: Comparison, a: &Value, b: &Value) -> bool {
    use std::cmp::Ordering;
    let order = match (a, b) {
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        _ => a.as_f64().zip(b.as_f64()).and_then(|(a, b)| a.partial_cmp(&b)),
    };
    match comparison {
        Comparison::Equal => order == Some(Ordering::Equal),
        Comparison::Differs => order != Some(Ordering::Equal),
        Comparison::Less => order == Some(Ordering::Less),
        Comparison::Greater => order == Some(Ordering::Greater),
        Comparison::AtMost => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        Comparison::AtLeast => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
    }
}

struct Reader<'t> {
    rest: &'t str,
}

impl Reader<'_> {
    /// Steps up to one of these characters, or the end.
    fn steps(&mut self, stops: &[char]) -> Result<Vec<Step>, String> {
        let mut steps = Vec::new();
        while let Some(c) = self.rest.chars().next().filter(|c| !stops.contains(c)) {
            match c {
                '.' if self.rest.starts_with("..") => {
                    self.rest = &self.rest[2..];
                    steps.push(Step::Descend(self.name(stops)?));
                }
                '.' => {
                    self.rest = &self.rest[1..];
                    match self.rest.chars().next() {
                        None | Some('[') => {}
                        Some('*') => {
                            self.rest = &self.rest[1..];
                            steps.push(Step::All);
                        }
                        Some(_) => steps.push(Step::Field(self.name(stops)?)),
                    }
                }
                '[' => {
                    self.rest = &self.rest[1..];
                    steps.push(self.bracket()?);
                }
                _ if steps.is_empty() && c != ' ' => steps.push(Step::Field(self.name(stops)?)),
                _ => return Err(format!("unrecognized character in path: {c:?}")),
            }
        }
        Ok(steps)
    }

    fn name(&mut self, stops: &[char]) -> Result<String, String> {
        let mut name = String::new();
        while let Some(c) = self.rest.chars().next() {
            match c {
                '\\' => {
                    self.rest = &self.rest[1..];
                    let Some(escaped) = self.rest.chars().next() else { break };
                    name.push(escaped);
                    self.rest = &self.rest[escaped.len_utf8()..];
                    continue;
                }
                '.' | '[' => break,
                c if stops.contains(&c) => break,
                c => name.push(c),
            }
            self.rest = &self.rest[c.len_utf8()..];
        }
        if name.is_empty() { Err("a name is missing in the path".into()) } else { Ok(name) }
    }

    /// What stands in brackets, up to and with the closing one.
    fn bracket(&mut self) -> Result<Step, String> {
        const OPEN: &str = "unterminated array";
        if let Some(rest) = self.rest.strip_prefix("?(") {
            self.rest = rest.trim_start();
            let step = self.filter()?;
            self.rest = self.rest.trim_start().strip_prefix(")]").ok_or("unterminated filter")?;
            return Ok(step);
        }
        if self.rest.starts_with(['\'', '"']) {
            let name = self.quoted()?;
            self.rest = self.rest.strip_prefix(']').ok_or(OPEN)?;
            return Ok(Step::Field(name));
        }
        let (inside, rest) = self.rest.split_once(']').ok_or(OPEN)?;
        self.rest = rest;
        match inside.trim() {
            "*" | "" | ":" => Ok(Step::All),
            number => number.parse().map(Step::Index).map_err(|_| format!("invalid array index {inside}")),
        }
    }

    fn quoted(&mut self) -> Result<String, String> {
        let quote = self.rest.chars().next().unwrap_or_default();
        let end = self.rest[1..].find(quote).ok_or("unterminated quoted string")?;
        let text = self.rest[1..=end].to_string();
        self.rest = &self.rest[end + 2..];
        Ok(text)
    }

    fn filter(&mut self) -> Result<Step, String> {
        self.rest = self.rest.strip_prefix('@').unwrap_or(self.rest);
        let path = self.steps(&['=', '!', '<', '>', ')', ' '])?;
        self.rest = self.rest.trim_start();
        const SIGNS: [(&str, Comparison); 6] = [
            ("==", Comparison::Equal),
            ("!=", Comparison::Differs),
            ("<=", Comparison::AtMost),
            (">=", Comparison::AtLeast),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ];
        for (sign, comparison) in SIGNS {
            let Some(rest) = self.rest.strip_prefix(sign) else { continue };
            self.rest = rest.trim_start();
            let value = if self.rest.starts_with(['\'', '"']) {
                Value::from(self.quoted()?)
            } else {
                let end = self.rest.find(')').ok_or("unterminated filter")?;
                let word = self.rest[..end].trim();
                let value = meta::parse(word.as_bytes()).map_err(|_| format!("unrecognized value {word}"))?;
                self.rest = &self.rest[end..];
                value
            };
            return Ok(Step::Filter(path, Some((comparison, value))));
        }
        Ok(Step::Filter(path, None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meta::json;

    #[test]
    fn paths_find() {
        let object = json!({"spec": {"replicas": 3, "parts": [{"n": "a", "s": 1}, {"n": "b", "s": 2}], "a.b": true},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "False"}]}});
        golden::check!("tests/paths.txt", |path| match JsonPath::parse(path) {
            Ok(parsed) => parsed.find(&object).iter().map(|v| v.to_string()).collect::<Vec<_>>().join(" "),
            Err(_) => "no path".into(),
        });
        assert_eq!(JsonPath::simple(".a.b").expect("simple").fields(), ["a", "b"]);
        assert!(JsonPath::simple(".a[0]").is_none());
    }
}
