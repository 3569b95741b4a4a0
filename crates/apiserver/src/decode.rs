//! Bodies into documents: size, media type, parsing, the kind they must be, unknown fields.
//!
//! Reads the request's body. Invariant: a document that leaves here is of the expected kind and holds nothing that the
//! kind's type does not know.

mod duplicates;
mod yaml_words;

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body_util::BodyExt;
use meta::schema::TypeRef;
use meta::schema::prune::DecodeError;
use meta::{Status, Value};

use crate::accept::MEDIA_TYPES;
use crate::body::RequestBody;
use crate::call::Call;
use crate::options::Validation;
use crate::protobuf;
use yaml_words::first_document;

/// Reads the whole body, up to the limit.
pub async fn bytes(mut body: RequestBody, limit_bytes: usize) -> Result<Bytes, Status> {
    let mut first = Bytes::new();
    let mut all = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|error| Status::bad_request(format!("the body of the request could not be read: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + all.len() + data.len() > limit_bytes {
            return Err(Status::too_large(format!("limit is {limit_bytes}")));
        }
        // Most bodies come in one piece, which then needs no copy.
        if first.is_empty() && all.is_empty() {
            first = data;
        } else {
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&data);
        }
    }
    Ok(if all.is_empty() { first } else { all.into() })
}

/// The media type of the body without its parameters; empty when none is given.
pub fn media_type(headers: &HeaderMap) -> &str {
    let text = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim()
}

/// Reads a body of JSON, YAML or protobuf. The strings are the fields that stood more than once.
pub fn parse(headers: &HeaderMap, body: &[u8]) -> Result<(Value, Vec<String>), ParseFailure> {
    match media_type(headers) {
        "" | "application/json" => meta::parse_noting_duplicates(body)
            .map_err(|e| ParseFailure::Text(format!("couldn't get version/kind; json parse error: {e}"))),
        "application/yaml" => {
            let read = yaml_noting_duplicates(body);
            read.map_err(|e| ParseFailure::Text(e.replacen("error converting YAML to JSON: ", "", 1)))
        }
        meta::protobuf::MEDIA_TYPE => protobuf::decode(body).map(|v| (v, Vec::new())).map_err(ParseFailure::Text),
        _ => Err(ParseFailure::Status(Status::unsupported_media_type(&MEDIA_TYPES))),
    }
}

/// Reads YAML. Duplicate keys are an error there, as in upstream's strict reader.
pub fn yaml(body: &[u8]) -> Result<(Value, Vec<String>), String> {
    let (mut value, again) = read_yaml(body)?;
    whole_numbers(&mut value);
    Ok((value, again))
}

/// Compat: Go makes JSON of YAML, in which a number without a fraction has no point either.
fn whole_numbers(value: &mut Value) {
    match value {
        Value::Float(f) if f.fract() == 0.0 && f.abs() < i64::MAX as f64 => *value = Value::Int(*f as i64),
        Value::Array(items) => items.iter_mut().for_each(whole_numbers),
        Value::Object(map) => map.values_mut().for_each(whole_numbers),
        _ => {}
    }
}

fn read_yaml(body: &[u8]) -> Result<(Value, Vec<String>), String> {
    let text = std::str::from_utf8(body).map_err(|_| "yaml: invalid UTF-8".to_string())?;
    // What Go clients send as YAML is JSON, as a rule.
    if body.first() == Some(&b'{')
        && let Ok(found) = meta::parse_noting_duplicates(body)
    {
        return Ok(found);
    }
    // Compat: octal as in YAML 1.1 (`defaultMode: 0644`), which upstream's reader takes.
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    let value = serde_saphyr::from_str_with_options::<Value>(first_document(text), options).map_err(|e| {
        let why = e.to_string();
        let why = why.lines().next().unwrap_or_default();
        let why = duplicate_key(why).unwrap_or_else(|| yaml_words::translate(why, text));
        format!("error converting YAML to JSON: yaml: {why}")
    })?;
    Ok((value, Vec::new()))
}

/// As `yaml`, but of keys that stand twice the last one counts. Notes them by their lines.
pub fn yaml_noting_duplicates(body: &[u8]) -> Result<(Value, Vec<String>), String> {
    let read = yaml(body);
    let again = match &read {
        Ok((_, again)) => !again.is_empty(),
        Err(why) => why.ends_with("already set in map"),
    };
    let (true, Ok(text)) = (again, std::str::from_utf8(body)) else { return read };
    let options = serde_saphyr::options! {
        legacy_octal_numbers: true, duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::PassThrough,
    };
    let text = first_document(text);
    let lines = serde_saphyr::from_str_with_options::<duplicates::Lines>(text, options.clone());
    match (serde_saphyr::from_str_with_options(text, options), lines) {
        (Ok(mut value), Ok(lines)) => {
            whole_numbers(&mut value);
            Ok((value, lines.0))
        }
        _ => read,
    }
}

