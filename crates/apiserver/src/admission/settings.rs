//! Which plugins are on, and what the file of `--admission-control-config-file` says of them.
//!
//! Pure. Invariant: a plugin or a member that is not known is an error when the server starts, in upstream's words where
//! there are any.

use meta::Value;

use super::PLUGINS;
use super::pod_security;
use super::times::FURTHER;

/// Off unless they are asked for.
const OFF: [&str; 7] = [
    "AlwaysPullImages", "DenyServiceExternalIPs", "ExtendedResourceToleration", "LimitPodHardAntiAffinityTopology",
    "NamespaceAutoProvision", "NamespaceExists", "PodNodeSelector",
];
/// Upstream's that do nothing here: they let everything pass.
const IDLE: [&str; 1] = ["AlwaysAdmit"];
/// Upstream's that are not there.
const ABSENT: [&str; 6] = [
    "AlwaysDeny", "EventRateLimit", "ImagePolicyWebhook", "NodeRestriction", "OwnerReferencesPermissionEnforcement",
    "PodTolerationRestriction",
];

#[derive(Clone, Debug)]
pub struct Settings {
    /// A bit for every entry of the list of plugins, and of what follows it.
    on: u64,
    pub pod_security: pod_security::Settings,
    /// Members of a ResourceQuotaConfiguration: what nobody may use without a quota.
    pub limited: Vec<Value>,
}

fn names() -> impl Iterator<Item = &'static str> {
    PLUGINS.iter().map(|(name, _)| *name).chain(FURTHER.iter().map(|(name, _)| *name))
}

impl Default for Settings {
    fn default() -> Settings {
        let on = names().enumerate().filter(|(_, name)| !OFF.contains(name)).map(|(i, _)| 1 << i).sum();
        Settings { on, pod_security: pod_security::Settings::default(), limited: Vec::new() }
    }
}

impl Settings {
    pub fn is_on(&self, plugin: usize) -> bool {
        self.on & (1 << plugin) != 0
    }

    /// Turns plugins on and off, as the flags of that name say.
    pub fn switch(&mut self, enable: &[String], disable: &[String]) -> Result<(), String> {
        for (flag, given, on) in [("enable", enable, true), ("disable", disable, false)] {
            for name in given.iter().map(String::as_str) {
                if on && ABSENT.contains(&name) {
                    return Err(format!(
                        "{flag}-admission-plugins plugin {name:?} is not part of Knarr yet: leave it out"
                    ));
                }
                if !names().chain(IDLE).chain(ABSENT).any(|known| known == name) {
                    return Err(format!("{flag}-admission-plugins plugin {name:?} is unknown"));
                }
                if on && disable.iter().any(|other| other == name) {
                    let wrong = "in enable-admission-plugins and disable-admission-plugins overlapped";
                    return Err(format!("[{name}] {wrong}"));
                }
                for (i, _) in names().enumerate().filter(|(_, known)| *known == name) {
                    self.on = self.on & !(1 << i) | u64::from(on) << i;
                }
            }
        }
        Ok(())
    }

    /// Reads an AdmissionConfiguration (YAML or JSON). `read` opens what it names by `path`.
    pub fn configure(&mut self, text: &str, read: impl Fn(&str) -> Result<String, String>) -> Result<(), String> {
        let file = document(text, "apiserver.config.k8s.io/v1", "AdmissionConfiguration")?;
        only(&file, &["plugins"], "")?;
        for (i, plugin) in file.array_at(&["plugins"]).iter().enumerate() {
            only(plugin, &["configuration", "name", "path"], &format!("plugins[{i}]."))?;
            let text = match (plugin.str_at(&["path"]).unwrap_or_default(), &plugin["configuration"]) {
                ("", Value::Null) => continue,
                ("", configuration) => configuration.to_string(),
                (path, _) => read(path)?,
            };
            let name = plugin.str_at(&["name"]).unwrap_or_default();
            let found = match name {
                "PodSecurity" => pod_security::Settings::parse(&text).map(|s| self.pod_security = s),
                "ResourceQuota" => limited(&text).map(|all| self.limited = all),
                _ => Err("it takes no configuration here: take it out of the file".to_string()),
            };
            found.map_err(|why| format!("couldn't init admission plugin {name:?}: {why}"))?;
        }
        Ok(())
    }
}

