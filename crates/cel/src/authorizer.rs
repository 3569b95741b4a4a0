//! The `authorizer` variable: checks that an expression puts together, and who answers them.
//! Reads what the expression says; whether it is allowed is the caller's `Authorizer` to say.

use crate::value::{Opaque, Result, Val, no_overload};

/// Answers checks. Who asks when no service account is named is the implementor's to know.
pub trait Authorizer {
    /// `Err` is the authorizer's own failure: `decision.errored()`.
    fn authorize(&self, check: &Check, verb: &str) -> Decision;
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    pub allowed: bool,
    pub reason: String,
    pub error: Option<String>,
}

/// What is asked, so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Check {
    /// namespace and name of the service account asked about, instead of the request's user
    pub service_account: Option<(String, String)>,
    pub path: Option<String>,
    pub group: Option<String>,
    pub resource: Option<String>,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub field_selector: String,
    pub label_selector: String,
}

impl Check {
    pub fn type_name(&self) -> &'static str {
        match self {
            Check { path: Some(_), .. } => "kubernetes.authorization.PathCheck",
            Check { resource: Some(_), .. } => "kubernetes.authorization.ResourceCheck",
            Check { group: Some(_), .. } => "kubernetes.authorization.GroupCheck",
            _ => "kubernetes.authorization.Authorizer",
        }
    }

    /// `authorizer.path(...)`, `.resource(...)`: the check with one thing more.
    pub fn with<'a>(&self, what: &str, args: &[Val<'a>]) -> Result<Val<'a>> {
        let mut check = self.clone();
        let text = match args.first() {
            Some(Val::String(text)) => text.to_string(),
            _ => return no_overload(),
        };
        match what {
            "serviceAccount" => check.service_account = Some((text, args[1].as_str()?.to_string())),
            "path" => check.path = Some(text),
            "group" => check.group = Some(text),
            "resource" => check.resource = Some(text),
            "subresource" => check.subresource = text,
            "namespace" => check.namespace = text,
            "name" => check.name = text,
            "fieldSelector" => check.field_selector = text,
            _ => check.label_selector = text,
        }
        Ok(Val::opaque(Opaque::Check(check)))
    }
}
