//! Who may: the place of authorization in the request path.
//!
//! Today every authenticated user may do everything, and somebody anonymous may read health and version; RBAC takes the
//! place of [`AllowAuthenticated`]. Invariant: every request passes here after authentication and before anything else.

use crate::request::{ResourcePath, Verb};
use crate::user::{self, User};

/// What is asked: a verb on a resource, or on a path.
#[derive(Clone, Debug)]
pub enum Ask<'a> {
    Resource {
        verb: Verb,
        path: &'a ResourcePath,
    },
    /// As a review asks it: the verb may be any word.
    Review {
        verb: &'a str,
        group: &'a str,
        resource: &'a str,
        subresource: &'a str,
        namespace: &'a str,
        name: &'a str,
    },
    Path {
        method: &'a str,
        path: &'a str,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    pub reason: String,
}

pub trait Authorizer: Send + Sync + 'static {
    fn decide(&self, user: &User, ask: &Ask<'_>) -> Decision;
}

/// Paths that anybody may read.
const OPEN: [&str; 4] = ["/healthz", "/livez", "/readyz", "/version"];

/// Anybody may read these, credentials or not.
pub fn is_open(path: &str) -> bool {
    OPEN.iter().any(|open| path == *open || path.strip_prefix(open).is_some_and(|rest| rest.starts_with('/')))
}

pub struct AllowAuthenticated;

impl Authorizer for AllowAuthenticated {
    fn decide(&self, user: &User, ask: &Ask<'_>) -> Decision {
        if user.is_in(user::MASTERS) || user.is_in(user::AUTHENTICATED) {
            return Decision { allowed: true, reason: String::new() };
        }
        let allowed = matches!(ask, Ask::Path { method: "GET" | "HEAD", path } if is_open(path));
        Decision { allowed, reason: String::new() }
    }
}

/// The message of a refusal, as upstream words it.
pub fn refusal(user: &User, ask: &Ask<'_>) -> String {
    let name = &user.name;
    match ask {
        Ask::Path { method, path } => {
            format!("User {name:?} cannot {} path {path:?}", method.to_ascii_lowercase())
        }
        Ask::Resource { verb, path } => {
            let resource = match path.subresource.as_str() {
                "" => path.resource.clone(),
                sub => format!("{}/{sub}", path.resource),
            };
            let scope = match path.namespace.as_str() {
                "" => "at the cluster scope".to_string(),
                ns => format!("in the namespace {ns:?}"),
            };
            let verb = verb.as_str();
            format!("User {name:?} cannot {verb} resource {resource:?} in API group {:?} {scope}", path.group)
        }
        Ask::Review { verb, resource, .. } => format!("User {name:?} cannot {verb} resource {resource:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anonymous_reads_health_only() {
        let anonymous = User::anonymous();
        for (path, allowed) in [
            ("/healthz", true),
            ("/readyz/ping", true),
            ("/version", true),
            ("/versions", false),
            ("/api", false),
            ("/metrics", false),
        ] {
            let ask = Ask::Path { method: "GET", path };
            assert_eq!(AllowAuthenticated.decide(&anonymous, &ask).allowed, allowed, "{path}");
        }
    }
}
