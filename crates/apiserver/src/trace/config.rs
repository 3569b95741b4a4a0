//! What is traced and where it is sent: a TracingConfiguration of `apiserver.config.k8s.io`.
//!
//! Pure. Invariant: what is wrong is named with its field, in upstream's words.

use meta::Value;
use meta::field::{Error, Path};

/// The collector's address where none is given.
const ENDPOINT: &str = "localhost:4317";
const FIELDS: [&str; 4] = ["apiVersion", "kind", "endpoint", "samplingRatePerMillion"];
const VERSIONS: [&str; 2] = ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1"];

#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// A URL.
    pub endpoint: String,
    /// Of a million requests whose caller says nothing about it; the others are sampled as their callers are.
    pub sampling_rate_per_million: u32,
}

impl Settings {
    /// Reads a file (YAML or JSON).
    pub fn parse(text: &str) -> Result<Settings, String> {
        let (value, duplicates) = crate::decode::yaml(text.as_bytes())?;
        if let Some(twice) = duplicates.first() {
            return Err(format!("strict decoding error: key {twice:?} already set in map"));
        }
        let text = |member: &str| value.str_at(&[member]).unwrap_or_default();
        let (version, kind) = (text("apiVersion"), text("kind"));
        if !VERSIONS.contains(&version) || kind != "TracingConfiguration" {
            return Err(format!(
                "no kind {kind:?} is registered for version {version:?}; give TracingConfiguration of {}",
                VERSIONS[0]
            ));
        }
        let mut names = value.as_object().into_iter().flat_map(|o| o.keys());
        if let Some(unknown) = names.find(|name| !FIELDS.contains(name)) {
            return Err(format!("strict decoding error: unknown field {unknown:?}"));
        }
        let wrong =
            |field: &str, given: &Value, why: String| Error::invalid(&Path::new(field), given.clone(), why).to_string();
        let rate = &value["samplingRatePerMillion"];
        let sampling_rate_per_million = match (rate, rate.as_i64()) {
            (Value::Null, _) => 0,
            (_, Some(..0)) => return Err(wrong(FIELDS[3], rate, "sampling rate must be positive".into())),
            (_, Some(given @ ..=1_000_000)) => given as u32,
            (Value::Int(_), _) => {
                return Err(wrong(
                    FIELDS[3],
                    rate,
                    "sampling rate per million must be less than or equal to one million".into(),
                ));
            }
            _ => return Err(wrong(FIELDS[3], rate, "must be a whole number".into())),
        };
        let given = &value["endpoint"];
        let address = match (given, given.as_str()) {
            (Value::Null, _) => ENDPOINT,
            (_, Some(address)) => address,
            _ => return Err(wrong("endpoint", given, "must be a string".into())),
        };
        let endpoint = match address.split_once(':') {
            Some(("unix", _)) => address.to_string(),
            Some(("dns", rest)) => format!("http://{}", rest.rsplit('/').next().unwrap_or_default()),
            Some((scheme, rest)) if rest.starts_with("//") => {
                let why = format!("unsupported scheme: {scheme}.  Options are none, dns, or unix");
                return Err(wrong("endpoint", given, why));
            }
            _ => format!("http://{address}"),
        };
        if let Err(why) = tonic::transport::Endpoint::from_shared(endpoint.clone()) {
            return Err(wrong("endpoint", given, format!("{why}; give HOST:PORT")));
        }
        Ok(Settings { endpoint, sampling_rate_per_million })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files() {
        golden::check!("config.txt", |case| {
            let text = format!(
                "apiVersion: apiserver.config.k8s.io/v1\nkind: TracingConfiguration\n{}",
                case.replace("; ", "\n")
            );
            Settings::parse(&text).map_or_else(|why| why, |s| format!("{} {}", s.endpoint, s.sampling_rate_per_million))
        });
        let why =
            Settings::parse("apiVersion: apiserver.config.k8s.io/v1beta1\nkind: Foo\n").expect_err("another kind");
        assert!(
            why.starts_with("no kind \"Foo\" is registered for version \"apiserver.config.k8s.io/v1beta1\""),
            "{why}"
        );
    }
}
