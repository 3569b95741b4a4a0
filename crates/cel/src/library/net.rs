//! IP addresses, CIDRs and URLs. Invariant: only canonical families (no zones, no IPv4 in IPv6), as Kubernetes takes them.

use crate::eval::{Builtin, Ctx};
use crate::value::{EvalError, Key, Members, Opaque, OwnMap, Result, Val, failed, no_overload};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cidr {
    /// as written, not masked
    pub addr: IpAddr,
    pub length: u8,
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.length)
    }
}

impl Cidr {
    fn masked(self) -> Cidr {
        let addr = match self.addr {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.length)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.length)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
            }
        };
        Cidr { addr, ..self }
    }

    fn contains(self, addr: IpAddr) -> bool {
        addr.is_ipv4() == self.addr.is_ipv4() && Cidr { addr, ..self }.masked().addr == self.masked().addr
    }
}

/// An address, or why not, in the words of Go's netip.
fn parse_addr(text: &str) -> std::result::Result<IpAddr, String> {
    text.parse().map_err(|_| {
        let why = match text.contains(':') {
            false if text.contains('.') => {
                let fields: Vec<&str> = text.split('.').collect();
                let digits = |f: &&str| !f.is_empty() && f.bytes().all(|b| b.is_ascii_digit());
                if fields.iter().all(digits) && fields.iter().any(|f| f.len() > 1 && f.starts_with('0')) {
                    "IPv4 field has octet with leading zero"
                } else if fields.iter().all(digits) && fields.iter().any(|f| f.parse::<u8>().is_err()) {
                    "IPv4 field has value >255"
                } else if fields.iter().all(digits) && fields.len() < 4 {
                    "IPv4 address too short"
                } else if fields.iter().all(digits) {
                    "IPv4 address too long"
                } else {
                    "unexpected character"
                }
            }
            _ => "unable to parse IP",
        };
        format!("ParseAddr(\"{text}\"): {why}")
    })
}

pub fn parse_ip(text: &str) -> std::result::Result<IpAddr, String> {
    let (bare, zone) = text.split_once('%').map_or((text, false), |(bare, _)| (bare, true));
    let addr = parse_addr(bare)
        .map_err(|e| format!("IP Address \"{text}\" parse error during conversion from string: {e}"))?;
    match addr {
        _ if zone => Err(format!("IP address \"{text}\" with zone value is not allowed")),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Err(format!("IPv4-mapped IPv6 address \"{text}\" is not allowed"))
        }
        addr => Ok(addr),
    }
}

pub fn parse_cidr(text: &str) -> std::result::Result<Cidr, String> {
    const WHY: &str = "network address parse error during conversion from string: ";
    let refused = |why: &str| format!("{WHY}{WHY}netip.ParsePrefix(\"{text}\"): {why}");
    let (addr, length) = text.rsplit_once('/').ok_or_else(|| refused("no '/'"))?;
    if addr.contains('%') {
        return Err(refused("IPv6 zones cannot be present in a prefix"));
    }
    let addr = parse_addr(addr).map_err(|e| refused(&e))?;
    let plain = length.bytes().all(|b| b.is_ascii_digit()) && (length == "0" || !length.starts_with('0'));
    let length: u8 =
        length.parse().ok().filter(|_| plain).ok_or_else(|| refused(&format!("bad bits after slash: \"{length}\"")))?;
    if length > if addr.is_ipv4() { 32 } else { 128 } {
        return Err(refused("prefix length out of range"));
    }
    match addr {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Err(format!("{WHY}IPv4-mapped IPv6 address \"{text}\" is not allowed"))
        }
        addr => Ok(Cidr { addr, length }),
    }
}

