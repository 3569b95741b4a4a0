//! Fields of a pod as text, for `fieldRef` in variables and in downwardAPI volumes. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;

use super::{EnvError, Inputs};

/// The value of a `fieldRef` in an environment variable.
pub fn env_value(inputs: &Inputs<'_>, path: &str) -> Result<String, EnvError> {
    let spec = inputs.pod.spec.as_ref();
    let first = |addresses: &[String]| addresses.first().cloned().unwrap_or_default();
    Ok(match path {
        "spec.nodeName" => spec.and_then(|spec| spec.node_name.clone()).unwrap_or_default(),
        "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_default(),
        "status.hostIP" => first(inputs.host_ips),
        "status.hostIPs" => inputs.host_ips.join(","),
        "status.podIP" => first(inputs.pod_ips),
        "status.podIPs" => inputs.pod_ips.join(","),
        _ => metadata(inputs.pod, path)?,
    })
}

/// The value of a `fieldRef` in a volume: metadata only.
pub fn metadata(pod: &Pod, path: &str) -> Result<String, EnvError> {
    let meta = &pod.metadata;
    let unsupported = || EnvError::FieldPath(path.to_owned());
    if let Some((field, key)) = subscript(path) {
        let map = match field {
            "metadata.annotations" => &meta.annotations,
            "metadata.labels" => &meta.labels,
            _ => return Err(unsupported()),
        };
        return Ok(map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.annotations" => format_map(meta.annotations.as_ref()),
        "metadata.labels" => format_map(meta.labels.as_ref()),
        "metadata.name" => meta.name.clone().unwrap_or_default(),
        "metadata.namespace" => meta.namespace.clone().unwrap_or_default(),
        "metadata.uid" => meta.uid.clone().unwrap_or_default(),
        _ => return Err(unsupported()),
    })
}

// metadata.labels['key'] -> (metadata.labels, key)
fn subscript(path: &str) -> Option<(&str, &str)> {
    path.strip_suffix("']")?.split_once("['")
}

// One `key="value"` a line, sorted, with the escapes of a Go string.
fn format_map(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map.into_iter().flatten().map(|(key, value)| format!("{key}={}", quote(value))).collect();
    lines.join("\n")
}

/// A double-quoted string with Go's escapes (`%q`).
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c if c.is_control() || (c.is_whitespace() && c != ' ') || ('\u{e000}'..='\u{f8ff}').contains(&c) => {
                out.push_str(&format!("\\u{:04x}", c as u32));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
