//! What the machine is: CPUs, memory, disk, kernel, operating system.
//!
//! Reads /proc, /sys, /etc and the data directory's file system. Invariant: a fact that cannot be read is a documented
//! default, never an error: a node without a machine id still works.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use meta::quantity::Quantity as Amount;

/// Compat: upstream keeps this much memory from pods so that it can evict in time (`memory.available<100Mi`).
const EVICTION_MEMORY_BYTES: i64 = 100 << 20;
/// Compat: upstream keeps a tenth of the disk from pods (`nodefs.available<10%`).
const EVICTION_DISK_PERCENT: i64 = 10;

/// The machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    pub cpus: i64,
    pub memory_bytes: i64,
    pub swap_bytes: i64,
    pub disk_bytes: i64,
    /// Bytes by page size as in resource names (`2Mi`).
    pub hugepages: BTreeMap<String, i64>,
    pub machine_id: String,
    pub system_uuid: String,
    pub boot_id: String,
    pub kernel: String,
    pub os_image: String,
}

pub fn read(data_dir: &Path) -> Facts {
    let text = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_string()).unwrap_or_default();
    let memory = text("/proc/meminfo");
    let machine_id = text("/etc/machine-id");
    let system_uuid = text("/sys/class/dmi/id/product_uuid");
    Facts {
        cpus: cpu_count(&text("/sys/devices/system/cpu/online")),
        memory_bytes: field_kib(&memory, "MemTotal") << 10,
        swap_bytes: field_kib(&memory, "SwapTotal") << 10,
        disk_bytes: disk(data_dir).map_or(0, |disk| disk.total_bytes),
        hugepages: hugepages(Path::new("/sys/kernel/mm/hugepages")),
        system_uuid: if system_uuid.is_empty() { machine_id.clone() } else { system_uuid },
        machine_id,
        boot_id: text("/proc/sys/kernel/random/boot_id"),
        kernel: text("/proc/sys/kernel/osrelease"),
        os_image: os_image(&text("/etc/os-release")),
    }
}

/// CPUs in a list such as `0-3,8`; the process's own count if the kernel does not say.
fn cpu_count(online: &str) -> i64 {
    let range = |part: &str| -> Option<i64> {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(last.trim().parse::<i64>().ok()? - first.trim().parse::<i64>().ok()? + 1)
    };
    let counted: Option<i64> = online.split(',').map(range).sum();
    counted
        .filter(|count| *count > 0)
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |count| count.get() as i64))
}

fn field_kib(text: &str, name: &str) -> i64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Memory that can still be had without swapping, in bytes.
pub fn available_memory_bytes() -> i64 {
    field_kib(&fs::read_to_string("/proc/meminfo").unwrap_or_default(), "MemAvailable") << 10
}

fn os_image(release: &str) -> String {
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".to_string(), |name| name.trim_matches('"').to_string())
}

fn hugepages(dir: &Path) -> BTreeMap<String, i64> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let size = name.strip_prefix("hugepages-").and_then(|rest| rest.strip_suffix("kB")?.parse::<i64>().ok());
        let Some(kib) = size else { continue };
        let pages = fs::read_to_string(entry.path().join("nr_hugepages")).unwrap_or_default();
        let pages: i64 = pages.trim().parse().unwrap_or(0);
        let word = if kib % (1 << 20) == 0 { format!("{}Gi", kib >> 20) } else { format!("{}Mi", kib >> 10) };
        found.insert(word, (pages * kib) << 10);
    }
    found
}

/// A file system's size and what is left of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Disk {
    pub total_bytes: i64,
    pub available_bytes: i64,
    pub inodes: i64,
    pub inodes_free: i64,
}

/// The file system `path` is on.
pub fn disk(path: &Path) -> Option<Disk> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some(Disk {
        total_bytes: (stat.f_blocks * stat.f_frsize) as i64,
        available_bytes: (stat.f_bavail * stat.f_frsize) as i64,
        inodes: stat.f_files as i64,
        inodes_free: stat.f_favail as i64,
    })
}

