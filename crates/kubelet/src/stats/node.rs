//! The node's own usage from /proc and its file system. Parsing is pure.

use std::path::Path;

use jiff::Timestamp;
use sys::disk::DiskUsage;

/// What the kernel counts `/proc/stat` in: USER_HZ, 100 on every Linux that Kubernetes runs on.
const NANOS_PER_TICK: u64 = 10_000_000;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeUsage {
    pub at_nanos: i64,
    pub booted_at: Option<Timestamp>,
    pub cpu_total_nanos: Option<u64>,
    pub memory_total_bytes: Option<u64>,
    pub memory_available_bytes: Option<u64>,
    pub memory_used_bytes: Option<u64>,
    pub disk: Option<DiskUsage>,
}

impl NodeUsage {
    /// What cannot be taken back at once.
    pub fn working_set_bytes(&self) -> Option<u64> {
        Some(self.memory_total_bytes?.saturating_sub(self.memory_available_bytes?))
    }
}

pub fn read(data_dir: &Path) -> NodeUsage {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let at_nanos = i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or_default();
    parse(&stat, &meminfo, at_nanos, sys::disk::usage(data_dir).ok())
}

fn parse(stat: &str, meminfo: &str, at_nanos: i64, disk: Option<DiskUsage>) -> NodeUsage {
    let field = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib * 1024)
    };
    let booted = stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<i64>().ok());
    let total = field("MemTotal");
    NodeUsage {
        at_nanos,
        booted_at: booted.and_then(|seconds| Timestamp::from_second(seconds).ok()),
        cpu_total_nanos: stat.lines().next().and_then(busy_ticks).map(|ticks| ticks * NANOS_PER_TICK),
        memory_total_bytes: total,
        memory_available_bytes: field("MemAvailable"),
        memory_used_bytes: total.zip(field("MemFree")).map(|(total, free)| total.saturating_sub(free)),
        disk,
    }
}

// cpu user nice system idle iowait irq softirq steal guest guest_nice; guest time is in user time already.
fn busy_ticks(line: &str) -> Option<u64> {
    let ticks: Vec<u64> = line.strip_prefix("cpu ")?.split_whitespace().map_while(|field| field.parse().ok()).collect();
    (ticks.len() >= 5)
        .then(|| ticks.iter().take(8).enumerate().filter(|(at, _)| !matches!(at, 3 | 4)).map(|(_, ticks)| ticks).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_read() {
        let stat = "cpu  10 1 5 1000 7 2 3 4 9 9\ncpu0 1 1 1 1\nbtime 1700000000\n";
        let usage = parse(stat, "MemTotal:       1000 kB\nMemFree:  100 kB\nMemAvailable: 400 kB\n", 5, None);
        let expected = NodeUsage {
            at_nanos: 5,
            booted_at: Timestamp::from_second(1_700_000_000).ok(),
            cpu_total_nanos: Some(25 * NANOS_PER_TICK),
            memory_total_bytes: Some(1_024_000),
            memory_available_bytes: Some(409_600),
            memory_used_bytes: Some(921_600),
            disk: None,
        };
        assert_eq!(usage, expected);
        assert_eq!(usage.working_set_bytes(), Some(614_400));
        assert_eq!(parse("", "", 5, None), NodeUsage { at_nanos: 5, ..NodeUsage::default() });
    }
}
