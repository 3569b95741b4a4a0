//! Says what is wrong with bytes that are no JSON, in the words that Go's decoder has for it.
//!
//! Compat: clients and their users know `invalid character '}' looking for beginning of value` (Go, encoding/json).
//! Pure. Runs only after the real parser refused, so its speed does not matter. Invariant: needs no stack for nesting.

use super::MAX_DEPTH;

/// What Go says about these bytes; `None` when nothing is wrong with their syntax.
pub(super) fn error(bytes: &[u8]) -> Option<String> {
    let mut scanner = Scanner { bytes, at: 0, open: Vec::new() };
    scanner.document().err()
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The brackets that are open.
    open: Vec<u8>,
}

type Scan = Result<(), String>;

impl Scanner<'_> {
    fn document(&mut self) -> Scan {
        self.value()?;
        while let Some(bracket) = self.open.last().copied() {
            match (bracket, self.next_after_space()?) {
                (b'{', b',') => {
                    self.key("looking for beginning of object key string", false)?;
                    self.value()?;
                }
                (b'[', b',') => self.value()?,
                (b'{', b'}') | (b'[', b']') => drop(self.open.pop()),
                (b'{', other) => return Err(unexpected(other, "after object key:value pair")),
                (_, other) => return Err(unexpected(other, "after array element")),
            }
        }
        self.skip_space();
        self.bytes.get(self.at).map_or(Ok(()), |c| Err(unexpected(*c, "after top-level value")))
    }

    /// Reads a scalar whole; of a list or an object what stands before its first complete element.
    fn value(&mut self) -> Scan {
        loop {
            match self.next_after_space()? {
                b'{' => {
                    self.enter(b'{')?;
                    if !self.key("looking for beginning of object key string", true)? {
                        return Ok(());
                    }
                }
                b'[' => {
                    self.enter(b'[')?;
                    self.skip_space();
                    if self.bytes.get(self.at) == Some(&b']') {
                        return Ok(());
                    }
                }
                b'"' => return self.string(),
                b't' => return self.literal("true"),
                b'f' => return self.literal("false"),
                b'n' => return self.literal("null"),
                first @ (b'-' | b'0'..=b'9') => return self.number(first),
                other => return Err(unexpected(other, "looking for beginning of value")),
            }
        }
    }

    fn enter(&mut self, bracket: u8) -> Scan {
        self.open.push(bracket);
        if self.open.len() > MAX_DEPTH { Err(unexpected(bracket, "exceeded max depth")) } else { Ok(()) }
    }

    /// A key and its colon; false when the object ends instead, where it may.
    fn key(&mut self, context: &str, may_end: bool) -> Result<bool, String> {
        match self.next_after_space()? {
            b'"' => self.string()?,
            b'}' if may_end => {
                self.at -= 1;
                return Ok(false);
            }
            other => return Err(unexpected(other, context)),
        }
        match self.next_after_space()? {
            b':' => Ok(true),
            other => Err(unexpected(other, "after object key")),
        }
    }

    fn string(&mut self) -> Scan {
        loop {
            match self.next()? {
                b'"' => return Ok(()),
                b'\\' => match self.next()? {
                    b'u' => {
                        for _ in 0..4 {
                            let c = self.next()?;
                            if !c.is_ascii_hexdigit() {
                                return Err(unexpected(c, "in \\u hexadecimal character escape"));
                            }
                        }
                    }
                    b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => {}
                    other => return Err(unexpected(other, "in string escape code")),
                },
                c if c < 0x20 => return Err(unexpected(c, "in string literal")),
                _ => {}
            }
        }
    }

    fn literal(&mut self, word: &str) -> Scan {
        for expected in word.chars().skip(1) {
            let c = self.next()?;
            if char::from(c) != expected {
                return Err(unexpected(c, &format!("in literal {word} (expecting {})", quote(expected as u8))));
            }
        }
        Ok(())
    }

    fn number(&mut self, mut first: u8) -> Scan {
        if first == b'-' {
            first = self.next()?;
            if !first.is_ascii_digit() {
                return Err(unexpected(first, "in numeric literal"));
            }
        }
        if first != b'0' {
            self.digits();
        }
        if self.bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digit("after decimal point in numeric literal")?;
            self.digits();
        }
        if matches!(self.bytes.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.bytes.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digit("in exponent of numeric literal")?;
            self.digits();
        }
        Ok(())
    }

    fn digit(&mut self, context: &str) -> Scan {
        let c = self.next()?;
        if c.is_ascii_digit() { Ok(()) } else { Err(unexpected(c, context)) }
    }

    fn digits(&mut self) {
        self.at += self.bytes[self.at..].iter().take_while(|c| c.is_ascii_digit()).count();
    }

    fn skip_space(&mut self) {
        let space = |c: &&u8| matches!(c, b' ' | b'\t' | b'\r' | b'\n');
        self.at += self.bytes[self.at..].iter().take_while(space).count();
    }

    fn next_after_space(&mut self) -> Result<u8, String> {
        self.skip_space();
        self.next()
    }

    fn next(&mut self) -> Result<u8, String> {
        let c = self.bytes.get(self.at).copied().ok_or("unexpected end of JSON input")?;
        self.at += 1;
        Ok(c)
    }
}

fn unexpected(c: u8, context: &str) -> String {
    format!("invalid character {} {context}", quote(c))
}

/// A byte as Go quotes it.
fn quote(c: u8) -> String {
    match c {
        b'\'' => r"'\''".into(),
        b'"' => "'\"'".into(),
        b'\\' => r"'\\'".into(),
        b'\n' => r"'\n'".into(),
        b'\r' => r"'\r'".into(),
        b'\t' => r"'\t'".into(),
        0x20..=0x7e => format!("'{}'", char::from(c)),
        0xa1..=0xff if c != 0xad => format!("'{}'", char::from(c)),
        0x80..=0xff => format!(r"'\u{c:04x}'"),
        _ => format!(r"'\x{c:02x}'"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_the_words_of_go() {
        golden::check!("../tests/json_syntax.txt", |text| error(text.as_bytes()).unwrap_or_default());
        let newline = "invalid character '\\n' in string literal";
        assert_eq!(error(b"\"\n\"").as_deref(), Some(newline));
        assert_eq!(error(&b"[".repeat(MAX_DEPTH + 1)).as_deref(), Some("invalid character '[' exceeded max depth"));
        for good in ["{}", "[]", " {\"a\": [1, -0.5e3, \"\\u00e9\\n\", true, false, null, {}, []]} "] {
            assert_eq!(error(good.as_bytes()), None, "{good}");
        }
    }
}
