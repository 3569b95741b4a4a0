//! The paths of a document: for every resource the operations of its verbs, with their parameters, bodies and answers.
//!
//! Source: the published documents' operation names and parameters.
//! Invariant: an operation names the kind it is about (`x-kubernetes-group-version-kind`), which is how kubectl finds
//! out that `fieldValidation` and `dryRun` are supported.

mod parameters;

use super::docs::Docs;
use super::schemas::Used;
use super::write::Writer;
use super::{Form, group_version_path};
use crate::resource::{Resource, Subresource};
use parameters::Parameter;

/// What stands in `x-kubernetes-group-version-kind`.
pub(super) fn write_gvk(w: &mut Writer, (group, version, kind): (&str, &str, &str)) {
    w.pair("group", group);
    w.pair("kind", kind);
    w.pair("version", version);
}

/// One method on one path.
#[derive(Default)]
struct Operation<'a> {
    /// `get`, `post`, ...
    method: &'a str,
    /// `x-kubernetes-action`.
    action: &'a str,
    id: String,
    description: String,
    gvk: (&'a str, &'a str, &'a str),
    query: Vec<Parameter>,
    /// Full name of the body's schema.
    body: Option<String>,
    /// Full name of the answer's schema; `None` for a plain string.
    answer: Option<String>,
    /// Codes besides 200 and 401.
    codes: &'a [&'a str],
    /// Media types of the answer, where they are not the usual ones.
    types: Option<&'static [&'static str]>,
}

struct Paths<'a, 'w> {
    form: Form,
    docs: &'a Docs,
    w: &'w mut Writer,
    /// `AppsV1`
    camel: String,
    /// `apps_v1`
    tag: String,
    /// Custom resources: no protobuf, no strategic merge.
    custom: bool,
}

pub(super) fn write(w: &mut Writer, form: Form, resources: &[&Resource], docs: &Docs, used: &mut Used<'_>) {
    let Some(first) = resources.first() else { return };
    let group = if first.group.is_empty() { "core" } else { first.group.trim_end_matches(".k8s.io") };
    let words: Vec<&str> = group.split(['.', '-']).collect();
    let camel: String = words.iter().copied().chain([&*first.version]).map(capitalised).collect();
    let tag = format!("{}_{}", camel_start(&words), first.version);
    let mut paths = Paths { form, docs, w, camel, tag, custom: first.schema.is_some() };
    paths.version_path(first, used);
    for r in resources {
        used.serve(r);
        paths.resource(r, used);
    }
}

/// The path of a page that is about no resource: below `/`, with a slash at its end.
pub(super) fn write_page(w: &mut Writer, form: Form, page: &str, docs: &Docs, used: &mut Used<'_>) {
    let group = page.strip_prefix("apis/").unwrap_or_default().trim_end_matches(".k8s.io");
    let words: Vec<&str> = group.split('.').collect();
    let own = camel_start(&words);
    let own_id = format!("get{}APIGroup", words.iter().map(|word| capitalised(word)).collect::<String>());
    let versions = "get available API versions";
    let (tag, id, description, answer) = match page {
        "api" => ("core", "getCoreAPIVersions", versions, Some(used.meta("APIVersions"))),
        "apis" => ("apis", "getAPIVersions", versions, Some(used.meta("APIGroupList"))),
        "version" => ("version", "getCodeVersion", "get the version information for this server", Some(used.version())),
        ".well-known/openid-configuration" => (
            "WellKnown",
            "getServiceAccountIssuerOpenIDConfiguration",
            "get service account issuer OpenID configuration, also known as the 'OIDC discovery doc'",
            None,
        ),
        "openid/v1/jwks" => (
            "openid",
            "getServiceAccountIssuerOpenIDKeyset",
            "get service account issuer OpenID JSON Web Key Set (contains public token verification keys)",
            None,
        ),
        _ => (&*own, &*own_id, "get information of a group", Some(used.meta("APIGroup"))),
    };
    let types: Option<&[&str]> = match page {
        "openid/v1/jwks" => Some(&["application/jwk-set+json"]),
        "version" | ".well-known/openid-configuration" => Some(&["application/json"]),
        _ => None,
    };
    let (id, description) = (id.to_string(), description.into());
    let operation = Operation { method: "get", id, description, answer, types, ..Operation::default() };
    let mut paths = Paths { form, docs, w, camel: String::new(), tag: tag.into(), custom: false };
    paths.path(&format!("/{page}/"), &[], vec![operation]);
}

