//! Links of a page that came through a proxy: those that begin at its server's root lead through the proxy too.
//!
//! Reads: a response of type `text/html`, whole or as it comes. Source: the page "Access Services Running on Clusters";
//! which attributes hold links: the HTML standard's and HTML 4's indices of attributes. Invariant: what is no such link
//! leaves as it came; a page is never held in memory as a whole.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use futures::{StreamExt, stream};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use http_body_util::BodyExt;
use lol_html::send::{HtmlRewriter, Settings};
use lol_html::{MemorySettings, OutputSink, element};

use crate::body::{Body, BoxError, Response};

/// A page whose tags need more at a time goes on as it is.
const MEMORY_BYTES: usize = 1 << 20;
/// What is unzipped at a time: no more than a thousand times as much comes out of it.
const ZIPPED_BYTES: usize = 1 << 10;

/// Elements and their attributes that hold a link.
const LINKS: &str = "\
    a href|applet codebase|area href|audio src|base href|blockquote cite|body background|button formaction|command icon|\
    del cite|embed src|form action|frame longdesc src|head profile|html manifest|iframe longdesc src|\
    img longdesc src usemap|input formaction src usemap|ins cite|link href|object classid codebase data usemap|q cite|\
    script src|source src|track src|video poster src";

fn attributes(element: &str) -> impl Iterator<Item = &'static str> {
    let found = LINKS.split('|').find_map(|line| line.split_once(' ').filter(|(name, _)| *name == element));
    found.into_iter().flat_map(|(_, attributes)| attributes.split(' '))
}

/// Whether it is a page, and then whether in gzip; nothing for what is none, or cannot be read.
fn page(headers: &HeaderMap) -> Option<bool> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = text(CONTENT_TYPE).split(';').next().unwrap_or_default().trim();
    match text(CONTENT_ENCODING) {
        _ if !media_type.eq_ignore_ascii_case("text/html") => None,
        "" => Some(false),
        "gzip" => Some(true),
        _ => None,
    }
}

/// Rewrites the links of a page by `moved`, which says where one leads from outside if that is elsewhere.
pub fn rewrite(response: Response, moved: impl Fn(&str) -> Option<String> + Send + 'static) -> Response {
    let Some(zipped) = page(response.headers()) else { return response };
    let (mut head, body) = response.into_parts();
    for changed in [CONTENT_LENGTH, CONTENT_ENCODING, ETAG] {
        head.headers.remove(changed);
    }
    let page = Page::new(zipped, moved);
    let most = if zipped { ZIPPED_BYTES } else { usize::MAX };
    let body = body.into_data_stream().flat_map(move |chunk| stream::iter(cut(chunk, most)));
    let chunks = stream::unfold((body, Some(page)), |(mut body, page)| async move {
        let mut page = page?;
        loop {
            let (written, next) = match body.next().await {
                Some(Ok(chunk)) => (page.write(&chunk), Some(page)),
                Some(Err(error)) => (Err(error), None),
                None => (page.end(), None),
            };
            match (written, next) {
                (Ok(bytes), Some(next)) if bytes.is_empty() => page = next,
                (written, next) => return Some((written, (body, next))),
            }
        }
    });
    Response::from_parts(head, Body::stream(chunks))
}

fn cut(chunk: Result<Bytes, BoxError>, most: usize) -> Vec<Result<Bytes, BoxError>> {
    match chunk {
        Ok(bytes) => (0..bytes.len()).step_by(most).map(|at| Ok(bytes.slice(at..bytes.len().min(at + most)))).collect(),
        Err(error) => vec![Err(error)],
    }
}

/// What was made and not sent yet.
#[derive(Clone, Default)]
struct Made(Arc<Mutex<Vec<u8>>>);

impl OutputSink for Made {
    fn handle_chunk(&mut self, chunk: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(chunk);
    }
}

/// A page on its way.
struct Page {
    zipped: bool,
    /// From the first byte on: an answer may have none.
    unzip: Option<MultiGzDecoder<Vec<u8>>>,
    /// Gone once a tag was too long.
    rewriter: Option<HtmlRewriter<'static, Made>>,
    made: Made,
}

impl Page {
    fn new(zipped: bool, moved: impl Fn(&str) -> Option<String> + Send + 'static) -> Page {
        let links = element!("*", move |element| {
            for attribute in attributes(&element.tag_name()) {
                if let Some(moved) = element.get_attribute(attribute).and_then(|link| moved(link.trim())) {
                    element.set_attribute(attribute, &moved)?;
                }
            }
            Ok(())
        });
        let memory = MemorySettings::new()
            .with_max_allowed_memory_usage(MEMORY_BYTES)
            .with_graceful_bail_out_on_memory_limit_exceeded(true);
        let settings = Settings::new_send().append_element_content_handler(links).with_memory_settings(memory);
        let made = Made::default();
        Page { zipped, unzip: None, rewriter: Some(HtmlRewriter::new(settings, made.clone())), made }
    }

