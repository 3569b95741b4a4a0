//! Semantic versions 2.0.0. Invariant: build metadata is kept, and compared by nobody.

use crate::eval::{Builtin, Ctx};
use crate::value::{EvalError, Opaque, Result, Val, no_overload};
use std::cmp::Ordering;

#[derive(Clone, Debug)]
pub struct Semver {
    numbers: [u64; 3],
    pre: Vec<Pre>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Pre {
    Number(u64),
    Text(String),
}

impl PartialEq for Semver {
    fn eq(&self, other: &Self) -> bool {
        self.compare(other).is_eq()
    }
}

impl Semver {
    /// `lenient` takes a `v` in front, leading zeros, and leaves out minor and patch.
    pub fn parse(text: &str, lenient: bool) -> std::result::Result<Semver, String> {
        let tidied = lenient.then(|| tidy(text));
        let text = tidied.as_deref().unwrap_or(text);
        if text.is_empty() {
            return Err("Version string empty".into());
        }
        let mut parts = text.splitn(3, '.');
        let (Some(major), Some(minor), Some(rest)) = (parts.next(), parts.next(), parts.next()) else {
            return Err("No Major.Minor.Patch elements found".into());
        };
        let (rest, build) = rest.split_once('+').map_or((rest, None), |(rest, build)| (rest, Some(build)));
        let (patch, pre) = rest.split_once('-').map_or((rest, None), |(patch, pre)| (patch, Some(pre)));
        let numbers = [number(major, "major")?, number(minor, "minor")?, number(patch, "patch")?];
        let pre = pre.map_or(Ok(Vec::new()), |pre| pre.split('.').map(read_pre).collect())?;
        for part in build.iter().flat_map(|build| build.split('.')) {
            if part.is_empty() {
                return Err("Build meta data is empty".into());
            }
            if !part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
                return Err(format!("Invalid character(s) found in build meta data {part:?}"));
            }
        }
        Ok(Semver { numbers, pre })
    }

    pub fn compare(&self, other: &Semver) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => self.pre.cmp(&other.pre),
        })
    }
}

fn number(text: &str, what: &str) -> std::result::Result<u64, String> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("Invalid character(s) found in {what} number {text:?}"));
    }
    if text.len() > 1 && text.starts_with('0') {
        let what = what[..1].to_uppercase() + &what[1..];
        return Err(format!("{what} number must not contain leading zeroes {text:?}"));
    }
    text.parse().map_err(|_| format!("strconv.ParseUint: parsing {text:?}: value out of range"))
}

fn read_pre(text: &str) -> std::result::Result<Pre, String> {
    if text.is_empty() {
        return Err("Prerelease is empty".into());
    }
    if text.bytes().all(|b| b.is_ascii_digit()) {
        if text.len() > 1 && text.starts_with('0') {
            return Err(format!("Numeric PreRelease version must not contain leading zeroes {text:?}"));
        }
        return text
            .parse()
            .map(Pre::Number)
            .map_err(|_| format!("strconv.ParseUint: parsing {text:?}: value out of range"));
    }
    if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Err(format!("Invalid character(s) found in prerelease {text:?}"));
    }
    Ok(Pre::Text(text.into()))
}

fn tidy(text: &str) -> String {
    let text = text.trim();
    let text = text.strip_prefix('v').unwrap_or(text);
    let end = text.find(['-', '+']).unwrap_or(text.len());
    let (core, rest) = text.split_at(end);
    let mut numbers: Vec<String> = core
        .splitn(3, '.')
        .map(|part| match part.trim_start_matches('0') {
            "" if !part.is_empty() => "0".into(),
            trimmed => trimmed.into(),
        })
        .collect();
    if rest.is_empty() {
        numbers.resize(numbers.len().max(3), "0".into());
    }
    numbers.join(".") + rest
}

pub fn find(name: &str) -> Option<Builtin> {
    Some(match name {
        "semver" => |_, args| read(args).map(|version| Val::opaque(Opaque::Semver(version))),
        "isSemver" => |_, args| match read(args) {
            Ok(_) => Ok(Val::Bool(true)),
            Err(_) => args[0].as_str().map(|_| Val::Bool(false)),
        },
        "major" | "minor" | "patch" => part,
        _ => return None,
    })
}

fn read(args: &[Val]) -> Result<Semver> {
    let lenient = args.get(1).map_or(Ok(false), Val::as_bool)?;
    Semver::parse(args[0].as_str()?, lenient).map_err(EvalError::Failed)
}

fn part<'a>(ctx: &mut Ctx<'a, '_>, args: &[Val<'a>]) -> Result<Val<'a>> {
    let Val::Opaque(o) = &args[0] else { return no_overload() };
    let Opaque::Semver(version) = &**o else { return no_overload() };
    let at = ["major", "minor", "patch"].iter().position(|name| *name == ctx.call.name).unwrap_or(0);
    Ok(Val::Int(version.numbers[at] as i64))
}