/// Upstream's words for our parser's of a key that stands twice.
fn duplicate_key(text: &str) -> Option<String> {
    let (place, rest) = text.split_once(" column ")?;
    let (_, line) = place.rsplit_once("line ")?;
    let key = rest.split_once("duplicate mapping key: ")?.1.split(", set DuplicateKeyPolicy").next()?;
    Some(format!("unmarshal errors:\n  line {line}: key \"{key}\" already set in map"))
}

pub enum ParseFailure {
    Status(Status),
    /// The decoder's own words.
    Text(String),
}

/// The object in the body, checked against the resource's kind, pruned, with unknown fields reported.
pub fn object(call: &Call, body: &[u8], validation: Validation) -> Result<Value, Status> {
    let served = &call.served;
    let (mut value, duplicates) = read(call, body, &[&served.api_version], &served.kind)?;
    let mut notes = served.strip(&mut value).map_err(|mut e| {
        if served.custom.is_some() {
            // Compat: metadata is read apart there.
            e.0 = e.0.replace("ObjectMeta.metadata.", "ObjectMeta.");
        }
        e.status(&served.info.version, &served.kind)
    })?;
    // Custom resources are read first and held against their schema then; built-in kinds are both at once.
    let by_line = duplicates.first().is_some_and(|first| first.starts_with("line "));
    if served.custom.is_some() || by_line {
        notes.splice(0..0, repeated(&duplicates));
    } else if validation != Validation::Ignore && (!duplicates.is_empty() || notes.len() > 1) {
        notes = in_order(notes, &duplicates, body);
    }
    report(call, notes, validation, &served.info.version, &served.kind)?;
    Ok(value)
}

/// As `object`, for a body of another kind than the resource's, such as a Scale. It may say any of these versions; the first
/// is meant where it says none.
pub fn typed(
    call: &Call,
    body: &[u8],
    validation: Validation,
    api_versions: &[&str],
    kind: &str,
    ty: Option<TypeRef<'static>>,
) -> Result<Value, Status> {
    let (mut value, duplicates) = read(call, body, api_versions, kind)?;
    let api_version = said_version(&value, api_versions);
    prune(call, &mut value, duplicates, validation, api_version, kind, ty)?;
    Ok(value)
}

/// The document in the body, of the right kind by its own word, and what stood twice in it.
fn read(call: &Call, body: &[u8], api_versions: &[&str], kind: &str) -> Result<(Value, Vec<String>), Status> {
    if call.served.info.type_name.is_empty() && media_type(&call.headers) == meta::protobuf::MEDIA_TYPE {
        return Err(Status::unsupported_media_type(&MEDIA_TYPES[..2]));
    }
    let (mut value, duplicates) = parse(&call.headers, body).map_err(|failure| match failure {
        ParseFailure::Status(status) => status,
        ParseFailure::Text(text) => unrecognized(kind, &text, body),
    })?;
    // Compat: what has no Go type says itself what it is.
    let is_custom = call.served.custom.is_some() && call.path.subresource != "scale";
    if value.is_null() {
        // Compat: Go reads null as an object of which nothing is said.
        value = Value::object();
    }
    if is_custom && value.as_object().is_some() {
        if value.str_at(&["kind"]).unwrap_or_default().is_empty() {
            let text = format!("Object 'Kind' is missing in '{}'", String::from_utf8_lossy(body));
            return Err(unrecognized(kind, &text, body));
        }
        value.set_default(&["apiVersion"], "");
    }
    let api_version = said_version(&value, api_versions);
    check_kind(&mut value, api_version, kind, is_custom, body)?;
    Ok((value, duplicates))
}

/// Which of these versions a document says; the first where it is none of them.
fn said_version<'v>(value: &Value, api_versions: &[&'v str]) -> &'v str {
    let said = value.str_at(&["apiVersion"]);
    let found = api_versions.iter().find(|version| Some(**version) == said);
    found.or(api_versions.first()).copied().unwrap_or_default()
}

