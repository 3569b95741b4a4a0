//! Validation of security contexts, of a pod and of its containers, and of what an operating system rules out.

use std::collections::HashSet;

use meta::field::{Error, Errors, Path};
use meta::{Value, names};

use super::volume::validate_descending;
use crate::kinds::rules::{Check, Rule, check_at};

const POD_FIRST: &[Rule] = &[("fsGroup", ID), ("runAsUser", ID), ("runAsGroup", ID), ("supplementalGroups[]", ID)];
const POD_CHANGE_POLICY: &[Rule] = &[("fsGroupChangePolicy", Check::GivenOneOf(&["Always", "OnRootMismatch"]))];
const POD_LAST: &[Rule] = &[
    ("supplementalGroupsPolicy", Check::GivenOneOf(&["Merge", "Strict"])),
    ("seLinuxChangePolicy", Check::GivenOneOf(&["MountOption", "Recursive"])),
];
const CONTAINER_FIRST: &[Rule] = &[("runAsUser", ID), ("runAsGroup", ID)];
pub(super) const ID: Check = Check::Range(0, i32::MAX as i64);

/// Checks `spec.securityContext`.
pub(super) fn validate_pod_context(spec: &Value, spec_at: &Path, errors: &mut Errors) {
    let (context, path) = (&spec["securityContext"], &spec_at.child("securityContext"));
    check_at(context, path, POD_FIRST, errors);
    validate_sysctls(spec, &path.child("sysctls"), errors);
    check_at(context, path, POD_CHANGE_POLICY, errors);
    validate_seccomp(&context["seccompProfile"], &path.child("seccompProfile"), errors);
    validate_windows(&context["windowsOptions"], &path.child("windowsOptions"), errors);
    validate_app_armor(&context["appArmorProfile"], &path.child("appArmorProfile"), errors);
    check_at(context, path, POD_LAST, errors);
    if spec.bool_at(&["shareProcessNamespace"]) == Some(true) && spec.bool_at(&["hostPID"]) == Some(true) {
        let at = spec_at.child("shareProcessNamespace");
        errors.push(Error::invalid(&at, true, "ShareProcessNamespace and HostPID cannot both be enabled"));
    }
}

/// Checks the security context of a container.
pub(super) fn validate_context(context: &Value, path: &Path, host_users: bool, errors: &mut Errors) {
    check_at(context, path, CONTAINER_FIRST, errors);
    if let Some(mount) = context.str_at(&["procMount"]) {
        let at = path.child("procMount");
        if !["Default", "Unmasked"].contains(&mount) {
            errors.push(Error::not_supported(&at, mount, &["Default", "Unmasked"]));
        } else if mount == "Unmasked" && host_users {
            errors.push(Error::invalid(&at, mount, "`hostUsers` must be false to use `Unmasked`"));
        }
    }
    validate_seccomp(&context["seccompProfile"], &path.child("seccompProfile"), errors);
    if context.bool_at(&["allowPrivilegeEscalation"]) == Some(false) {
        if context.bool_at(&["privileged"]) == Some(true) {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.push(Error::invalid(path, context, detail));
        }
        let added = context.array_at(&["capabilities", "add"]);
        if added.iter().any(|c| c.as_str() == Some("CAP_SYS_ADMIN")) {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.push(Error::invalid(path, context, detail));
        }
    }
    validate_windows(&context["windowsOptions"], &path.child("windowsOptions"), errors);
    validate_app_armor(&context["appArmorProfile"], &path.child("appArmorProfile"), errors);
}

const PROFILES: &[&str] = &["Localhost", "RuntimeDefault", "Unconfined"];

/// The type of a profile, once it has been checked.
fn profile_type<'a>(profile: &'a Value, at: &Path, errors: &mut Errors) -> &'a str {
    let ty = profile.str_at(&["type"]).unwrap_or_default();
    if ty.is_empty() {
        let what = at.to_string();
        let what = what.rsplit('.').next().unwrap_or_default();
        errors.push(Error::required(&at.child("type"), format!("type is required when {what} is set")));
    } else if !PROFILES.contains(&ty) {
        errors.push(Error::not_supported(&at.child("type"), ty, PROFILES));
    }
    ty
}

