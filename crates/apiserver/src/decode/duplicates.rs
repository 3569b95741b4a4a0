//! Keys that stand more than once in YAML: where, in the words of upstream's reader. Reads YAML in which some do.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// `line 6: key "a" already set in map`, each as it is come upon: what is in a value before the value's own key. The line
/// is that where the value starts.
pub struct Lines(pub Vec<String>);

impl<'de> Deserialize<'de> for Lines {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

/// Nothing stands twice in a scalar.
macro_rules! scalars {
    ($($visit:ident($ty:ty)),*) => {
        $(fn $visit<E>(self, _: $ty) -> Result<Lines, E> {
            Ok(Lines(Vec::new()))
        })*
    };
}

impl<'de> Visitor<'de> for Reader {
    type Value = Lines;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    scalars!(visit_bool(bool), visit_i64(i64), visit_u64(u64), visit_f64(f64), visit_str(&str));

    fn visit_unit<E>(self) -> Result<Lines, E> {
        Ok(Lines(Vec::new()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Lines, A::Error> {
        let mut all = Vec::new();
        while let Some(Lines(lines)) = items.next_element()? {
            all.extend(lines);
        }
        Ok(Lines(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Lines, A::Error> {
        let (mut all, mut known) = (Vec::new(), HashSet::new());
        while let Some(key) = members.next_key::<String>()? {
            let value: Spanned<Lines> = members.next_value()?;
            all.extend(value.value.0);
            if !known.insert(key.clone()) {
                all.push(format!("line {}: key {key:?} already set in map", value.defined.line()));
            }
        }
        Ok(Lines(all))
    }
}
