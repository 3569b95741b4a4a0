//! PodSecurity: holds pods to the standards that the labels of their namespace name.
//!
//! Reads: namespaces; the pods of one whose labels become stricter. Refuses pods; warns of pods, of workloads' templates and of
//! pods that are there already. Source: KEP-2579, the page "Pod Security Admission". Invariant: labels that say nothing
//! allow everything, labels that cannot be read are enforced as the strictest standard.

mod standards;

use std::collections::BTreeMap;
use std::fmt;

use meta::field::{Error, Errors, Path};
use meta::{Status, Value};

use super::settings::{document, only};
use super::{Operation, Review};
use crate::object::Object;
use standards::{LATEST, Level, Pod, check, shown};

const PREFIX: &str = "pod-security.kubernetes.io/";
const LEVELS: [(&str, Level); 3] =
    [("privileged", Level::Privileged), ("baseline", Level::Baseline), ("restricted", Level::Restricted)];
/// Annotations of audit events.
const ENFORCED: &str = "pod-security.kubernetes.io/enforce-policy";
const EXEMPT: &str = "pod-security.kubernetes.io/exempt";
const VIOLATIONS: &str = "pod-security.kubernetes.io/audit-violations";
/// Pods that are looked at when a namespace becomes stricter.
const MAX_PODS: usize = 3000;
/// Subresources of pods that do not change what a standard looks at.
const HARMLESS: [&str; 8] = ["exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"];

/// Where workloads have the template of their pods.
const TEMPLATES: [(&str, &[&str], &[&str]); 5] = [
    ("", &["replicationcontrollers"], &["spec", "template"]),
    ("", &["podtemplates"], &["template"]),
    ("apps", &["replicasets", "deployments", "statefulsets", "daemonsets"], &["spec", "template"]),
    ("batch", &["jobs"], &["spec", "template"]),
    ("batch", &["cronjobs"], &["spec", "jobTemplate", "spec", "template"]),
];

#[derive(Clone, Copy, Debug, PartialEq)]
struct Standard {
    level: Level,
    minor: u32,
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, _) = LEVELS[self.level as usize];
        match self.minor {
            LATEST => write!(f, "{name}:latest"),
            minor => write!(f, "{name}:v1.{minor}"),
        }
    }
}

/// What namespaces without labels get, and who is let through.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Enforced, audited, warned of.
    defaults: [Standard; 3],
    /// Namespaces, users, runtime classes.
    exempt: [Vec<String>; 3],
}

const MODES: [&str; 3] = ["enforce", "audit", "warn"];

impl Default for Settings {
    fn default() -> Settings {
        Settings { defaults: [Standard { level: Level::Privileged, minor: LATEST }; 3], exempt: Default::default() }
    }
}

impl Settings {
    /// Reads a PodSecurityConfiguration (YAML or JSON).
    pub fn parse(text: &str) -> Result<Settings, String> {
        let file = document(text, "pod-security.admission.config.k8s.io/v1", "PodSecurityConfiguration")?;
        only(&file, &["defaults", "exemptions"], "")?;
        let modes = ["audit", "audit-version", "enforce", "enforce-version", "warn", "warn-version"];
        only(&file["defaults"], &modes, "defaults.")?;
        let who = ["namespaces", "usernames", "runtimeClasses"];
        only(&file["exemptions"], &who, "exemptions.")?;
        let said = |key: &str| {
            let key = key.strip_prefix(PREFIX)?;
            let otherwise = if key.ends_with("-version") { "latest" } else { "privileged" };
            Some(file["defaults"][key].as_str().filter(|said| !said.is_empty()).unwrap_or(otherwise))
        };
        let (defaults, wrong) = policy(&Settings::default().defaults, said);
        if wrong.is_empty() {
            let list = |who| file.array_at(&["exemptions", who]).iter().filter_map(Value::as_str);
            return Ok(Settings { defaults, exempt: who.map(|who| list(who).map(String::from).collect()) });
        }
        let lines = wrong.iter().map(|error| {
            let (text, key) = (error.to_string(), error.field.rsplit(PREFIX).next().unwrap_or_default());
            format!("{}: {}", key.trim_end_matches(']'), text.rsplit(": ").next().unwrap_or_default())
        });
        Err(format!("PodSecurity configuration error: [{}]", lines.collect::<Vec<_>>().join(", ")))
    }

