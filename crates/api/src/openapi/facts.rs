//! What upstream's documents say of types that the schema does not: values, unions, which fields are required.
//!
//! Reads `data/openapi.txt`, whose words stand between tabs: `TYPE enum FIELD VALUE...` (a dash is the empty value),
//! `TYPE required FIELD...`, `TYPE union DISCRIMINATOR FIELD=NAME...`, `TYPE granular`. Source: the documents that upstream publishes.

use super::write::Writer;

const FACTS: &str = include_str!("../data/openapi.txt");

/// What is said of one type.
pub(super) struct Facts(Vec<(&'static str, Vec<&'static str>)>);

impl Facts {
    pub fn of(type_name: &str) -> Facts {
        let own = FACTS.lines().filter_map(|line| line.strip_prefix(type_name)?.strip_prefix('\t'));
        let words = own.map(|line| line.split('\t').collect::<Vec<_>>());
        Facts(words.map(|words| (words[0], words[1..].to_vec())).collect())
    }

    fn all(&self, what: &str) -> impl Iterator<Item = &[&'static str]> {
        self.0.iter().filter(move |(fact, _)| *fact == what).map(|(_, words)| words.as_slice())
    }

    /// All fields that are required, where the schema says otherwise.
    pub fn required(&self) -> Option<&[&'static str]> {
        self.all("required").next()
    }

    /// What a field, or each of its items, may be.
    pub fn values(&self, field: &str) -> Option<Vec<&'static str>> {
        let words = self.all("enum").find(|words| words[0] == field)?;
        Some(words[1..].iter().map(|value| if *value == "-" { "" } else { value }).collect())
    }

    /// Whether it is said that the fields have owners of their own, as fields have anyhow.
    pub fn is_granular(&self) -> bool {
        self.all("granular").next().is_some()
    }

    pub fn write_unions(&self, w: &mut Writer) {
        if self.all("union").next().is_none() {
            return;
        }
        w.objects("x-kubernetes-unions", self.all("union"), |w, words| {
            if words[0] != "-" {
                w.pair("discriminator", words[0]);
            }
            let fields = words[1..].iter().filter_map(|word| word.split_once('='));
            w.within("fields-to-discriminateBy", |w| fields.for_each(|(field, name)| w.pair(field, name)));
        });
    }
}
