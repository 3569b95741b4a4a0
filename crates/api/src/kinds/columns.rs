//! Columns of `kubectl get`: their definition, and what many kinds' cells share.
//!
//! Source: the Table form of the API ("Receiving resources as Tables") and what kubectl prints.

use meta::time::{self, Timestamp};
use meta::{Value, json};

/// One column of a kind's table.
#[derive(Clone, Copy)]
pub struct Column {
    pub name: &'static str,
    /// What the cells are: `string`, `integer`, `date`, ...
    pub ty: &'static str,
    /// What the definition says that they are.
    said: &'static str,
    /// `name` marks the column that names the object.
    pub format: &'static str,
    /// After a dot: the path of the field whose documentation it is. Nothing: that of what the column shows.
    pub description: &'static str,
    /// 0: always shown; 1: only in wide output.
    pub priority: i32,
    show: Show,
}

/// A cell: text, number or bool.
pub type Cell = Value;

/// What stands in a column's cells. Paths are dotted.
#[derive(Clone, Copy)]
enum Show {
    /// Nothing by itself: the kind has a function for the whole row.
    Row,
    /// What is at the path: a text, a number or a bool, as the column's type says; empty, 0 or false when absent.
    At(&'static str),
    /// The text or number at the path, as text; the second when it is absent or empty.
    Or(&'static str, &'static str),
    /// How many items the list at the path has.
    Count(&'static str),
    By(fn(&Value) -> Cell),
    ByTime(fn(&Value, Timestamp) -> Cell),
}

impl Column {
    const fn new(name: &'static str, ty: &'static str, description: &'static str) -> Self {
        Column { name, ty, said: ty, format: "", description, priority: 0, show: Show::Row }
    }

    pub const fn text(name: &'static str, description: &'static str) -> Self {
        Column::new(name, "string", description)
    }

    pub const fn number(name: &'static str, description: &'static str) -> Self {
        Column::new(name, "integer", description)
    }

    pub const fn flag(name: &'static str, description: &'static str) -> Self {
        Column::new(name, "boolean", description)
    }

    /// Shows what is at this dotted path.
    pub const fn at(self, path: &'static str) -> Self {
        Column { show: Show::At(path), ..self }
    }

    /// Shows the text or number at this dotted path, and something else when there is none.
    pub const fn or(self, path: &'static str, otherwise: &'static str) -> Self {
        Column { show: Show::Or(path, otherwise), ..self }
    }

    /// Shows how long the list at this dotted path is.
    pub const fn count(self, path: &'static str) -> Self {
        Column { show: Show::Count(path), ..self }
    }

    /// Shows what the function says.
    pub const fn by(self, cell: fn(&Value) -> Cell) -> Self {
        Column { show: Show::By(cell), ..self }
    }

    /// Shows what the function says, which depends on the time too.
    pub const fn by_time(self, cell: fn(&Value, Timestamp) -> Cell) -> Self {
        Column { show: Show::ByTime(cell), ..self }
    }

    /// The cell of an object.
    pub fn cell(&self, object: &Value, now: Timestamp) -> Cell {
        let find = |path| super::rules::at(object, path);
        match self.show {
            Show::Row => Value::Null,
            Show::At(path) => match (self.ty, find(path)) {
                ("integer", found) => found.as_i64().unwrap_or(0).into(),
                ("boolean", found) => found.as_bool().unwrap_or(false).into(),
                (_, found) => found.as_str().unwrap_or_default().into(),
            },
            Show::Or(path, otherwise) => match find(path) {
                Value::Int(n) if self.ty == "integer" => (*n).into(),
                Value::Int(n) => n.to_string().into(),
                found => found.as_str().filter(|t| !t.is_empty()).unwrap_or(otherwise).into(),
            },
            Show::Count(path) => find(path).as_array().map_or(0, |a| a.len()).into(),
            Show::By(cell) => cell(object),
            Show::ByTime(cell) => cell(object, now),
        }
    }

    /// The same column, defined as one of text.
    pub const fn said_text(self) -> Self {
        Column { said: "string", ..self }
    }

    /// The same column, said to name an object.
    pub const fn naming(self) -> Self {
        Column { format: "name", ..self }
    }

    /// The same column, shown in wide output only.
    pub const fn wide(self) -> Self {
        Column { priority: 1, ..self }
    }

    /// The definition as the Table form holds it.
    /// `documented` says what the field at a dotted path is for.
    pub fn to_value(&self, documented: impl Fn(&str) -> String) -> Value {
        let description = match (self.description.strip_prefix('.'), self.show) {
            (Some(path), _) => documented(path),
            (None, Show::At(path) | Show::Or(path, _) | Show::Count(path)) if self.description.is_empty() => {
                documented(path)
            }
            _ => self.description.to_string(),
        };
        json!({"name": self.name, "type": self.said, "format": self.format, "description": description, "priority": self.priority})
    }
}

pub const NAME: Column = Column {
    name: "Name",
    ty: "string",
    said: "string",
    format: "name",
    description: "Name must be unique within a namespace. Is required when creating resources, although some resources \
                  may allow a client to request the generation of an appropriate name automatically. Name is primarily \
                  intended for creation idempotence and configuration definition. Cannot be updated. More info: \
                  https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names",
    priority: 0,
    show: Show::By(name),
};

pub const AGE: Column = Column {
    name: "Age",
    ty: "string",
    said: "string",
    format: "",
    description: "CreationTimestamp is a timestamp representing the server time when this object was created. It is \
                  not guaranteed to be set in happens-before order across separate operations. Clients may not set \
                  this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. \
                  Null for lists. More info: \
                  https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
    priority: 0,
    show: Show::ByTime(age),
};

/// For kinds that upstream has no columns for: the date itself.
pub const CREATED_AT: Column = Column {
    name: "Created At",
    ty: "date",
    said: "date",
    show: Show::By(|o| o["metadata"]["creationTimestamp"].clone()),
    ..AGE
};

/// Kinds without columns of their own.
pub const NAME_AND_CREATED_AT: &[Column] = &[NAME, CREATED_AT];
pub const NAME_AND_AGE: &[Column] = &[NAME, AGE];

pub fn name(object: &Value) -> Cell {
    object["metadata"]["name"].clone()
}

/// The age of the object, `<unknown>` before it was created.
pub fn age(object: &Value, now: Timestamp) -> Cell {
    since(object.str_at(&["metadata", "creationTimestamp"]), now).into()
}

/// The time since `timestamp`, as kubectl prints it.
pub fn since(timestamp: Option<&str>, now: Timestamp) -> String {
    match timestamp.and_then(time::parse) {
        Some(then) => ago(then, now),
        None => "<unknown>".into(),
    }
}

/// Given as `now`, a row's ages are left open for whoever keeps the row: instead of each stands the millisecond since
/// 1970 that it counts from, between [`AGE_OPEN`] and [`AGE_CLOSE`].
pub const LATER: Timestamp = Timestamp::MAX;
pub const AGE_OPEN: char = '\u{1}';
pub const AGE_CLOSE: char = '\u{2}';
/// Stands before the millisecond where what is left open is what [`due`] tells, not [`ago`].
pub const DUE: char = '~';

/// The time since `then`, as kubectl prints it.
pub fn ago(then: Timestamp, now: Timestamp) -> String {
    if now == LATER {
        return format!("{AGE_OPEN}{}{AGE_CLOSE}", then.as_millisecond());
    }
    time::human_duration(now.duration_since(then))
}

/// When the time `at` is or was: `in 5m`, `5m ago`.
pub fn due(at: Timestamp, now: Timestamp) -> String {
    if now == LATER {
        return format!("{AGE_OPEN}{DUE}{}{AGE_CLOSE}", at.as_millisecond());
    }
    match at > now {
        true => format!("in {}", time::human_duration(at.duration_since(now))),
        false => format!("{} ago", time::human_duration(now.duration_since(at))),
    }
}

/// Whether the object asks for a text at `path`; empty counts as absent.
pub fn text<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    object.str_at(path).unwrap_or_default()
}

/// The text at `path`, `otherwise` where it is absent or empty.
pub fn text_or(object: &Value, path: &[&str], otherwise: &str) -> Cell {
    match text(object, path) {
        "" => otherwise.into(),
        text => text.into(),
    }
}

pub fn int(object: &Value, path: &[&str]) -> i64 {
    object.int_at(path).unwrap_or(0)
}

/// The texts of a list joined by commas, `otherwise` where there are none.
pub fn joined(list: &Value, otherwise: &str) -> Cell {
    let texts: Vec<&str> = list.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if texts.is_empty() { otherwise.into() } else { texts.join(",").into() }
}

/// `k1=v1,k2=v2`, or `<none>`.
pub fn labels(map: &Value) -> String {
    match map.as_object() {
        Some(map) if !map.is_empty() => {
            let pairs: Vec<String> =
                map.iter().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
            pairs.join(",")
        }
        _ => "<none>".into(),
    }
}

/// A label selector in its object form as kubectl prints it; `<none>` when absent or empty.
pub fn selector(object: &Value) -> String {
    if object.is_null() {
        return "<none>".into();
    }
    let mut parts: Vec<(String, String)> = Vec::new();
    if let Some(map) = object["matchLabels"].as_object() {
        parts.extend(map.iter().map(|(k, v)| (k.to_string(), format!("{k}={}", v.as_str().unwrap_or_default()))));
    }
    for expression in object.array_at(&["matchExpressions"]) {
        let key = text(expression, &["key"]);
        let mut values: Vec<&str> = expression.array_at(&["values"]).iter().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        let part = match text(expression, &["operator"]) {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_string(),
            _ => format!("!{key}"),
        };
        parts.push((key.to_string(), part));
    }
    if parts.is_empty() {
        return "<none>".into();
    }
    parts.sort_by(|a, b| a.0.cmp(&b.0)); // stable
    parts.into_iter().map(|(_, p)| p).collect::<Vec<_>>().join(",")
}

/// Names and images of the containers of a pod template, each joined by commas.
pub fn containers_and_images(pod_spec: &Value) -> (String, String) {
    let of = |field: &str| {
        let all = pod_spec.array_at(&["containers"]).iter();
        all.map(|c| text(c, &[field])).collect::<Vec<_>>().join(",")
    };
    (of("name"), of("image"))
}
