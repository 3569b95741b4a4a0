//! Who asks: the identity that authentication found and that everything after it reads.
//!
//! Invariant: an authenticated user is always in `system:authenticated`, an anonymous one in `system:unauthenticated`.

use std::sync::Arc;

use meta::{Map, Value, json};

/// The group that may do everything.
pub const MASTERS: &str = "system:masters";
pub const AUTHENTICATED: &str = "system:authenticated";
pub const UNAUTHENTICATED: &str = "system:unauthenticated";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    /// Further facts, such as the pod that a token is bound to.
    pub extra: Vec<(String, Vec<String>)>,
}

impl User {
    /// An authenticated user.
    pub fn new(name: impl Into<String>, groups: impl IntoIterator<Item = impl Into<String>>) -> Arc<User> {
        let mut groups: Vec<String> = groups.into_iter().map(Into::into).collect();
        if !groups.iter().any(|g| g == AUTHENTICATED) {
            groups.push(AUTHENTICATED.into());
        }
        Arc::new(User { name: name.into(), groups, ..User::default() })
    }

    /// The cluster's own components inside this process.
    pub fn loopback() -> Arc<User> {
        User::new("system:apiserver", [MASTERS])
    }

    pub fn anonymous() -> Arc<User> {
        Arc::new(User { name: "system:anonymous".into(), groups: vec![UNAUTHENTICATED.into()], ..User::default() })
    }

    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// As `authentication.k8s.io/v1` UserInfo.
    pub fn to_value(&self) -> Value {
        let mut v = json!({"username": self.name.as_str(), "groups": self.groups.clone()});
        if !self.uid.is_empty() {
            v.set(&["uid"], &self.uid);
        }
        if !self.extra.is_empty() {
            let extra: Map = self.extra.iter().map(|(k, v)| (k.as_str().into(), v.clone().into())).collect();
            v.set(&["extra"], extra);
        }
        v
    }
}
