//! What our YAML reader says of a broken document, in the words of the one that upstream uses (go-yaml).
//!
//! Compat: clients show these texts. go-yaml counts lines from 0, adds one where its scanner finds fault but not where
//! its parser does, and then names no line 0.

/// What our reader says, what upstream's says, and whether upstream's scanner is the one to say it.
const WORDS: [(&str, &str, bool); 11] = [
    ("mapping values are not allowed", "mapping values are not allowed in this context", true),
    ("unexpected character: `\\u{", "control characters are not allowed", true),
    ("unexpected character", "found character that cannot start any token", true),
    ("tabs disallowed", "found character that cannot start any token", true),
    ("found unknown escape character", "found unknown escape character", true),
    ("surrogate", "found invalid Unicode character escape code", true),
    ("could not find expected directive name", "could not find expected directive name", true),
    ("did not find expected key", "did not find expected key", false),
    ("did not find expected '-' indicator", "did not find expected '-' indicator", false),
    ("invalid trailing content after", "did not find expected key", false),
    ("did not find expected ',' or '}'", "did not find expected ',' or '}'", false),
];

/// `error` is the reader's first line: `error: line 1 column 6: why`.
pub fn translate(error: &str, body: &str) -> String {
    let Some((line, column, why)) = place(error) else { return error.to_string() };
    let said = |line: usize, scanned: bool, words: &str| match line {
        0 => words.to_string(),
        line => format!("line {}: {words}", line + usize::from(scanned)),
    };
    if let Some(open) = why.strip_prefix("unclosed bracket '").and_then(|rest| rest.chars().next()) {
        let close = if open == '{' { '}' } else { ']' };
        let words = match body.trim_end().chars().last() {
            Some('[' | '{' | ',' | ':') => "did not find expected node content".to_string(),
            _ => format!("did not find expected ',' or '{close}'"),
        };
        return said(body.lines().count(), false, &words);
    }
    if why.starts_with("unclosed quote") {
        return said(body.matches('\n').count(), true, "found unexpected end of stream");
    }
    if why.starts_with("YAML merge value") {
        return "map merge requires map or sequence of maps as the value".to_string();
    }
    if why.contains("unknown anchor") {
        let named = body.lines().nth(line).and_then(|text| text.get(column..)).unwrap_or_default();
        let name = named.split(|c: char| !c.is_alphanumeric() && c != '-' && c != '_').next().unwrap_or_default();
        return format!("unknown anchor '{name}' referenced");
    }
    if why.starts_with("invalid trailing content after") && body.starts_with('{') {
        return said(line, false, "did not find expected ',' or '}'");
    }
    match WORDS.iter().find(|(ours, _, _)| why.contains(ours)) {
        Some((_, words, scanned)) => said(line, *scanned, words),
        None => said(line, true, why),
    }
}

/// The line, from 0, the column, from 1, and what is wrong there.
fn place(error: &str) -> Option<(usize, usize, &str)> {
    let (line, rest) = error.strip_prefix("error: line ")?.split_once(" column ")?;
    let (column, why) = rest.split_once(": ")?;
    Some((line.parse::<usize>().ok()?.saturating_sub(1), column.parse().ok()?, why))
}

/// The first of the documents in a body, which is all that upstream reads.
pub fn first_document(text: &str) -> &str {
    let says = |line: &str| !line.trim().is_empty() && !line.starts_with(['#', '%']);
    let start = if text.starts_with("---") { 3 } else { 0 };
    match text[start..].find("\n---") {
        Some(at) if text[start..start + at].lines().any(says) => &text[..=start + at],
        _ => text,
    }
}

#[cfg(test)]
mod tests {

    /// Held against upstream's answers to applies of these bodies.
    #[test]
    fn as_upstream_says_it() {
        let cases = [
            ("{", "line 1: did not find expected node content"),
            ("[1", "line 1: did not find expected ',' or ']'"),
            ("{a: b\n", "line 1: did not find expected ',' or '}'"),
            ("a:\n  {\n\n", "line 3: did not find expected node content"),
            ("\"x", "found unexpected end of stream"),
            ("{\"a\" 1}", "did not find expected ',' or '}'"),
            ("a: \"b\" c", "did not find expected key"),
            ("a: |\n  b\n c", "line 2: did not find expected key"),
            ("a: b: c", "mapping values are not allowed in this context"),
            ("a: b\nc:\n d: e\n  f: g", "line 4: mapping values are not allowed in this context"),
            ("a: b\nc: @", "line 2: found character that cannot start any token"),
            ("a: b\nc: \"\\q\"", "line 2: found unknown escape character"),
            ("{\"a\":\"\u{1}\"}", "control characters are not allowed"),
            ("a: b\nc: *d", "unknown anchor 'd' referenced"),
            ("<<: 1", "map merge requires map or sequence of maps as the value"),
            ("%", "could not find expected directive name"),
        ];
        for (body, words) in cases {
            let error = super::super::yaml(body.as_bytes()).expect_err(body);
            assert_eq!(error, format!("error converting YAML to JSON: yaml: {words}"), "{body}");
        }
    }

    #[test]
    fn of_many_documents_the_first() {
        let read = |body: &str| super::super::yaml(body.as_bytes()).expect(body).0.to_string();
        for body in ["a: 1\n---\nb: 2", "---\na: 1\n---\n@", "# why\n---\na: 1\n", "a: 1"] {
            assert_eq!(read(body), r#"{"a":1}"#, "{body}");
        }
    }
}
