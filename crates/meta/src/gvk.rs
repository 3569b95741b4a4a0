//! Names of kinds and resources: group, version, kind, resource.

use std::fmt;

/// `apps/v1`, or `v1` for the core group (whose group is empty).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct GroupVersion {
    pub group: String,
    pub version: String,
}

impl GroupVersion {
    pub fn new(group: impl Into<String>, version: impl Into<String>) -> Self {
        GroupVersion { group: group.into(), version: version.into() }
    }

    /// Reads an `apiVersion`; `None` for one with more than one slash or without a version.
    pub fn parse(api_version: &str) -> Option<Self> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        (!version.is_empty() && !version.contains('/')).then(|| GroupVersion::new(group, version))
    }

    pub fn with_kind(&self, kind: &str) -> GroupVersionKind {
        GroupVersionKind::new(&self.group, &self.version, kind)
    }

    pub fn with_resource(&self, resource: &str) -> GroupVersionResource {
        GroupVersionResource::new(&self.group, &self.version, resource)
    }
}

impl fmt::Display for GroupVersion {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if self.group.is_empty() { f.write_str(&self.version) } else { write!(f, "{}/{}", self.group, self.version) }
    }
}

macro_rules! triple {
    ($name:ident, $third:ident, $pair:ident, $pair_fn:ident) => {
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        pub struct $name {
            pub group: String,
            pub version: String,
            pub $third: String,
        }

        impl $name {
            pub fn new(group: impl Into<String>, version: impl Into<String>, $third: impl Into<String>) -> Self {
                $name { group: group.into(), version: version.into(), $third: $third.into() }
            }

            pub fn group_version(&self) -> GroupVersion {
                GroupVersion::new(&self.group, &self.version)
            }

            pub fn $pair_fn(&self) -> $pair {
                $pair::new(&self.group, &self.$third)
            }
        }

        /// As upstream prints it: `apps/v1, Kind=Deployment`.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
                let mut word = stringify!($third).to_string();
                word[..1].make_ascii_uppercase();
                write!(f, "{}/{}, {word}={}", self.group, self.version, self.$third)
            }
        }

        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        pub struct $pair {
            pub group: String,
            pub $third: String,
        }

        impl $pair {
            pub fn new(group: impl Into<String>, $third: impl Into<String>) -> Self {
                $pair { group: group.into(), $third: $third.into() }
            }
        }

        /// As upstream prints it: `deployments.apps`, and without the dot in the core group.
        impl fmt::Display for $pair {
            fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str(&self.$third)?;
                if self.group.is_empty() { Ok(()) } else { write!(f, ".{}", self.group) }
            }
        }
    };
}
triple!(GroupVersionKind, kind, GroupKind, group_kind);
triple!(GroupVersionResource, resource, GroupResource, group_resource);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_versions() {
        assert_eq!(GroupVersion::parse("v1"), Some(GroupVersion::new("", "v1")));
        assert_eq!(GroupVersion::parse("apps/v1"), Some(GroupVersion::new("apps", "v1")));
        for bad in ["", "a/b/c", "apps/"] {
            assert_eq!(GroupVersion::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn display_as_upstream() {
        assert_eq!(GroupResource::new("apps", "deployments").to_string(), "deployments.apps");
        assert_eq!(GroupResource::new("", "pods").to_string(), "pods");
        assert_eq!(GroupVersionKind::new("apps", "v1", "Deployment").to_string(), "apps/v1, Kind=Deployment");
    }
}
