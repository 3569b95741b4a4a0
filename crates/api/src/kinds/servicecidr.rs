//! ServiceCIDR.

use super::prelude::*;
use meta::cidr::Cidr;

pub static KIND: Kind = Kind {
    columns: &[NAME, Column::text("CIDRs", ".spec.cidrs").by(|c| joined(&c["spec"]["cidrs"], "")), AGE],
    validate_create: validate,
    validate_update,
    status_restores: &OWN_METADATA,
    ..Kind::PLAIN
};

fn validate(c: &Value) -> Errors {
    let (path, cidrs) = (Path::new("spec").child("cidrs"), c.array_at(&["spec", "cidrs"]));
    match cidrs {
        [] => return vec![Error::required(&path, "at least one CIDR required")],
        [_, _, _, ..] => return vec![Error::invalid(&path, &c["spec"], "may only hold up to 2 values")],
        _ => {}
    }
    let text = |cidr: &Value| cidr.as_str().unwrap_or_default().to_string();
    let wrong = |(i, cidr): (usize, &Value)| Some(Error::invalid(&path.index(i), cidr, fault(&text(cidr))?));
    let mut errors: Errors = cidrs.iter().enumerate().filter_map(wrong).collect();
    let v6 = |cidr: &Value| text(cidr).contains(':');
    if errors.is_empty() && cidrs.len() == 2 && v6(&cidrs[0]) == v6(&cidrs[1]) {
        let detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        errors.push(Error::invalid(&path, cidrs.to_vec(), detail));
    }
    errors
}

/// What is wrong with a range.
fn fault(text: &str) -> Option<String> {
    let network = Cidr::parse(text).map(|network| network.to_string());
    let canonical = |network: String| (network != text).then(|| format!("must be in canonical form ({network:?})"));
    names::cidr(text).pop().or_else(|| network.and_then(canonical))
}

/// Only a range of the other family may be added. Source: KEP-1880.
fn validate_update(new: &Value, old: &Value) -> Errors {
    let (now, was) = (new.array_at(&["spec", "cidrs"]), old.array_at(&["spec", "cidrs"]));
    let path = Path::new("spec").child("cidrs");
    if now.len() != was.len() && (now.len(), was.len()) != (2, 1) {
        return vec![Error::invalid(&path, now.to_vec(), "field is immutable")];
    }
    let changed = now.iter().zip(was).enumerate().filter(|(_, (now, was))| now != was);
    let mut errors: Errors =
        changed.map(|(i, (now, _))| Error::invalid(&path.index(i), now, "field is immutable")).collect();
    if now.len() != was.len() {
        errors.extend(validate(new));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use meta::json;

    #[test]
    fn what_is_refused() {
        golden::check!("servicecidr/refusals.txt", |case| {
            let range = |cidrs: &str| {
                let cidrs: Vec<&str> = cidrs.split(' ').filter(|cidr| !cidr.is_empty()).collect();
                json!({"spec": {"cidrs": cidrs}})
            };
            let errors = match case.split_once(" < ") {
                None => validate(&range(case)),
                Some((new, old)) => validate_update(&range(new), &range(old)),
            };
            errors.iter().map(|e| format!("{e}\n")).collect()
        });
    }
}
