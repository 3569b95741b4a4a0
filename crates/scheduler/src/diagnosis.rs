//! Says why a pod fits nowhere, in upstream's words: `0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu.`
//! Pure. Invariant: reasons are counted over nodes and sorted as text.

use std::collections::BTreeMap;

use crate::framework::{PluginSet, Reason, Refusal, Verdict};

/// Longest message an Event may carry, in bytes.
const EVENT_NOTE_MAX_BYTES: usize = 1024;

/// Why one scheduling cycle found no node.
#[derive(Clone, Debug, Default)]
pub struct FitError {
    pub nodes_total: usize,
    /// Set when a PreFilter plugin refused the pod for every node.
    pub pre_filter: Option<Reason>,
    pub refusals: Vec<Refusal>,
    /// Nodes never looked at because PreFilter ruled them out, with the reason.
    pub absent: Option<(usize, Reason)>,
    pub refused_by: PluginSet,
    /// What PostFilter said.
    pub post_filter: String,
}

impl FitError {
    pub fn message(&self) -> String {
        let counted = self.refusals.iter().flat_map(|r| match &r.verdict {
            Verdict::No(reasons) | Verdict::Never(reasons) => reasons.as_slice(),
            Verdict::Fit => &[],
        });
        let reasons = counted.map(|r| (1, r.clone())).chain(self.absent.clone()).collect();
        fit_message(self.nodes_total, self.pre_filter.as_deref(), reasons, &self.post_filter)
    }
}

pub fn fit_message(total: usize, pre_filter: Option<&str>, reasons: Vec<(usize, Reason)>, post_filter: &str) -> String {
    let mut out = format!("0/{total} nodes are available");
    if let Some(message) = pre_filter {
        out.push_str(&format!(": {message}."));
    } else {
        let mut counts: BTreeMap<Reason, usize> = BTreeMap::new();
        for (n, reason) in reasons {
            *counts.entry(reason).or_default() += n;
        }
        let mut lines: Vec<String> = counts.iter().map(|(reason, n)| format!("{n} {reason}")).collect();
        lines.sort();
        if !lines.is_empty() {
            out.push_str(&format!(": {}.", lines.join(", ")));
        }
    }
    if !post_filter.is_empty() {
        out.push(' ');
        out.push_str(post_filter);
    }
    out
}

/// Cuts a message to what an Event may carry.
pub fn event_note(message: &str) -> String {
    if message.len() <= EVENT_NOTE_MAX_BYTES {
        return message.to_owned();
    }
    let mut end = EVENT_NOTE_MAX_BYTES - 4;
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    format!("{} ...", &message[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        let refusal = |node, reasons: &[&'static str]| Refusal {
            node,
            verdict: Verdict::No(reasons.iter().map(|r| (*r).into()).collect()),
        };
        let mut error = FitError {
            nodes_total: 3,
            refusals: vec![
                refusal(0, &["Insufficient memory", "Insufficient cpu"]),
                refusal(1, &["Insufficient cpu"]),
                refusal(2, &["node(s) had untolerated taint(s)"]),
            ],
            post_filter: "preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.".to_owned(),
            ..FitError::default()
        };
        expect_test::expect!["0/3 nodes are available: 1 Insufficient memory, 1 node(s) had untolerated taint(s), 2 Insufficient cpu. preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."].assert_eq(&error.message());
        error.pre_filter = Some("pod affinity terms conflict".into());
        error.post_filter.clear();
        expect_test::expect!["0/3 nodes are available: pod affinity terms conflict."].assert_eq(&error.message());
        assert_eq!(fit_message(0, None, Vec::new(), ""), "0/0 nodes are available");
        assert_eq!(event_note(&"x".repeat(2000)).len(), 1024);
    }
}
