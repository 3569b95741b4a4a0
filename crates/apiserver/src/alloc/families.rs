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
    use meta::json;

    #[test]
    fn what_follows_from_what() {
        golden::check!("families.txt", |case| {
            let (configured, specs) = case.split_once(' ').expect("families and a spec");
            let families: Vec<&str> = configured.chars().map(|c| if c == '4' { "IPv4" } else { "IPv6" }).collect();
            let mut services = specs.split(" < ").map(|spec| {
                let mut service = json!({});
                service.set(&["spec"], meta::parse(spec.as_bytes()).expect("JSON"));
                service
            });
            let (mut new, old) = (services.next().expect("a service"), services.next());
            let errors = settle(&mut new, old.as_ref(), &families);
            new.remove(&["spec", "selector"]);
            match errors.is_empty() {
                true => new["spec"].to_string(),
                false => errors.iter().map(|e| format!("{e}\n")).collect(),
            }
        });
    }
}
