//! What a conformance run says: reads the list of tests and the lines the test binary wrote, makes the page.
//!
//! The page is also the record: its rows are read back before a run, so that a run of a few tests changes their rows only.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use anyhow::{Context, Result};

/// How much of a failure's message the page holds.
const WHY_LINES: usize = 4;
const WHY_CHARS: usize = 320;

const HEAD: &str = "\
# Conformance

What upstream's conformance suite (v1.37) says of Knarr, as `cargo xtask conformance` last found it; the command writes
this page. A row is of the last run that the test was part of. A test without a result was never run.
The classes say what a test needs, as `tests/conformance/README.md` tells.
";

pub struct Test {
    pub class: String,
    pub name: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub state: String,
    pub seconds: String,
    pub why: String,
}

impl Row {
    pub fn failed(&self) -> bool {
        !matches!(self.state.as_str(), "passed" | "skipped")
    }
}

pub type Rows = BTreeMap<String, Row>;

/// The lines of `tests.tsv`.
pub fn tests(text: &str) -> Result<Vec<Test>> {
    text.lines()
        .map(|line| {
            let (class, name) = line.split_once('\t').with_context(|| format!("tests.tsv: no tab in {line:?}"))?;
            Ok(Test { class: class.into(), name: name.into() })
        })
        .collect()
}

/// The lines that the test binary wrote.
pub fn results(text: &str) -> Result<Rows> {
    text.lines()
        .map(|line| {
            let mut parts = line.splitn(4, '\t').map(str::to_string);
            let mut next = || parts.next().with_context(|| format!("a result is cut short: {line:?}"));
            let (state, seconds, name) = (next()?, next()?, next()?);
            Ok((name, Row { state, seconds, why: first_lines(&next()?) }))
        })
        .collect()
}

fn first_lines(message: &str) -> String {
    let lines = message.split("\\n").map(str::trim).filter(|line| !line.is_empty()).take(WHY_LINES);
    let mut why = lines.collect::<Vec<_>>().join(" / ").replace('|', "¦");
    if let Some((at, _)) = why.char_indices().nth(WHY_CHARS) {
        why.truncate(at);
        why.push('…');
    }
    why
}

/// The rows of a page made earlier.
pub fn rows(page: &str) -> Rows {
    page.lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.strip_prefix("| ")?.trim_end_matches('|').split('|').map(str::trim).collect();
            let [state, seconds, _class, name, why] = cells[..] else { return None };
            (name.starts_with('[') && !seconds.is_empty())
                .then(|| (name.to_string(), Row { state: state.into(), seconds: seconds.into(), why: why.into() }))
        })
        .collect()
}

fn sig(name: &str) -> &str {
    name.trim_start_matches('[').split(']').next().unwrap_or_default()
}

/// Passed, failed, and all, of the tests of a SIG or class.
fn counts<'a>(tests: impl Iterator<Item = &'a Test>, rows: &Rows) -> String {
    let (mut all, mut passed, mut failed) = (0, 0, 0);
    for test in tests {
        all += 1;
        match rows.get(&test.name) {
            Some(row) if row.failed() => failed += 1,
            Some(row) if row.state == "passed" => passed += 1,
            _ => {}
        }
    }
    format!("{all} | {passed} | {failed} | {}", all - passed - failed)
}

/// For the terminal: what failed in this run, and the sums.
pub fn summary(tests: &[Test], ran: &Rows) -> String {
    let mut text = String::new();
    for (name, row) in ran.iter().filter(|(_, row)| row.failed()) {
        let _ = writeln!(text, "{} ({} s) {name}\n    {}", row.state, row.seconds, row.why);
    }
    let known: BTreeSet<&str> = tests.iter().map(|test| test.name.as_str()).collect();
    for name in ran.keys().filter(|name| !known.contains(name.as_str())) {
        let _ = writeln!(text, "not in tests.tsv: {name}");
    }
    let count = |state: &str| ran.values().filter(|row| row.state == state).count();
    let failed = ran.values().filter(|row| row.failed()).count();
    let _ = write!(text, "{} passed, {failed} failed, {} skipped", count("passed"), count("skipped"));
    text
}

/// The page: sums by SIG and by class, then every test.
pub fn page(tests: &[Test], before: Rows, ran: &Rows) -> String {
    let mut rows = before;
    rows.extend(ran.iter().map(|(name, row)| (name.clone(), row.clone())));
    let mut text = HEAD.to_string();
    let sigs: BTreeSet<&str> = tests.iter().map(|test| sig(&test.name)).collect();
    let classes: BTreeSet<&str> = tests.iter().map(|test| test.class.as_str()).collect();
    let mut sums = |what: &str, keys: &BTreeSet<&str>, key: fn(&Test) -> &str| {
        let _ = writeln!(text, "\n| {what} | tests | passed | failed | not run |\n|---|---:|---:|---:|---:|");
        for name in keys {
            let _ = writeln!(text, "| {name} | {} |", counts(tests.iter().filter(|test| key(test) == *name), &rows));
        }
        let _ = writeln!(text, "| all | {} |", counts(tests.iter(), &rows));
    };
    sums("SIG", &sigs, |test| sig(&test.name));
    sums("class", &classes, |test| &test.class);
    for of in sigs {
        let _ = writeln!(text, "\n## {of}\n\n| result | seconds | class | test | why |\n|---|---:|---|---|---|");
        for Test { class, name } in tests.iter().filter(|test| sig(&test.name) == of) {
            let _ = match rows.get(name) {
                Some(Row { state, seconds, why }) => {
                    writeln!(text, "| {state} | {seconds} | {class} | {name} | {why} |")
                }
                None => writeln!(text, "| | | {class} | {name} | |"),
            };
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_back_and_a_run_changes_its_own_rows_only() {
        let tests = tests("a1\t[sig-a] one [Conformance]\nb\t[sig-a] two\na1\t[sig-b] three\n").expect("tests");
        let first = results(
            "passed\t1.5\t[sig-a] one [Conformance]\t\nfailed\t60.0\t[sig-b] three\tlost\\n\\n  a | b\\nc\\nd\\nmore\n",
        )
        .expect("results");
        let page_one = page(&tests, Rows::new(), &first);
        assert_eq!(rows(&page_one), first);
        assert_eq!(&page_one[HEAD.len()..], include_str!("report.txt"));
        let second = results("passed\t2.0\t[sig-b] three\t\n").expect("results");
        let mut both = first;
        both.extend(second.clone());
        assert_eq!(rows(&page(&tests, rows(&page_one), &second)), both);
        assert_eq!(summary(&tests, &second), "1 passed, 0 failed, 0 skipped");
        assert!(results("passed\t2.0\n").is_err());
    }
}
