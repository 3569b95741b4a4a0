//! The Pod Security Standards: every check of the levels baseline and restricted, with the versions that have it.
//!
//! Pure: a pod's spec in, upstream's reasons and details out. Source: the page "Pod Security Standards".

use std::collections::BTreeSet;
use std::ops::Range;

use meta::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Privileged,
    Baseline,
    Restricted,
}

const END: u32 = u32::MAX;
const NEVER: Range<u32> = END..END;
/// The minor version of the newest standard.
pub const LATEST: u32 = END - 1;

/// What is looked at, and by which minor version's rules.
pub struct Pod<'a> {
    pub spec: &'a Value,
    pub annotations: &'a Value,
    pub minor: u32,
}

/// Reason and detail.
pub type Wrong = (&'static str, String);
/// Finds the detail.
type Find = fn(&Pod) -> Option<String>;

/// The minor versions of baseline and of restricted that have the check, in the order in which they are told.
const CHECKS: &[(Range<u32>, Range<u32>, &str, Find)] = &[
    (0..END, 0..END, "forbidden AppArmor profile", app_armor),
    (0..END, 0..22, "non-default capabilities", |pod| added(pod, DEFAULT_CAPABILITIES)),
    (0..END, 0..END, "host namespaces", host_namespaces),
    (0..END, NEVER, "hostPath volumes", host_paths),
    (0..END, 0..END, "hostPort", host_ports),
    (34..END, 34..END, "probe or lifecycle host", handler_hosts),
    (0..END, 0..END, "privileged", |pod| sets(pod, &["privileged"], "securityContext.privileged=true", is_true)),
    (0..35, 0..35, "procMount", proc_mount),
    (35..END, NEVER, "procMount", |pod| if pod.has_own_users() { None } else { proc_mount(pod) }),
    (0..END, 0..END, "seLinuxOptions", se_linux),
    (0..19, 0..19, "seccompProfile", seccomp_annotations),
    (19..END, NEVER, "seccompProfile", seccomp),
    (0..END, 0..END, "forbidden sysctls", sysctls),
    (0..END, 0..END, "hostProcess", |pod| {
        sets(pod, &["windowsOptions", "hostProcess"], "securityContext.windowsOptions.hostProcess=true", is_true)
    }),
    (NEVER, 8..END, "allowPrivilegeEscalation != false", privilege_escalation),
    (NEVER, 22..END, "unrestricted capabilities", kept_capabilities),
    (NEVER, 35..END, "procMount", proc_mount),
    (NEVER, 0..END, "restricted volume types", volume_types),
    (NEVER, 0..END, "runAsNonRoot != true", run_as_non_root),
    (NEVER, 23..END, "runAsUser=0", |pod| {
        sets(pod, &["runAsUser"], "runAsUser=0", |v| v.as_i64() == Some(0)).filter(|_| !pod.has_own_users())
    }),
    (NEVER, 19..END, "seccompProfile", seccomp_required),
];

const DEFAULT_CAPABILITIES: &str = "AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE SETFCAP \
                                    SETGID SETPCAP SETUID SYS_CHROOT";
const VOLUMES: &str = "name configMap csi downwardAPI emptyDir ephemeral image persistentVolumeClaim projected secret";
const PROFILES: &str = "RuntimeDefault Localhost";
/// With the version from which on they count as safe.
const SYSCTLS: [(u32, &str); 5] = [
    (
        0,
        "kernel.shm_rmid_forced net.ipv4.ip_local_port_range net.ipv4.tcp_syncookies net.ipv4.ping_group_range \
         net.ipv4.ip_unprivileged_port_start",
    ),
    (27, "net.ipv4.ip_local_reserved_ports"),
    (
        29,
        "net.ipv4.tcp_keepalive_time net.ipv4.tcp_fin_timeout net.ipv4.tcp_keepalive_intvl \
         net.ipv4.tcp_keepalive_probes",
    ),
    (32, "net.ipv4.tcp_rmem net.ipv4.tcp_wmem"),
    (37, "net.ipv4.tcp_slow_start_after_idle net.ipv4.tcp_notsent_lowat"),
];
const HANDLERS: [&str; 5] =
    ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle postStart", "lifecycle preStop"];

/// All that keeps the pod from a level.
pub fn check(pod: &Pod, level: Level) -> Vec<Wrong> {
    let asked = CHECKS.iter().filter(|(baseline, restricted, ..)| match level {
        Level::Privileged => false,
        Level::Baseline => baseline.contains(&pod.minor),
        Level::Restricted => restricted.contains(&pod.minor),
    });
    asked.filter_map(|(.., reason, find)| Some((*reason, find(pod)?))).collect()
}

/// As a refusal lists them.
pub fn shown(found: &[Wrong]) -> String {
    found.iter().map(|(reason, detail)| format!("{reason} ({detail})")).collect::<Vec<_>>().join(", ")
}

impl<'a> Pod<'a> {
    fn containers(&self) -> impl Iterator<Item = &'a Value> {
        let spec = self.spec;
        ["initContainers", "containers", "ephemeralContainers"].into_iter().flat_map(|list| spec.array_at(&[list]))
    }

    /// Says nothing of Linux, where standards know the difference.
    fn is_windows(&self) -> bool {
        self.minor >= 25 && self.spec.str_at(&["os", "name"]) == Some("windows")
    }

    fn has_own_users(&self) -> bool {
        self.minor >= 35 && self.spec.bool_at(&["hostUsers"]) == Some(false)
    }
}