    fn write(&mut self, chunk: &[u8]) -> Result<Bytes, BoxError> {
        if self.zipped {
            let unzip = self.unzip.get_or_insert_with(|| MultiGzDecoder::new(Vec::new()));
            unzip.write_all(chunk)?;
            let plain = std::mem::take(unzip.get_mut());
            self.feed(&plain);
        } else {
            self.feed(chunk);
        }
        Ok(self.made.take())
    }

    fn feed(&mut self, text: &[u8]) {
        match self.rewriter.as_mut().map(|rewriter| rewriter.write(text)) {
            Some(Ok(())) => {}
            // It has handed on what it had.
            Some(Err(_)) => self.rewriter = None,
            None => self.made.handle_chunk(text),
        }
    }

    fn end(mut self) -> Result<Bytes, BoxError> {
        if let Some(unzip) = self.unzip.take() {
            self.feed(&unzip.finish()?);
        }
        if let Some(rewriter) = self.rewriter.take() {
            rewriter.end()?;
        }
        Ok(self.made.take())
    }
}

impl Made {
    fn take(&self) -> Bytes {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;

    async fn rewritten(content_type: &str, encoding: &str, chunks: Vec<Bytes>) -> String {
        let body = Body::stream(stream::iter(chunks.into_iter().map(Ok)));
        let mut response = Response::new(body);
        for (name, value) in [(CONTENT_TYPE, content_type), (CONTENT_ENCODING, encoding)] {
            if !value.is_empty() {
                response.headers_mut().insert(name, value.parse().expect("a value"));
            }
        }
        let moved = |link: &str| link.starts_with('/').then(|| format!("/p{link}"));
        let body = rewrite(response, moved).into_body().collect().await.expect("a body");
        String::from_utf8_lossy(&body.to_bytes()).into_owned()
    }

    #[tokio::test]
    async fn links_lead_through_the_proxy() {
        for (page, want) in [
            ("<a href=\"/a\">/a</a>", "<a href=\"/p/a\">/a</a>"),
            ("<A HREF=/a?b=1&amp;c=2 title=x>", "<A HREF=\"/p/a?b=1&amp;c=2\" title=x>"),
            ("<img src='/i' alt=\"/i\" usemap=#m><a href=b>", "<img src=\"/p/i\" alt=\"/i\" usemap=#m><a href=b>"),
            (
                "<script src=\"/s\">if (a < b) { x = '<a href=\"/y\">' }</script>",
                "<script src=\"/p/s\">if (a < b) { x = '<a href=\"/y\">' }</script>",
            ),
            (
                "<!-- <a href=\"/a\"> --><x-y data=\"/d\"><object data=\"/d\">",
                "<!-- <a href=\"/a\"> --><x-y data=\"/d\"><object data=\"/p/d\">",
            ),
            ("no page < at all", "no page < at all"),
        ] {
            // However it is cut.
            for size in [1, 7, page.len()] {
                let chunks = page.as_bytes().chunks(size).map(Bytes::copy_from_slice).collect();
                assert_eq!(rewritten("text/html; charset=utf-8", "", chunks).await, want, "{size}");
            }
            let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
            gzip.write_all(page.as_bytes()).expect("written");
            let bytes = gzip.finish().expect("written");
            let chunks = bytes.chunks(5).map(Bytes::copy_from_slice).collect();
            assert_eq!(rewritten("Text/HTML", "gzip", chunks).await, want);
            let whole = vec![Bytes::copy_from_slice(page.as_bytes())];
            assert_eq!(rewritten("text/plain", "", whole.clone()).await, page);
            assert_eq!(rewritten("text/html", "br", whole).await, page);
        }
        assert_eq!(rewritten("text/html", "gzip", Vec::new()).await, "");
        // Little that becomes much comes in parts.
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        gzip.write_all(&vec![b' '; 16 << 20]).expect("written");
        let mut response = Response::new(Body::from(gzip.finish().expect("written")));
        response.headers_mut().insert(CONTENT_TYPE, "text/html".parse().expect("a value"));
        response.headers_mut().insert(CONTENT_ENCODING, "gzip".parse().expect("a value"));
        let parts = rewrite(response, |_| None).into_body().into_data_stream();
        let parts: Vec<usize> = parts.map(|part| part.expect("a part").len()).collect().await;
        assert_eq!(parts.iter().sum::<usize>(), 16 << 20);
        assert!(parts.iter().all(|part| *part < 3 << 20), "{parts:?}");
        // A tag without an end is not kept.
        let long = format!("<a href=\"/a\">{}<b x=\"{}", "y".repeat(1 << 20), "z".repeat(3 << 20));
        let chunks = long.as_bytes().chunks(1 << 16).map(Bytes::copy_from_slice).collect();
        let got = rewritten("text/html", "", chunks).await;
        assert!(got.starts_with("<a href=\"/p/a\">y") && got.len() == long.len() + 2, "{}", got.len());
    }

    #[test]
    fn elements_are_known() {
        assert_eq!(attributes("frame").collect::<Vec<_>>(), ["longdesc", "src"]);
        assert_eq!((attributes("a").count(), attributes("video").count(), attributes("b").count()), (1, 2, 0));
    }
}
