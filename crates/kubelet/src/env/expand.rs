//! `$(VAR)` expansion, as the API describes it for env values, command, args and subPathExpr. Pure.
//!
//! `$(NAME)` becomes the value; an unknown name stays as written; `$$` is one dollar, so `$$(NAME)` is the text `$(NAME)`.

/// Expands `text`; `lookup` answers None for names that stay as they are.
pub fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let tail = &rest[at + 1..];
        if let Some(after) = tail.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        match tail.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            Some((name, after)) => {
                match lookup(name) {
                    Some(value) => out.push_str(&value),
                    None => out.extend(["$(", name, ")"]),
                }
                rest = after;
            }
            None => {
                out.push('$');
                rest = tail;
            }
        }
    }
    out.push_str(rest);
    out
}

/// Expands `subPathExpr`: every variable must be set and not empty. The error lists the missing ones, sorted.
pub fn expand_strict(text: &str, lookup: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let missing = std::cell::RefCell::new(std::collections::BTreeSet::new());
    let out = expand(text, |name| {
        let value = lookup(name).unwrap_or_default();
        if value.is_empty() {
            missing.borrow_mut().insert(name.to_owned());
        }
        Some(value)
    });
    let missing = missing.into_inner();
    if missing.is_empty() {
        return Ok(out);
    }
    Err(format!("missing value for {}", missing.into_iter().collect::<Vec<_>>().join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expansion_table() {
        let lookup = |name: &str| match name {
            "A" => Some("a".to_owned()),
            "EMPTY" => Some(String::new()),
            "NEST" => Some("$(A)".to_owned()),
            _ => None,
        };
        let table = [
            ("", ""),
            ("plain", "plain"),
            ("$(A)$(A)-$(A)", "aa-a"),
            ("$(MISSING)", "$(MISSING)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$a"),
            ("$$$$(A)", "$$(A)"),
            ("$(EMPTY)|", "|"),
            ("$(NEST)", "$(A)"),
            ("$A", "$A"),
            ("$(A", "$(A"),
            ("a$", "a$"),
            ("$", "$"),
            ("$()", "$()"),
            ("$(A)$(", "a$("),
            ("é$(A)ü", "éaü"),
        ];
        for (text, expected) in table {
            assert_eq!(expand(text, lookup), expected, "{text}");
        }
        assert_eq!(expand_strict("x/$(A)", lookup), Ok("x/a".to_owned()));
        assert_eq!(expand_strict("$(Z)/$(EMPTY)", lookup), Err("missing value for EMPTY, Z".to_owned()));
    }
}