/// `container "a"`, `containers "a", "b"`.
fn listed(what: &str, names: &[String]) -> String {
    format!("{what}{} {}", if names.len() == 1 { "" } else { "s" }, names.join(", "))
}

/// All of them, unless there is none.
fn some(details: impl IntoIterator<Item = String>, between: &str) -> Option<String> {
    let all: Vec<String> = details.into_iter().collect();
    (!all.is_empty()).then(|| all.join(between))
}

/// The names, quoted, of the items that have something bad, and what that is, sorted.
fn offenders<'a, I: Iterator<Item = String>>(
    items: impl IntoIterator<Item = &'a Value>,
    bad: impl Fn(&'a Value) -> I,
) -> (Vec<String>, Vec<String>) {
    let mut values = BTreeSet::new();
    let names = items.into_iter().filter_map(|item| {
        let mut found = bad(item).peekable();
        let name = found.peek().map(|_| item["name"].to_string());
        values.extend(found);
        name
    });
    (names.collect(), values.into_iter().collect())
}

/// The containers that are `bad`, as a message lists them.
fn containers(pod: &Pod, bad: impl Fn(&Value) -> bool) -> Option<String> {
    let (names, _) = offenders(pod.containers(), |c| bad(c).then(String::new).into_iter());
    (!names.is_empty()).then(|| listed("container", &names))
}

/// Who sets a member of a security context to what is `bad`, and to what.
fn setters(pod: &Pod, path: &[&str], bad: impl Fn(&Value) -> bool) -> Option<(String, Vec<String>)> {
    let value =
        |owner: &Value| owner["securityContext"].at(path).filter(|v| !v.is_null() && bad(v)).map(Value::to_string);
    let own = value(pod.spec);
    let (names, mut values) = offenders(pod.containers(), |c| value(c).into_iter());
    let others = (!names.is_empty()).then(|| listed("container", &names));
    let who = some(own.as_ref().map(|_| "pod".to_string()).into_iter().chain(others), " and ")?;
    values.extend(own);
    values.sort();
    values.dedup();
    Some((who, values))
}

fn sets(pod: &Pod, path: &[&str], what: &str, bad: impl Fn(&Value) -> bool) -> Option<String> {
    setters(pod, path, bad).map(|(who, _)| format!("{who} must not set {what}"))
}

/// Who (containers, volumes) uses what.
fn used(owner: &str, what: &str, (names, values): (Vec<String>, Vec<String>)) -> Option<String> {
    let uses = if names.len() == 1 { "uses" } else { "use" };
    (!names.is_empty()).then(|| format!("{} {uses} {}", listed(owner, &names), listed(what, &values)))
}

fn is_true(value: &Value) -> bool {
    value.as_bool() == Some(true)
}

fn is_in(value: &Value, allowed: &str) -> bool {
    value.as_str().is_some_and(|text| text.is_empty() || allowed.split(' ').any(|one| one == text))
}

/// The annotations whose key starts so and whose value is not allowed, as `key="value"`.
fn annotations(pod: &Pod, prefix: &str, allowed: &str) -> Vec<String> {
    let all = pod.annotations.as_object().into_iter().flat_map(|map| map.iter());
    let is_local = |value: &Value| value.as_str().is_some_and(|v| v.starts_with("localhost/"));
    let bad = all.filter(|(key, value)| key.starts_with(prefix) && !is_local(value) && !is_in(value, allowed));
    bad.map(|(key, value)| format!("{key}={value}")).collect()
}

