//! What Go writes for values that nobody set: the other half of a decode and encode round trip.
//!
//! Invariant: `of(type)` is what upstream writes for a field of that type that is not omitted and was never set.

use super::{FieldRef, Kind, Scalar, TypeRef, flag};
use crate::{Map, Value};

/// What stands in JSON for a non-pointer value of type `ty` that was never set.
pub(super) fn of(ty: TypeRef<'_>) -> Value {
    match ty.kind() {
        Kind::Struct => Value::Object(
            ty.fields().filter(|f| is_written_when_unset(*f)).map(|f| (f.name().into(), of_field(f))).collect::<Map>(),
        ),
        // A nil slice and a nil map are null.
        Kind::List(_) | Kind::Map | Kind::Any => Value::Null,
        Kind::Scalar(s) => of_scalar(s),
    }
}

/// The zero that a schema's `default` of a zero kind means (an empty object where `of` has nothing to write).
pub(super) fn empty_of(ty: TypeRef<'_>) -> Value {
    match ty.kind() {
        Kind::Struct | Kind::Map | Kind::Any => Value::Object(Map::new()),
        Kind::List(_) => Value::Array(Vec::new()),
        Kind::Scalar(Scalar::Raw | Scalar::Json | Scalar::FieldsV1) => Value::Object(Map::new()),
        Kind::Scalar(s) => of_scalar(s),
    }
}

fn of_scalar(scalar: Scalar) -> Value {
    use Scalar::*;
    match scalar {
        Bool => Value::Bool(false),
        Int32 | Int64 | UInt8 | UInt16 | UInt32 | UInt64 | IntOrString => Value::Int(0),
        Float64 => Value::Int(0),
        String => Value::String("".into()),
        Quantity => Value::String("0".into()),
        Duration => Value::String("0s".into()),
        // Times, byte slices and raw JSON have a nil that is written as null.
        Bytes | Time | MicroTime | Raw | Json | FieldsV1 | SchemaOrBool | SchemaOrArray | SchemaOrStrings => {
            Value::Null
        }
    }
}

/// What stands for the unset `field`, where it is written at all.
pub(super) fn of_field(field: FieldRef<'_>) -> Value {
    if field.is_pointer() { Value::Null } else { of(field.ty()) }
}

/// Go writes the field even though nobody set it.
pub(super) fn is_written_when_unset(field: FieldRef<'_>) -> bool {
    if field.omitzero() {
        return false;
    }
    if !field.omitempty() {
        return true;
    }
    // `omitempty` has no effect on what Go holds as a struct.
    !field.is_pointer() && is_go_struct(field.ty())
}

/// The decoded and normalised `value` of `field` is left out when written.
pub(super) fn is_left_out(field: FieldRef<'_>, value: &Value) -> bool {
    if !field.omitempty() && !field.omitzero() {
        return false;
    }
    if field.is_pointer() {
        return value.is_null();
    }
    let ty = field.ty();
    if field.omitempty() && !is_go_struct(ty) {
        return match value {
            Value::Null | Value::Bool(false) | Value::Int(0) => true,
            Value::Float(f) => *f == 0.0,
            Value::String(s) => s.is_empty(),
            Value::Array(items) => items.is_empty() && !field.has(flag::KEPT_EMPTY),
            Value::Object(map) => map.is_empty() && !field.has(flag::KEPT_EMPTY),
            Value::Bool(true) | Value::Int(_) => false,
        };
    }
    field.omitzero() && *value == of(ty)
}

/// Go holds it as a struct: never "empty", whatever is in it.
fn is_go_struct(ty: TypeRef<'_>) -> bool {
    match ty.kind() {
        Kind::Struct => true,
        Kind::List(_) | Kind::Map | Kind::Any => false,
        Kind::Scalar(s) => !s.is_basic(),
    }
}
