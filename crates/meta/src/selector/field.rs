//! Field selectors as text: `metadata.name=x,spec.nodeName!=y`, with `\`, `,` and `=` escaped by a backslash.

use compact_str::CompactString;

/// One condition on one field.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FieldRequirement {
    pub field: CompactString,
    pub value: CompactString,
    /// `!=` instead of `=`
    pub negated: bool,
}

/// All requirements must hold. Which fields a kind knows is for the caller to check.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct FieldSelector {
    pub requirements: Vec<FieldRequirement>,
}

impl FieldSelector {
    pub fn everything() -> Self {
        Self::default()
    }

    /// Reads the text form of a `fieldSelector` parameter.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut requirements = Vec::new();
        for term in split_terms(text) {
            if term.is_empty() {
                continue;
            }
            let Some((field, operator, value)) = split_term(term) else {
                return Err(format!("invalid selector: '{text}'; can't understand '{term}'"));
            };
            let value = unescape(value).map_err(|e| format!("invalid field selector: {e}"))?;
            requirements.push(FieldRequirement { field: field.into(), value, negated: operator == "!=" });
        }
        Ok(Self { requirements })
    }

    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// The value that `field` must have, when one is asked for.
    pub fn exact(&self, field: &str) -> Option<&str> {
        self.requirements.iter().find(|r| !r.negated && r.field == field).map(|r| r.value.as_str())
    }

    /// Matches fields that are found by `get`; an unknown field counts as empty.
    pub fn matches_with<'a>(&self, get: impl Fn(&str) -> &'a str) -> bool {
        self.requirements.iter().all(|r| (get(&r.field) == r.value) != r.negated)
    }
}

/// Splits at commas that no backslash stands before.
fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (i, b) in text.bytes().enumerate() {
        match b {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b',' => {
                terms.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn split_term(term: &str) -> Option<(&str, &str, &str)> {
    for (i, _) in term.char_indices() {
        let rest = &term[i..];
        if let Some(operator) = ["!=", "==", "="].into_iter().find(|o| rest.starts_with(o)) {
            return Some((&term[..i], operator, &rest[operator.len()..]));
        }
    }
    None
}

fn unescape(value: &str) -> Result<CompactString, String> {
    let mut out = CompactString::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(next @ ('\\' | ',' | '=')) => out.push(next),
                Some(next) => return Err(format!("invalid escape sequence: \\{next}")),
                None => return Err("invalid escape sequence: \\".into()),
            },
            // Compat: upstream prints the code of the character.
            ',' | '=' => return Err(format!("unescaped character in value: {}", c as u32)),
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form() {
        let show = |s: FieldSelector| {
            let all = s.requirements.iter();
            let shown = all.map(|r| format!("{}{}{}", r.field, if r.negated { "!=" } else { "=" }, r.value));
            shown.collect::<Vec<_>>().join(" ")
        };
        golden::check!("../tests/field_selector.txt", |text| {
            FieldSelector::parse(text).map_or_else(|e| format!("!{e}"), show)
        });
    }

    #[test]
    fn matching() {
        let get = |f: &str| if f == "status.phase" { "Running" } else { "" };
        for (text, want) in [
            ("status.phase=Running", true),
            ("status.phase!=Running", false),
            ("spec.nodeName=", true),
            ("spec.nodeName!=,status.phase=Running", false),
        ] {
            assert_eq!(FieldSelector::parse(text).expect(text).matches_with(get), want, "{text}");
        }
    }
}