fn capitalised(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|c| c.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// `rbac.authorization` is `rbacAuthorization` in tags.
fn camel_start(words: &[&str]) -> String {
    words.iter().enumerate().map(|(i, w)| if i == 0 { (*w).to_owned() } else { capitalised(w) }).collect()
}

/// The schema of a kind, by the package of the resource's own type or among those of the kinds that stand as bodies.
fn schema_of(used: &mut Used<'_>, group: &str, version: &str, kind: &str) -> Option<String> {
    if let Some(name) = used.custom(group, version, kind) {
        return Some(name);
    }
    let name = crate::resource::root_type(group, version, kind)?.full_name()?;
    used.named(&name)
}

impl Paths<'_, '_> {
    /// `/apis/GROUP/VERSION/` lists the resources.
    fn version_path(&mut self, r: &Resource, used: &mut Used<'_>) {
        let path = format!("/{}/", group_version_path(&r.group, &r.version));
        let operation = Operation {
            method: "get",
            id: format!("get{}APIResources", self.camel),
            description: "get available resources".into(),
            answer: Some(used.meta("APIResourceList")),
            ..Operation::default()
        };
        self.path(&path, &[], vec![operation]);
    }

    fn resource(&mut self, r: &Resource, used: &mut Used<'_>) {
        let base = format!("/{}", group_version_path(&r.group, &r.version));
        let scope = if r.namespaced { "Namespaced" } else { "" };
        let collection = if r.namespaced {
            format!("{base}/namespaces/{{namespace}}/{}", r.plural)
        } else {
            format!("{base}/{}", r.plural)
        };
        let in_namespace: &[Parameter] = if r.namespaced { &[parameters::NAMESPACE] } else { &[] };
        let on_item = [&[parameters::name(&r.kind)], in_namespace].concat();
        let operations = self.collection_operations(r, scope, used);
        self.path(&collection, in_namespace, operations);
        let operations = self.item_operations(r, scope, used);
        self.path(&format!("{collection}/{{name}}"), &on_item, operations);
        for s in &r.subresources {
            let path = format!("{collection}/{{name}}/{}", s.name);
            if s.connect {
                let on_item = [&[parameters::name(&s.kind)], in_namespace].concat();
                let operations = self.connect_operations(r, s, scope, "");
                self.path(&path, &on_item, operations);
                if s.name == "proxy" {
                    let operations = self.connect_operations(r, s, scope, "WithPath");
                    let on_path = [&[parameters::PATH], on_item.as_slice()].concat();
                    self.path(&format!("{path}/{{path}}"), &on_path, operations);
                }
            } else {
                let operations = self.subresource_operations(r, s, scope, used);
                self.path(&path, &on_item, operations);
            }
        }
        if r.namespaced && r.can("list") {
            let mut list = self.list_operation(r, "", used);
            list.id = format!("list{}{}ForAllNamespaces", self.camel, r.kind);
            self.path(&format!("{base}/{}", r.plural), &[], vec![list]);
        }
        if r.can("watch") && !self.custom {
            let (all, of) = (format!("{base}/watch/{}", r.plural), format!("{scope}{}", r.kind));
            let within = collection.replacen(&base, &format!("{base}/watch"), 1);
            if r.namespaced {
                let operation = self.watch_operation(r, &format!("{}ListForAllNamespaces", r.kind), used);
                self.path(&all, &[], vec![operation]);
            }
            let operation = self.watch_operation(r, &format!("{of}List"), used);
            self.path(&within, in_namespace, vec![operation]);
            let operation = self.watch_operation(r, &of, used);
            self.path(&format!("{within}/{{name}}"), &on_item, vec![operation]);
        }
    }

    /// The paths of before `?watch=true`: of a list when `of` names one, else of an object.
    fn watch_operation<'r>(&self, r: &'r Resource, of: &str, used: &mut Used<'_>) -> Operation<'r> {
        let instead = "deprecated: use the 'watch' parameter with a list operation instead";
        let (action, description) = if of.contains("List") {
            ("watchlist", format!("watch individual changes to a list of {}. {instead}.", r.kind))
        } else {
            let item = "filtered to a single item with the 'fieldSelector' parameter";
            ("watch", format!("watch changes to an object of kind {}. {instead}, {item}.", r.kind))
        };
        let (id, answer) = (format!("watch{}{of}", self.camel), Some(used.meta("WatchEvent")));
        Operation { action, id, description, answer, ..self.list_operation(r, "", used) }
    }

    fn list_operation<'r>(&self, r: &'r Resource, scope: &str, used: &mut Used<'_>) -> Operation<'r> {
        Operation {
            method: "get",
            action: "list",
            id: format!("list{}{scope}{}", self.camel, r.kind),
            description: format!("list {}objects of kind {}", if r.can("watch") { "or watch " } else { "" }, r.kind),
            gvk: (&r.group, &r.version, &r.kind),
            query: parameters::list(),
            answer: schema_of(used, &r.group, &r.version, &r.list_kind),
            types: (!self.custom).then_some(LIST_TYPES),
            ..Operation::default()
        }
    }

    fn create_operation<'r>(
        &self,
        of: &str,
        description: String,
        gvk: (&'r str, &'r str, &'r str),
        used: &mut Used<'_>,
    ) -> Operation<'r> {
        let own = schema_of(used, gvk.0, gvk.1, gvk.2);
        Operation {
            method: "post",
            action: "post",
            id: format!("create{}{of}", self.camel),
            description,
            gvk,
            query: parameters::write(),
            body: own.clone(),
            answer: own,
            codes: &["201", "202"],
            types: None,
        }
    }

    fn delete_operation<'r>(&self, r: &'r Resource, scope: &str, used: &mut Used<'_>) -> Operation<'r> {
        Operation {
            method: "delete",
            action: "delete",
            id: format!("delete{}{scope}{}", self.camel, r.kind),
            description: format!("delete {}", article(&r.kind)),
            gvk: (&r.group, &r.version, &r.kind),
            query: parameters::delete(),
            body: Some(used.meta("DeleteOptions")),
            answer: match r.answers_deleted() {
                true => schema_of(used, &r.group, &r.version, &r.kind),
                false => Some(used.meta("Status")),
            },
            codes: &["202"],
            types: None,
        }
    }

    fn collection_operations<'r>(&self, r: &'r Resource, scope: &str, used: &mut Used<'_>) -> Vec<Operation<'r>> {
        let mut operations = Vec::new();
        let gvk = (&*r.group, &*r.version, &*r.kind);
        if r.can("list") {
            operations.push(self.list_operation(r, scope, used));
        }
        if r.can("create") {
            let description = format!("create {}", article(&r.kind));
            operations.push(self.create_operation(&format!("{scope}{}", r.kind), description, gvk, used));
        }
        if r.can("deletecollection") {
            operations.push(Operation {
                action: "deletecollection",
                id: format!("delete{}Collection{scope}{}", self.camel, r.kind),
                description: format!("delete collection of {}", r.kind),
                query: [parameters::list_of_deleted(), parameters::delete()].concat(),
                answer: Some(used.meta("Status")),
                codes: &[],
                ..self.delete_operation(r, scope, used)
            });
        }
        operations
    }

    fn item_operations<'r>(&self, r: &'r Resource, scope: &str, used: &mut Used<'_>) -> Vec<Operation<'r>> {
        let what = format!("the specified {}", r.kind);
        let about = About { kind: (&r.group, &r.version, &r.kind), of: format!("{scope}{}", r.kind), what };
        let mut operations = self.read_write_operations(&about, |verb| r.can(verb), used);
        if r.can("delete") {
            operations.push(self.delete_operation(r, scope, used));
        }
        operations
    }

    /// get, update and patch, of an object or of a part of it.
    fn read_write_operations<'r>(
        &self,
        about: &About<'r>,
        can: impl Fn(&str) -> bool,
        used: &mut Used<'_>,
    ) -> Vec<Operation<'r>> {
        let (group, version, kind) = about.kind;
        let own = schema_of(used, group, version, kind);
        let operation = |method, action, id: &str, query, body, codes| Operation {
            method,
            action,
            id: format!("{id}{}{}", self.camel, about.of),
            description: format!("{} {}", if id == "patch" { "partially update" } else { id }, about.what),
            gvk: about.kind,
            query,
            body,
            answer: own.clone(),
            codes,
            types: None,
        };
        let mut operations = Vec::new();
        if can("get") {
            operations.push(operation("get", "get", "read", Vec::new(), None, &[][..]));
        }
        if can("update") {
            operations.push(operation("put", "put", "replace", parameters::write(), own.clone(), &["201"]));
        }
        if can("patch") {
            let body = Some(used.meta("Patch"));
            operations.push(operation("patch", "patch", "patch", parameters::patch(), body, &["201"]));
        }
        operations
    }

    fn subresource_operations<'r>(
        &self,
        r: &'r Resource,
        s: &'r Subresource,
        scope: &str,
        used: &mut Used<'_>,
    ) -> Vec<Operation<'r>> {
        let of = format!("{scope}{}{}", r.kind, capitalised(&s.name));
        let what = format!("{} of the specified {}", s.name, r.kind);
        let about = About { kind: (&s.group, &s.version, &s.kind), of: of.clone(), what };
        let mut operations = self.read_write_operations(&about, |verb| s.can(verb), used);
        if s.name == "log" {
            for operation in &mut operations {
                operation.answer = None;
                operation.types = Some(LOG_TYPES);
                operation.query = parameters::of_options(self.docs, "PodLogOptions");
            }
        }
        if s.can("create") {
            let description = format!("create {} of {}", s.name, article(&r.kind));
            operations.push(self.create_operation(&of, description, (&s.group, &s.version, &s.kind), used));
        }
        operations
    }

    fn connect_operations<'r>(
        &self,
        r: &'r Resource,
        s: &'r Subresource,
        scope: &str,
        with_path: &str,
    ) -> Vec<Operation<'r>> {
        // Proxies alone can `update`, and take every method.
        const METHODS: &[(&str, &str)] = &[
            ("get", "get"),
            ("create", "post"),
            ("update", "put"),
            ("update", "head"),
            ("update", "options"),
            ("patch", "patch"),
            ("delete", "delete"),
        ];
        METHODS
            .iter()
            .filter(|(verb, _)| s.can(verb))
            .map(|(_, method)| Operation {
                method,
                action: "connect",
                id: format!(
                    "connect{}{}{scope}{}{}{with_path}",
                    self.camel,
                    capitalised(method),
                    r.kind,
                    capitalised(&s.name)
                ),
                description: format!("connect {} requests to {} of {}", method.to_uppercase(), s.name, r.kind),
                gvk: (&s.group, &s.version, &s.kind),
                query: parameters::of_options(self.docs, &s.kind),
                ..Operation::default()
            })
            .collect()
    }

    /// What all operations take stands at the path.
    fn path(&mut self, path: &str, of_path: &[Parameter], mut operations: Vec<Operation<'_>>) {
        let Some(first) = operations.first() else { return };
        let (form, tag, custom) = (self.form, self.tag.clone(), self.custom);
        let mut shared = first.query.clone();
        shared.retain(|p| operations.iter().all(|o| o.query.contains(p)));
        for operation in &mut operations {
            operation.query.retain(|p| !shared.contains(p));
            parameters::sort(&mut operation.query);
        }
        shared.extend_from_slice(of_path);
        if !matches!(operations[0].action, "" | "connect") {
            shared.push(parameters::pretty());
        }
        parameters::sort(&mut shared);
        self.w.within(path, |w| {
            for operation in &operations {
                w.within(operation.method, |w| write_operation(w, form, &tag, custom, operation));
            }
            if !shared.is_empty() {
                w.objects("parameters", &shared, |w, p| parameters::write_one(w, form, p));
            }
        });
    }
}

