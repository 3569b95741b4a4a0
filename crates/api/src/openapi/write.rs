//! Writes JSON straight into a buffer: documents of megabytes need no tree.
//!
//! Invariant: commas are the writer's business; a caller that nests its calls rightly gets valid JSON.

use meta::Value;

pub(super) struct Writer {
    out: Vec<u8>,
    /// Nothing has been written yet since the innermost bracket opened.
    first: bool,
}

impl Writer {
    pub fn new() -> Self {
        Writer { out: Vec::with_capacity(64 * 1024), first: true }
    }

    pub fn finish(self) -> Vec<u8> {
        self.out
    }

    pub fn object(&mut self, content: impl FnOnce(&mut Self)) {
        self.bracket(b'{', b'}', content);
    }

    pub fn array(&mut self, content: impl FnOnce(&mut Self)) {
        self.bracket(b'[', b']', content);
    }

    fn bracket(&mut self, open: u8, close: u8, content: impl FnOnce(&mut Self)) {
        self.out.push(open);
        self.first = true;
        content(self);
        self.out.push(close);
        self.first = false;
    }

    fn comma(&mut self) {
        if !self.first {
            self.out.push(b',');
        }
        self.first = false;
    }

    /// A member of the object that is open.
    pub fn member(&mut self, key: &str, value: impl FnOnce(&mut Self)) {
        self.comma();
        meta::json::write_string(&mut self.out, key);
        self.out.push(b':');
        value(self);
    }

    /// A member that is an object.
    pub fn within(&mut self, key: &str, content: impl FnOnce(&mut Self)) {
        self.member(key, |w| w.object(content));
    }

    /// A member that is an array of objects.
    pub fn objects<T>(&mut self, key: &str, items: impl IntoIterator<Item = T>, mut each: impl FnMut(&mut Self, T)) {
        self.member(key, |w| w.array(|w| items.into_iter().for_each(|i| w.item(|w| w.object(|w| each(w, i))))));
    }

    /// An item of the array that is open.
    pub fn item(&mut self, value: impl FnOnce(&mut Self)) {
        self.comma();
        value(self);
    }

    pub fn string(&mut self, text: &str) {
        meta::json::write_string(&mut self.out, text);
    }

    pub fn value(&mut self, value: &Value) {
        value.write_to(&mut self.out);
    }

    pub fn pair(&mut self, key: &str, text: &str) {
        self.member(key, |w| w.string(text));
    }

    pub fn flag(&mut self, key: &str, on: bool) {
        self.member(key, |w| w.out.extend_from_slice(if on { b"true" } else { b"false" }));
    }

    pub fn strings<'t>(&mut self, key: &str, texts: impl IntoIterator<Item = &'t str>) {
        self.member(key, |w| {
            w.array(|w| {
                for text in texts {
                    w.item(|w| w.string(text));
                }
            });
        });
    }
}
