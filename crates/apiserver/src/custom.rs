//! Custom resources: what a CustomResourceDefinition adds to one version of a resource.
//!
//! `definitions` keeps the registry true to the stored definitions, `conversion` changes versions. Here: how documents of
//! a version are pruned, defaulted, validated, shown in tables, and read from whatever version and schema they were
//! stored in. Invariant: what leaves the server was pruned and defaulted in the version that it was stored in, then
//! converted and pruned by the version that was asked for.

pub mod conversion;
pub mod definitions;
mod names;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use api::kinds::{Kind, OWN_METADATA, columns};
use meta::field::{Error, Errors, Path};
use meta::schema::prune::DecodeError;
use meta::schema::{Schema, SchemaError, TypeId, TypeRef};
use meta::time::{self, Timestamp};
use meta::{Status, Value, json};
use structural::{JsonPath, Node};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::filter::Filter;
use crate::object::{Fields, Object};
use crate::registry::Served;
use crate::shared::Shared;
use conversion::Strategy;

/// How long a list or watch waits for another that asks the webhook, before it asks too: one that hangs holds up nobody
/// for longer.
const PATIENCE: Duration = Duration::from_millis(200);

/// The schema of one version, ready for work.
pub struct Shape {
    schema: Schema,
    root: TypeId,
    pub node: Node,
    api_version: String,
    kind: String,
}

/// One version of a definition, ready for work.
pub struct Custom {
    /// Tells this schema apart from all that were there before it.
    id: u32,
    pub shape: Arc<Shape>,
    /// Those of all versions of the definition.
    shapes: Arc<[Arc<Shape>]>,
    columns: Vec<Column>,
    /// Fields that selectors may name.
    pub selectable: Vec<(String, JsonPath)>,
    pub scale: Option<Scale>,
    pub conversion: Arc<Strategy>,
    /// Held by the list or watch that asks the webhook.
    asking: tokio::sync::Mutex<()>,
    /// Sent as a warning with every answer.
    pub deprecation: Option<String>,
    /// The definition is being deleted: nothing new is created.
    pub terminating: bool,
    /// Cancelled when another definition takes this one's place: watches end.
    pub ended: CancellationToken,
}

/// A column of `kubectl get`.
struct Column {
    definition: Value,
    ty: String,
    path: JsonPath,
}

/// Where the scale subresource finds its numbers.
pub struct Scale {
    pub spec: Vec<String>,
    pub status: Vec<String>,
    pub selector: Vec<String>,
}

static IDS: AtomicU32 = AtomicU32::new(1);

/// The rules of custom kinds, without and with a status endpoint.
pub static PLAIN: Kind = Kind {
    prepare_create: |new| new.set(&["metadata", "generation"], 1),
    prepare_update: |new, old| count(new, old, &["metadata"]),
    prepare_status_update: |_, _| {},
    unconditional_update: false,
    ..Kind::PLAIN
};
pub static WITH_STATUS: Kind = Kind {
    prepare_create: |new| {
        new.remove(&["status"]);
        new.set(&["metadata", "generation"], 1);
    },
    prepare_update: |new, old| {
        restore_status(new, old);
        count(new, old, &["metadata", "status"]);
    },
    prepare_status_update: |new, old| {
        // Compat: a status update writes the status and who owns it, nothing else (customresource's status strategy).
        let (status, owners) = (new.remove(&["status"]), new.remove(&["metadata", "managedFields"]));
        let version = new.remove(&["metadata", "resourceVersion"]);
        *new = old.clone();
        set_or_remove(new, &["metadata", "resourceVersion"], version);
        set_or_remove(new, &["status"], status);
        set_or_remove(new, &["metadata", "managedFields"], owners);
    },
    status_restores: &OWN_METADATA,
    ..PLAIN_KIND
};
const PLAIN_KIND: Kind = Kind { unconditional_update: false, ..Kind::PLAIN };

fn set_or_remove(document: &mut Value, path: &[&str], value: Option<Value>) {
    match value {
        Some(value) => document.set(path, value),
        None => drop(document.remove(path)),
    }
}

fn restore_status(new: &mut Value, old: &Value) {
    set_or_remove(new, &["status"], old.get("status").cloned());
}

/// Counts a change of anything but these members as a new generation.
fn count(new: &mut Value, old: &Value, but: &[&str]) {
    let bare = |v: &Value| {
        let mut v = v.clone();
        v.make_object().retain(|k, _| !but.contains(&k));
        v
    };
    let generation = old.int_at(&["metadata", "generation"]).unwrap_or(0);
    new.set(&["metadata", "generation"], generation + i64::from(bare(new) != bare(old)));
}

