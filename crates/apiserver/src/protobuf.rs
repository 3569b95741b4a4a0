//! Protobuf at the server's edges: bodies that come and go, and values that an upstream server left in the store.
//!
//! The codec is `meta::protobuf`. Invariant: a list is not copied together; it is sent from the messages of its objects.

use bytes::{Bytes, BytesMut};
use meta::schema::TypeRef;
use meta::{Value, protobuf};

use crate::body::{CHUNK_BYTES, Pieces};

const METADATA: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.PartialObjectMetadata";
const LIST_METADATA: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

fn split(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// The type of any kind that can stand in a body.
pub fn find(api_version: &str, kind: &str) -> Option<TypeRef<'static>> {
    let (group, version) = split(api_version);
    let other = || api::schema().find(&format!("io.k8s.api.{}.{version}.{kind}", group.split('.').next()?));
    api::resource::root_type(group, version, kind).or_else(other)
}

/// A body as a document, with the apiVersion and kind of its envelope.
pub fn decode(body: &[u8]) -> Result<Value, String> {
    protobuf::decode(body, &find).map_err(|e| e.to_string())
}

/// A stored value as JSON: itself, unless an upstream server wrote it, in protobuf or with the kind first.
pub fn stored(value: Bytes) -> Option<Bytes> {
    let read = if value.starts_with(protobuf::MAGIC) {
        protobuf::normal(&value, &find).map_err(|e| e.to_string())
    } else if value.starts_with(b"{\"kind\":") {
        meta::parse(&value).map_err(|e| e.to_string())
    } else {
        return Some(value);
    };
    match read {
        Ok(mut document) => {
            adopt(&mut document);
            Some(document.to_vec().into())
        }
        Err(error) => {
            tracing::warn!("a stored value cannot be read: {error}");
            None
        }
    }
}

/// Makes of what upstream stored what this server would have: its version, with the defaults.
fn adopt(document: &mut Value) {
    let text = |member: &str| document.str_at(&[member]).unwrap_or_default().to_string();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let (group, version) = split(&api_version);
    let mut all = api::resource::all_with_previews().iter();
    let Some(resource) = all.find(|r| r.group == group && r.kind == kind && r.storage.group == r.group) else { return };
    if resource.storage.version != version {
        if kind == "CustomResourceDefinition" {
            api::kinds::customresourcedefinition::from_v1beta1(document);
        }
        document.set(&["apiVersion"], resource.storage.to_string());
    }
    (api::kinds::of(group, &kind).defaults)(document);
}

/// The message of a stored document; of a custom resource its metadata.
pub fn object(document: &Value) -> Bytes {
    let (group, version) = split(document.str_at(&["apiVersion"]).unwrap_or_default());
    let kind = document.str_at(&["kind"]).unwrap_or_default();
    let mut all = api::resource::all_with_previews().iter();
    let built_in = all.find(|r| r.kind == kind && r.group == group && r.version == version);
    let ty = built_in.and_then(|r| r.root_type()).or_else(|| api::schema().find(METADATA));
    ty.map(|ty| protobuf::encode(ty, document).into()).unwrap_or_default()
}

/// The object's message cut down to its metadata, which makes it a PartialObjectMetadata.
pub fn metadata(message: &Bytes) -> Bytes {
    protobuf::part(message, 1).map(|range| message.slice(range)).unwrap_or_default()
}

/// A message in its envelope.
pub fn enveloped(api_version: &str, kind: &str, message: &[u8]) -> Vec<u8> {
    let (mut out, close) = protobuf::unknown(api_version, kind, message.len());
    out.reserve_exact(message.len() + close.len());
    out.extend_from_slice(message);
    out.extend_from_slice(close);
    out
}

fn encoded(document: &Value) -> Option<(&str, &str, Vec<u8>)> {
    // Lists of discovery say no version in JSON.
    let (api_version, kind) = (document.str_at(&["apiVersion"]).unwrap_or("v1"), document.str_at(&["kind"])?);
    Some((api_version, kind, protobuf::encode(find(api_version, kind)?, document)))
}

