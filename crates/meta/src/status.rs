//! The one error on the wire: `metav1.Status`, with upstream's reasons, codes and messages.
//!
//! Source: the API conventions, "Response Status Kind".

use std::collections::HashSet;
use std::fmt;

use crate::field;
use crate::{GroupKind, GroupResource, Value, json};

/// Writes the enum of the reasons, each of which is its own word on the wire.
macro_rules! reasons {
    ($($reason:ident)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Reason {
            Unknown,
            $($reason,)*
        }

        impl Reason {
            /// The reason of this word; `Unknown` for any other.
            pub fn named(word: &str) -> Reason {
                match word {
                    $(stringify!($reason) => Reason::$reason,)*
                    _ => Reason::Unknown,
                }
            }

            pub fn as_str(self) -> &'static str {
                match self {
                    Reason::Unknown => "",
                    $(Reason::$reason => stringify!($reason),)*
                }
            }
        }
    };
}
reasons! {
    BadRequest Unauthorized Forbidden NotFound AlreadyExists Conflict Gone Expired Invalid
    MethodNotAllowed NotAcceptable RequestEntityTooLarge UnsupportedMediaType TooManyRequests ServerTimeout Timeout InternalError ServiceUnavailable
}

/// One thing that went wrong inside the request.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Cause {
    pub reason: String,
    pub message: String,
    pub field: String,
}

/// What the error is about.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Details {
    pub name: String,
    pub group: String,
    /// The resource, or the kind for Invalid.
    pub kind: String,
    pub uid: String,
    pub causes: Vec<Cause>,
    pub retry_after_seconds: u32,
}

/// A failure, as the client gets it.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    pub code: u16,
    pub reason: Reason,
    pub message: String,
    pub details: Option<Box<Details>>,
}

impl std::error::Error for Status {}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Status {
    pub fn new(code: u16, reason: Reason, message: impl Into<String>) -> Self {
        Status { code, reason, message: message.into(), details: None }
    }

    fn about(mut self, resource: &GroupResource, name: &str) -> Self {
        self.details = Some(Box::new(Details {
            name: name.into(),
            group: resource.group.clone(),
            kind: resource.resource.clone(),
            ..Details::default()
        }));
        self
    }

    /// Sets the causes, making details where there are none.
    pub fn with_causes(mut self, causes: Vec<Cause>) -> Self {
        self.details.get_or_insert_default().causes = causes;
        self
    }