/// What read, replace and patch are about.
struct About<'r> {
    kind: (&'r str, &'r str, &'r str),
    /// The end of the operation's id: `NamespacedDeploymentStatus`.
    of: String,
    /// `status of the specified Deployment`.
    what: String,
}

fn article(kind: &str) -> String {
    if kind.ends_with('s') && !kind.ends_with("ss") {
        return kind.into();
    }
    let n = if kind.starts_with(['A', 'E', 'I', 'O', 'U']) { "n" } else { "" };
    format!("a{n} {kind}")
}

/// What custom resources do not have stands last.
const ANSWER_TYPES: &[&str] = &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const LIST_TYPES: &[&str] = &[
    "application/json", "application/yaml", "application/vnd.kubernetes.protobuf", "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
];
const LOG_TYPES: &[&str] =
    &["text/plain", "application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const PATCH_TYPES: &[&str] = &[
    "application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml",
    "application/strategic-merge-patch+json",
];

fn types(all: &'static [&'static str], custom: bool) -> &'static [&'static str] {
    &all[..all.len() - usize::from(custom)]
}

fn write_operation(w: &mut Writer, form: Form, tag: &str, custom: bool, operation: &Operation<'_>) {
    w.strings("tags", [tag]);
    w.pair("description", &operation.description);
    w.pair("operationId", &operation.id);
    let body_in_parameters = form == Form::V2 && operation.body.is_some();
    if !operation.query.is_empty() || body_in_parameters {
        w.member("parameters", |w| {
            w.array(|w| {
                operation.query.iter().for_each(|p| w.item(|w| w.object(|w| parameters::write_one(w, form, p))));
                if let (Form::V2, Some(body)) = (form, &operation.body) {
                    let required = operation.method != "delete";
                    w.item(|w| w.object(|w| write_body_parameter(w, form, body, required)));
                }
            });
        });
    }
    let body_types: &[&str] = if operation.method == "patch" { types(PATCH_TYPES, custom) } else { &["*/*"] };
    match (form, &operation.body) {
        (Form::V2, _) => {
            w.strings("consumes", body_types.iter().copied());
            w.strings("produces", operation.types.unwrap_or(types(ANSWER_TYPES, custom)).iter().copied());
            w.strings("schemes", ["https"]);
        }
        (Form::V3, Some(body)) => w.within("requestBody", |w| {
            write_content(w, form, body_types, Some(body));
            if operation.method != "delete" {
                w.flag("required", true);
            }
        }),
        (Form::V3, None) => {}
    }
    w.within("responses", |w| write_answers(w, form, custom, operation));
    if !operation.action.is_empty() {
        w.pair("x-kubernetes-action", operation.action);
        w.within("x-kubernetes-group-version-kind", |w| write_gvk(w, operation.gvk));
    }
}