impl Shape {
    /// Makes the schema of a version ready. Fails for one that is not structural.
    pub fn new(version: &Value, api_version: &str, kind: &str) -> Result<Shape, SchemaError> {
        let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        let written = version.at(&["schema", "openAPIV3Schema"]).unwrap_or(&open);
        let (schema, root) = Schema::structural(written, metadata_type())?;
        let (api_version, kind) = (api_version.to_string(), kind.to_string());
        Ok(Shape { schema, root, node: structural::compile(written), api_version, kind })
    }

    pub fn ty(&self) -> TypeRef<'_> {
        self.schema.get(self.root)
    }

    /// Reads a document as this version: metadata as all kinds have it, nothing that the schema does not specify.
    pub fn strip(&self, document: &mut Value) -> Result<Vec<String>, DecodeError> {
        let mut own = Value::object();
        own.set(&["metadata"], document.remove(&["metadata"]).unwrap_or_else(Value::object));
        let mut notes = envelope_type().map(|ty| ty.prune(&mut own)).transpose()?.unwrap_or_default();
        let mut own_notes = self.ty().prune_structural(document);
        // Compat: upstream prunes by the schema first, and looks at the metadata of embedded objects then.
        own_notes.sort_by_cached_key(|note| (note.contains(".metadata."), note.clone()));
        notes.append(&mut own_notes);
        document.set(&["metadata"], own.remove(&["metadata"]).unwrap_or_else(Value::object));
        document.set(&["apiVersion"], self.api_version.as_str());
        document.set(&["kind"], self.kind.as_str());
        Ok(notes)
    }
}

impl Custom {
    /// Makes a version of a definition ready; `shape` is one of `shapes`.
    pub fn new(
        version: &Value,
        shape: Arc<Shape>,
        shapes: Arc<[Arc<Shape>]>,
        conversion: Arc<Strategy>,
        terminating: bool,
    ) -> Custom {
        let scale = version.at(&["subresources", "scale"]).filter(|s| !s.is_null());
        let path = |scale: &Value, member: &str| -> Vec<String> {
            let path = scale.str_at(&[member]).and_then(JsonPath::simple);
            path.map(|p| p.fields().iter().map(|f| f.to_string()).collect()).unwrap_or_default()
        };
        let fields = version.array_at(&["selectableFields"]).iter().filter_map(|f| {
            let text = f.str_at(&["jsonPath"])?;
            Some((text.trim_start_matches('.').to_string(), JsonPath::simple(text)?))
        });
        Custom {
            id: IDS.fetch_add(1, Ordering::Relaxed),
            shape,
            shapes,
            columns: columns_of(version),
            selectable: fields.collect(),
            scale: scale.map(|s| Scale {
                spec: path(s, "specReplicasPath"),
                status: path(s, "statusReplicasPath"),
                selector: path(s, "labelSelectorPath"),
            }),
            conversion,
            asking: tokio::sync::Mutex::default(),
            deprecation: None,
            terminating,
            ended: CancellationToken::new(),
        }
    }

    /// Which of the objects have to be made into this version; the others are put in their place as it shows them.
    fn stale(&self, objects: &mut [Arc<Object>]) -> Vec<usize> {
        let mut stale = Vec::new();
        for (i, object) in objects.iter_mut().enumerate().filter(|(_, object)| !object.is_clean_for(self.id)) {
            match object.shown_by(self.id) {
                Some(shown) => *object = shown,
                None => stale.push(i),
            }
        }
        stale
    }

    /// The schema that a document's version has, while the definition knows that version.
    fn shape_of(&self, document: &Value) -> Option<&Shape> {
        let version = document.str_at(&["apiVersion"]);
        self.shapes.iter().find(|shape| Some(shape.api_version.as_str()) == version).map(|shape| &**shape)
    }

    /// What is wrong with a document of this version, beside its metadata.
    pub fn check(&self, new: &Value, old: Option<&Value>) -> Errors {
        let mut errors = self.shape.node.validate(new, old);
        if let Some(scale) = &self.scale {
            for path in [&scale.spec, &scale.status] {
                let at = Path::new(&format!(".{}", path.join(".")));
                match replicas(new, path) {
                    Err(why) => errors.push(Error::invalid(&at, 0, why)),
                    Ok(count @ ..0) => errors.push(Error::invalid(&at, count, "should be a non-negative integer")),
                    Ok(count) if count > i64::from(i32::MAX) => {
                        let detail = format!("should be less than or equal to {}", i32::MAX);
                        errors.push(Error::invalid(&at, count, detail));
                    }
                    Ok(_) => {}
                }
            }
        }
        structural::validate_rules(&self.shape.node, new, old, &mut errors);
        errors
    }

