//! Defaults of a schema, and nulls that are no value.
//!
//! Invariant: applying the defaults twice changes nothing more; what is present and not null is never touched.

use meta::Value;

use crate::Node;

impl Node {
    /// Fills in defaults, below ones as well, and drops nulls where null is no value.
    pub fn apply_defaults(&self, value: &mut Value) {
        self.fill_defaults(value);
        self.drop_nulls(value);
    }

    /// Fills in defaults, and leaves other nulls for the validation to find.
    pub fn fill_defaults(&self, value: &mut Value) {
        if self.defaults_below {
            self.fill(value);
        }
    }

    /// The default that stands in for a value that is missing, or null without being allowed to.
    fn stand_in(&self, value: Option<&Value>) -> Option<&Value> {
        match value {
            None => self.default.as_ref(),
            Some(Value::Null) if !self.nullable => self.default.as_ref(),
            Some(_) => None,
        }
    }

    fn fill(&self, value: &mut Value) {
        match value {
            Value::Object(map) => {
                for (name, property) in &self.properties {
                    if let Some(default) = property.stand_in(map.get(name)) {
                        map.insert(name.as_str(), default.clone());
                    }
                }
                for (key, item) in map.iter_mut() {
                    if let Some(node) = self.child(key) {
                        node.fill_at(item);
                    }
                }
            }
            Value::Array(items) => {
                if let Some(node) = &self.items {
                    items.iter_mut().for_each(|item| node.fill_at(item));
                }
            }
            _ => {}
        }
    }

    fn fill_at(&self, item: &mut Value) {
        if let Some(default) = self.stand_in(Some(item)) {
            *item = default.clone();
        }
        if self.defaults_below {
            self.fill(item);
        }
    }

    fn drop_nulls(&self, value: &mut Value) {
        match value {
            Value::Object(map) => map.retain(|key, item| match self.child(key) {
                Some(node) if item.is_null() => node.nullable || node.default.is_some(),
                Some(node) => {
                    node.drop_nulls(item);
                    true
                }
                None => true,
            }),
            Value::Array(items) => {
                if let Some(node) = &self.items {
                    items.iter_mut().for_each(|item| node.drop_nulls(item));
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use meta::json;

    #[test]
    fn defaults_are_filled_in_and_nulls_dropped() {
        let schema = Node::read(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "default": {}, "properties": {
                "replicas": {"type": "integer", "default": 1},
                "mode": {"type": "string", "default": "a", "nullable": true},
                "gone": {"type": "string"},
                "parts": {"type": "array", "items": {"type": "object", "properties": {"size": {"type": "integer", "default": 3}}}},
                "map": {"type": "object", "additionalProperties": {"type": "string", "default": "x"}},
            }},
        }}));
        golden::check!("tests/defaults.txt", |given| {
            let mut value = meta::parse(given.as_bytes()).expect("JSON");
            schema.apply_defaults(&mut value);
            let once = value.clone();
            schema.apply_defaults(&mut value);
            assert_eq!(value, once, "twice");
            once.to_string()
        });
    }
}