fn validate_seccomp(profile: &Value, at: &Path, errors: &mut Errors) {
    if profile.is_null() {
        return;
    }
    let ty = profile_type(profile, at, errors);
    let at = at.child("localhostProfile");
    match profile.str_at(&["localhostProfile"]) {
        None if ty == "Localhost" => {
            errors.push(Error::required(&at, "must be set when seccomp type is Localhost"));
        }
        Some(local) if ty == "Localhost" => validate_descending(local, &at, errors),
        Some(local) => {
            let shown = format!("{{\"Type\":{},\"LocalhostProfile\":{}}}", Value::from(ty), Value::from(local));
            errors.push(Error::invalid_raw(&at, &shown, "can only be set when seccomp type is Localhost"));
        }
        None => {}
    }
}

const PROFILE_MAX_BYTES: usize = 4095;

fn validate_app_armor(profile: &Value, at: &Path, errors: &mut Errors) {
    if profile.is_null() {
        return;
    }
    let ty = profile_type(profile, at, errors);
    let at = at.child("localhostProfile");
    match profile.str_at(&["localhostProfile"]) {
        None | Some("") if ty == "Localhost" => {
            errors.push(Error::required(&at, "must be set when AppArmor type is Localhost"));
        }
        Some(local) if ty == "Localhost" => {
            if local.trim() != local {
                errors.push(Error::invalid(&at, local, "must not be padded with whitespace"));
            }
            if local.len() > PROFILE_MAX_BYTES {
                errors.push(Error::too_long(&at, PROFILE_MAX_BYTES));
            }
        }
        Some(local) if PROFILES.contains(&ty) => {
            errors.push(Error::invalid(&at, local, "can only be set when AppArmor type is Localhost"));
        }
        _ => {}
    }
}

const CREDENTIAL_SPEC_MAX_BYTES: usize = 64 * 1024;

fn validate_windows(options: &Value, at: &Path, errors: &mut Errors) {
    if let Some(name) = options.str_at(&["gmsaCredentialSpecName"]) {
        let at = at.child("gmsaCredentialSpecName");
        errors.extend(names::dns1123_subdomain(name).into_iter().map(|m| Error::invalid(&at, name, m)));
    }
    if let Some(spec) = options.str_at(&["gmsaCredentialSpec"]) {
        let at = at.child("gmsaCredentialSpec");
        if spec.is_empty() {
            errors.push(Error::invalid(&at, spec, "gmsaCredentialSpec cannot be an empty string"));
        } else if spec.len() > CREDENTIAL_SPEC_MAX_BYTES {
            errors.push(Error::invalid(&at, spec, "gmsaCredentialSpec size must be under 64 KiB"));
        }
    }
    if let Some(user) = options.str_at(&["runAsUserName"]) {
        let wrong = windows_user(user).into_iter();
        errors.extend(wrong.map(|m| Error::invalid(&at.child("runAsUserName"), user, format!("runAsUserName{m}"))));
    }
}

const USER_MAX_CHARS: usize = 104;
const DOMAIN_MAX_CHARS: usize = 256;

/// A user of Windows: `DOMAIN\USER`, the domain may be left out.
fn windows_user(name: &str) -> Vec<&'static str> {
    if name.is_empty() {
        return vec![" cannot be an empty string"];
    }
    if name.chars().any(char::is_control) {
        return vec![" cannot contain control characters"];
    }
    let parts: Vec<&str> = name.split('\\').collect();
    let (domain, user) = match parts[..] {
        [user] => (None, user),
        [domain, user] => (Some(domain), user),
        _ => return vec![" cannot contain more than one backslash"],
    };
    let mut wrong = Vec::new();
    if let Some(domain) = domain {
        if domain.chars().count() >= DOMAIN_MAX_CHARS {
            wrong.push("'s Domain length must be under 256 characters");
        }
        let netbios =
            (1..=15).contains(&domain.len()) && !domain.contains(['\\', '/', ':', '*', '?', '"', '<', '>', '|']);
        let dns =
            !domain.is_empty() && domain.len() <= 255 && names::dns1123_subdomain(&domain.to_lowercase()).is_empty();
        if !netbios && !dns {
            wrong.push("'s Domain doesn't match the NetBios nor the DNS format");
        }
    }
    if user.is_empty() {
        wrong.push("'s User cannot be empty");
    } else if user.chars().count() > USER_MAX_CHARS {
        wrong.push("'s User length must not be longer than 104 characters");
    }
    if !user.is_empty() && user.chars().all(|c| c == '.' || c == ' ') {
        wrong.push("'s User cannot contain only periods or spaces");
    }
    if user.contains(['"', '/', '\\', ':', ';', '|', '=', ',', '+', '*', '?', '<', '>', '@', '[', ']']) {
        wrong.push("'s User cannot contain the following characters: \"/\\:;|=,+*?<>@[]");
    }
    wrong
}

