//! What the published API says about every type and field: the texts of `kubectl explain`.
//!
//! They are taken at build time from the k8s-openapi crate, and kept compressed (some 200 KB). A crate of its own, so
//! that compiling k8s-openapi's schemas holds up nobody else. Reads and writes nothing at run time.
//! Invariant: `text` is one type after the other, sorted by name; see there for its lines.

use std::io::Read;

static COMPRESSED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/docs.z"));

/// The texts, unpacked: about 1.3 MB, so drop it after use.
///
/// ```text
/// io.k8s.api.core.v1.Pod<TAB>description
///  name<TAB>description        a field; ` !name` when OpenAPI calls it required
/// ```
/// Line breaks inside a description are written `\n`, backslashes `\\`.
pub fn text() -> String {
    let mut out = String::new();
    let mut reader = flate2::read::ZlibDecoder::new(COMPRESSED);
    reader.read_to_string(&mut out).expect("written by our own build script");
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn texts_are_there() {
        let text = super::text();
        let types: Vec<&str> = text.lines().filter(|l| !l.starts_with(' ')).collect();
        assert!(types.len() > 600, "{} types", types.len());
        assert!(types.is_sorted());
        let pod = text.split("\nio.k8s.api.core.v1.Pod\t").nth(1).expect("Pod");
        let pod: Vec<&str> = pod.lines().take(3).collect();
        assert_eq!(
            pod[0],
            "Pod is a collection of containers that can run on a host. This resource is created by clients and scheduled onto hosts."
        );
        assert!(pod[1].starts_with(" apiVersion\tAPIVersion defines"), "{}", pod[1]);
        assert!(text.contains("\n !containers\tList of containers belonging to the pod."));
    }
}
