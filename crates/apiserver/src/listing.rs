//! The options of list and watch, and the tokens that continue a list.
//!
//! Reads the query. Invariant: what passes here is a combination that the documentation page "API concepts" allows.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use meta::field::{Error, Path};
use meta::{GroupKind, Status, json};

use crate::request::Query;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    Exact,
    NotOlderThan,
}

/// Which state is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Nothing said: the newest.
    Newest,
    /// `0`: whatever is at hand.
    Any,
    At(u64),
}

#[derive(Clone, Debug, PartialEq)]
pub struct ListOptions {
    /// 0 for no limit.
    pub limit: usize,
    pub version: Version,
    pub version_match: Option<Match>,
    pub token: Option<Token>,
    pub timeout_seconds: Option<u64>,
    pub bookmarks: bool,
    pub send_initial_events: Option<bool>,
}

/// Where a list goes on. As upstream writes it: base64 of a JSON object.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// The revision of the whole list; `None` goes on with whatever is there now.
    pub revision: Option<u64>,
    /// The key after which to go on, below the resource's prefix.
    pub after: String,
}

impl Token {
    pub fn encode(&self) -> String {
        let revision = self.revision.map_or(-1, |r| r as i64);
        let text = json!({"v": "meta.k8s.io/v1", "rv": revision, "start": format!("{}\0", self.after)});
        URL_SAFE_NO_PAD.encode(text.to_vec())
    }

    pub fn decode(text: &str) -> Result<Token, Status> {
        let bad = |why: &str| Status::bad_request(format!("invalid continue token: continue key is not valid: {why}"));
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|e| {
            let at = match e {
                base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                _ => text.len() / 4 * 4,
            };
            bad(&format!("illegal base64 data at input byte {at}"))
        })?;
        let token = meta::parse(&bytes).map_err(|e| bad(&e.to_string()))?;
        if token.str_at(&["v"]) != Some("meta.k8s.io/v1") {
            let version = token.str_at(&["v"]).unwrap_or_default();
            return Err(bad(&format!("server does not recognize this encoded version {version}")));
        }
        let start = token.str_at(&["start"]).unwrap_or_default();
        let after = start.strip_suffix('\0').unwrap_or(start);
        let revision = match token.int_at(&["rv"]) {
            None | Some(0) => return Err(bad("incorrect encoded start resourceVersion (version meta.k8s.io/v1)")),
            Some(rv) => u64::try_from(rv).ok(),
        };
        if after.is_empty() || after.contains("..") {
            return Err(bad(&format!("invalid start key: {start:?}")));
        }
        Ok(Token { revision, after: after.to_string() })
    }
}

/// Reads a resourceVersion; `None` for one that is no number.
pub fn version(text: &str) -> Option<Version> {
    match text {
        "" => Some(Version::Newest),
        "0" => Some(Version::Any),
        text => text.parse().ok().map(Version::At),
    }
}

pub fn not_a_version(text: &str) -> Error {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let why = if digits { "value out of range" } else { "invalid syntax" };
    Error::invalid(&Path::new("resourceVersion"), text, format!("strconv.ParseUint: parsing {text:?}: {why}"))
}

fn invalid(errors: &[Error]) -> Status {
    Status::invalid(&GroupKind::new("meta.k8s.io", "ListOptions"), "", errors)
}

impl ListOptions {
    pub fn parse(query: &Query, watch: bool) -> Result<ListOptions, Status> {
        let text = query.get("resourceVersion");
        let version = version(text);
        // Compat: a negative limit is none.
        let limit = query.int("limit")?.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(0);
        let send_initial_events = query.has("sendInitialEvents").then(|| query.flag("sendInitialEvents"));
        let version_match = check_match(query, version, watch, send_initial_events)?;
        let version = version.ok_or_else(|| no_version(text, watch))?;
        let token = match query.get("continue") {
            "" => None,
            text => Some(Token::decode(text)?),
        };
        if token.is_some() && !matches!(version, Version::Newest | Version::Any) {
            return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
        }
        Ok(ListOptions {
            limit,
            version,
            version_match,
            token,
            timeout_seconds: query.int("timeoutSeconds")?.and_then(|s| u64::try_from(s).ok()).filter(|s| *s > 0),
            bookmarks: query.flag("allowWatchBookmarks"),
            send_initial_events,
        })
    }
}

/// Compat: upstream's watch takes it for its own fault.
fn no_version(text: &str, watch: bool) -> Status {
    let why = not_a_version(text);
    match watch {
        true => Status::new(500, meta::Reason::Unknown, why.to_string()),
        false => Status::bad_request(format!("invalid resource version: {why}")),
    }
}

fn check_match(
    query: &Query,
    version: Option<Version>,
    watch: bool,
    send_initial_events: Option<bool>,
) -> Result<Option<Match>, Status> {
    const CONTINUES: &str = "resourceVersionMatch is forbidden when continue is provided";
    let path = Path::new("resourceVersionMatch");
    let text = query.get("resourceVersionMatch");
    let asked = match text {
        "" => None,
        "NotOlderThan" => Some(Match::NotOlderThan),
        _ => Some(Match::Exact), // refused below, if it is something else
    };
    let forbidden = |is: bool, why: &str| is.then(|| Error::forbidden(&path, why));
    // Of a watch, none is known too and is not named.
    let unknown =
        |known: &[&str]| (!text.is_empty() && !known.contains(&text)).then(|| Error::not_supported(&path, text, known));
    let continues = !query.get("continue").is_empty();
    let errors = match (send_initial_events, asked) {
        (Some(_), _) if !watch => {
            let at = Path::new("sendInitialEvents");
            vec![Some(Error::forbidden(&at, "sendInitialEvents is forbidden for list"))]
        }
        (Some(_), Some(Match::NotOlderThan)) => vec![],
        (Some(_), _) => {
            let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            vec![forbidden(true, why), unknown(&["NotOlderThan"])]
        }
        (None, None) => vec![forbidden(watch && continues, CONTINUES)],
        (None, Some(_)) if watch => {
            let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            vec![forbidden(true, why), unknown(&["NotOlderThan"])]
        }
        (None, Some(_)) => vec![
            forbidden(
                query.get("resourceVersion").is_empty(),
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            ),
            forbidden(continues, CONTINUES),
            unknown(&["Exact", "NotOlderThan", ""]),
            forbidden(
                text == "Exact" && version == Some(Version::Any),
                "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            ),
        ],
    };
    let errors: Vec<Error> = errors.into_iter().flatten().collect();
    if errors.is_empty() { Ok(asked) } else { Err(invalid(&errors)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back() {
        let token = Token { revision: Some(7), after: "a/b".into() };
        assert_eq!(Token::decode(&token.encode()), Ok(token));
        let open = Token { revision: None, after: "a".into() };
        assert_eq!(Token::decode(&open.encode()), Ok(open));
        assert!(Token::decode("!").is_err());
    }

    #[test]
    fn combinations() {
        golden::check!("listing.txt", |case| {
            let (query, of_watch) = case.strip_suffix(" | watch").map_or((case, false), |query| (query, true));
            let uri = format!("/x?{query}").parse().expect("uri");
            let parsed = ListOptions::parse(&Query::parse(&uri), of_watch);
            parsed.map_or_else(|status| status.message, |o| format!("{:?} {}", o.version, o.limit))
        });
    }
}