fn app_armor(pod: &Pod) -> Option<String> {
    let (who, values) = setters(pod, &["appArmorProfile", "type"], |ty| !is_in(ty, PROFILES)).unzip();
    let noted = annotations(pod, "container.apparmor.security.beta.kubernetes.io/", "runtime/default");
    let note = ["", "annotation", "annotations"][noted.len().min(2)];
    let who = some(who.into_iter().chain((!noted.is_empty()).then(|| note.to_string())), " and ")?;
    let values = some(values.into_iter().flatten().chain(noted), ", ")?;
    Some(format!("{who} must not set AppArmor profile type to {values}"))
}

fn added(pod: &Pod, allowed: &str) -> Option<String> {
    let (names, values) = offenders(pod.containers(), |c| {
        let all = c.array_at(&["securityContext", "capabilities", "add"]).iter();
        all.filter(|cap| !is_in(cap, allowed)).map(Value::to_string)
    });
    let who = (!names.is_empty()).then(|| listed("container", &names))?;
    Some(format!("{who} must not include {} in securityContext.capabilities.add", values.join(", ")))
}

fn kept_capabilities(pod: &Pod) -> Option<String> {
    let dropped = |c: &Value| c["securityContext"]["capabilities"].array_at(&["drop"]).contains(&"ALL".into());
    let keepers = containers(pod, |c| !dropped(c));
    let keepers = keepers.map(|who| format!("{who} must set securityContext.capabilities.drop=[\"ALL\"]"));
    some(keepers.into_iter().chain(added(pod, "NET_BIND_SERVICE")), "; ").filter(|_| !pod.is_windows())
}

fn host_namespaces(pod: &Pod) -> Option<String> {
    let shared = ["hostNetwork", "hostPID", "hostIPC"].into_iter().filter(|member| is_true(&pod.spec[*member]));
    some(shared.map(|member| format!("{member}=true")), ", ")
}

fn host_paths(pod: &Pod) -> Option<String> {
    let volumes = pod.spec.array_at(&["volumes"]);
    let (names, _) = offenders(volumes, |v| (!v["hostPath"].is_null()).then(String::new).into_iter());
    (!names.is_empty()).then(|| listed("volume", &names))
}

fn host_ports(pod: &Pod) -> Option<String> {
    let found = offenders(pod.containers(), |c| {
        let all = c.array_at(&["ports"]).iter().filter_map(|p| p.int_at(&["hostPort"]));
        all.filter(|port| *port != 0).map(|port| port.to_string())
    });
    used("container", "hostPort", found)
}

fn handler_hosts(pod: &Pod) -> Option<String> {
    let found = offenders(pod.containers(), |c| {
        let handlers = HANDLERS.iter().filter_map(|path| c.at(&path.split(' ').collect::<Vec<_>>()));
        let hosts = handlers.flat_map(|h| [&h["httpGet"]["host"], &h["tcpSocket"]["host"]]);
        hosts.filter(|host| !host.is_null() && !is_in(host, "")).map(Value::to_string)
    });
    used("container", "probe or lifecycle host", found)
}

fn proc_mount(pod: &Pod) -> Option<String> {
    let (who, values) = setters(pod, &["procMount"], |mount| !is_in(mount, "Default"))?;
    Some(format!("{who} must not set securityContext.procMount to {}", values.join(", ")))
}

fn se_linux(pod: &Pod) -> Option<String> {
    let types = if pod.minor >= 31 { "container_engine_t" } else { "" };
    let is_bad = |member: &str, value: &Value| {
        let allowed = member == "type" && is_in(value, "container_t container_init_t container_kvm_t");
        !value.is_null() && !allowed && !is_in(value, if member == "type" { types } else { "" })
    };
    let any = |options: &Value| ["type", "user", "role"].iter().any(|member| is_bad(member, &options[*member]));
    let (who, _) = setters(pod, &["seLinuxOptions"], any)?;
    let details = ["type", "user", "role"].into_iter().filter_map(|member| {
        let (_, values) = setters(pod, &["seLinuxOptions", member], |value| is_bad(member, value))?;
        Some(if member == "type" { listed("type", &values) } else { format!("{member} may not be set") })
    });
    Some(format!("{who} set forbidden securityContext.seLinuxOptions: {}", some(details, "; ")?))
}

