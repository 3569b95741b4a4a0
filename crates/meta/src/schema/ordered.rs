//! Values as messages show them: members in the order in which their type declares them.

use super::{Kind, TypeRef};
use crate::Value;

impl TypeRef<'_> {
    /// The JSON of a value of this type. What the type does not know stands nowhere.
    pub fn ordered_json(self, value: &Value) -> String {
        match (self.kind(), value) {
            (Kind::Struct, Value::Object(map)) => {
                let member = |name: &str, ty: TypeRef| Some(format!("\"{name}\":{}", ty.ordered_json(map.get(name)?)));
                let members = self.declared_fields().filter_map(|field| member(field.name(), field.ty()));
                format!("{{{}}}", members.collect::<Vec<_>>().join(","))
            }
            (Kind::List(_), Value::Array(items)) => {
                let items = self.element().map(|ty| items.iter().map(move |item| ty.ordered_json(item)));
                format!("[{}]", items.into_iter().flatten().collect::<Vec<_>>().join(","))
            }
            _ => value.to_string(),
        }
    }
}