/// Unknown and duplicate fields as they stand in the body. What is not known is not looked into.
pub fn in_order(mut notes: Vec<String>, duplicates: &[String], body: &[u8]) -> Vec<String> {
    if notes.is_empty() && duplicates.is_empty() {
        return notes;
    }
    let order = meta::field_order(body);
    let path = |note: &str| note.strip_prefix("unknown field \"")?.strip_suffix('"').map(String::from);
    let unknown: Vec<String> = notes.iter().filter_map(|note| path(note)).collect();
    let outer: HashSet<&str> = unknown.iter().map(String::as_str).collect();
    let known = |field: &&String| {
        let mut around = field.match_indices(['.', '[']).map(|(end, _)| &field[..end]).chain([field.as_str()]);
        !around.any(|part| outer.contains(part))
    };
    let again: Vec<String> = duplicates.iter().filter(known).cloned().collect();
    notes.extend(repeated(&again));
    // Where each field stands first, and where once more.
    let mut stands: HashMap<&str, [Option<usize>; 2]> = HashMap::with_capacity(order.len());
    for (at, field) in order.iter().enumerate() {
        let places = stands.entry(field).or_default();
        if let Some(free) = places.iter_mut().find(|place| place.is_none()) {
            *free = Some(at);
        }
    }
    let nth = |field: &String, nth: usize| stands.get(field.as_str()).and_then(|places| places[nth]);
    let mut places = unknown.iter().map(|field| nth(field, 0)).chain(again.iter().map(|field| nth(field, 1)));
    // Of what is no unknown field the decoder says where it is itself.
    if unknown.len() + again.len() != notes.len() {
        return notes;
    }
    let mut placed: Vec<(usize, String)> =
        notes.into_iter().map(|note| (places.next().flatten().unwrap_or(usize::MAX), note)).collect();
    placed.sort_by_key(|(at, _)| *at);
    placed.into_iter().map(|(_, note)| note).collect()
}

/// The notes of fields that stand more than once: paths, or lines of YAML, which say it themselves.
pub fn repeated(duplicates: &[String]) -> Vec<String> {
    let note = |d: &String| if d.starts_with("line ") { d.clone() } else { format!("duplicate field {d:?}") };
    duplicates.iter().map(note).collect()
}

/// Drops what the type does not know: an error, a warning or nothing, as was asked for.
pub fn prune(
    call: &Call,
    value: &mut Value,
    duplicates: Vec<String>,
    validation: Validation,
    api_version: &str,
    kind: &str,
    ty: Option<TypeRef<'static>>,
) -> Result<(), Status> {
    let version = api_version.rsplit('/').next().unwrap_or_default();
    let mut notes = strip(value, api_version, kind, ty).map_err(|e| e.status(version, kind))?;
    notes.extend(repeated(&duplicates));
    report(call, notes, validation, version, kind)
}

/// Drops what the type does not know; answers what was dropped, or why the document is not of this type at all.
pub fn strip(
    value: &mut Value,
    api_version: &str,
    kind: &str,
    ty: Option<TypeRef<'static>>,
) -> Result<Vec<String>, DecodeError> {
    let Some(ty) = ty else { return Ok(Vec::new()) };
    let notes = ty.prune(value)?;
    // The type of the envelope is fixed by now, whatever the type graph says of it.
    value.set(&["apiVersion"], api_version);
    value.set(&["kind"], kind);
    Ok(notes)
}

/// Makes of the notes of strict decoding what was asked for.
pub fn report(
    call: &Call,
    notes: Vec<String>,
    validation: Validation,
    version: &str,
    kind: &str,
) -> Result<(), Status> {
    match validation {
        _ if notes.is_empty() => Ok(()),
        Validation::Ignore => Ok(()),
        Validation::Warn => {
            notes.into_iter().for_each(|note| call.warn(note));
            Ok(())
        }
        Validation::Strict => Err(DecodeError::strict(&notes).status(version, kind)),
    }
}

/// Why a document can't say its version and kind.
pub fn without_kind(value: &Value) -> Option<String> {
    let why = "couldn't get version/kind; json parse error: json: cannot unmarshal";
    if value.as_object().is_none() {
        return Some(format!(
            "{why} {} into Go value of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \
             \"json:\\\"kind,omitempty\\\"\" }}",
            value.type_name()
        ));
    }
    ["apiVersion", "kind"].iter().find_map(|member| match value.get(member) {
        None | Some(Value::Null | Value::String(_)) => None,
        Some(other) => Some(format!("{why} {} into Go struct field .{member} of type string", other.type_name())),
    })
}

