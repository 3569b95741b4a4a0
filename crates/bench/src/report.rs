//! Collects numbers and writes them as a table for people and as JSON for programs. Reads what machine this is.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Result, bail};
use serde_json::{Value, json};

struct Entry {
    row: &'static str,
    name: String,
    value: f64,
    unit: &'static str,
    note: String,
}

pub struct Report {
    machine: Value,
    quick: bool,
    row: &'static str,
    entries: Vec<Entry>,
    failures: Vec<(&'static str, String)>,
}

impl Report {
    pub fn begin(knarr: &Path, quick: bool) -> Self {
        let mut machine = machine();
        machine["knarr"] = json!(knarr.display().to_string());
        Report { machine, quick, row: "", entries: Vec::new(), failures: Vec::new() }
    }

    /// What is added from here on belongs to `row`.
    pub fn enter(&mut self, row: &'static str) {
        self.row = row;
    }

    pub fn add(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.add_noting(name, value, unit, "");
    }

    pub fn add_noting(&mut self, name: impl Into<String>, value: f64, unit: &'static str, note: impl Into<String>) {
        self.entries.push(Entry { row: self.row, name: name.into(), value, unit, note: note.into() });
    }

    pub fn failed(&mut self, why: &str) {
        self.failures.push((self.row, why.into()));
    }

    pub fn outcome(&self) -> Result<()> {
        if !self.failures.is_empty() {
            bail!("failed: {}", self.failures.iter().map(|(row, _)| *row).collect::<Vec<_>>().join(", "));
        }
        Ok(())
    }

    pub fn table(&self) -> String {
        let text = |key: &str| self.machine[key].as_str().unwrap_or_default().to_string();
        let mut out = format!(
            "\n{} cores {}, {} GiB, Linux {}{}\n",
            self.machine["cores"],
            text("cpu"),
            self.machine["memory_gib"],
            text("kernel"),
            if self.quick { " (--quick: short runs, do not compare)" } else { "" }
        );
        let width = self.entries.iter().map(|e| e.name.chars().count()).max().unwrap_or(0);
        let mut row = "";
        for entry in &self.entries {
            if entry.row != row {
                row = entry.row;
                let _ = writeln!(out, "{row}");
            }
            let line = format!("  {:width$} {:>12} {:9} {}", entry.name, number(entry.value), entry.unit, entry.note);
            let _ = writeln!(out, "{}", line.trim_end());
        }
        for (row, why) in &self.failures {
            let _ = writeln!(out, "{row}\n  failed: {why}");
        }
        out
    }

    pub fn json(&self) -> String {
        let results: Vec<Value> = self
            .entries
            .iter()
            .map(|e| json!({"row": e.row, "name": e.name, "value": e.value, "unit": e.unit, "note": e.note}))
            .collect();
        let failures: Vec<Value> = self.failures.iter().map(|(row, why)| json!({"row": row, "why": why})).collect();
        let all = json!({"machine": self.machine, "quick": self.quick, "results": results, "failures": failures});
        format!("{all:#}\n")
    }
}

fn machine() -> Value {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.split_once(':').map(|(_, value)| value.trim().to_string()).unwrap_or_default()
    };
    let memory_kib: u64 = field(&read("/proc/meminfo"), "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0);
    json!({
        "cpu": field(&read("/proc/cpuinfo"), "model name"),
        "cores": std::thread::available_parallelism().map_or(0, |n| n.get()),
        "memory_gib": (memory_kib + (1 << 19)) >> 20,
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
    })
}

/// Three digits or so, thousands apart.
fn number(value: f64) -> String {
    if value < 100.0 {
        return format!("{value:.*}", if value < 10.0 { 2 } else { 1 });
    }
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        let shown: Vec<_> = [0.0, 1.234, 56.78, 999.6, 12345.0, 1234567.0].map(number).into();
        assert_eq!(shown, ["0.00", "1.23", "56.8", "1,000", "12,345", "1,234,567"]);
    }

    #[test]
    fn a_failed_row_is_shown_and_told() {
        let mut report =
            Report { machine: json!({}), quick: false, row: "", entries: Vec::new(), failures: Vec::new() };
        report.enter("list");
        report.add_noting("warm", 12.5, "ms", "aim 100 ms");
        assert!(report.outcome().is_ok());
        report.failed("refused");
        assert!(report.table().contains("warm         12.5 ms        aim 100 ms\nlist\n  failed: refused\n"));
        assert_eq!(report.outcome().expect_err("one failed").to_string(), "failed: list");
    }
}
