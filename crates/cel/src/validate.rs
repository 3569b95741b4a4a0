//! What the type check does not say: constants that cannot be read (durations, times, patterns, format strings) and
//! lists and maps of mixed types. Writes the compiled patterns into the tree.

use crate::lex::Fault;
use crate::library;
use crate::node::{Node, NodeKind};
use crate::types::Type;
use regex::{Regex, RegexBuilder};
use std::sync::Arc;

/// Memory of one compiled pattern.
const REGEX_BYTES_MAX: usize = 1 << 20;

pub fn compile_regex(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern).size_limit(REGEX_BYTES_MAX).build().map_err(|e| {
        let text = e.to_string();
        format!("error parsing regexp: {}", text.lines().last().unwrap_or(&text).trim_start_matches("error: "))
    })
}

pub fn validate(node: &mut Node) -> Vec<Fault> {
    let mut faults = Vec::new();
    literals(node, false, &mut faults);
    compile(node, &mut faults);
    faults
}

/// Lists and maps have elements of one type, except the arguments of `format`.
fn literals(node: &Node, mixed: bool, faults: &mut Vec<Fault>) {
    let mut same = |first: &mut Option<Type>, item: &Node, optional: bool| {
        let ty = match &item.ty {
            Type::Optional(inner) if optional => Type::clone(inner),
            other => other.clone(),
        };
        match first {
            Some(first) if !mixed && *first != ty => {
                faults.push((item.pos, format!("expected type '{first}' but found '{ty}'")));
            }
            Some(_) => {}
            None => *first = Some(ty),
        }
    };
    match &node.kind {
        NodeKind::List { items, .. } => {
            let mut first = None;
            items.iter().for_each(|(item, optional)| same(&mut first, item, *optional));
        }
        NodeKind::Map { entries, .. } => {
            let (mut key_first, mut value_first) = (None, None);
            for (key, value, optional) in entries {
                same(&mut key_first, key, false);
                same(&mut value_first, value, *optional);
            }
        }
        _ => {}
    }
    let mixed = mixed || matches!(&node.kind, NodeKind::Call(call) if call.name == "format");
    for child in node.children() {
        literals(child, mixed, faults);
    }
}

fn compile(node: &mut Node, faults: &mut Vec<Fault>) {
    let pos = node.pos;
    if let NodeKind::Call(call) = &mut node.kind {
        let last = call.args.last();
        let text = last.and_then(|arg| arg.const_str());
        let at = last.map_or(pos, |arg| arg.pos);
        match (call.name, text) {
            ("duration", Some(text)) if library::time::read_duration(text).is_none() => {
                faults.push((at, "invalid duration argument".into()));
            }
            ("timestamp", Some(text)) if library::time::read_timestamp(text).is_none() => {
                faults.push((at, "invalid timestamp argument".into()));
            }
            ("matches" | "find" | "findAll", _) if call.args.len() >= 2 => {
                if let Some(pattern) = call.args[1].const_str() {
                    match compile_regex(pattern) {
                        Ok(regex) => call.regex = Some(Arc::new(regex)),
                        Err(_) if call.name == "matches" => {
                            faults.push((call.args[1].pos, "invalid matches argument".into()));
                        }
                        Err(message) => faults.push((call.args[1].pos, message)),
                    }
                }
            }
            ("format", _) => format(call, pos, faults),
            _ => {}
        }
    }
    node.children_mut().into_iter().for_each(|child| compile(child, faults));
}

/// A constant format string against the types of its arguments.
fn format(call: &crate::node::Call, pos: u32, faults: &mut Vec<Fault>) {
    let [text, list] = call.args.as_slice() else { return };
    let (Some(text), NodeKind::List { items, .. }) = (text.const_str(), &list.kind) else { return };
    let clauses = match library::format::clauses(text) {
        Ok(clauses) => clauses,
        Err(message) => {
            faults.push((pos, message));
            return;
        }
    };
    let verbs: Vec<_> = clauses.iter().filter_map(|c| c.verb.map(|verb| (verb, c))).collect();
    for (i, (verb, _)) in verbs.iter().enumerate() {
        let Some((item, _)) = items.get(i) else {
            faults.push((pos, format!("index {i} out of range")));
            return;
        };
        if let Some(message) = library::format::refuses(*verb, &item.ty) {
            faults.push((item.pos, format!("error during formatting: {message}")));
            return;
        }
    }
    if items.len() > verbs.len() {
        faults.push((
            pos,
            format!("too many arguments supplied to string.format (expected {}, got {})", verbs.len(), items.len()),
        ));
    }
}