    pub fn fields(&self, document: &Value) -> Fields {
        let text = |path: &JsonPath| match path.find(document).first() {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(s)) => s.to_string(),
            Some(other) => other.to_string(),
        };
        self.selectable.iter().map(|(name, path)| (name.as_str().into(), text(path).into())).collect()
    }

    pub fn column_definitions(&self) -> Value {
        let mut all = vec![columns::NAME.to_value(|_| String::new())];
        all.extend(self.columns.iter().map(|c| c.definition.clone()));
        all.into()
    }

    pub fn row(&self, document: &Value, now: Timestamp) -> Vec<Value> {
        let mut cells = vec![document["metadata"]["name"].clone()];
        cells.extend(self.columns.iter().map(|c| c.cell(document, now)));
        cells
    }
}

/// The number at a path of the scale subresource, or in upstream's words what stands in its way.
fn replicas(document: &Value, path: &[String]) -> Result<i64, String> {
    let wrong = |known: usize, value: &Value, wanted: &str| {
        let (at, (text, ty)) = (path[..known].join("."), in_go(value));
        format!(".{at} accessor error: {text} is of the type {ty}, expected {wanted}")
    };
    let mut value = document;
    for (i, field) in path.iter().enumerate() {
        value = match value {
            Value::Null => return Ok(0),
            Value::Object(map) => map.get(field).unwrap_or(&Value::Null),
            other => return Err(wrong(i + 1, other, "map[string]interface{}")),
        };
    }
    match value {
        Value::Null => Ok(0),
        other => other.as_i64().ok_or_else(|| wrong(path.len(), other, "int64")),
    }
}

/// A value as Go prints it, and its type there.
fn in_go(value: &Value) -> (String, &'static str) {
    let list = |items: Vec<String>| items.join(" ");
    match value {
        Value::Null => ("<nil>".into(), "<nil>"),
        Value::Bool(bool) => (bool.to_string(), "bool"),
        Value::Int(number) => (number.to_string(), "int64"),
        Value::Float(number) => (number.to_string(), "float64"),
        Value::String(text) => (text.to_string(), "string"),
        Value::Array(items) => {
            (format!("[{}]", list(items.iter().map(|item| in_go(item).0).collect())), "[]interface {}")
        }
        Value::Object(map) => {
            let members = map.iter().map(|(key, value)| format!("{key}:{}", in_go(value).0));
            (format!("map[{}]", list(members.collect())), "map[string]interface {}")
        }
    }
}

/// What stands in an envelope's place: a type whose only own member is its metadata.
fn envelope_type() -> Option<TypeRef<'static>> {
    api::schema().find("io.k8s.apimachinery.pkg.apis.meta.v1.PartialObjectMetadata")
}

fn metadata_type() -> TypeRef<'static> {
    let found = envelope_type().and_then(|ty| ty.field("metadata"));
    found.expect("the generated schema has ObjectMeta: a test reads it").ty()
}

fn columns_of(version: &Value) -> Vec<Column> {
    let age = json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp",
        "description": columns::AGE.description});
    let own = version.array_at(&["additionalPrinterColumns"]);
    let all = if own.is_empty() { std::slice::from_ref(&age) } else { own };
    let read = |c: &Value| {
        let text = |member: &str| c.str_at(&[member]).unwrap_or_default();
        Some(Column {
            definition: json!({"name": text("name"), "type": text("type"), "format": text("format"),
                "description": text("description"), "priority": c.int_at(&["priority"]).unwrap_or(0)}),
            ty: text("type").to_string(),
            path: JsonPath::parse(text("jsonPath")).ok()?,
        })
    };
    all.iter().filter_map(read).collect()
}

impl Column {
    /// The first thing that the path finds, as the column's type shows it.
    fn cell(&self, document: &Value, now: Timestamp) -> Value {
        let Some(value) = self.path.find(document).into_iter().next().filter(|v| !v.is_null()) else {
            return Value::Null;
        };
        match (self.ty.as_str(), value) {
            ("integer", Value::Int(_)) | ("number", Value::Int(_) | Value::Float(_)) => value.clone(),
            ("integer", Value::Float(f)) => (*f as i64).into(),
            ("boolean", Value::Bool(_)) => value.clone(),
            ("date", Value::String(text)) => match time::parse(text) {
                Some(at) => time::human_duration(now.duration_since(at)).into(),
                None => "<invalid>".into(),
            },
            ("string", Value::String(_)) => value.clone(),
            ("string", other) => other.to_string().into(),
            _ => Value::Null,
        }
    }
}

