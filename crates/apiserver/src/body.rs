//! Bodies of requests and answers.
//!
//! Answers are bytes, bytes made while they are sent (a list), or a stream (a watch). Invariant: a list is never held
//! in memory as one buffer; it is written from shared bytes in chunks of about [`CHUNK_BYTES`].

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;

use crate::turns::Turn;

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// The body of a request, whatever carried it.
pub type RequestBody = UnsyncBoxBody<Bytes, BoxError>;
pub type Request = http::Request<RequestBody>;
pub type Response = http::Response<Body>;

/// How much a generated body hands over at a time.
pub const CHUNK_BYTES: usize = 128 * 1024;

/// Something that writes itself piece by piece.
pub trait Pieces: Send {
    /// The next piece; `None` at the end.
    fn next(&mut self) -> Option<Bytes>;
    /// The whole length, when it is known before the first piece.
    fn len_bytes(&self) -> Option<u64>;
}

/// The body of an answer.
#[derive(Default)]
pub enum Body {
    #[default]
    Empty,
    Full(Bytes),
    Pieces(Pieced),
    Stream(Pin<Box<dyn Stream<Item = Result<Bytes, BoxError>> + Send>>),
}

/// Bodies that are being made, and how many may be without giving way.
static BEING_WRITTEN: AtomicUsize = AtomicUsize::new(0);
const CROWD: usize = 1;

/// A body that is made while it is sent.
pub struct Pieced {
    pub pieces: Box<dyn Pieces>,
    /// What the request holds until its answer is written, such as its seats.
    held: Option<Box<dyn Send>>,
    /// Of a large one.
    turn: Option<Turn>,
    /// Others had their turn since the last piece.
    rested: bool,
}

impl Pieced {
    /// When there is more than one list, whatever else waits for the thread goes first between two pieces of each: they
    /// must not make requests for one object wait. One alone is written in one go, which is faster, but when others wait
    /// for its turn it gives up the core between its pieces.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let wanted = self.turn.as_ref().is_some_and(Turn::is_wanted);
        let crowded = BEING_WRITTEN.load(Ordering::Relaxed) > CROWD;
        if crowded && !std::mem::replace(&mut self.rested, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if crowded || wanted {
            // For the thread that commits, the other workers and clients: they would wait for a whole slice of the kernel's.
            std::thread::yield_now();
        }
        self.rested = false;
        let piece = self.pieces.next();
        if let Some(turn) = &self.turn {
            turn.touch();
        }
        if piece.is_none() {
            (self.held, self.turn) = (None, None);
        }
        Poll::Ready(piece)
    }
}

impl Drop for Pieced {
    fn drop(&mut self) {
        BEING_WRITTEN.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Body {
    pub fn pieces(pieces: impl Pieces + 'static) -> Self {
        BEING_WRITTEN.fetch_add(1, Ordering::Relaxed);
        Body::Pieces(Pieced { pieces: Box::new(pieces), held: None, turn: None, rested: true })
    }

    /// Keeps `held` until the body is written or given up, if writing it is work.
    pub fn hold(&mut self, held: impl Send + 'static) {
        if let Body::Pieces(body) = self {
            body.held = Some(Box::new(held));
        }
    }

    /// Keeps the turn until the body is written or given up.
    pub fn hold_turn(&mut self, turn: Option<Turn>) {
        if let Body::Pieces(body) = self {
            body.turn = turn;
        }
    }

    pub fn stream(stream: impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static) -> Self {
        Body::Stream(Box::pin(stream))
    }
}

impl From<Vec<u8>> for Body {
    fn from(v: Vec<u8>) -> Self {
        Body::Full(v.into())
    }
}

impl From<Bytes> for Body {
    fn from(v: Bytes) -> Self {
        Body::Full(v)
    }
}

impl From<String> for Body {
    fn from(v: String) -> Self {
        Body::Full(v.into())
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        match this {
            Body::Empty => Poll::Ready(None),
            Body::Full(_) => match std::mem::take(this) {
                Body::Full(b) if !b.is_empty() => Poll::Ready(Some(Ok(Frame::data(b)))),
                _ => Poll::Ready(None),
            },
            Body::Pieces(p) => p.poll(cx).map(|piece| piece.map(|b| Ok(Frame::data(b)))),
            Body::Stream(s) => s.as_mut().poll_next(cx).map(|o| o.map(|r| r.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Empty => true,
            Body::Full(b) => b.is_empty(),
            _ => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Empty => SizeHint::with_exact(0),
            Body::Full(b) => SizeHint::with_exact(b.len() as u64),
            Body::Pieces(p) => p.pieces.len_bytes().map_or_else(SizeHint::default, SizeHint::with_exact),
            Body::Stream(_) => SizeHint::default(),
        }
    }
}

/// Wraps the body of a request from any transport.
pub fn boxed<B>(body: B) -> RequestBody
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    body.map_err(Into::into).boxed_unsync()
}
