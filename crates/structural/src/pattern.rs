//! Patterns of schemas: Go's regular expressions read as ours.
//!
//! Both are RE2's language but for a few corners: Go's classes are ASCII, a brace that is no repetition is itself, and
//! brackets and doubled signs in a class mean themselves. Invariant: a pattern means what it means in Go, or fails.

use regex::{Regex, RegexBuilder};

/// Upstream bounds a pattern by what its objects may hold; this bounds the compiled program.
const SIZE_MAX_BYTES: usize = 10 << 20;

pub fn compile(pattern: &str) -> Result<Regex, String> {
    let read = RegexBuilder::new(&translate(pattern)?).size_limit(SIZE_MAX_BYTES).build();
    read.map_err(|e| match e.to_string().lines().last().unwrap_or_default().trim() {
        "error: unclosed group" => in_go("missing closing )", pattern),
        "error: unopened group" => in_go("unexpected )", pattern),
        other => other.to_string(),
    })
}

fn in_go(what: &str, written: &str) -> String {
    format!("error parsing regexp: {what}: `{written}`")
}

/// Go's limit of `{n}`.
const REPEATS_MAX: u32 = 1000;

fn translate(pattern: &str) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len() + 8);
    let chars: Vec<char> = pattern.chars().collect();
    let mut in_class = false;
    let mut i = 0;
    // Where the repetition began that ends here.
    let mut repeated: Option<usize> = None;
    while i < chars.len() {
        let (c, next) = (chars[i], chars.get(i + 1).copied());
        if let Some(mut end) = repetition(&chars, i).filter(|_| !in_class) {
            let text = |from: usize, end: usize| chars[from..end].iter().collect::<String>();
            if let Some(from) = repeated {
                return Err(in_go("invalid nested repetition operator", &text(from, end)));
            }
            let counts = text(i, end);
            if counts.split(|c: char| !c.is_ascii_digit()).any(|n| n.parse().is_ok_and(|n: u32| n > REPEATS_MAX)) {
                return Err(in_go("invalid repeat count", &counts));
            }
            end += usize::from(chars.get(end) == Some(&'?'));
            out.push_str(&text(i, end));
            (repeated, i) = (Some(i), end);
            continue;
        }
        repeated = None;
        match c {
            '\\' => {
                match next {
                    Some('d') => out.push_str("[0-9]"),
                    Some('D') => out.push_str("[^0-9]"),
                    Some('w') => out.push_str("[0-9A-Za-z_]"),
                    Some('W') => out.push_str("[^0-9A-Za-z_]"),
                    Some('s') => out.push_str(r"[\t\n\f\r ]"),
                    Some('S') => out.push_str(r"[^\t\n\f\r ]"),
                    Some('b') => out.push_str(r"(?-u:\b)"),
                    Some('Q') => {
                        let quoted: String = chars[i + 2..].iter().collect();
                        let quoted = quoted.split("\\E").next().unwrap_or_default();
                        out.push_str(&regex::escape(quoted));
                        i += quoted.chars().count() + 4;
                        continue;
                    }
                    // Of `\x{10FFFF}` and `\p{Greek}`, the braces too.
                    Some(other @ ('x' | 'p' | 'P')) if chars.get(i + 2) == Some(&'{') => {
                        let end = (i..chars.len()).find(|at| chars[*at] == '}').unwrap_or(chars.len() - 1);
                        out.extend(['\\', other]);
                        out.extend(&chars[i + 2..=end]);
                        i = end + 1;
                        continue;
                    }
                    Some(other) => out.extend(['\\', other]),
                    None => out.push('\\'),
                }
                i += 2;
                continue;
            }
            '[' if !in_class => {
                in_class = true;
                out.push('[');
                if next == Some('^') {
                    out.push('^');
                    i += 1;
                }
                // A bracket that closes at once is itself.
                if chars.get(i + 1) == Some(&']') {
                    out.push_str(r"\]");
                    i += 1;
                }
            }
            '[' if next != Some(':') => out.push_str(r"\["),
            '[' => {
                let end = (i..chars.len()).find(|at| chars[*at] == ']').unwrap_or(chars.len() - 1);
                out.extend(&chars[i..=end]);
                i = end;
            }
            ']' if in_class => {
                in_class = false;
                out.push(']');
            }
            '&' | '~' if in_class => out.extend(['\\', c]),
            '-' if in_class && next == Some('-') => out.push_str(r"\-"),
            '{' if !in_class => out.push_str(r"\{"),
            _ => out.push(c),
        }
        i += 1;
    }
    Ok(out)
}

/// Where the repetition ends that begins here, without a `?` that makes it lazy.
fn repetition(chars: &[char], at: usize) -> Option<usize> {
    match chars[at] {
        // The one of a group's flags or name repeats nothing.
        '?' if at > 0 && chars[at - 1] == '(' => None,
        '*' | '+' | '?' => Some(at + 1),
        '{' if is_repetition(&chars[at..]) => chars[at..].iter().position(|c| *c == '}').map(|end| at + end + 1),
        _ => None,
    }
}

/// `{3}`, `{3,}`, `{3,5}`
fn is_repetition(rest: &[char]) -> bool {
    let Some(end) = rest.iter().position(|c| *c == '}') else { return false };
    let inside: String = rest[1..end].iter().collect();
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    match inside.split_once(',') {
        Some((from, to)) => digits(from) && (to.is_empty() || digits(to)),
        None => digits(&inside),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_in_go() {
        golden::check!("tests/patterns.txt", |case| {
            let (pattern, text) = case.split_once(' ').expect("a pattern and a text");
            compile(pattern).map_or_else(|why| why, |pattern| pattern.is_match(text).to_string())
        });
    }
}