/// Objects as a version shows them, whatever they were stored as. Costs nothing for built-in kinds. A webhook that converts
/// is asked once for a state and version, as by upstream's watch cache.
pub async fn present_all(
    shared: &Shared,
    served: &Served,
    mut objects: Vec<Arc<Object>>,
) -> Result<Vec<Arc<Object>>, Status> {
    let Some(custom) = served.custom.as_deref() else { return Ok(objects) };
    let mut stale = custom.stale(&mut objects);
    let mut turn = None;
    if !stale.is_empty() && matches!(*custom.conversion, Strategy::Webhook { .. }) {
        // Everybody who watches wants the same states at the same time: one asks, the others find what it was told.
        turn = timeout(PATIENCE, custom.asking.lock()).await.ok();
        stale = custom.stale(&mut objects);
    }
    convert_all(shared, served, custom, &mut objects, &stale).await?;
    drop(turn);
    Ok(objects)
}

/// Brings those of the objects that `stale` names into this version, and leaves with them what it made of them.
async fn convert_all(
    shared: &Shared,
    served: &Served,
    custom: &Custom,
    objects: &mut [Arc<Object>],
    stale: &[usize],
) -> Result<(), Status> {
    let mut documents: Vec<Value> = stale.iter().map(|i| objects[*i].stored_document()).collect();
    let originals = documents.clone();
    for document in &mut documents {
        // Compat: what was stored gets the defaults of the version that it was stored in, and no others. ("Defaulting",
        // "Extend the Kubernetes API with CustomResourceDefinitions")
        if let Some(shape) = custom.shape_of(document) {
            // A version that is read is never refused: what is wrong with it was stored before the schema said so.
            let _ = shape.strip(document);
            shape.node.apply_defaults(document);
        }
    }
    conversion::convert(shared, served, &mut documents, &served.api_version).await?;
    for ((&i, mut document), original) in stale.iter().zip(documents).zip(originals) {
        if original["apiVersion"] != document["apiVersion"] {
            let _ = custom.shape.strip(&mut document);
        }
        let object = &objects[i];
        if document == original {
            object.set_clean_for(custom.id);
        } else if let Some(changed) = Object::read(&object.key, document.to_vec().into(), object.rv) {
            changed.set_clean_for(custom.id);
            let changed = Arc::new(changed);
            object.set_shown_by(custom.id, changed.clone());
            objects[i] = changed;
        }
    }
    Ok(())
}

/// As `present_all`, of what a list or watch means.
pub async fn present_matching(
    shared: &Shared,
    served: &Served,
    filter: &Filter,
    objects: Vec<Arc<Object>>,
) -> Result<Vec<Arc<Object>>, Status> {
    let mut shown = present_all(shared, served, objects).await?;
    shown.retain(|object| filter.matches_shown(object));
    Ok(shown)
}

/// One object as a version shows it now: a webhook is asked anew.
pub async fn present(shared: &Shared, served: &Served, object: Arc<Object>) -> Result<Arc<Object>, Status> {
    match served.custom.as_deref() {
        Some(custom) if !object.is_clean_for(custom.id) => {
            let mut one = [object];
            Box::pin(convert_all(shared, served, custom, &mut one, &[0])).await?;
            let [object] = one;
            Ok(object)
        }
        _ => Ok(object),
    }
}

/// The bytes to store for a document of a version: itself, or what the storage version keeps of it.
pub async fn to_stored(
    shared: &Shared,
    served: &Served,
    document: &Value,
    bytes: &bytes::Bytes,
) -> Result<bytes::Bytes, Status> {
    let storage = &served.info.storage;
    let Some(custom) = served.custom.as_deref().filter(|_| storage.version != *served.info.version) else {
        return Ok(bytes.clone());
    };
    let mut documents = [document.clone()];
    conversion::convert(shared, served, &mut documents, &format!("{}/{}", storage.group, storage.version)).await?;
    let [mut document] = documents;
    if let Some(shape) = custom.shape_of(&document) {
        let _ = shape.strip(&mut document);
    }
    Ok(document.to_vec().into())
}