pub fn find(name: &str, member: bool) -> Option<Builtin> {
    Some(match name {
        "ip" if member => |_, args| Ok(Val::opaque(Opaque::Ip(as_cidr(&args[0])?.addr))),
        "ip" => |_, args| Ok(Val::opaque(Opaque::Ip(parse_ip(args[0].as_str()?).map_err(EvalError::Failed)?))),
        "isIP" => |_, args| Ok(Val::Bool(parse_ip(args[0].as_str()?).is_ok())),
        "ip.isCanonical" => |_, args| {
            let text = args[0].as_str()?;
            Ok(Val::Bool(parse_ip(text).map_err(EvalError::Failed)?.to_string() == text))
        },
        "family" => |_, args| Ok(Val::Int(if as_ip(&args[0])?.is_ipv4() { 4 } else { 6 })),
        "isUnspecified" => |_, args| Ok(Val::Bool(as_ip(&args[0])?.is_unspecified())),
        "isLoopback" => |_, args| Ok(Val::Bool(as_ip(&args[0])?.is_loopback())),
        "isLinkLocalMulticast" => |_, args| {
            Ok(Val::Bool(match as_ip(&args[0])? {
                IpAddr::V4(v4) => matches!(v4.octets(), [224, 0, 0, _]),
                IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
            }))
        },
        "isLinkLocalUnicast" => |_, args| Ok(Val::Bool(link_local(as_ip(&args[0])?))),
        "isGlobalUnicast" => |_, args| {
            let ip = as_ip(&args[0])?;
            let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
            let special = ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || link_local(ip);
            Ok(Val::Bool(!special && !broadcast))
        },
        "cidr" => |_, args| Ok(Val::opaque(Opaque::Cidr(parse_cidr(args[0].as_str()?).map_err(EvalError::Failed)?))),
        "isCIDR" => |_, args| Ok(Val::Bool(parse_cidr(args[0].as_str()?).is_ok())),
        "masked" => |_, args| Ok(Val::opaque(Opaque::Cidr(as_cidr(&args[0])?.masked()))),
        "prefixLength" => |_, args| Ok(Val::Int(as_cidr(&args[0])?.length.into())),
        "containsIP" => |_, args| {
            let ip = match &args[1] {
                Val::String(text) => parse_ip(text).map_err(EvalError::Failed)?,
                other => as_ip(other)?,
            };
            Ok(Val::Bool(as_cidr(&args[0])?.contains(ip)))
        },
        "containsCIDR" => |_, args| {
            let inner = match &args[1] {
                Val::String(text) => parse_cidr(text).map_err(EvalError::Failed)?,
                other => as_cidr(other)?,
            };
            let outer = as_cidr(&args[0])?;
            Ok(Val::Bool(inner.length >= outer.length && outer.contains(inner.addr)))
        },
        "url" => |_, args| match Url::parse(args[0].as_str()?) {
            Ok(url) => Ok(Val::opaque(Opaque::Url(url))),
            Err(why) => failed(format!("URL parse error during conversion from string: {why}")),
        },
        "isURL" => |_, args| Ok(Val::Bool(Url::parse(args[0].as_str()?).is_ok())),
        "getScheme" | "getHost" | "getHostname" | "getPort" | "getEscapedPath" | "getQuery" => url_part,
        _ => return None,
    })
}

fn link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

fn as_ip(value: &Val) -> Result<IpAddr> {
    match value {
        Val::Opaque(o) => match **o {
            Opaque::Ip(ip) => Ok(ip),
            _ => no_overload(),
        },
        _ => no_overload(),
    }
}

fn as_cidr(value: &Val) -> Result<Cidr> {
    match value {
        Val::Opaque(o) => match **o {
            Opaque::Cidr(cidr) => Ok(cidr),
            _ => no_overload(),
        },
        _ => no_overload(),
    }
}

fn url_part<'a>(ctx: &mut Ctx<'a, '_>, args: &[Val<'a>]) -> Result<Val<'a>> {
    let Val::Opaque(o) = &args[0] else { return no_overload() };
    let Opaque::Url(url) = &**o else { return no_overload() };
    Ok(match ctx.call.name {
        "getScheme" => Val::text(&url.scheme),
        "getHost" => Val::text(&url.host),
        "getHostname" => Val::text(url.split_host().0),
        "getPort" => Val::text(url.split_host().1),
        "getEscapedPath" => Val::text(&url.path),
        _ => {
            let mut pairs = OwnMap::new();
            for (key, value) in url.query_pairs() {
                let (_, list) = pairs
                    .entry(Key::String(key.as_str().into()))
                    .or_insert_with(|| (Val::text(&key), Val::list(vec![])));
                if let Val::List(crate::value::List { items: crate::value::Items::Own(items), .. }) = list {
                    Rc::make_mut(items).push(Val::text(value));
                }
            }
            Val::Map(Members::Own(Rc::new(pairs)))
        }
    })
}

/// A URL as Go's `ParseRequestURI` reads it: absolute, or a path from the root.
#[derive(Clone, Debug, PartialEq)]
pub struct Url {
    scheme: String,
    opaque: String,
    user: String,
    host: String,
    /// escaped
    path: String,
    query: String,
    fragment: String,
}

