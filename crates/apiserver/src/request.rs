//! What a request asks for: its path and query taken apart.
//!
//! Reads: method, path, query. Invariant: every later hop reads these fields and never the path again.

use http::{Method, Uri};

/// What is to be done, in the words of RBAC rules and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
    /// exec, attach, port-forward and proxy, whatever the method.
    Connect,
}

impl Verb {
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Watch => "watch",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
            Verb::Connect => "connect",
        }
    }

    /// As the `verb` label of `apiserver_request_total`.
    pub fn metric(self) -> &'static str {
        match self {
            Verb::Get => "GET",
            Verb::List => "LIST",
            Verb::Watch => "WATCH",
            Verb::Create => "POST",
            Verb::Update => "PUT",
            Verb::Patch => "PATCH",
            Verb::Delete => "DELETE",
            Verb::DeleteCollection => "DELETECOLLECTION",
            Verb::Connect => "CONNECT",
        }
    }

    pub fn is_mutating(self) -> bool {
        !matches!(self, Verb::Get | Verb::List | Verb::Watch | Verb::Connect)
    }
}

/// A request for a resource: `/api/v1/namespaces/NS/pods/NAME/log`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourcePath {
    pub group: String,
    pub version: String,
    /// Empty for a cluster-scoped resource, and for all namespaces.
    pub namespace: String,
    pub resource: String,
    /// Empty for the collection.
    pub name: String,
    pub subresource: String,
    /// What stands after `proxy/`, with its leading slash.
    pub rest: String,
    /// The old `/watch/` form of the path.
    pub watch_prefix: bool,
}

/// What kind of path was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Resource(ResourcePath),
    /// Everything else: discovery, health, metrics.
    NonResource,
}

/// Subresources that keep a connection, for which the method does not matter.
const CONNECT: [&str; 4] = ["exec", "attach", "portforward", "proxy"];
/// Namespace subresources; any other third segment is a resource in the namespace.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

/// The parts between a path's slashes. Those at its end do not count; an empty part elsewhere is one that names nothing.
pub fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.strip_prefix('/').unwrap_or(path).trim_end_matches('/').split('/')
}

/// Takes a path apart. `None` when a segment is no valid percent encoding.
pub fn parse_path(path: &str) -> Option<Target> {
    let parts = segments(path).map(|part| percent_decode(part, false));
    let segments = parts.collect::<Option<Vec<String>>>()?;
    let (group, version, mut rest) = match segments.first().map(String::as_str) {
        Some("api") if segments.len() > 2 => (String::new(), segments[1].clone(), &segments[2..]),
        Some("apis") if segments.len() > 3 && !segments[1].is_empty() => {
            (segments[1].clone(), segments[2].clone(), &segments[3..])
        }
        _ => return Some(Target::NonResource),
    };
    let watch_prefix = rest[0] == "watch" && rest.len() > 1;
    if watch_prefix {
        rest = &rest[1..];
    }
    let mut namespace = String::new();
    if rest[0] == "namespaces" && rest.len() > 2 && !(rest.len() == 3 && NAMESPACE_SUBRESOURCES.contains(&&*rest[2])) {
        namespace = rest[1].clone();
        rest = &rest[2..];
    }
    let part = |i: usize| rest.get(i).cloned().unwrap_or_default();
    let mut tail = String::new();
    if rest.len() > 3 {
        tail = format!("/{}", rest[3..].join("/"));
        if path.ends_with('/') {
            tail.push('/');
        }
    } else if rest.len() == 3 && path.ends_with('/') {
        tail.push('/');
    }
    Some(Target::Resource(ResourcePath {
        group,
        version,
        namespace,
        resource: part(0),
        name: part(1),
        subresource: part(2),
        rest: tail,
        watch_prefix,
    }))
}

