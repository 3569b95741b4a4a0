//! The options of writes: dry run, field manager, field validation, and those of a deletion.
//!
//! Reads the query, and for deletions the body. Invariant: an option that upstream refuses is refused here.

use meta::field::{Error, Errors, Path};
use meta::{GroupKind, Status, Value};

use crate::call::Call;
use crate::convert::Conversion;
use crate::request::Query;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validation {
    Ignore,
    Warn,
    Strict,
}

#[derive(Clone, Debug, PartialEq)]
pub struct WriteOptions {
    pub dry_run: bool,
    /// Who writes, for managed fields.
    pub manager: String,
    /// The version that is written in, where its fields are those of the stored one.
    pub api_version: Option<String>,
    pub validation: Validation,
    /// Server-side apply takes fields that others own.
    pub force: bool,
    /// The document comes from server-side apply, which has done the managed fields.
    pub applied: bool,
}

const MANAGER_MAX_BYTES: usize = 128;

impl WriteOptions {
    /// `kind` is the name of the options in errors: `CreateOptions`, `UpdateOptions`, `PatchOptions`.
    pub fn parse(call: &Call, kind: &str) -> Result<WriteOptions, Status> {
        let query = &call.query;
        let mut errors = Errors::new();
        let dry_run = dry_run(query.all("dryRun"), &mut errors);
        let asked = query.get("fieldManager");
        if asked.len() > MANAGER_MAX_BYTES {
            errors.push(Error::too_long(&Path::new("fieldManager"), MANAGER_MAX_BYTES));
        }
        for (at, c) in asked.char_indices().filter(|(_, c)| c.is_control()) {
            let detail = format!("invalid character U+{:04X} (at position {at})", u32::from(c));
            errors.push(Error::invalid(&Path::new("fieldManager"), asked, detail));
        }
        let validation = match query.get("fieldValidation") {
            "" | "Warn" => Validation::Warn,
            "Strict" => Validation::Strict,
            "Ignore" => Validation::Ignore,
            other => {
                let path = Path::new("fieldValidation");
                errors.push(Error::not_supported(&path, other, &["", "Ignore", "Strict", "Warn"]));
                Validation::Warn
            }
        };
        if !errors.is_empty() {
            return Err(Status::invalid(&GroupKind::new("meta.k8s.io", kind), "", &errors));
        }
        let manager = if asked.is_empty() { agent_name(call.user_agent()) } else { asked.to_string() };
        let renamed = call.served.conversion.as_ref().is_some_and(Conversion::keeps_fields);
        let api_version = renamed.then(|| call.served.api_version.clone());
        Ok(WriteOptions { dry_run, manager, api_version, validation, force: query.flag("force"), applied: false })
    }

    /// What the server itself writes with.
    pub fn own(manager: &str) -> WriteOptions {
        let manager = manager.into();
        let (api_version, validation) = (None, Validation::Ignore);
        WriteOptions { dry_run: false, manager, api_version, validation, force: false, applied: false }
    }
}

fn dry_run<'a>(values: impl Iterator<Item = &'a str>, errors: &mut Errors) -> bool {
    let values: Vec<&str> = values.filter(|v| !v.is_empty()).collect();
    if values.iter().any(|value| *value != "All") {
        errors.push(Error::not_supported(&Path::new("dryRun"), values.clone(), &["All"]));
    }
    !values.is_empty()
}

