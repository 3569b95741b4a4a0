//! Secret.

use super::prelude::*;
use super::{MAX_DATA_BYTES, validate_frozen, validate_key};

pub static KIND: Kind = Kind {
    columns: &[
        NAME,
        Column::text("Type", "").at("type"),
        Column::text("Data", ".data").by(|s| s["data"].as_object().map_or(0, |m| m.len()).into()),
        AGE,
    ],
    defaults,
    rules: &[("type", Immutable)],
    validate,
    validate_update: |new, old| validate_frozen(new, old, &["immutable", "data"]),
    selectable: |s| vec![("type", text(s, &["type"]).to_string())],
    selectable_names: &["type"],
    fixed_first: true,
    ..Kind::PLAIN
};

fn defaults(s: &mut Value) {
    fill::text(s, "type", "Opaque");
    // `stringData` is for writing only: it goes over `data`.
    if let Some(Value::Object(plain)) = s.remove(&["stringData"]) {
        use base64::Engine;
        for (key, value) in plain.iter() {
            let encoded = base64::engine::general_purpose::STANDARD.encode(value.as_str().unwrap_or_default());
            s.set(&["data", key], encoded);
        }
    }
}

/// Keys that a type of secret can't do without.
fn required(ty: &str) -> &'static [&'static str] {
    match ty {
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        _ => &[],
    }
}

fn validate(s: &Value, errors: &mut Errors) {
    let mut bytes = 0;
    if let Some(data) = s["data"].as_object() {
        for (key, value) in data.iter() {
            validate_key(key, &Path::new("data").key(key), errors);
            bytes += value.as_str().map_or(0, |v| v.len() / 4 * 3);
        }
    }
    if bytes > MAX_DATA_BYTES {
        errors.push(Error::too_long(&Path::new("data"), MAX_DATA_BYTES));
    }
    let ty = text(s, &["type"]);
    for key in required(ty) {
        let (at, value) = (Path::new("data").key(key), s["data"].get(key));
        if value.is_none_or(|value| ty == "kubernetes.io/ssh-auth" && value.is_empty()) {
            errors.push(Error::required(&at, ""));
        } else if key.starts_with(".docker") {
            use base64::Engine;
            let encoded = value.and_then(Value::as_str).unwrap_or_default();
            let json = base64::engine::general_purpose::STANDARD.decode(encoded).unwrap_or_default();
            let fault = match meta::parse(&json) {
                Ok(Value::Object(_) | Value::Null) => continue,
                Ok(other) => format!(
                    "json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
                    if other.as_bool().is_some() { "bool" } else { other.type_name() }
                ),
                Err(_) if json.is_empty() => "unexpected end of JSON input".to_string(),
                Err(error) => error.to_string(),
            };
            errors.push(Error::invalid(&at, "<secret contents redacted>", fault));
        }
    }
    let data = |key: &str| s["data"].get(key).is_some();
    if ty == "kubernetes.io/basic-auth" && !data("username") && !data("password") {
        errors.push(Error::required(&Path::new("data[username]"), ""));
        errors.push(Error::required(&Path::new("data[password]"), ""));
    }
    if ty == "kubernetes.io/service-account-token"
        && text(s, &["metadata", "annotations", "kubernetes.io/service-account.name"]).is_empty()
    {
        let at = Path::new("metadata.annotations").key("kubernetes.io/service-account.name");
        errors.push(Error::required(&at, ""));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn string_data_becomes_data() {
        let mut s = json!({"stringData": {"a": "hello"}, "data": {"a": "eA==", "b": "eQ=="}});
        defaults(&mut s);
        assert_eq!(s, json!({"type": "Opaque", "data": {"a": "aGVsbG8=", "b": "eQ=="}}));
    }

    #[test]
    fn types_have_their_keys() {
        let mut errors = Errors::new();
        validate(&json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}}), &mut errors);
        assert_eq!(errors.iter().map(|e| e.to_string()).collect::<Vec<_>>(), ["data[tls.key]: Required value"]);
    }
}
