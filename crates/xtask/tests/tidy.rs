//! The house rules that a machine can hold: layers, headers, sizes, names. Reads the sources and `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Files over 1,000 lines that are let be. This list only shrinks.
const LONG_FILES: &[&str] = &[];
const LINES_MAX: usize = 1000;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace")
}

/// Every file of ours with this ending, as a path from the root.
fn files(ending: &str) -> Vec<PathBuf> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", &format!("*{ending}")])
        .current_dir(root())
        .output()
        .expect("git lists the files");
    let all: Vec<PathBuf> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(PathBuf::from)
        .filter(|path| root().join(path).exists())
        .collect();
    assert!(!all.is_empty(), "no {ending} files: is this a git checkout?");
    all
}

fn read(path: &Path) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn assert_none(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

#[test]
fn every_file_says_what_it_is_for() {
    let bare = files(".rs").iter().filter(|p| !read(p).starts_with("//!")).map(|p| p.display().to_string()).collect();
    assert_none("files that do not open with //!", bare);
}

#[test]
fn no_file_is_too_long() {
    let long = files(".rs")
        .iter()
        .map(|p| (p.display().to_string(), read(p).lines().count()))
        .filter(|(p, lines)| *lines > LINES_MAX && !LONG_FILES.contains(&p.as_str()))
        .map(|(p, lines)| format!("{p}: {lines} lines"))
        .collect();
    assert_none("files over 1,000 lines: make them a folder", long);
    let gone =
        LONG_FILES.iter().filter(|p| !root().join(p).exists() || read(Path::new(p)).lines().count() <= LINES_MAX);
    assert_none("on the list of long files for nothing", gone.map(|p| p.to_string()).collect());
}

/// What becomes the binary: tests and the crates that only build, measure or check are no part of it.
#[test]
fn the_product_stays_small() {
    const MOST: usize = 100_000;
    let is_part = |path: &str| {
        let tools = ["crates/bench/", "crates/golden/", "crates/xtask/"];
        path.starts_with("crates/") && !tools.iter().any(|t| path.starts_with(t)) && !path.contains("tests")
    };
    let product = files(".rs").into_iter().filter(|p| p.to_str().is_some_and(is_part));
    // Test modules stand at the end of their file.
    let lines = product.map(|p| read(&p).split("\n#[cfg(test)]\nmod ").next().unwrap_or_default().lines().count());
    let lines: usize = lines.sum();
    println!("{lines} lines of Rust without tests");
    assert!(lines < MOST, "{lines} lines of Rust without tests, {MOST} are the most");
}

#[test]
fn names_say_something() {
    let vague = ["util", "utils", "common", "helper", "helpers", "manager", "misc", "mod"];
    let found = files(".rs")
        .iter()
        .filter(|p| {
            p.file_stem().is_some_and(|stem| vague.contains(&stem.to_string_lossy().as_ref()))
                || p.components().any(|c| vague.contains(&c.as_os_str().to_string_lossy().as_ref()))
        })
        .map(|p| p.display().to_string())
        .collect();
    assert_none("files with names that say nothing", found);
}

#[test]
fn unsafe_code_stays_in_sys() {
    let found = files(".rs")
        .iter()
        .filter(|p| !p.starts_with("crates/sys") && !p.ends_with("tests/tidy.rs"))
        .filter(|p| {
            read(p).lines().any(|l| l.trim_start().starts_with("#![allow(unsafe_code") || l.contains("unsafe {"))
        })
        .map(|p| p.display().to_string())
        .collect();
    assert_none("unsafe outside crates/sys", found);
}

/// The table of ARCHITECTURE.md: crate -> what of ours it may use.
fn allowed() -> BTreeMap<String, BTreeSet<String>> {
    let text = read(Path::new("ARCHITECTURE.md"));
    let rows = text.lines().filter(|l| l.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_string).collect::<BTreeSet<_>>();
        let name = names(cells[0]).pop_first().expect("a crate's name");
        (name, cells.get(2).map(|c| names(c)).unwrap_or_default())
    })
    .collect()
}

#[test]
fn arrows_point_down_only() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo metadata");
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo's JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let ours: BTreeSet<&str> = packages.iter().filter_map(|p| p["name"].as_str()).collect();
    let allowed = allowed();
    let mut wrong = Vec::new();
    for package in packages {
        let name = package["name"].as_str().expect("a name");
        let Some(may) = allowed.get(name) else {
            wrong.push(format!("{name} is not in ARCHITECTURE.md's table"));
            continue;
        };
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let on = dependency["name"].as_str().expect("a name");
            // What tests use does not reach the product.
            if dependency["kind"] == "dev" || !ours.contains(on) || may.contains(on) {
                continue;
            }
            wrong.push(format!("{name} uses {on}"));
        }
    }
    let gone = allowed.keys().filter(|name| !ours.contains(name.as_str())).map(|n| format!("{n} is in the table only"));
    wrong.extend(gone);
    assert_none("layers, against ARCHITECTURE.md's table", wrong);
}

#[test]
fn every_dependency_says_why() {
    let text = read(Path::new("Cargo.toml"));
    let section =
        text.split("[workspace.dependencies]").nth(1).and_then(|t| t.split("\n[").next()).expect("the section");
    assert!(section.lines().count() > 10);
    let mut per_crate = Vec::new();
    for manifest in files("Cargo.toml").iter().filter(|p| p.starts_with("crates")) {
        for line in read(manifest).lines().filter(|l| l.contains("version = \"") && l.contains('{')) {
            per_crate.push(format!("{}: {line}", manifest.display()));
        }
    }
    assert_none("dependencies named outside the workspace's list", per_crate);
}