/// Fills in an absent apiVersion and kind, and refuses others.
fn check_kind(value: &mut Value, api_version: &str, kind: &str, is_custom: bool, body: &[u8]) -> Result<(), Status> {
    if let Some(text) = without_kind(value) {
        return Err(unrecognized(kind, &text, body));
    }
    for (member, expected) in [("apiVersion", api_version), ("kind", kind)] {
        match value.get(member) {
            None | Some(Value::Null) => value.set(&[member], expected),
            Some(Value::String(s)) if s.is_empty() && !is_custom => value.set(&[member], expected),
            Some(_) => {}
        }
    }
    let found_version = value.str_at(&["apiVersion"]).unwrap_or_default();
    let found_kind = value.str_at(&["kind"]).unwrap_or_default();
    if (found_version, found_kind) == (api_version, kind) {
        return Ok(());
    }
    if is_custom && found_kind == kind {
        return Err(other_version(found_version, api_version));
    }
    let why = why_other_kind((found_version, found_kind), (api_version, kind))?;
    let version = found_version.split_once('/').map_or(found_version, |(_, version)| version);
    Err(Status::bad_request(format!("{found_kind} in version {version:?} cannot be handled as a {kind}: {why}")))
}

fn other_version(found: &str, expected: &str) -> Status {
    Status::bad_request(format!(
        "the API version in the data ({found}) does not match the expected API version ({expected})"
    ))
}

/// The words for a kind that nobody knows.
pub fn unknown_kind(version: &str, kind: &str) -> String {
    format!("no kind {kind:?} is registered for version {version:?} in scheme \"pkg/runtime/scheme.go:111\"")
}

/// The package of upstream's Go types of a group.
pub fn go_package(group: &str) -> &str {
    match group {
        "" | "events.k8s.io" => "core",
        "internal.apiserver.k8s.io" => "apiserverinternal",
        group => group.split('.').next().unwrap_or_default(),
    }
}

/// Compat: versions of nothing that is served, though upstream knows their scales.
const OLD_SCALES: [&str; 3] = ["apps/v1beta1", "apps/v1beta2", "extensions/v1beta1"];

/// Compat: upstream's decoder makes an object of any kind it knows first, and only then finds that it does not fit.
pub fn why_other_kind(
    (found_version, found_kind): (&str, &str),
    (api_version, kind): (&str, &str),
) -> Result<String, Status> {
    let (group, version) = found_version.split_once('/').unwrap_or(("", found_version));
    let expected_group = api_version.split_once('/').map_or("", |(group, _)| group);
    let is_scale = kind == "Scale" && found_kind == kind && OLD_SCALES.contains(&found_version);
    if is_scale {
        Err(other_version(found_version, api_version))
    } else if api::resource::root_type(group, version, found_kind).is_none() {
        Ok(unknown_kind(found_version, found_kind))
    } else if (group, found_kind) == (expected_group, kind) {
        Err(other_version(found_version, api_version))
    } else {
        let package = go_package(expected_group);
        Ok(format!("converting ({version}.{found_kind}) to ({package}.{kind}): unknown conversion"))
    }
}

fn unrecognized(kind: &str, why: &str, body: &[u8]) -> Status {
    Status::bad_request(format!(
        "the object provided is unrecognized (must be of type {kind}): {why} ({})",
        shown(body)
    ))
}

/// The first bytes of a body, as upstream shows them.
fn shown(body: &[u8]) -> String {
    const MAX: usize = 30;
    match body {
        [] => "<empty>".into(),
        [b'{', ..] if body.len() > MAX => format!("{} ...", String::from_utf8_lossy(&body[..MAX - 1])),
        [b'{', ..] => String::from_utf8_lossy(body).into_owned(),
        _ if body.len() > MAX => format!("{} ...", hex(&body[..MAX - 1])),
        _ => hex(body),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_twice_in_yaml() {
        let want = "error converting YAML to JSON: yaml: unmarshal errors:\n  line 4: key \"foo\" already set in map";
        assert_eq!(yaml(b"\nspec:\n  foo: a\n  foo: b\n").map_err(|e| e.to_string()), Err(want.to_string()));
    }

    #[test]
    fn first_bytes() {
        for (body, want) in [
            (&b""[..], "<empty>"),
            (b"{\"a\":", "{\"a\":"),
            (b"xyz", "78797a"),
            (b"{\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\":1}", "{\"aaaaaaaaaaaaaaaaaaaaaaaaaaa ..."),
        ] {
            assert_eq!(shown(body), want);
        }
    }

    #[test]
    fn yaml_is_read_as_kubernetes_means_it() {
        let (value, _) = yaml(b"a: on\nb: 017\nc: [1, \"2\"]\nd: ~\n").expect("yaml");
        assert_eq!(value.to_string(), r#"{"a":true,"b":15,"c":[1,"2"],"d":null}"#);
        assert!(yaml(b"a: [").is_err());
    }
}