fn seccomp_annotations(pod: &Pod) -> Option<String> {
    let allowed = "runtime/default docker/default";
    let mut bad = annotations(pod, "container.seccomp.security.alpha.kubernetes.io/", allowed);
    bad.extend(annotations(pod, "seccomp.security.alpha.kubernetes.io/pod", allowed));
    (!bad.is_empty()).then(|| format!("forbidden {}", listed("annotation", &bad)))
}

fn seccomp(pod: &Pod) -> Option<String> {
    let (who, values) = setters(pod, &["seccompProfile", "type"], |ty| !is_in(ty, PROFILES))?;
    Some(format!("{who} must not set securityContext.seccompProfile.type to {}", values.join(", ")))
}

/// Containers that leave a member to their pod, which does not set it either.
fn silent(pod: &Pod, path: &[&str]) -> Option<String> {
    let is_set = |owner: &Value| owner["securityContext"].at(path).is_some_and(|v| !v.is_null());
    if is_set(pod.spec) { None } else { containers(pod, |c| !is_set(c)) }
}

fn seccomp_required(pod: &Pod) -> Option<String> {
    let silent = || {
        let wanted = "must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"";
        silent(pod, &["seccompProfile", "type"]).map(|who| format!("pod or {who} {wanted}"))
    };
    seccomp(pod).or_else(silent).filter(|_| !pod.is_windows())
}

fn sysctls(pod: &Pod) -> Option<String> {
    let set = pod.spec.array_at(&["securityContext", "sysctls"]).iter().map(|sysctl| &sysctl["name"]);
    let is_safe = |name: &Value| SYSCTLS.iter().any(|(since, names)| *since <= pod.minor && is_in(name, names));
    some(set.filter(|name| !is_safe(name)).filter_map(|name| name.as_str().map(str::to_string)), ", ")
}

fn privilege_escalation(pod: &Pod) -> Option<String> {
    let may = |c: &Value| c.bool_at(&["securityContext", "allowPrivilegeEscalation"]) != Some(false);
    let who = containers(pod, may).filter(|_| !pod.is_windows())?;
    Some(format!("{who} must set securityContext.allowPrivilegeEscalation=false"))
}

fn volume_types(pod: &Pod) -> Option<String> {
    let found = offenders(pod.spec.array_at(&["volumes"]), |volume| {
        let members = volume.as_object().into_iter().flat_map(|map| map.iter()).filter(|(_, v)| !v.is_null());
        members
            .filter(|(member, _)| !VOLUMES.split(' ').any(|one| one == *member))
            .map(|(member, _)| format!("{member:?}"))
    });
    used("volume", "restricted volume type", found)
}

fn run_as_non_root(pod: &Pod) -> Option<String> {
    let path = &["runAsNonRoot"];
    let silent = || Some(format!("pod or {} must set securityContext.runAsNonRoot=true", silent(pod, path)?));
    let found = sets(pod, path, "securityContext.runAsNonRoot=false", |v| v.as_bool() == Some(false)).or_else(silent);
    found.filter(|_| !pod.has_own_users())
}

#[cfg(test)]
mod tests {
    use super::*;
    use meta::json;
    use meta::patch::merge_patch;

    #[test]
    fn findings() {
        let annotations = json!({
            "container.apparmor.security.beta.kubernetes.io/b": "localhost/x",
            "seccomp.security.alpha.kubernetes.io/pod": "unconfined",
            "container.seccomp.security.alpha.kubernetes.io/b": "docker/default",
        });
        let safe = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
        golden::check!("standards.txt", |case| {
            let [rules, spec_changes, changes] = case.split(" | ").collect::<Vec<_>>()[..] else { panic!("{case}") };
            let (level, minor) = rules.split_once(' ').expect("a level and a version");
            let levels =
                [("privileged", Level::Privileged), ("baseline", Level::Baseline), ("restricted", Level::Restricted)];
            let level = levels.iter().find(|(name, _)| *name == level).expect("a level").1;
            let mut container = json!({"name": "b", "securityContext": &safe});
            merge_patch(&mut container, &meta::parse(changes.as_bytes()).expect("JSON")).expect("a patch");
            let context = json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
            let mut spec =
                json!({"securityContext": context, "initContainers": [{"name": "a", "securityContext": &safe}]});
            spec.set(&["containers"], vec![container]);
            merge_patch(&mut spec, &meta::parse(spec_changes.as_bytes()).expect("JSON")).expect("a patch");
            let pod = Pod { spec: &spec, annotations: &annotations, minor: minor.parse().expect("a number") };
            check(&pod, level).iter().map(|wrong| format!("{}\n", shown(std::slice::from_ref(wrong)))).collect()
        });
    }
}