/// `capacity` and `allocatable` of the node's status. `reserved` is kept from pods.
pub fn resources(
    facts: &Facts,
    max_pods: u32,
    reserved: &BTreeMap<String, String>,
) -> (BTreeMap<String, Quantity>, BTreeMap<String, Quantity>) {
    let kept = |name: &str, milli: bool| {
        let amount = reserved.get(name).and_then(|text| Amount::parse(text).ok());
        amount.map_or(0, |amount| if milli { amount.milli_value() } else { amount.value() })
    };
    let kib = |bytes: i64| Quantity(format!("{}Ki", bytes >> 10));
    let mut capacity = BTreeMap::from([
        ("cpu".to_string(), Quantity(facts.cpus.to_string())),
        ("memory".to_string(), kib(facts.memory_bytes)),
        ("ephemeral-storage".to_string(), kib(facts.disk_bytes)),
        ("pods".to_string(), Quantity(max_pods.to_string())),
    ]);
    let cpu_milli = (facts.cpus * 1000 - kept("cpu", true)).max(0);
    let cpu = if cpu_milli % 1000 == 0 { (cpu_milli / 1000).to_string() } else { format!("{cpu_milli}m") };
    let huge: i64 = facts.hugepages.values().sum();
    let memory = (facts.memory_bytes - huge - EVICTION_MEMORY_BYTES - kept("memory", false)).max(0);
    let disk = facts.disk_bytes - facts.disk_bytes / 100 * EVICTION_DISK_PERCENT - kept("ephemeral-storage", false);
    let mut allocatable = BTreeMap::from([
        ("cpu".to_string(), Quantity(cpu)),
        ("memory".to_string(), kib(memory)),
        ("ephemeral-storage".to_string(), Quantity(disk.max(0).to_string())),
        ("pods".to_string(), Quantity(max_pods.to_string())),
    ]);
    for (size, bytes) in &facts.hugepages {
        let amount = Quantity(if *bytes == 0 { "0".to_string() } else { format!("{}Mi", bytes >> 20) });
        capacity.insert(format!("hugepages-{size}"), amount.clone());
        allocatable.insert(format!("hugepages-{size}"), amount);
    }
    (capacity, allocatable)
}

/// The processor architecture as Go and container images name it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// The least `oom_score_adj` this process can give to others: its own, unless it may lower it.
pub fn min_oom_score_adj() -> i64 {
    /// CAP_SYS_RESOURCE's bit.
    const SYS_RESOURCE: u64 = 1 << 24;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    if bits & SYS_RESOURCE != 0 {
        return -1000;
    }
    let own = fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
    own.trim().parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_cpus() {
        assert_eq!([cpu_count("0-3"), cpu_count("0"), cpu_count("0-1,4-5")], [4, 1, 4]);
        assert!(cpu_count("") >= 1);
    }

    #[test]
    fn pods_get_what_is_left() {
        let facts = Facts {
            cpus: 2,
            memory_bytes: 1 << 30,
            disk_bytes: 1000 << 20,
            hugepages: BTreeMap::from([("2Mi".to_string(), 0)]),
            ..Facts::default()
        };
        let reserved = BTreeMap::from([("cpu".to_string(), "250m".to_string())]);
        let (capacity, allocatable) = resources(&facts, 110, &reserved);
        let show = |list: &BTreeMap<String, Quantity>| {
            list.iter().map(|(name, amount)| format!("{name}={}", amount.0)).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(show(&capacity), "cpu=2 ephemeral-storage=1024000Ki hugepages-2Mi=0 memory=1048576Ki pods=110");
        let found = show(&allocatable);
        assert_eq!(found, "cpu=1750m ephemeral-storage=943718400 hugepages-2Mi=0 memory=946176Ki pods=110");
    }
}