const SYSCTL_MAX: usize = 253;

fn validate_sysctls(spec: &Value, path: &Path, errors: &mut Errors) {
    let sysctls = spec.array_at(&["securityContext", "sysctls"]);
    let mut known = HashSet::new();
    let shares = |field: &str| spec.bool_at(&[field]) == Some(true);
    let (host_ipc, host_network) = (shares("hostIPC"), shares("hostNetwork"));
    for (i, sysctl) in sysctls.iter().enumerate() {
        let at = path.index(i).child("name");
        let name = sysctl.str_at(&["name"]).unwrap_or_default();
        if name.is_empty() {
            errors.push(Error::required(&at, ""));
        } else if name.len() > SYSCTL_MAX || !name.split(['.', '/']).all(is_sysctl_segment) {
            let detail = format!(
                "must have at most {SYSCTL_MAX} characters and match regex \
                 ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"
            );
            errors.push(Error::invalid(&at, name, detail));
        } else if !known.insert(name) {
            errors.push(Error::duplicate(&at, name));
        }
        let plain = name.replace('/', ".");
        let of_ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|prefix| plain.starts_with(prefix));
        if host_ipc && (of_ipc || plain == "kernel.sem") {
            errors.push(Error::invalid(&at, name, "may not be specified when 'hostIPC' is true"));
        }
        if host_network && plain.starts_with("net.") {
            errors.push(Error::invalid(&at, name, "may not be specified when 'hostNetwork' is true"));
        }
    }
}

fn is_sysctl_segment(segment: &str) -> bool {
    let plain = |c: &u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = segment.as_bytes();
    bytes.first().is_some_and(plain)
        && bytes.last().is_some_and(plain)
        && bytes.iter().all(|c| plain(c) || matches!(c, b'-' | b'_'))
}

/// Checks that a pod with processes of a Windows host has nothing else, and the host's network.
pub(super) fn validate_host_process(spec: &Value, path: &Path, errors: &mut Errors) {
    const FIELD: [&str; 3] = ["securityContext", "windowsOptions", "hostProcess"];
    let of_pod = spec.bool_at(&FIELD);
    let (mut any, mut all) = (false, true);
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for (i, container) in spec.array_at(&[list]).iter().enumerate() {
            let own = container.bool_at(&FIELD);
            if let (Some(own), Some(pods)) = (own, of_pod)
                && own != pods
            {
                let at = FIELD.iter().fold(path.child(list).index(i), |at, name| at.child(name));
                let detail = format!("pod hostProcess value must be identical if both are specified, was {pods}");
                errors.push(Error::invalid(&at, own, detail));
            }
            let is = own.or(of_pod) == Some(true);
            (any, all) = (any || is, all && is);
        }
    }
    if any && !all {
        let detail = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        errors.push(Error::invalid(path, "", detail));
    }
    if any && spec.bool_at(&["hostNetwork"]) != Some(true) {
        let detail = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.push(Error::invalid(&path.child("hostNetwork"), false, detail));
    }
}