/// The program's name in a user agent: what stands before the first slash.
fn agent_name(agent: &str) -> String {
    let name = agent.split('/').next().unwrap_or_default();
    let name: String = name.chars().filter(|c| !c.is_control()).collect();
    match name.char_indices().take_while(|(i, c)| i + c.len_utf8() <= MANAGER_MAX_BYTES).last() {
        Some((i, c)) => name[..i + c.len_utf8()].to_string(),
        None => "unknown".into(),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Orphan,
    Background,
    Foreground,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeleteOptions {
    pub dry_run: bool,
    pub grace_seconds: Option<i64>,
    pub uid: Option<String>,
    pub resource_version: Option<String>,
    pub propagation: Option<Propagation>,
    /// Said by `orphanDependents: false`, which came before propagation policies.
    pub cascades: bool,
    /// Only of an object that cannot be read any more.
    pub ignores_read_errors: bool,
}

const IGNORE_READ_ERRORS: &str = "ignoreStoreReadErrorWithClusterBreakingPotential";

impl DeleteOptions {
    /// As members of `meta.k8s.io/v1` DeleteOptions.
    pub fn write_to(&self, value: &mut Value) {
        if let Some(seconds) = self.grace_seconds {
            value.set(&["gracePeriodSeconds"], seconds);
        }
        for (member, text) in [("uid", &self.uid), ("resourceVersion", &self.resource_version)] {
            if let Some(text) = text {
                value.set(&["preconditions", member], text.as_str());
            }
        }
        if let Some(propagation) = self.propagation {
            value.set(&["propagationPolicy"], format!("{propagation:?}"));
        }
    }

    /// Reads the body's options, or the query's where there is no body. A dry run counts wherever it is asked for: upstream
    /// deletes when only the query of a request with a body asks for one.
    pub fn parse(query: &Query, body: Option<&Value>) -> Result<DeleteOptions, Status> {
        let asked = match body {
            Some(body) => body,
            None => &Self::of_query(query)?,
        };
        let mut errors = Errors::new();
        let policy = asked.str_at(&["propagationPolicy"]);
        let orphan = asked.bool_at(&["orphanDependents"]);
        let path = Path::new("propagationPolicy");
        if let (Some(policy), Some(_)) = (policy, orphan) {
            let detail = "orphanDependents and deletionPropagation cannot be both set";
            errors.push(Error::invalid(&path, policy, detail));
        }
        let propagation = match (policy, orphan) {
            (None, None) => None,
            (None, Some(true)) | (Some("Orphan"), _) => Some(Propagation::Orphan),
            (None, Some(false)) | (Some("Background"), _) => Some(Propagation::Background),
            (Some("Foreground"), _) => Some(Propagation::Foreground),
            (Some(other), _) => {
                errors.push(Error::not_supported(&path, other, &["Foreground", "Background", "Orphan", "nil"]));
                None
            }
        };
        let dry_run = dry_run(asked.array_at(&["dryRun"]).iter().filter_map(Value::as_str), &mut errors);
        let ignores_read_errors = asked.bool_at(&[IGNORE_READ_ERRORS]) == Some(true);
        if ignores_read_errors {
            for member in ["dryRun", "propagationPolicy", "orphanDependents", "gracePeriodSeconds", "preconditions"] {
                if asked.get(member).is_some_and(|value| !value.is_null()) {
                    let detail = format!("cannot be set together with .{member}");
                    errors.push(Error::invalid(&Path::new(IGNORE_READ_ERRORS), true, detail));
                }
            }
        }
        Self::refused(&errors)?;
        Ok(DeleteOptions {
            dry_run: dry_run || query.all("dryRun").any(|value| value == "All"),
            grace_seconds: asked.int_at(&["gracePeriodSeconds"]),
            uid: asked.str_at(&["preconditions", "uid"]).map(str::to_string),
            resource_version: asked.str_at(&["preconditions", "resourceVersion"]).map(str::to_string),
            propagation,
            cascades: orphan == Some(false),
            ignores_read_errors,
        })
    }

    fn of_query(query: &Query) -> Result<Value, Status> {
        let mut asked = Value::object();
        let dry_run: Vec<&str> = query.all("dryRun").filter(|value| !value.is_empty()).collect();
        if !dry_run.is_empty() {
            asked.set(&["dryRun"], dry_run);
        }
        if let Some(seconds) = query.int("gracePeriodSeconds")? {
            asked.set(&["gracePeriodSeconds"], seconds);
        }
        let policy = query.get("propagationPolicy");
        if !policy.is_empty() {
            asked.set(&["propagationPolicy"], policy);
        }
        for flag in ["orphanDependents", IGNORE_READ_ERRORS] {
            if query.has(flag) {
                asked.set(&[flag], query.flag(flag));
            }
        }
        Ok(asked)
    }

    /// Refuses for a whole collection what only makes sense for one object.
    pub fn check_for_collection(&self) -> Result<(), Status> {
        let detail = "is not allowed with DELETECOLLECTION, try again after removing the option";
        let error = self.ignores_read_errors.then(|| Error::invalid(&Path::new(IGNORE_READ_ERRORS), true, detail));
        Self::refused(error.as_slice())
    }

    fn refused(errors: &[Error]) -> Result<(), Status> {
        match errors {
            [] => Ok(()),
            errors => Err(Status::invalid(&GroupKind::new("meta.k8s.io", "DeleteOptions"), "", errors)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meta::json;

    #[test]
    fn agents() {
        for (agent, name) in
            [("kubectl/v1.32.0 (linux/amd64) kubernetes/abc", "kubectl"), ("curl", "curl"), ("", "unknown")]
        {
            assert_eq!(agent_name(agent), name);
        }
        assert_eq!(agent_name(&"é".repeat(100)).len(), 128);
    }

    #[test]
    fn deletions() {
        let body = json!({"gracePeriodSeconds": 0, "propagationPolicy": "Foreground", "preconditions": {"uid": "u"}});
        let options = DeleteOptions::parse(&Query::default(), Some(&body)).expect("options");
        assert_eq!(
            options,
            DeleteOptions {
                grace_seconds: Some(0),
                uid: Some("u".into()),
                propagation: Some(Propagation::Foreground),
                ..DeleteOptions::default()
            }
        );
        let body = json!({"propagationPolicy": "x"});
        let refused = DeleteOptions::parse(&Query::default(), Some(&body)).expect_err("refused");
        assert_eq!(
            refused.message,
            "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: \"x\": supported values: \
             \"Foreground\", \"Background\", \"Orphan\", \"nil\""
        );
    }
}