/// A file that is to be of this kind.
pub fn document(text: &str, version: &str, kind: &str) -> Result<Value, String> {
    let (value, _) = crate::decode::yaml(text.as_bytes())?;
    let text = |member: &str| value.str_at(&[member]).unwrap_or_default();
    if (text("apiVersion"), text("kind")) != (version, kind) {
        let (found, of) = (text("kind"), text("apiVersion"));
        return Err(format!("no kind {found:?} is registered for version {of:?}: give {kind} of {version}"));
    }
    Ok(value)
}

/// No members but these, and `apiVersion` and `kind` of a whole document.
pub fn only(value: &Value, members: &[&str], at: &str) -> Result<(), String> {
    let mut keys = value.as_object().into_iter().flat_map(|o| o.keys());
    let known = |key: &str| members.contains(&key) || (at.is_empty() && ["apiVersion", "kind"].contains(&key));
    keys.find(|key| !known(key))
        .map_or(Ok(()), |key| Err(format!("strict decoding error: unknown field \"{at}{key}\"")))
}

fn limited(text: &str) -> Result<Vec<Value>, String> {
    let file = document(text, "apiserver.config.k8s.io/v1", "ResourceQuotaConfiguration")?;
    only(&file, &["limitedResources"], "")?;
    let all = file.array_at(&["limitedResources"]);
    for (i, one) in all.iter().enumerate() {
        only(one, &["apiGroup", "matchContains", "matchScopes", "resource"], &format!("limitedResources[{i}]."))?;
    }
    Ok(all.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches() {
        let list = |names: &str| names.split(' ').filter(|n| !n.is_empty()).map(String::from).collect::<Vec<_>>();
        for (enable, disable, want) in [
            ("PodNodeSelector AlwaysAdmit", "PodSecurity", Ok((true, false))),
            ("PodSecurity", "", Ok((false, true))),
            ("Nope", "", Err("enable-admission-plugins plugin \"Nope\" is unknown")),
            ("", "nope", Err("disable-admission-plugins plugin \"nope\" is unknown")),
            (
                "Priority",
                "Priority",
                Err("[Priority] in enable-admission-plugins and disable-admission-plugins overlapped"),
            ),
            (
                "NodeRestriction",
                "",
                Err("enable-admission-plugins plugin \"NodeRestriction\" is not part of Knarr yet: leave it out"),
            ),
        ] {
            let mut settings = Settings::default();
            let done = settings.switch(&list(enable), &list(disable));
            let is_on = |name: &str| names().position(|n| n == name).is_some_and(|i| settings.is_on(i));
            let found = done.map(|()| (is_on("PodNodeSelector"), is_on("PodSecurity")));
            assert_eq!(found, want.map_err(String::from));
        }
    }

    #[test]
    fn files() {
        let with = |plugin: &str| {
            let head = "{apiVersion: apiserver.config.k8s.io/v1, kind: AdmissionConfiguration, plugins: [{name: ";
            Settings::default().configure(&format!("{head}{plugin}}}]}}"), |path| Err(format!("no {path}"))).err()
        };
        let quota =
            "ResourceQuota, configuration: {apiVersion: apiserver.config.k8s.io/v1, kind: ResourceQuotaConfiguration";
        let pods = "PodSecurity, configuration: {apiVersion: pod-security.admission.config.k8s.io/v1, kind: PodSecurityConfiguration";
        for (plugin, want) in [
            ("Odd".to_string(), None),
            (format!("{quota}, limitedResources: [{{resource: pods}}]}}"), None),
            (
                format!("{quota}, limitedResources: [{{resurce: pods}}]}}"),
                Some(
                    "couldn't init admission plugin \"ResourceQuota\": strict decoding error: unknown field \"limitedResources[0].resurce\"",
                ),
            ),
            (
                format!("{pods}, defaults: {{enforce: basel, enforce-version: x}}}}"),
                Some(
                    "couldn't init admission plugin \"PodSecurity\": PodSecurity configuration error: [enforce: must be one of privileged, baseline, restricted, enforce-version: must be \"latest\" or \"v1.x\"]",
                ),
            ),
            ("Priority, path: x".to_string(), Some("no x")),
        ] {
            assert_eq!(with(&plugin).as_deref(), want, "{plugin}");
        }
    }
}
