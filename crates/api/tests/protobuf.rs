//! The protobuf codec against upstream's own fixtures: every kind in JSON, YAML and protobuf (k8s.io/api, `testdata`).
//!
//! The fixtures are those of the module that the schema was generated from; `go mod download` brings them, and checks
//! them against `go.sum`. Without Go, or without them, this test fails.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use api::resource::{all_with_previews, root_type};
use expect_test::{expect, expect_file};
use meta::Value;
use meta::protobuf;
use meta::schema::TypeRef;

/// How often each body is damaged.
const ROUNDS: usize = 10;

fn find(api_version: &str, kind: &str) -> Option<TypeRef<'static>> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    root_type(group, version, kind)
}

fn testdata() -> PathBuf {
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/schema-gen");
    let output = Command::new("go")
        .args(["mod", "download", "-json", "k8s.io/api"])
        .current_dir(module)
        .env("GOWORK", "off")
        .output()
        .expect("go is installed: it brings upstream's fixtures");
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("go answers in JSON");
    let dir = answer["Dir"].as_str().unwrap_or_else(|| panic!("go cannot get k8s.io/api: {answer}"));
    Path::new(dir).join("testdata")
}

/// What is in the folder, by the names of files.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let paths = entries.map(|e| e.expect("an entry").path());
    paths
        .map(|p| (p.file_name().expect("a name").to_string_lossy().into_owned(), std::fs::read(p).expect("read")))
        .collect()
}

fn enveloped(document: &Value) -> Vec<u8> {
    let (api_version, kind) =
        (document.str_at(&["apiVersion"]).expect("a version"), document.str_at(&["kind"]).expect("a kind"));
    let message = protobuf::encode(find(api_version, kind).expect("a type"), document);
    let (open, close) = protobuf::unknown(api_version, kind, message.len());
    [&open, &message[..], close].concat()
}

/// As upstream's decoder leaves it; `None` when something in it is not known.
fn pruned(mut document: Value) -> Option<Value> {
    let text = |document: &Value, member: &str| document.str_at(&[member]).unwrap_or_default().to_string();
    let (api_version, kind) = (text(&document, "apiVersion"), text(&document, "kind"));
    let notes = find(&api_version, &kind).expect("a type").prune(&mut document).expect("fits");
    document.set(&["apiVersion"], api_version);
    document.set(&["kind"], kind);
    notes.is_empty().then_some(document)
}

#[test]
fn every_kind_in_every_format() {
    let found = files(&testdata().join("HEAD"));
    let (mut wrong, mut unknown, mut held) = (Vec::new(), Vec::new(), BTreeSet::new());
    for (name, body) in found.iter().filter_map(|(name, body)| Some((name.strip_suffix(".pb")?, body))) {
        let json = meta::parse(&found[&format!("{name}.json")]).expect("JSON");
        let yaml: Value =
            serde_saphyr::from_str(&String::from_utf8_lossy(&found[&format!("{name}.yaml")])).expect("YAML");
        let decoded = match protobuf::normal(body, &find) {
            Ok(decoded) => decoded,
            Err(protobuf::Error::Unregistered { .. }) => {
                unknown.push(name);
                continue;
            }
            Err(error) => {
                wrong.push(format!("{name}: {error}"));
                continue;
            }
        };
        held.insert(name);
        for (what, holds) in [
            ("JSON is not canonical", pruned(json.clone()).is_some_and(|p| p == json)),
            ("YAML is not the JSON", yaml == json),
            ("protobuf is not read as the JSON", decoded == json),
            ("protobuf is not written as it was", enveloped(&json) == *body),
        ] {
            if !holds {
                wrong.push(format!("{name}: {what}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Kinds that upstream never serves by default any more, or does not serve at all.
    expect_file!["data/unserved.txt"].assert_eq(&(unknown.join("\n") + "\n"));
    let missing: BTreeSet<String> = all_with_previews()
        .iter()
        .map(|r| format!("{}.{}.{}", if r.group.is_empty() { "core" } else { &r.group }, r.version, r.kind))
        .filter(|name| !held.contains(name.as_str()))
        .collect();
    expect![[r#"
        apiextensions.k8s.io.v1.CustomResourceDefinition
        apiregistration.k8s.io.v1.APIService"#]]
    .assert_eq(&missing.into_iter().collect::<Vec<_>>().join("\n"));
}

/// What older releases stored is read as its JSON is, and written as upstream's newest writes it.
#[test]
fn older_releases() {
    let mut checked = 0;
    let mut wrong = Vec::new();
    for release in ["v1.33.0", "v1.34.0", "v1.35.0", "v1.36.0"] {
        let found = files(&testdata().join(release));
        for (name, body) in found.iter().filter_map(|(name, body)| Some((name.strip_suffix(".pb")?, body))) {
            let Ok(decoded) = protobuf::normal(body, &find) else { continue };
            let Some(json) = found.get(&format!("{name}.json")) else { continue };
            let after = |ending: &str| found.get(&format!("{name}.after_roundtrip.{ending}"));
            let json = meta::parse(after("json").unwrap_or(json)).expect("JSON");
            checked += 1;
            if pruned(json.clone()) != Some(decoded.clone()) {
                wrong.push(format!("{release} {name}: is not read as the JSON"));
            }
            if enveloped(&decoded) != *after("pb").unwrap_or(body) {
                wrong.push(format!("{release} {name}: is not written as upstream does"));
            }
        }
    }
    assert!(wrong.is_empty() && checked > 300, "of {checked}:\n{}", wrong.join("\n"));
}

/// Real kinds with bytes that are wrong: lengths, tags, cuts.
#[test]
fn damaged_bodies_are_survived() {
    // A sequence that looks random and is the same in every run (Knuth's constants).
    let mut state = 37u64;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut survived = 0;
    for body in files(&testdata().join("HEAD")).iter().filter(|(name, _)| name.ends_with(".pb")).map(|(_, body)| body) {
        for _ in 0..ROUNDS {
            let mut damaged = body.clone();
            for _ in 0..1 + next(3) {
                let at = next(damaged.len());
                damaged[at] = [0, 0x7f, 0x80, 0xff, next(256) as u8][next(5)];
            }
            damaged.truncate(damaged.len() - next(4) * next(damaged.len()) / 4);
            if let Ok(document) = protobuf::normal(&damaged, &find) {
                // What was read can be written and read again.
                let again = protobuf::normal(&enveloped(&document), &find).expect("what was written");
                assert_eq!(again, document);
                survived += 1;
            }
        }
    }
    assert!(survived > 0);
}
