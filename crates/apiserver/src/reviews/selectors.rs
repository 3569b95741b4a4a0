//! What is wrong with the selectors that a question about access may have. Source: KEP-4601 (authorize with selectors).

use meta::field::{Error, Errors, Path};
use meta::{Value, names};

/// Checks `fieldSelector` and `labelSelector` of `spec.resourceAttributes`.
pub fn check(attributes: &Value, path: &Path) -> Errors {
    let mut errors = Errors::new();
    for member in ["fieldSelector", "labelSelector"] {
        let (selector, at) = (&attributes[member], path.child(member));
        if selector.is_null() {
            continue;
        }
        let raw = selector.str_at(&["rawSelector"]).unwrap_or_default();
        let requirements = selector.array_at(&["requirements"]);
        if requirements.is_empty() && raw.is_empty() {
            let detail = format!("when {at} is specified, requirements or rawSelector is required");
            errors.push(Error::required(&at.child("requirements"), detail));
        }
        if !requirements.is_empty() && !raw.is_empty() {
            let detail = "may not specified at the same time as requirements";
            errors.push(Error::invalid(&at.child("rawSelector"), raw, detail));
        }
        for (i, requirement) in requirements.iter().enumerate() {
            check_one(requirement, &at.child("requirements").index(i), member == "labelSelector", &mut errors);
        }
    }
    errors
}

fn check_one(requirement: &Value, at: &Path, of_labels: bool, errors: &mut Errors) {
    let (key, values) = (requirement.str_at(&["key"]).unwrap_or_default(), requirement.array_at(&["values"]));
    match requirement.str_at(&["operator"]).unwrap_or_default() {
        "In" | "NotIn" if values.is_empty() => {
            let detail = "must be specified when `operator` is 'In' or 'NotIn'";
            errors.push(Error::required(&at.child("values"), detail));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(Error::forbidden(&at.child("values"), detail));
        }
        _ => {}
    }
    if !of_labels {
        if key.is_empty() {
            errors.push(Error::required(&at.child("key"), "must be specified"));
        }
        return;
    }
    errors.extend(names::qualified_name(key).into_iter().map(|m| Error::invalid(&at.child("key"), key, m)));
    for (i, value) in values.iter().enumerate() {
        let wrong = names::label_value(value.as_str().unwrap_or_default()).into_iter();
        errors.extend(wrong.map(|m| Error::invalid(&at.child("values").index(i), value, m)));
    }
}
