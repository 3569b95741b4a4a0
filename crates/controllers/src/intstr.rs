//! Resolves a count that may be given as a percentage. Reads and writes nothing. Invariant: what is not a number counts as 0;
//! the API server does not let such a value in.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

pub fn resolve(value: &IntOrString, total: i32, round_up: bool) -> i32 {
    match value {
        IntOrString::Int(count) => *count,
        IntOrString::String(text) => {
            let Some(percent) = text.strip_suffix('%').and_then(|digits| digits.parse::<i64>().ok()) else {
                return text.parse().unwrap_or(0);
            };
            let product = percent * i64::from(total);
            let whole = if round_up { (product + 99).div_euclid(100) } else { product.div_euclid(100) };
            i32::try_from(whole).unwrap_or(i32::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds() {
        let text = |text: &str| IntOrString::String(text.to_string());
        for (value, total, up, want) in [
            (IntOrString::Int(3), 10, true, 3),
            (text("25%"), 10, true, 3),
            (text("25%"), 10, false, 2),
            (text("0%"), 10, true, 0),
            (text("100%"), 7, false, 7),
            (text("odd"), 7, false, 0),
        ] {
            assert_eq!(resolve(&value, total, up), want, "{value:?}");
        }
    }
}
