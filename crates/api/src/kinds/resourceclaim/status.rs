//! Validation of a claim's status: what it was given, who uses it, and what drivers say of the devices.
//!
//! Compat: as in `devices`, `late` has what upstream tells after all other errors.

use super::super::devices::{self, LIST_MAX, TOLERATION, bounded};
use super::super::prelude::*;
use super::super::rules::Check;
use super::super::{csidriver, pod_spec, resourceslice};
use meta::cidr::Cidr;
use std::collections::{BTreeSet, HashSet};

const CONFIGS_MAX: usize = 64;
const USERS_MAX: usize = 256;

/// Checks a status that is to replace that of `old`.
pub(super) fn validate(new: &Value, old: &Value) -> Errors {
    let (mut errors, mut late) = (Errors::new(), Errors::new());
    let (status, at) = (&new["status"], Path::new("status"));
    let (allocation, before) = (&status["allocation"], &old["status"]["allocation"]);
    let path = at.child("allocation");
    if !before.is_null() && !allocation.is_null() && allocation != before {
        errors.push(Error::invalid(&path, Value::Null, "field cannot be modified once set"));
    } else if !allocation.is_null() {
        let known = devices::request_names(&new["spec"]["devices"]);
        validate_allocation(allocation, &known, &path, &mut errors, &mut late);
    }
    validate_users(status, &at.child("reservedFor"), &mut errors);
    validate_devices(status, &at.child("devices"), &mut errors, &mut late);
    errors.extend(late);
    errors
}

fn validate_allocation(
    allocation: &Value,
    known: &BTreeSet<String>,
    at: &Path,
    errors: &mut Errors,
    late: &mut Errors,
) {
    let (given, path) = (&allocation["devices"], at.child("devices"));
    let results = path.child("results");
    for (i, result) in bounded(&given["results"], &results, LIST_MAX, late).iter().enumerate() {
        let at = results.index(i);
        devices::validate_reference(text(result, &["request"]), known, &at.child("request"), errors);
        let name = text(result, &["device"]);
        errors.extend(names::dns1123_label(name).into_iter().map(|m| Error::invalid(&at.child("device"), name, m)));
        devices::validate_driver(text(result, &["driver"]), &at.child("driver"), late);
        let (pool, path) = (text(result, &["pool"]), at.child("pool"));
        if pool.is_empty() {
            late.push(Error::required(&path, ""));
        }
        for (i, part) in pool.split('/').enumerate().filter(|_| !pool.is_empty()) {
            let wrong = names::dns1123_subdomain(part).into_iter();
            late.extend(wrong.map(|m| Error::invalid(&path, part, format!("segment {i}: {m}"))));
        }
        for (i, toleration) in result.array_at(&["tolerations"]).iter().enumerate() {
            check_at(toleration, &at.child("tolerations").index(i), TOLERATION, late);
        }
        resourceslice::validate_conditions(result, &at, errors, late);
        if result.str_at(&["shareID"]).is_some_and(|id| !is_uuid(id)) {
            let detail = "must be a lowercase UUID in 8-4-4-4-12 format";
            late.push(Error::invalid(&at.child("shareID"), &result["shareID"], detail));
        }
        devices::validate_skipped(result, &at, errors, late);
    }
    let configs = path.child("config");
    for (i, config) in bounded(&given["config"], &configs, CONFIGS_MAX, late).iter().enumerate() {
        let at = configs.index(i);
        check_at(config, &at, &[("source", Check::RequiredOneOf(&["FromClaim", "FromClass"]))], late);
        devices::validate_references(config, known, &at.child("requests"), errors, late);
        devices::validate_config(config, &at, errors, late);
    }
    if !allocation["nodeSelector"].is_null() {
        pod_spec::validate_node_selector(&allocation["nodeSelector"], &at.child("nodeSelector"), errors);
    }
}

fn is_uuid(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12]) && parts.iter().all(|part| part.bytes().all(digit))
}

fn validate_users(status: &Value, at: &Path, errors: &mut Errors) {
    const USER: &[Rule] = &[("resource", Required("")), ("name", Required("")), ("uid", Required(""))];
    let users = status.array_at(&["reservedFor"]);
    if !users.is_empty() && status["allocation"].is_null() {
        return errors.push(Error::forbidden(at, "may not be specified when `allocated` is not set"));
    }
    let mut late = Errors::new();
    let users = bounded(&status["reservedFor"], at, USERS_MAX, &mut late);
    for (i, user) in users.iter().enumerate() {
        check_at(user, &at.index(i), USER, errors);
    }
    devices::duplicates(("ResourceClaimConsumerReference", users), at, |user| text(user, &["uid"]), errors);
    errors.extend(late);
}

/// A device of an allocation.
fn key(device: &Value) -> [&str; 4] {
    ["driver", "pool", "device", "shareID"].map(|field| text(device, &[field]))
}

fn validate_devices(status: &Value, at: &Path, errors: &mut Errors, late: &mut Errors) {
    const CONDITION: &[Rule] = &[
        ("type", AnyName(names::qualified_name)),
        ("status", AnyOneOf(&["False", "True", "Unknown"])),
        ("lastTransitionTime", Required("")),
        ("reason", Required("")),
    ];
    const NAMES: &[Rule] = &[("interfaceName", MaxBytes(256)), ("hardwareAddress", MaxBytes(128))];
    let allocated: HashSet<_> = status.array_at(&["allocation", "devices", "results"]).iter().map(key).collect();
    let mut met = HashSet::new();
    for (i, device) in status.array_at(&["devices"]).iter().enumerate() {
        let (at, [driver, pool, name, share]) = (at.index(i), key(device));
        errors.extend(csidriver::validate_lower_name(driver, &at.child("driver")));
        devices::validate_pool_name(pool, &at.child("pool"), errors);
        errors.extend(names::dns1123_label(name).into_iter().map(|m| Error::invalid(&at.child("device"), name, m)));
        if !allocated.contains(&key(device)) {
            // Compat: as Go has it in memory.
            let shown =
                format!("{{\"Driver\":{driver:?},\"Pool\":{pool:?},\"Device\":{name:?},\"ShareID\":{share:?}}}");
            errors.push(Error::invalid_raw(&at, &shown, "must be an allocated device in the claim"));
        }
        for (i, condition) in device.array_at(&["conditions"]).iter().enumerate() {
            check_at(condition, &at.child("conditions").index(i), CONDITION, errors);
        }
        if !matches!(device["data"], Value::Null | Value::Object(_)) {
            errors.push(Error::invalid(&at.child("data"), "<value omitted>", "must be a valid JSON object"));
        }
        let (network, path) = (&device["networkData"], at.child("networkData"));
        for (i, ip) in network.array_at(&["ips"]).iter().enumerate() {
            if Cidr::parse(ip.as_str().unwrap_or_default()).is_none() {
                let detail = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)";
                errors.push(Error::invalid(&path.child("ips").index(i), ip, detail));
            }
        }
        if !met.insert(key(device)) {
            late.push(devices::duplicate("AllocatedDeviceStatus", device, &at));
        }
        check_at(network, &path, NAMES, late);
    }
}