    pub fn with_retry_after(mut self, seconds: u32) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = seconds;
        self
    }

    pub fn not_found(resource: &GroupResource, name: &str) -> Self {
        Self::new(404, Reason::NotFound, format!("{resource} {name:?} not found")).about(resource, name)
    }

    /// For a path that names no known resource.
    pub fn unknown_resource() -> Self {
        let mut status = Self::new(404, Reason::NotFound, "the server could not find the requested resource");
        status.details = Some(Box::default());
        status
    }

    pub fn already_exists(resource: &GroupResource, name: &str) -> Self {
        Self::new(409, Reason::AlreadyExists, format!("{resource} {name:?} already exists")).about(resource, name)
    }

    pub fn conflict(resource: &GroupResource, name: &str, why: impl fmt::Display) -> Self {
        let message = format!("Operation cannot be fulfilled on {resource} {name:?}: {why}");
        Self::new(409, Reason::Conflict, message).about(resource, name)
    }

    /// The conflict of an update that carries an old resourceVersion.
    pub fn modified(resource: &GroupResource, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, name, why)
    }

    pub fn invalid(kind: &GroupKind, name: &str, errors: &[field::Error]) -> Self {
        // The same error at the same place is said once.
        let mut known = HashSet::with_capacity(errors.len());
        let said: Vec<field::Error> = errors.iter().filter(|e| known.insert(*e)).cloned().collect();
        let message = format!("{kind} {name:?} is invalid: {}", field::summary(&said));
        let mut status = Self::new(422, Reason::Invalid, message);
        status.details = Some(Box::new(Details {
            name: name.into(),
            group: kind.group.clone(),
            kind: kind.kind.clone(),
            causes: said
                .iter()
                .map(|e| Cause { reason: e.kind.reason().into(), message: e.body().into(), field: e.field.clone() })
                .collect(),
            ..Details::default()
        }));
        status
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, Reason::BadRequest, message)
    }

    pub fn unauthorized() -> Self {
        Self::new(401, Reason::Unauthorized, "Unauthorized")
    }

    pub fn forbidden(resource: &GroupResource, name: &str, why: impl fmt::Display) -> Self {
        let message = match (resource.resource.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {why}"),
            (_, true) => format!("{resource} is forbidden: {why}"),
            _ => format!("{resource} {name:?} is forbidden: {why}"),
        };
        Self::new(403, Reason::Forbidden, message).about(resource, name)
    }

    pub fn method_not_supported(resource: &GroupResource, verb: &str) -> Self {
        let message = format!("{verb} is not supported on resources of kind {:?}", resource.to_string());
        Self::new(405, Reason::MethodNotAllowed, message).about(resource, "")
    }

    /// For a path that exists, asked with a method that it does not have.
    pub fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(405, Reason::MethodNotAllowed, message).with_causes(vec![])
    }

    pub fn not_acceptable(accepted: &[&str]) -> Self {
        let list = accepted.join(", ");
        Self::new(406, Reason::NotAcceptable, format!("only the following media types are accepted: {list}"))
    }

    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::new(415, Reason::UnsupportedMediaType, message)
    }

    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(413, Reason::RequestEntityTooLarge, format!("Request entity too large: {}", message.into()))
    }

    /// A resourceVersion or continue token that history no longer reaches.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, Reason::Expired, message)
    }

    pub fn gone(message: impl Into<String>) -> Self {
        Self::new(410, Reason::Gone, message)
    }

    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: u32) -> Self {
        Self::new(429, Reason::TooManyRequests, message).with_retry_after(retry_after_seconds)
    }

    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(504, Reason::Timeout, message)
    }

    pub fn internal(message: impl fmt::Display) -> Self {
        let mut status = Self::new(500, Reason::InternalError, format!("Internal error occurred: {message}"));
        let cause = Cause { message: message.to_string(), ..Cause::default() };
        status.details = Some(Box::new(Details { causes: vec![cause], ..Details::default() }));
        status
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, Reason::ServiceUnavailable, message)
    }

    /// The `v1` Status object that is sent.
    pub fn to_value(&self) -> Value {
        let mut v = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message.as_str(), "code": self.code,
        });
        if self.reason != Reason::Unknown {
            v.set(&["reason"], self.reason.as_str());
        }
        if let Some(details) = &self.details {
            v.set(&["details"], details.to_value());
        }
        v
    }
}

impl Details {
    fn to_value(&self) -> Value {
        let mut v = Value::object();
        let texts = [("name", &self.name), ("group", &self.group), ("kind", &self.kind), ("uid", &self.uid)];
        for (key, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            v.set(&[key], text);
        }
        if !self.causes.is_empty() {
            let causes: Vec<Value> = self.causes.iter().map(Cause::to_value).collect();
            v.set(&["causes"], causes);
        }
        if self.retry_after_seconds > 0 {
            v.set(&["retryAfterSeconds"], self.retry_after_seconds);
        }
        v
    }
}

impl Cause {
    fn to_value(&self) -> Value {
        let mut v = Value::object();
        let texts = [("reason", &self.reason), ("message", &self.message), ("field", &self.field)];
        for (key, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            v.set(&[key], text);
        }
        v
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn objects_as_upstream() {
        let pods = GroupResource::new("", "pods");
        expect![[r#"{"apiVersion":"v1","code":404,"details":{"kind":"pods","name":"x"},"kind":"Status","message":"pods \"x\" not found","metadata":{},"reason":"NotFound","status":"Failure"}"#]]
        .assert_eq(&Status::not_found(&pods, "x").to_value().to_string());
        let errors = [field::Error::required(&field::Path::new("spec.containers"), "")];
        expect![[r#"{"apiVersion":"v1","code":422,"details":{"causes":[{"field":"spec.containers","message":"Required value","reason":"FieldValueRequired"}],"kind":"Pod","name":"x"},"kind":"Status","message":"Pod \"x\" is invalid: spec.containers: Required value","metadata":{},"reason":"Invalid","status":"Failure"}"#]]
        .assert_eq(&Status::invalid(&GroupKind::new("", "Pod"), "x", &errors).to_value().to_string());
    }
}