/// What a Windows pod may not have, of the pod and of each container's security context.
const NOT_ON_WINDOWS: &[&str] = &[
    "securityContext.appArmorProfile", "securityContext.seLinuxOptions", "securityContext.seccompProfile",
    "securityContext.fsGroup", "securityContext.fsGroupChangePolicy", "securityContext.sysctls",
    "securityContext.runAsUser", "securityContext.runAsGroup", "securityContext.supplementalGroups",
    "securityContext.supplementalGroupsPolicy", "securityContext.seLinuxChangePolicy", "hostUsers", "hostPID",
    "hostIPC", "shareProcessNamespace",
];
const NOT_IN_WINDOWS_CONTAINERS: &[&str] = &[
    "appArmorProfile", "seLinuxOptions", "seccompProfile", "capabilities", "readOnlyRootFilesystem", "privileged",
    "allowPrivilegeEscalation", "procMount", "runAsUser", "runAsGroup",
];

/// Checks `spec.os`, and that nothing is asked for that this system has not.
pub(super) fn validate_os(spec: &Value, path: &Path, errors: &mut Errors) {
    let contexts = || {
        let lists = ["containers", "initContainers", "ephemeralContainers"].into_iter();
        lists.flat_map(|list| {
            let items = spec.array_at(&[list]).iter().enumerate();
            items.map(move |(i, c)| (&c["securityContext"], path.child(list).index(i).child("securityContext")))
        })
    };
    match spec.str_at(&["os", "name"]).unwrap_or_default() {
        _ if spec["os"].is_null() => {}
        "" => errors.push(Error::required(&path.child("os.name"), "")),
        "linux" => {
            let pod = (&spec["securityContext"], path.child("securityContext"));
            for (_, at) in std::iter::once(pod).chain(contexts()).filter(|(c, _)| !c["windowsOptions"].is_null()) {
                let detail = "windows options cannot be set for a linux pod";
                errors.push(Error::forbidden(&at.child("windowsOptions"), detail));
            }
        }
        "windows" => {
            let mut forbid = |at: Path| errors.push(Error::forbidden(&at, "cannot be set for a windows pod"));
            let given = |field: &str| {
                let value = crate::kinds::rules::at(spec, field);
                // False is as good as not given, but for a pointer to it.
                !value.is_null()
                    && (value.as_bool() != Some(false) || matches!(field, "hostUsers" | "shareProcessNamespace"))
            };
            NOT_ON_WINDOWS.iter().filter(|f| given(f)).for_each(|f| forbid(path.child(f)));
            for (context, at) in contexts() {
                NOT_IN_WINDOWS_CONTAINERS.iter().filter(|f| !context[**f].is_null()).for_each(|f| forbid(at.child(f)));
            }
        }
        name => errors.push(Error::not_supported(&path.child("os"), name, &["linux", "windows"])),
    }
}

/// With users of its own a pod can't share what is the host's.
pub(super) fn validate_host_users(spec: &Value, path: &Path, errors: &mut Errors) {
    if spec.bool_at(&["hostUsers"]) != Some(false) {
        return;
    }
    let mut forbid = |at: Path| errors.push(Error::forbidden(&at, "when `hostUsers` is false"));
    for (field, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if spec.bool_at(&[field]) == Some(true) {
            forbid(path.child(shown));
        }
    }
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for (i, container) in spec.array_at(&[list]).iter().enumerate() {
            if !container.array_at(&["volumeDevices"]).is_empty() {
                forbid(path.child(list).index(i).child("volumeDevices"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meta::json;

    #[test]
    fn sysctls() {
        let wrong = "must have at most 253 characters and match regex \
                     ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
        let names = ["kernel.shmmax", "net/ipv4.conf.eth0-1", "foo-", "", "kernel.shmmax", "bar.."];
        let sysctls: Vec<Value> = names.iter().map(|name| json!({"name": (*name), "value": "1"})).collect();
        let mut errors = Vec::new();
        let spec = json!({"securityContext": {"sysctls": (Value::Array(sysctls))}});
        validate_sysctls(&spec, &Path::new("spec.securityContext.sysctls"), &mut errors);
        let said: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let want = [
            format!("spec.securityContext.sysctls[2].name: Invalid value: \"foo-\": {wrong}"),
            "spec.securityContext.sysctls[3].name: Required value".to_string(),
            "spec.securityContext.sysctls[4].name: Duplicate value: \"kernel.shmmax\"".to_string(),
            format!("spec.securityContext.sysctls[5].name: Invalid value: \"bar..\": {wrong}"),
        ];
        assert_eq!(said, want);
    }
}
