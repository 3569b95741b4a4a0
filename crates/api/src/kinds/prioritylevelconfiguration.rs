//! PriorityLevelConfiguration.

use super::prelude::*;

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Type", "").at("spec.type"),
        Column::number("NominalConcurrencyShares", "")
            .or("spec.limited.nominalConcurrencyShares", "<none>")
            .said_text(),
        Column::number("Queues", "").or("spec.limited.limitResponse.queuing.queues", "<none>").said_text(),
        Column::number("HandSize", "").or("spec.limited.limitResponse.queuing.handSize", "<none>").said_text(),
        Column::number("QueueLengthLimit", "")
            .or("spec.limited.limitResponse.queuing.queueLengthLimit", "<none>")
            .said_text(),
        AGE,
    ],
    defaults,
    prepare_create: |p| new_object(p, Value::object()),
    prepare_update: keep_status_count_spec,
    validate,
    status_restores: &OWN_METADATA,
    ..Kind::PLAIN
};

fn defaults(p: &mut Value) {
    fill::at(p, &["spec", "limited"], |limited| {
        fill::unset(limited, "nominalConcurrencyShares", 30);
        fill::unset(limited, "lendablePercent", 0);
        fill::at(limited, &["limitResponse", "queuing"], |queuing| {
            for (field, default) in [("queues", 64), ("handSize", 8), ("queueLengthLimit", 50)] {
                if queuing.int_at(&[field]).unwrap_or(0) == 0 {
                    queuing.set(&[field], default);
                }
            }
        });
    });
    if p.str_at(&["spec", "type"]) == Some("Exempt") {
        let spec = p.slot(&["spec"]);
        spec.set_default(&["exempt", "nominalConcurrencyShares"], 0);
        spec.set_default(&["exempt", "lendablePercent"], 0);
    }
}

/// A hand of queues is drawn from at most so many bits of a hash.
const ENTROPY_BITS_MAX: u32 = 60;
const QUEUES_MAX: i64 = 10_000_000;

fn validate(p: &Value, errors: &mut Errors) {
    let (spec, path) = (&p["spec"], Path::new("spec"));
    let ty = text(spec, &["type"]);
    if (ty == "Exempt") != (text(p, &["metadata", "name"]) == "exempt") {
        let detail = "must be 'Exempt' if and only if `name` is 'exempt'";
        errors.push(Error::invalid(&path.child("type"), ty, detail));
    }
    for (kind, own, other) in [("Exempt", "exempt", "limited"), ("Limited", "limited", "exempt")] {
        if ty != kind {
            continue;
        }
        if !spec[other].is_null() {
            errors.push(Error::forbidden(&path.child(other), ""));
        }
        if kind == "Limited" && spec[own].is_null() {
            errors.push(Error::required(&path.child(own), ""));
        } else if !spec[own].is_null() {
            validate_shares(&spec[own], &path.child(own), kind == "Limited", errors);
        }
    }
    let of_none = !["Exempt", "Limited"].contains(&ty) && !spec["limited"].is_null();
    let forbidden = of_none.then(|| Error::forbidden(&path.child("limited"), ""));
    let (first, last) = if ty.is_empty() { (forbidden, None) } else { (None, forbidden) };
    errors.extend(first);
    check(p, &[("spec.type", RequiredOneOf(&["Exempt", "Limited"]))], errors);
    errors.extend(last);
    if of_none {
        validate_shares(&spec["limited"], &path.child("limited"), true, errors);
    }
}

fn validate_shares(level: &Value, path: &Path, limited: bool, errors: &mut Errors) {
    let number = |field: &str| level.int_at(&[field]);
    let mut wrong = |field: &str, is: bool, detail: &str| {
        if is {
            errors.push(Error::invalid(&path.child(field), number(field).unwrap_or(0), detail));
        }
    };
    let shares = number("nominalConcurrencyShares");
    wrong("nominalConcurrencyShares", shares.is_some_and(|n| n < 0), "must be a non-negative integer");
    let lent = number("lendablePercent").is_some_and(|n| !(0..=100).contains(&n));
    wrong("lendablePercent", lent, "must be between 0 and 100, inclusive");
    let borrowed = number("borrowingLimitPercent").is_some_and(|n| n < 0);
    wrong("borrowingLimitPercent", borrowed, "if specified, must be a non-negative integer");
    if limited {
        validate_response(&level["limitResponse"], &path.child("limitResponse"), errors);
    }
}

fn validate_response(response: &Value, path: &Path, errors: &mut Errors) {
    let (queuing, at) = (&response["queuing"], path.child("queuing"));
    let ty = text(response, &["type"]);
    match ty {
        "Queue" if queuing.is_null() => errors.push(Error::required(&at, "")),
        "Queue" => validate_queuing(queuing, &at, errors),
        "" | "Reject" if !queuing.is_null() => errors.push(Error::forbidden(&at, "")),
        _ => {}
    }
    check_at(response, path, &[("type", RequiredOneOf(&["Queue", "Reject"]))], errors);
    if !queuing.is_null() && !["", "Queue", "Reject"].contains(&ty) {
        errors.push(Error::forbidden(&at, ""));
    }
}

fn validate_queuing(queuing: &Value, path: &Path, errors: &mut Errors) {
    let number = |field: &str| int(queuing, &[field]);
    let (queues, hand) = (number("queues"), number("handSize"));
    let mut wrong =
        |field: &str, detail: String| errors.push(Error::invalid(&path.child(field), number(field), detail));
    if number("queueLengthLimit") <= 0 {
        wrong("queueLengthLimit", "must be positive".into());
    }
    if queues <= 0 {
        wrong("queues", "must be positive".into());
    } else if queues > QUEUES_MAX {
        wrong("queues", format!("must not be greater than {QUEUES_MAX}"));
    }
    if hand <= 0 {
        wrong("handSize", "must be positive".into());
    } else if hand > queues {
        wrong("handSize", format!("should not be greater than queues ({queues})"));
    } else if entropy_bits(queues, hand) > ENTROPY_BITS_MAX {
        let detail = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {ENTROPY_BITS_MAX}"
        );
        wrong("handSize", detail);
    }
}

/// The bits that tell the ways of drawing a hand apart.
fn entropy_bits(queues: i64, hand: i64) -> u32 {
    let ways: f64 = (0..hand.min(100)).map(|i| ((queues - i) as f64).log2()).sum();
    ways.ceil() as u32
}
