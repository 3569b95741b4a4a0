//! Numbers as Go's converter of untyped objects takes them, which reads strategic patches and applied documents.
//!
//! Invariant: afterwards no whole number of an integer's field is a float, and those of 32 bits have wrapped to them.

use super::{Kind, Scalar, TypeRef};
use crate::Value;

impl TypeRef<'_> {
    /// Makes the numbers of a document of this type what the fields' types say, as Go's conversions do.
    pub fn convert_numbers(self, value: &mut Value) {
        match (self.kind(), &mut *value) {
            (Kind::Struct, Value::Object(map)) => {
                for (name, member) in map.iter_mut() {
                    if let Some(field) = self.field(name) {
                        field.ty().convert_numbers(member);
                    }
                }
            }
            (Kind::List(_), Value::Array(items)) => {
                let Some(element) = self.element() else { return };
                items.iter_mut().for_each(|item| element.convert_numbers(item));
            }
            (Kind::Map, Value::Object(map)) => {
                let Some(element) = self.element() else { return };
                map.values_mut().for_each(|item| element.convert_numbers(item));
            }
            (Kind::Scalar(scalar @ (Scalar::Int32 | Scalar::Int64 | Scalar::IntOrString)), _) => {
                if let Value::Float(f) = *value
                    && f.fract() == 0.0
                    && (scalar != Scalar::IntOrString || f.abs() < f64::from(i32::MAX))
                {
                    *value = Value::Int(f as i64);
                }
                // Compat: a number too large for its field loses its upper half.
                if let (Scalar::Int32, Value::Int(i)) = (scalar, &mut *value) {
                    *i = i64::from(*i as i32);
                }
            }
            _ => {}
        }
    }
}
