//! NetworkPolicy.

use super::prelude::*;
use meta::cidr::Cidr;
use meta::selector::LabelSelector;

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Pod-Selector", ".spec.podSelector").by(|p| selector(&p["spec"]["podSelector"]).into()),
        AGE,
    ],
    defaults,
    prepare_create: first_generation,
    prepare_update: |new, old| count_change(new, old, &["spec"]),
    rules: &[("spec.podSelector", Selector)],
    validate,
    ..Kind::PLAIN
};

fn defaults(p: &mut Value) {
    for list in ["ingress", "egress"] {
        fill::each(p, &["spec", list], |rule| {
            fill::each(rule, &["ports"], |port| fill::unset(port, "protocol", "TCP"))
        });
    }
    if p.array_at(&["spec", "policyTypes"]).is_empty() {
        let mut types = vec!["Ingress"];
        if !p.array_at(&["spec", "egress"]).is_empty() {
            types.push("Egress");
        }
        p.set(&["spec", "policyTypes"], types);
    }
}

fn validate(p: &Value, errors: &mut Errors) {
    let path = Path::new("spec");
    for (list, peers) in [("ingress", "from"), ("egress", "to")] {
        for (i, rule) in p.array_at(&["spec", list]).iter().enumerate() {
            let at = path.child(list).index(i);
            for (j, port) in rule.array_at(&["ports"]).iter().enumerate() {
                validate_port(port, &at.child("ports").index(j), errors);
            }
            for (j, peer) in rule.array_at(&[peers]).iter().enumerate() {
                validate_peer(peer, &at.child(peers).index(j), errors);
            }
        }
    }
    let types = p.array_at(&["spec", "policyTypes"]);
    if types.len() > 2 {
        let at = path.child("policyTypes");
        return errors.push(Error::invalid(&at, types.to_vec(), "may not specify more than two policyTypes"));
    }
    for (i, ty) in
        types.iter().filter_map(Value::as_str).enumerate().filter(|(_, t)| !["Ingress", "Egress"].contains(t))
    {
        errors.push(Error::not_supported(&path.child("policyTypes").index(i), ty, &["Ingress", "Egress"]));
    }
}

fn validate_port(port: &Value, path: &Path, errors: &mut Errors) {
    let protocol = port.str_at(&["protocol"]).unwrap_or_default();
    if !["TCP", "UDP", "SCTP"].contains(&protocol) {
        errors.push(Error::not_supported(&path.child("protocol"), protocol, &["TCP", "UDP", "SCTP"]));
    }
    if !port["port"].is_null() {
        super::pod_spec::validate_port(&port["port"], &path.child("port"), errors);
    }
    if let Some(end) = port.int_at(&["endPort"]) {
        let at = path.child("endPort");
        match port["port"].as_i64() {
            Some(start) if end < start => {
                errors.push(Error::invalid(&at, end, "must be greater than or equal to `port`"));
            }
            None if port["port"].is_null() => {
                errors.push(Error::invalid(&at, end, "may not be specified when `port` is not specified"));
            }
            None => errors.push(Error::invalid(&at, end, "may not be specified when `port` is non-numeric")),
            _ => {}
        }
        if port["port"].as_str().is_none() {
            errors.extend(names::port_number(end).into_iter().map(|m| Error::invalid(&at, end, m)));
        }
    }
}

fn validate_peer(peer: &Value, path: &Path, errors: &mut Errors) {
    let selects = !peer["podSelector"].is_null() || !peer["namespaceSelector"].is_null();
    for name in ["podSelector", "namespaceSelector"] {
        errors.extend(LabelSelector::validate(&peer[name], &path.child(name)));
    }
    match (selects, peer["ipBlock"].is_null()) {
        (false, true) => errors.push(Error::required(path, "must specify a peer")),
        (true, false) => {
            let detail = "may not specify both ipBlock and another peer";
            errors.push(Error::forbidden(path, detail));
        }
        (false, false) if peer["ipBlock"]["cidr"].is_empty() => {
            errors.push(Error::required(&path.child("ipBlock.cidr"), ""));
        }
        (false, false) => {
            let cidr = peer.str_at(&["ipBlock", "cidr"]).unwrap_or_default();
            let wrong = meta::names::cidr(cidr).into_iter();
            errors.extend(wrong.map(|m| Error::invalid(&path.child("ipBlock.cidr"), cidr, m)));
            let whole = Cidr::parse(cidr);
            for (i, part) in peer.array_at(&["ipBlock", "except"]).iter().filter_map(Value::as_str).enumerate() {
                let at = path.child("ipBlock.except").index(i);
                errors.extend(names::cidr(part).into_iter().map(|m| Error::invalid(&at, part, m)));
                if let (Some(whole), Some(inner)) = (whole, Cidr::parse(part))
                    && !whole.is_around(inner)
                {
                    errors.push(Error::invalid(&at, part, "must be a strict subset of `cidr`"));
                }
            }
        }
        _ => {}
    }
}