const SUB_DELIMS: &[u8] = b"!$&'()*+,;=:@[]";

fn unreserved(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-_.~".contains(&b)
}

impl Url {
    pub fn parse(text: &str) -> std::result::Result<Url, String> {
        let refused = |why: &str| format!("parse {}: {why}", crate::library::strings::quote(text));
        if text.bytes().any(|b| b < 0x20 || b == 0x7f) {
            return Err(refused("net/url: invalid control character in URL"));
        }
        if text.is_empty() {
            return Err(refused("empty url"));
        }
        let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (scheme, rest) = scheme(rest).map_err(&refused)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut url = Url {
            scheme: scheme.to_ascii_lowercase(),
            opaque: String::new(),
            user: String::new(),
            host: String::new(),
            path: String::new(),
            query: query.into(),
            fragment: fragment.into(),
        };
        if !rest.starts_with('/') {
            if scheme.is_empty() {
                return Err(refused("invalid URI for request"));
            }
            url.opaque = rest.into();
            return Ok(url);
        }
        let mut path = rest;
        if let Some(authority) = rest.strip_prefix("//").filter(|_| !scheme.is_empty() || !rest.starts_with("///")) {
            let end = authority.find('/').unwrap_or(authority.len());
            path = &authority[end..];
            let authority = &authority[..end];
            let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
            check_host(host).map_err(|e| refused(&e))?;
            (url.user, url.host) = (user.into(), unescape(host, false).map_err(|e| refused(&e))?);
        }
        let plain = unescape(path, false).map_err(|e| refused(&e))?;
        let valid = path.bytes().all(|b| unreserved(b) || SUB_DELIMS.contains(&b) || b == b'/' || b == b'%');
        url.path = if valid { path.into() } else { escape_path(&plain) };
        Ok(url)
    }

    fn split_host(&self) -> (&str, &str) {
        let (name, port) = match self.host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (name, port),
            _ => (self.host.as_str(), ""),
        };
        (name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name), port)
    }

    fn query_pairs(&self) -> impl Iterator<Item = (String, String)> + '_ {
        self.query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')).filter_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((unescape(key, true).ok()?, unescape(value, true).ok()?))
        })
    }
}

fn scheme(text: &str) -> std::result::Result<(&str, &str), &'static str> {
    for (i, b) in text.bytes().enumerate() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if i > 0 => {}
            b':' if i == 0 => return Err("missing protocol scheme"),
            b':' => return Ok((&text[..i], &text[i + 1..])),
            _ => break,
        }
    }
    Ok(("", text))
}

fn check_host(host: &str) -> std::result::Result<(), String> {
    let after = match host.strip_prefix('[') {
        Some(inner) => inner.split_once(']').ok_or_else(|| "missing ']' in host".to_string())?.1,
        None => host.find(':').map_or("", |at| &host[at..]),
    };
    if !after.is_empty() && !after.strip_prefix(':').is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit())) {
        return Err(format!("invalid port \"{after}\" after host"));
    }
    let allowed = |b: u8| b >= 0x80 || unreserved(b) || SUB_DELIMS.contains(&b) || b"%<>\"".contains(&b);
    match host.chars().find(|c| c.is_ascii() && !allowed(*c as u8)) {
        Some(c) => Err(format!("invalid character \"{c}\" in host name")),
        None => Ok(()),
    }
}

fn unescape(text: &str, plus: bool) -> std::result::Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match first {
            b'%' => {
                let hex = tail.get(..2).and_then(|h| std::str::from_utf8(h).ok());
                let code = hex.and_then(|h| u8::from_str_radix(h, 16).ok()).ok_or_else(|| {
                    let shown = String::from_utf8_lossy(&tail[..tail.len().min(2)]);
                    format!("invalid URL escape \"%{shown}\"")
                })?;
                bytes.push(code);
                rest = &tail[2..];
            }
            b'+' if plus => bytes.push(b' '),
            other => bytes.push(*other),
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn escape_path(plain: &str) -> String {
    let mut escaped = String::new();
    for b in plain.bytes() {
        if unreserved(b) || b"$&+,/:;=@".contains(&b) {
            escaped.push(b.into());
        } else {
            escaped.push_str(&format!("%{b:02X}"));
        }
    }
    escaped
}
