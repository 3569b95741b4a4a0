//! Tests whose cases are a file: inputs, and what comes of each.
//!
//! A case is a line `» INPUT` and, on the lines after it, what comes of it; what stands before the first case is a
//! comment. Reads the file, and with `UPDATE_EXPECT=1` writes it. Invariant: the whole file is compared, so that no case
//! and no line of an answer is passed over.

pub use expect_test::{ExpectFile, expect_file};

/// Runs every case of the file, whose path is relative to the test's source, and compares what comes of it.
#[macro_export]
macro_rules! check {
    ($file:literal, $run:expr) => {
        $crate::compare(include_str!($file), $crate::expect_file![$file], $run)
    };
}

/// As [`check!`], for a file that was read already.
pub fn compare(cases: &str, file: ExpectFile, mut run: impl FnMut(&str) -> String) {
    let mut parts = cases.split("» ");
    let mut found = parts.next().unwrap_or_default().to_string();
    for case in parts {
        let input = case.lines().next().unwrap_or_default();
        let answer = run(input);
        found.push_str(&format!("» {input}\n{answer}"));
        if !answer.is_empty() && !answer.ends_with('\n') {
            found.push('\n');
        }
    }
    file.assert_eq(&found);
}