    /// Why a pod is let through whatever its namespace says.
    fn exempts(&self, review: &Review<'_>, pod: &Value) -> Option<&'static str> {
        let class = pod.str_at(&["spec", "runtimeClassName"]).unwrap_or_default();
        let asked = [("namespace", &*review.namespace), ("user", &review.call.user.name), ("runtimeClass", class)];
        asked
            .iter()
            .zip(&self.exempt)
            .find(|((_, name), list)| list.iter().any(|l| l == name))
            .map(|((why, _), _)| *why)
    }
}

/// What is enforced, what is audited, what is warned of, and what is wrong with the labels.
fn policy<'a>(defaults: &[Standard; 3], label: impl Fn(&str) -> Option<&'a str>) -> ([Standard; 3], Errors) {
    let mut errors = Errors::new();
    let mut mode = |index: usize, otherwise: Level| {
        let (mode, default) = (MODES[index], defaults[index]);
        let mut read = |suffix: &str, read: &dyn Fn(&str) -> Option<u32>, wanted: &str| {
            let key = format!("{PREFIX}{mode}{suffix}");
            let text = label(&key)?;
            let value = read(text);
            if value.is_none() {
                errors.push(Error::invalid(&Path::new("metadata").child("labels").key(&key), text, wanted));
            }
            Some(value)
        };
        let index = |text: &str| LEVELS.iter().position(|(name, _)| *name == text).map(|index| index as u32);
        let level = read("", &index, "must be one of privileged, baseline, restricted");
        let minor = read("-version", &version, "must be \"latest\" or \"v1.x\"")
            .map_or(default.minor, |minor| minor.unwrap_or(LATEST));
        let read = level.map(|index| index.map(|index| LEVELS[index as usize].1));
        (read, Standard { level: read.map_or(default.level, |level| level.unwrap_or(otherwise)), minor })
    };
    let (said, enforce) = mode(0, Level::Restricted);
    let (_, audit) = mode(1, Level::Privileged);
    let (own, warn) = mode(2, Level::Privileged);
    let follows = own.is_none() && said.flatten().is_some() && enforce.level > warn.level;
    ([enforce, audit, if follows { enforce } else { warn }], errors)
}

fn version(text: &str) -> Option<u32> {
    if text == "latest" {
        return Some(LATEST);
    }
    let digits = text.strip_prefix("v1.")?;
    let plain = digits == "0" || (!digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit()));
    digits.parse().ok().filter(|_| plain).map(|minor: u32| minor.min(LATEST - 1))
}

fn of_document(review: &Review<'_>, namespace: &Value) -> ([Standard; 3], Errors) {
    policy(&review.shared.config.admission.pod_security.defaults, |key| namespace["metadata"]["labels"][key].as_str())
}

pub fn validate(review: &Review<'_>, new: Option<&Value>, old: Option<&Value>) -> Result<(), Status> {
    let Some(new) = new else { return Ok(()) };
    if review.is("", "pods") {
        if HARMLESS.contains(&review.subresource) || old.is_some_and(|old| seen(old) == seen(new)) {
            return Ok(());
        }
        let namespace = review.shared.peek("", "namespaces", "", &review.namespace);
        let namespace =
            namespace.ok_or_else(|| Status::internal(format!("failed to lookup namespace {:?}", review.namespace)))?;
        return pod(review, &namespace, new, true);
    }
    if !review.subresource.is_empty() {
        return Ok(());
    }
    if review.is("", "namespaces") {
        return namespace(review, new, old);
    }
    let path =
        TEMPLATES.iter().find(|(group, all, _)| all.iter().any(|one| review.is(group, one))).map(|(.., path)| path);
    let template = path.and_then(|path| new.at(path)).filter(|template| !template.is_null());
    let namespace = template.and_then(|_| review.shared.peek("", "namespaces", "", &review.namespace));
    match (template, namespace) {
        (Some(template), Some(namespace)) => pod(review, &namespace, template, false),
        _ => Ok(()),
    }
}

/// What an update of a pod may change that a standard looks at.
fn seen(pod: &Value) -> (Vec<[&Value; 2]>, Vec<(&str, &Value)>) {
    let lists = ["initContainers", "containers", "ephemeralContainers"].iter().flat_map(|l| pod.array_at(&["spec", l]));
    let annotations = pod["metadata"]["annotations"].as_object().into_iter().flat_map(|map| map.iter());
    let profile = |key: &str| key.contains("seccomp.security.alpha.") || key.contains("apparmor.security.beta.");
    (lists.map(|c| [&c["name"], &c["image"]]).collect(), annotations.filter(|(key, _)| profile(key)).collect())
}

fn find(pod: &Value, standard: Standard) -> Vec<standards::Wrong> {
    let pod = Pod { spec: &pod["spec"], annotations: &pod["metadata"]["annotations"], minor: standard.minor };
    check(&pod, standard.level)
}