impl ResourcePath {
    /// The path with what a client chose left open, as upstream's routes are written.
    pub fn route(&self) -> String {
        let mut route = if self.group.is_empty() { "/api/".into() } else { format!("/apis/{}/", self.group) };
        route += &self.version;
        for (there, part) in [
            (self.watch_prefix, "watch"),
            (!self.namespace.is_empty(), "namespaces/{:namespace}"),
            (true, &self.resource),
            (!self.name.is_empty(), "{:name}"),
            (!self.subresource.is_empty(), &self.subresource),
            (!self.rest.is_empty(), "{:path}"),
        ] {
            if there {
                route = format!("{route}/{part}");
            }
        }
        route
    }

    /// The verb that the method means on this path; `None` when the path does not know the method.
    pub fn verb(&self, method: &Method, query: &Query) -> Option<Verb> {
        if CONNECT.contains(&self.subresource.as_str()) {
            return Some(Verb::Connect);
        }
        let collection = self.name.is_empty();
        Some(match *method {
            Method::GET | Method::HEAD => {
                if (self.watch_prefix || collection && query.flag("watch")) && self.subresource.is_empty() {
                    Verb::Watch
                } else if collection {
                    Verb::List
                } else {
                    Verb::Get
                }
            }
            Method::POST => Verb::Create,
            Method::PUT if !collection => Verb::Update,
            Method::PATCH if !collection => Verb::Patch,
            Method::DELETE if collection => Verb::DeleteCollection,
            Method::DELETE => Verb::Delete,
            _ => return None,
        })
    }
}

/// The query string, decoded once. Later values of the same key are kept, as Go's `url.Values` does.
#[derive(Clone, Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(uri: &Uri) -> Query {
        let text = uri.query().unwrap_or_default();
        Query(
            text.split('&')
                .filter(|p| !p.is_empty())
                .filter_map(|pair| {
                    let (k, v) = pair.split_once('=').unwrap_or((pair, ""));
                    Some((percent_decode(k, true)?, percent_decode(v, true)?))
                })
                .collect(),
        )
    }

    /// The first value of `key`; empty when absent.
    pub fn get(&self, key: &str) -> &str {
        self.0.iter().find(|(k, _)| k == key).map_or("", |(_, v)| v)
    }

    pub fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(k, _)| k == key)
    }

    pub fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// Compat: a flag is on unless it says "0" or "false", in any case (apimachinery's string-to-bool conversion).
    pub fn flag(&self, key: &str) -> bool {
        self.0.iter().find(|(k, _)| k == key).is_some_and(|(_, v)| v != "0" && !v.eq_ignore_ascii_case("false"))
    }

    /// A whole number; an error in Go's words when it is none.
    pub fn int(&self, key: &str) -> Result<Option<i64>, meta::Status> {
        let text = self.get(key);
        if text.is_empty() {
            return Ok(None);
        }
        text.parse()
            .map(Some)
            .map_err(|_| meta::Status::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))
    }
}

/// Decodes `%XX`, and `+` as a space in queries. `None` for broken escapes or text that is not UTF-8.
pub fn percent_decode(text: &str, plus_is_space: bool) -> Option<String> {
    if !text.bytes().any(|b| b == b'%' || b == b'+') {
        return Some(text.to_string());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        match b {
            b'%' => {
                let hex = [bytes.next()?, bytes.next()?];
                out.push(u8::from_str_radix(std::str::from_utf8(&hex).ok()?, 16).ok()?);
            }
            b'+' if plus_is_space => out.push(b' '),
            b => out.push(b),
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        golden::check!("request.txt", |path| match parse_path(path) {
            Some(Target::Resource(resource)) => format!("{resource:?}"),
            Some(Target::NonResource) => "-".into(),
            None => "bad".into(),
        });
    }

    #[test]
    fn queries() {
        let q = Query::parse(&"/x?watch=true&limit=5&labelSelector=a%3Db%2Cc&x=a+b&bad=%z".parse().expect("uri"));
        assert!(q.flag("watch"));
        assert_eq!(q.int("limit").expect("number"), Some(5));
        assert_eq!(q.get("labelSelector"), "a=b,c");
        assert_eq!(q.get("x"), "a b");
        assert!(!q.has("bad"));
    }
}