/// A whole document as a body; `None` when its kind has no protobuf form.
pub fn body(document: &Value) -> Option<Vec<u8>> {
    encoded(document).map(|(api_version, kind, message)| enveloped(api_version, kind, &message))
}

/// A frame of a watch stream with this document.
pub fn frame(event: &str, document: &Value) -> Option<Vec<u8>> {
    encoded(document).map(|(api_version, kind, message)| protobuf::frame(event, api_version, kind, &message))
}

/// Writes a list piece by piece.
pub struct ListMessage {
    open: Vec<u8>,
    items: std::vec::IntoIter<Bytes>,
    close: &'static [u8],
    left: usize,
}

impl ListMessage {
    /// A list of this kind with these messages as its items. All lists have their metadata first and their items second.
    pub fn new(api_version: &str, kind: &str, metadata: &Value, items: Vec<Bytes>) -> ListMessage {
        let metadata = api::schema().find(LIST_METADATA).map(|ty| protobuf::encode(ty, metadata)).unwrap_or_default();
        let head = protobuf::list_part(1, metadata.len());
        let items_len: usize = items.iter().map(|i| i.len() + protobuf::list_part(2, i.len()).len()).sum();
        let (mut open, close) = protobuf::unknown(api_version, kind, head.len() + metadata.len() + items_len);
        open.extend_from_slice(&head);
        open.extend_from_slice(&metadata);
        let left = open.len() + items_len + close.len();
        ListMessage { open, items: items.into_iter(), close, left }
    }
}

impl Pieces for ListMessage {
    fn next(&mut self) -> Option<Bytes> {
        if self.left == 0 {
            return None;
        }
        let mut out = BytesMut::with_capacity(self.left.min(CHUNK_BYTES + CHUNK_BYTES / 8));
        out.extend_from_slice(&std::mem::take(&mut self.open));
        while out.len() < CHUNK_BYTES {
            let Some(item) = self.items.next() else {
                out.extend_from_slice(self.close);
                break;
            };
            out.extend_from_slice(&protobuf::list_part(2, item.len()));
            out.extend_from_slice(&item);
        }
        self.left -= out.len();
        Some(out.freeze())
    }

    fn len_bytes(&self) -> Option<u64> {
        Some(self.left as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meta::json;

    #[test]
    fn a_list_is_what_one_message_would_be() {
        let config_map = |i: usize| json!({"metadata": {"name": format!("n{i}")}, "data": {"x": "y".repeat(i)}});
        for count in [0, 1, 1000] {
            let documents: Vec<Value> = (0..count).map(config_map).collect();
            let ty = find("v1", "ConfigMap").expect("there");
            let items = documents.iter().map(|d| protobuf::encode(ty, d).into()).collect();
            let mut pieces = ListMessage::new("v1", "ConfigMapList", &json!({"resourceVersion": "7"}), items);
            let len = pieces.len_bytes();
            let sent: Vec<u8> = std::iter::from_fn(|| pieces.next()).flatten().collect();
            assert_eq!(len, Some(sent.len() as u64));
            let mut list = json!({"apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"resourceVersion": "7"}});
            list.set(&["items"], documents);
            assert_eq!(Some(sent), body(&list), "{count}");
        }
    }

    #[test]
    fn what_upstream_stored_is_read() {
        let document = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"},
            "metadata": {"creationTimestamp": "2026-01-01T00:00:00Z", "name": "n", "namespace": "d"}});
        let value: Bytes = body(&document).expect("has a form").into();
        assert_eq!(stored(value.clone()), Some(document.to_vec().into()));
        assert_eq!(stored(value.slice(..20)), None);
        assert_eq!(stored(Bytes::from_static(b"{}")), Some(Bytes::from_static(b"{}")));
        let cut = metadata(&object(&document));
        let whole = enveloped("meta.k8s.io/v1", "PartialObjectMetadata", &cut);
        assert_eq!(decode(&whole).map(|d| d["metadata"].clone()), decode(&value).map(|d| d["metadata"].clone()));
        let custom = json!({"apiVersion": "example.com/v1", "kind": "Status", "metadata": {"name": "n"}, "spec": {}});
        assert_eq!(metadata(&object(&custom)), object(&custom));
    }
}