/// A pod, or the template of one.
fn pod(review: &Review<'_>, namespace: &Object, pod: &Value, enforced: bool) -> Result<(), Status> {
    let (call, settings) = (review.call, &review.shared.config.admission.pod_security);
    if let Some(why) = settings.exempts(review, pod) {
        call.annotate(EXEMPT, why);
        return Ok(());
    }
    let [enforce, audit, warn] = match namespace.labels.iter().any(|(key, _)| key.starts_with(PREFIX)) {
        true => policy(&settings.defaults, |key| namespace.label(key)).0,
        false => settings.defaults,
    };
    let wrong = if enforced { find(pod, enforce) } else { Vec::new() };
    if enforced {
        call.annotate(ENFORCED, enforce.to_string());
    }
    let would = |standard, wrong: &[_]| format!("would violate PodSecurity \"{standard}\": {}", shown(wrong));
    let audited = find(pod, audit);
    if !audited.is_empty() {
        call.annotate(VIOLATIONS, would(audit, &audited));
    }
    if !wrong.is_empty() {
        return Err(review.forbidden(format!("violates PodSecurity \"{enforce}\": {}", shown(&wrong))));
    }
    let wrong = find(pod, warn);
    if !wrong.is_empty() {
        call.warn(would(warn, &wrong));
    }
    Ok(())
}

fn namespace(review: &Review<'_>, new: &Value, old: Option<&Value>) -> Result<(), Status> {
    let ([to, ..], wrong) = of_document(review, new);
    let before = old.map(|old| of_document(review, old));
    if !wrong.is_empty() && before.as_ref().is_none_or(|(_, before)| *before != wrong) {
        return Err(Status::invalid(&review.served.gk, &review.name, &wrong));
    }
    let exempt = review.shared.config.admission.pod_security.exempt[0].contains(&review.name);
    let stricter = before.is_some_and(|([from, ..], _)| from.minor != to.minor || from.level < to.level);
    if exempt && (stricter || old.is_none()) {
        warn_of_exemption(review, new);
    } else if stricter && to.level != Level::Privileged && review.operation == Operation::Update {
        warn_of_existing(review, to);
    }
    Ok(())
}

/// Says that the labels do nothing.
fn warn_of_exemption(review: &Review<'_>, new: &Value) {
    let labels = new["metadata"]["labels"].as_object();
    let has =
        |mode: &str| labels.is_some_and(|l| l.keys().any(|key| key.strip_prefix(PREFIX).is_some_and(|k| k == mode)));
    let (found, _) = of_document(review, new);
    let said = MODES.iter().zip(found).filter(|(mode, _)| has(mode) || has(&format!("{mode}-version")));
    let said: Vec<String> = said.map(|(mode, standard)| format!("{mode}={standard}")).collect();
    if !said.is_empty() {
        let (name, policy) = (&review.name, said.join(", "));
        let text = format!("namespace {name:?} is exempt from Pod Security, and the policy ({policy}) will be ignored");
        review.call.warn(text);
    }
}

fn warn_of_existing(review: &Review<'_>, to: Standard) {
    let Some(pods) = review.shared.registry.stored("", "pods") else { return };
    let found = pods.cache.snapshot(&pods.key(&review.name, ""), "", MAX_PODS, true, |_| true);
    let mut wrong: BTreeMap<String, (&str, usize)> = BTreeMap::new();
    for pod in &found.objects {
        let reasons: Vec<&str> = find(&pod.document_without_owners(), to).iter().map(|(reason, _)| *reason).collect();
        if !reasons.is_empty() {
            wrong.entry(reasons.join(", ")).or_insert((&pod.name, 0)).1 += 1;
        }
    }
    let (checked, rest) = (found.objects.len(), found.remaining);
    if rest > 0 {
        let all = checked + rest;
        let text =
            format!("new PodSecurity enforce level only checked against the first {checked} of {all} existing pods");
        review.call.warn(text);
    }
    if wrong.is_empty() {
        return;
    }
    let name = &review.name;
    review.call.warn(format!("existing pods in namespace {name:?} violate the new PodSecurity enforce level \"{to}\""));
    let lines = wrong.iter().map(|(reasons, (first, count))| match count {
        1 => format!("{first}: {reasons}"),
        2 => format!("{first} (and 1 other pod): {reasons}"),
        _ => format!("{first} (and {} other pods): {reasons}", count - 1),
    });
    let mut lines: Vec<String> = lines.collect();
    lines.sort();
    lines.into_iter().for_each(|line| review.call.warn(line));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels() {
        golden::check!("pod_security.txt", |labels| {
            let pairs: Vec<_> = labels.split_whitespace().filter_map(|pair| pair.split_once('=')).collect();
            let label = |key: &str| pairs.iter().find(|(mode, _)| key == format!("{PREFIX}{mode}")).map(|(_, v)| *v);
            let ([enforce, _, warn], errors) = policy(&Settings::default().defaults, label);
            errors.iter().fold(format!("{enforce} {warn}\n"), |told, e| format!("{told}{e}\n"))
        });
    }
}
