//! Finds the header of a stored object in its JSON bytes without parsing the rest.
//!
//! Reads: any valid JSON object, whether we or an upstream server wrote it. Invariant: offsets answered lie inside the
//! bytes given. A 6 KB Pod is skimmed in about a microsecond; parsing it into a document takes ten times that.

use std::ops::Range;

use compact_str::CompactString;

/// What was found. Texts are unescaped.
#[derive(Debug, Default, PartialEq)]
pub struct Skim {
    /// Where `"resourceVersion":"N",` can be put: just after `"metadata":{`.
    pub splice: usize,
    /// The offset after the `}` of `metadata`.
    pub end: usize,
    /// Where the value of `metadata.managedFields` is; empty when there is none.
    pub managed: Range<usize>,
    /// `metadata` has no members, so what is put there needs no comma.
    pub bare: bool,
    pub namespace: CompactString,
    pub name: CompactString,
    pub uid: CompactString,
    pub labels: Vec<(CompactString, CompactString)>,
    /// `metadata.deletionTimestamp` is set.
    pub deleting: bool,
}

/// `None` when the bytes do not begin as a JSON object with a `metadata` object. What follows it is not looked at: the
/// bytes were written by a server, and the store keeps their checksum.
pub fn skim(json: &[u8]) -> Option<Skim> {
    let mut out = Skim::default();
    let mut found = None;
    members(json, space(json, 0), |key, at| {
        if key == b"metadata" && json.get(at) == Some(&b'{') {
            found = metadata(json, at, &mut out);
            return None;
        }
        Some(None)
    });
    out.end = found?;
    (json[out.end..].trim_ascii_end().last() == Some(&b'}')).then_some(out)
}

/// Answers the offset after the metadata.
fn metadata(json: &[u8], at: usize, out: &mut Skim) -> Option<usize> {
    out.splice = at + 1;
    out.bare = true;
    members(json, at, |key, at| {
        out.bare = false;
        match key {
            b"name" => out.name = text(json, at)?,
            b"namespace" => out.namespace = text(json, at)?,
            b"uid" => out.uid = text(json, at)?,
            b"deletionTimestamp" => out.deleting = json.get(at) == Some(&b'"'),
            b"labels" if json.get(at) == Some(&b'{') => {
                let mut labels = Vec::new();
                members(json, at, |key, at| {
                    labels.push((unescape(key)?, text(json, at)?));
                    Some(None)
                })?;
                labels.sort_unstable();
                out.labels = labels;
            }
            b"managedFields" => {
                let end = value_end(json, at)?;
                out.managed = at..end;
                return Some(Some(end));
            }
            _ => {}
        }
        Some(None)
    })
}

/// Calls `each` with the raw key and the offset of the value for each member of the object at `at`, which answers the
/// offset after the value if it knows it. Answers the offset after the object.
fn members<'a>(
    json: &'a [u8],
    at: usize,
    mut each: impl FnMut(&'a [u8], usize) -> Option<Option<usize>>,
) -> Option<usize> {
    if json.get(at) != Some(&b'{') {
        return None;
    }
    let mut i = space(json, at + 1);
    if json.get(i) == Some(&b'}') {
        return Some(i + 1);
    }
    loop {
        if json.get(i) != Some(&b'"') {
            return None;
        }
        let end = string_end(json, i)?;
        let key = &json[i + 1..end - 1];
        i = space(json, end);
        if json.get(i) != Some(&b':') {
            return None;
        }
        i = space(json, i + 1);
        let end = match each(key, i)? {
            Some(end) => end,
            None => value_end(json, i)?,
        };
        i = space(json, end);
        match json.get(i)? {
            b',' => i = space(json, i + 1),
            b'}' => return Some(i + 1),
            _ => return None,
        }
    }
}

fn space(json: &[u8], mut i: usize) -> usize {
    while matches!(json.get(i), Some(b' ' | b'\n' | b'\r' | b'\t')) {
        i += 1;
    }
    i
}

/// The offset after the string that starts at `i`.
fn string_end(json: &[u8], i: usize) -> Option<usize> {
    let mut i = i + 1;
    loop {
        match json.get(i)? {
            b'"' => return Some(i + 1),
            b'\\' => i += 2,
            _ => i += 1,
        }
    }
}

/// The offset after the value that starts at `i`.
fn value_end(json: &[u8], i: usize) -> Option<usize> {
    match json.get(i)? {
        b'"' => string_end(json, i),
        b'{' | b'[' => {
            let mut depth = 0usize;
            let mut i = i;
            loop {
                match json.get(i)? {
                    b'"' => {
                        i = string_end(json, i)?;
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => {
                        depth -= 1;
                        if depth == 0 {
                            return Some(i + 1);
                        }
                    }
                    _ => {}
                }
                i += 1;
            }
        }
        _ => {
            let mut i = i;
            while !matches!(json.get(i)?, b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t') {
                i += 1;
            }
            Some(i)
        }
    }
}

/// The string value at `at`; a null or anything else reads as empty.
fn text(json: &[u8], at: usize) -> Option<CompactString> {
    if json.get(at) != Some(&b'"') {
        return Some(CompactString::default());
    }
    let end = string_end(json, at)?;
    unescape(&json[at + 1..end - 1])
}

fn unescape(raw: &[u8]) -> Option<CompactString> {
    let raw = std::str::from_utf8(raw).ok()?;
    if !raw.contains('\\') {
        return Some(raw.into());
    }
    serde_json::from_str::<String>(&format!("\"{raw}\"")).ok().map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_header() {
        let json = br#"{"apiVersion":"v1","data":{"metadata":"}{\"","x":[{"a":1}]},"metadata":{"labels":{"b":"2","a":"1\n"},"managedFields":[{}],"name":"n","namespace":"s","uid":"u"},"z":null}"#;
        let skim = skim(json).expect("an object");
        assert_eq!(&json[skim.splice - 12..skim.splice], br#""metadata":{"#);
        assert_eq!(&json[skim.managed.clone()], b"[{}]");
        assert_eq!(&json[skim.end - 8..skim.end], br#"id":"u"}"#);
        assert_eq!(
            skim,
            Skim {
                splice: skim.splice,
                end: skim.end,
                managed: skim.managed.clone(),
                bare: false,
                namespace: "s".into(),
                name: "n".into(),
                uid: "u".into(),
                labels: vec![("a".into(), "1\n".into()), ("b".into(), "2".into())],
                deleting: false,
            }
        );
    }

    #[test]
    fn tolerates_space_and_refuses_junk() {
        assert!(skim(b" { \"metadata\" : { \"name\" : \"a\" , \"labels\" : null } , \"n\" : 1 } ").is_some());
        assert!(skim(br#"{"metadata":{}}"#).expect("object").bare);
        for bad in ["", "[]", "{", r#"{"metadata":{"name":"#, r#"{"a":1}"#, r#"{"metadata":{"name":"a}"#] {
            assert_eq!(skim(bad.as_bytes()), None, "{bad}");
        }
    }
}
