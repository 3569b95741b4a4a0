//! The address families of a service: what follows from its policy, its addresses and the cluster's ranges.
//!
//! Changes documents; pure. Invariant: afterwards a service that wants addresses names its families and its policy, or
//! there is an error. Source: KEP-563 and the documentation of dual-stack services.

use meta::Value;
use meta::field::{Error, Errors, Path};

use crate::config::family;

const POLICY: [&str; 2] = ["spec", "ipFamilyPolicy"];
const SINGLE: &str = "SingleStack";

fn strings(service: &Value, member: &str) -> Vec<String> {
    service.array_at(&["spec", member]).iter().filter_map(Value::as_str).map(String::from).collect()
}

/// `configured` are the cluster's families, the default one first.
pub fn settle(new: &mut Value, old: Option<&Value>, configured: &[&str]) -> Errors {
    let path = Path::new("spec");
    let policy = new.str_at(&POLICY).filter(|p| !p.is_empty()).map(String::from);
    let is_single = policy.as_deref().is_none_or(|p| p == SINGLE);
    let (mut ips, mut families) = (strings(new, "clusterIPs"), strings(new, "ipFamilies"));
    let mut errors = Errors::new();
    let at_policy = path.child("ipFamilyPolicy");
    let mut mind = |wrong: bool, detail: &str| {
        if wrong {
            errors.push(Error::invalid(&at_policy, policy.as_deref().map_or(Value::Null, Value::from), detail));
        }
    };
    if let Some(old) = old {
        let (had_ips, had_families) = (strings(old, "clusterIPs"), strings(old, "ipFamilies"));
        let same = ips == had_ips && families == had_families && !families.is_empty();
        if same && policy.as_deref() == Some("PreferDualStack") && old.str_at(&POLICY) == policy.as_deref() {
            // What the cluster has become since changes nothing of a service that is left as it was.
            return errors;
        }
        for (now, had, what) in [(&mut ips, had_ips, "cluster IP"), (&mut families, had_families, "IP family")] {
            if is_single && *now == had {
                now.truncate(1);
            }
            let released = !is_single && had.len() == 2 && now.len() == 1;
            mind(released, &format!("must be 'SingleStack' to release the secondary {what}"));
        }
    }
    for (all, what) in [(&ips, "cluster IPs"), (&families, "IP families")] {
        let detail = format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified");
        mind(is_single && all.len() == 2, &detail);
    }
    for (i, ip) in ips.iter().enumerate().skip(families.len()) {
        let Ok(ip) = ip.parse() else { break };
        if !configured.contains(&family(ip)) {
            let detail = format!("{} is not configured on this cluster", family(ip));
            errors.push(Error::invalid(&path.child("clusterIPs").index(i), ips.clone(), detail));
        }
        families.push(family(ip).to_string());
    }
    if !errors.is_empty() {
        return errors;
    }
    let is_free = ips.first().is_some_and(|ip| ip == "None") && new["spec"]["selector"].is_empty();
    if !is_free {
        if policy.as_deref() == Some("RequireDualStack") && configured.len() < 2 {
            let detail = "this cluster is not configured for dual-stack services";
            errors.push(Error::invalid(&at_policy, "RequireDualStack", detail));
        }
        for (i, family) in families.iter().enumerate().filter(|(_, f)| !configured.contains(&f.as_str())) {
            let at = path.child("ipFamilies").index(i);
            errors.push(Error::invalid(&at, family.as_str(), "not configured on this cluster"));
        }
        if !errors.is_empty() {
            return errors;
        }
    }
    if families.is_empty() {
        families.extend(configured.first().map(|f| f.to_string()));
    }
    // Compat: whoever fills in the endpoints of a headless service may use both families, whatever the cluster has.
    let wants_both = if is_free { policy.as_deref() != Some(SINGLE) } else { !is_single && configured.len() == 2 };
    if wants_both && families.len() == 1 {
        families.push(if families[0] == "IPv4" { "IPv6" } else { "IPv4" }.to_string());
    }
    new.set(&["spec", "ipFamilies"], families);
    new.set(&POLICY, policy.as_deref().unwrap_or(if is_free { "RequireDualStack" } else { SINGLE }));
    if !ips.is_empty() {
        new.set(&["spec", "clusterIPs"], ips);
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use meta::json;

    #[test]
    fn what_follows_from_what() {
        let mut told = String::new();
        let both = json!({"ipFamilyPolicy": "PreferDualStack", "clusterIPs": ["10.0.0.1", "fd00::1"], "ipFamilies": ["IPv4", "IPv6"]});
        let with = |member: &str, value: Value| {
            let mut spec = both.clone();
            spec.set(&[member], value);
            spec
        };
        let one = json!({"ipFamilyPolicy": "SingleStack", "clusterIPs": ["10.0.0.1"], "ipFamilies": ["IPv4"]});
        for (spec, old, configured) in [
            (json!({}), None, "4"),
            (json!({}), None, "64"),
            (json!({"ipFamilyPolicy": "PreferDualStack"}), None, "4"),
            (json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"]}), None, "46"),
            (json!({"ipFamilyPolicy": "RequireDualStack"}), None, "4"),
            (json!({"ipFamilies": ["IPv6"]}), None, "4"),
            (json!({"ipFamilies": ["IPv4", "IPv6"]}), None, "46"),
            (json!({"clusterIPs": ["fd00::1"]}), None, "4"),
            (json!({"clusterIPs": ["None"], "ipFamilyPolicy": "PreferDualStack", "selector": {"a": "b"}}), None, "46"),
            (json!({"clusterIPs": ["None"]}), None, "4"),
            (
                json!({"ipFamilyPolicy": "PreferDualStack", "clusterIPs": ["10.0.0.1"], "ipFamilies": ["IPv4"]}),
                Some(one),
                "46",
            ),
            (both.clone(), Some(both.clone()), "4"),
            (with("ipFamilyPolicy", "SingleStack".into()), Some(both.clone()), "46"),
            (with("clusterIPs", json!(["10.0.0.1"])), Some(both.clone()), "46"),
        ] {
            let families: Vec<&str> = configured.chars().map(|c| if c == '4' { "IPv4" } else { "IPv6" }).collect();
            let mut new = json!({"spec": spec});
            let errors = settle(&mut new, old.map(|spec| json!({"spec": spec})).as_ref(), &families);
            let said: Vec<String> = errors.iter().map(ToString::to_string).collect();
            new.remove(&["spec", "selector"]);
            let result = if said.is_empty() { new["spec"].to_string() } else { said.join("; ") };
            told += &format!("{configured} {result}\n");
        }
        expect![[r#"
            4 {"ipFamilies":["IPv4"],"ipFamilyPolicy":"SingleStack"}
            64 {"ipFamilies":["IPv6"],"ipFamilyPolicy":"SingleStack"}
            4 {"ipFamilies":["IPv4"],"ipFamilyPolicy":"PreferDualStack"}
            46 {"ipFamilies":["IPv6","IPv4"],"ipFamilyPolicy":"RequireDualStack"}
            4 spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services
            4 spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster
            46 spec.ipFamilyPolicy: Invalid value: null: must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified
            4 spec.clusterIPs[0]: Invalid value: ["fd00::1"]: IPv6 is not configured on this cluster
            46 {"clusterIPs":["None"],"ipFamilies":["IPv4","IPv6"],"ipFamilyPolicy":"PreferDualStack"}
            4 {"clusterIPs":["None"],"ipFamilies":["IPv4","IPv6"],"ipFamilyPolicy":"RequireDualStack"}
            46 {"clusterIPs":["10.0.0.1"],"ipFamilies":["IPv4","IPv6"],"ipFamilyPolicy":"PreferDualStack"}
            4 {"clusterIPs":["10.0.0.1","fd00::1"],"ipFamilies":["IPv4","IPv6"],"ipFamilyPolicy":"PreferDualStack"}
            46 {"clusterIPs":["10.0.0.1"],"ipFamilies":["IPv4"],"ipFamilyPolicy":"SingleStack"}
            46 spec.ipFamilyPolicy: Invalid value: "PreferDualStack": must be 'SingleStack' to release the secondary cluster IP
        "#]].assert_eq(&told);
    }
}