fn write_body_parameter(w: &mut Writer, form: Form, body: &str, required: bool) {
    w.pair("name", "body");
    w.pair("in", "body");
    w.flag("required", required);
    write_schema(w, form, Some(body));
}

fn write_answers(w: &mut Writer, form: Form, custom: bool, operation: &Operation<'_>) {
    let answer = operation.answer.as_deref();
    for (code, description) in [("200", "OK"), ("201", "Created"), ("202", "Accepted")] {
        if code != "200" && !operation.codes.contains(&code) {
            continue;
        }
        w.within(code, |w| {
            w.pair("description", description);
            match form {
                Form::V2 => write_schema(w, form, answer),
                Form::V3 => {
                    let usual = if answer.is_none() { &["*/*"] } else { types(ANSWER_TYPES, custom) };
                    write_content(w, form, operation.types.unwrap_or(usual), answer);
                }
            }
        });
    }
    w.within("401", |w| w.pair("description", "Unauthorized"));
}

/// A reference to the schema of this name; `None` is a plain string.
fn write_schema(w: &mut Writer, form: Form, name: Option<&str>) {
    w.within("schema", |w| match name {
        Some(name) => w.pair("$ref", &format!("{}{name}", form.ref_prefix())),
        None => w.pair("type", "string"),
    });
}

fn write_content(w: &mut Writer, form: Form, types: &[&str], name: Option<&str>) {
    w.within("content", |w| types.iter().for_each(|ty| w.within(ty, |w| write_schema(w, form, name))));
}
