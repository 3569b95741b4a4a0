//! Spans on their way to the collector: OTLP over gRPC.
//!
//! Source: the OpenTelemetry protocol's `trace/v1/trace.proto` and `collector/trace/v1/trace_service.proto`, of which this is
//! what we fill in. Invariants: at most [`QUEUED_SPANS`] wait, and whoever brings more is not held up; what is lost is counted.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::uri::PathAndQuery;
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use super::config::Settings;

/// As OpenTelemetry's batch processors do it.
const QUEUED_SPANS: usize = 2048;
const BATCH_SPANS: usize = 512;
/// How long a batch waits for more spans.
const GATHER: Duration = Duration::from_secs(1);
/// What a call of the collector may take, while the server runs and when it stops.
const SEND: Duration = Duration::from_secs(10);
const LAST_SEND: Duration = Duration::from_secs(2);
const EXPORT: PathAndQuery = PathAndQuery::from_static("/opentelemetry.proto.collector.trace.v1.TraceService/Export");

/// Bits of a span's flags: W3C's, and whether what is said of the parent's place is known, and that it is elsewhere.
pub const SAMPLED: u32 = 1;
pub const IS_KNOWN: u32 = 0x100;
pub const PARENT_IS_REMOTE: u32 = 0x200;
/// The status code of what went wrong.
pub const FAILED: i32 = 2;

#[derive(Clone, PartialEq, prost::Message)]
pub struct ExportRequest {
    #[prost(message, repeated, tag = "1")]
    pub resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ExportResponse {
    #[prost(message, optional, tag = "1")]
    pub partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct PartialSuccess {
    #[prost(int64, tag = "1")]
    pub rejected_spans: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    pub resource: Option<Attributed>,
    #[prost(message, repeated, tag = "2")]
    pub scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Attributed {
    #[prost(message, repeated, tag = "1")]
    pub attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    pub scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    pub spans: Vec<Span>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Scope {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub version: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Span {
    #[prost(bytes = "vec", tag = "1")]
    pub trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub span_id: Vec<u8>,
    #[prost(string, tag = "3")]
    pub trace_state: String,
    #[prost(bytes = "vec", tag = "4")]
    pub parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    pub name: String,
    #[prost(int32, tag = "6")]
    pub kind: i32,
    /// Nanoseconds since 1970.
    #[prost(fixed64, tag = "7")]
    pub start: u64,
    #[prost(fixed64, tag = "8")]
    pub end: u64,
    #[prost(message, repeated, tag = "9")]
    pub attributes: Vec<KeyValue>,
    #[prost(message, repeated, tag = "13")]
    pub links: Vec<Link>,
    #[prost(message, optional, tag = "15")]
    pub status: Option<Status>,
    #[prost(fixed32, tag = "16")]
    pub flags: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Link {
    #[prost(bytes = "vec", tag = "1")]
    pub trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub span_id: Vec<u8>,
    #[prost(fixed32, tag = "6")]
    pub flags: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Status {
    #[prost(int32, tag = "3")]
    pub code: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct KeyValue {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(message, optional, tag = "2")]
    pub value: Option<AnyValue>,
}

/// In the protocol these are a oneof: one of them is there.
#[derive(Clone, PartialEq, prost::Message)]
pub struct AnyValue {
    #[prost(string, optional, tag = "1")]
    pub text: Option<String>,
    #[prost(int64, optional, tag = "3")]
    pub number: Option<i64>,
}

impl From<String> for AnyValue {
    fn from(text: String) -> AnyValue {
        AnyValue { text: Some(text), number: None }
    }
}

impl From<i64> for AnyValue {
    fn from(number: i64) -> AnyValue {
        AnyValue { text: None, number: Some(number) }
    }
}

/// Takes spans and sends them to a collector.
pub struct Tracer {
    /// Of 2^63 traces.
    sampled: u64,
    /// `service.name` and the like.
    resource: Attributed,
    collector: tonic::client::Grpc<Channel>,
    endpoint: String,
    spans: mpsc::Sender<Span>,
    queue: Mutex<Queue>,
    dropped: AtomicU64,
    failing: AtomicBool,
}

struct Queue {
    spans: mpsc::Receiver<Span>,
    batch: Vec<Span>,
}

impl Tracer {
    /// To be made where tokio runs. The collector is first called with the first spans.
    pub fn new(settings: &Settings) -> Result<Tracer, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(settings.endpoint.clone())?.connect_timeout(SEND);
        let (sender, spans) = mpsc::channel(QUEUED_SPANS);
        let instance = format!("apiserver-{}", uuid::Uuid::new_v4());
        let resource = [("service.name", "apiserver".to_string()), ("service.instance.id", instance)];
        let resource = resource.map(|(name, value)| super::attribute(name, value.into()));
        Ok(Tracer {
            sampled: ((u128::from(settings.sampling_rate_per_million) << 63) / 1_000_000) as u64,
            resource: Attributed { attributes: resource.into() },
            collector: tonic::client::Grpc::new(endpoint.connect_lazy()),
            endpoint: settings.endpoint.clone(),
            spans: sender,
            queue: Mutex::new(Queue { spans, batch: Vec::new() }),
            dropped: AtomicU64::default(),
            failing: AtomicBool::default(),
        })
    }

    /// Whether a trace that begins here is sampled: OpenTelemetry's ratio of trace IDs, so that all servers choose the same.
    pub fn samples(&self, trace: u128) -> bool {
        (trace as u64) >> 1 < self.sampled
    }

    /// Spans that were lost: the queue was full, or the collector did not take them.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn drop_spans(&self, count: u64) {
        self.dropped.fetch_add(count, Ordering::Relaxed);
    }

    pub fn take(&self, span: Span) {
        if self.spans.try_send(span).is_err() {
            self.drop_spans(1);
        }
    }

    /// Sends spans until `shutdown`.
    pub async fn run(&self, shutdown: &CancellationToken) {
        let mut queue = self.queue.lock().await;
        let Queue { spans, batch } = &mut *queue;
        let work = async {
            while let Some(first) = spans.recv().await {
                batch.push(first);
                let until = Instant::now() + GATHER;
                while batch.len() < BATCH_SPANS
                    && let Ok(Some(span)) = timeout_at(until, spans.recv()).await
                {
                    batch.push(span);
                }
                self.send(batch, SEND).await;
            }
        };
        shutdown.run_until_cancelled(work).await;
    }

    /// Sends what is left, after `run` has ended.
    pub async fn flush(&self) {
        let mut queue = self.queue.lock().await;
        let Queue { spans, batch } = &mut *queue;
        while let Ok(span) = spans.try_recv() {
            batch.push(span);
        }
        self.send(batch, LAST_SEND).await;
    }

    async fn send(&self, batch: &mut Vec<Span>, within: Duration) {
        let spans = std::mem::take(batch);
        let count = spans.len() as u64;
        if count == 0 {
            return;
        }
        let scope = Some(Scope { name: "apiserver".into(), version: env!("CARGO_PKG_VERSION").into() });
        let resource = Some(self.resource.clone());
        let request = ExportRequest {
            resource_spans: vec![ResourceSpans { resource, scope_spans: vec![ScopeSpans { scope, spans }] }],
        };
        let mut collector = self.collector.clone();
        let work = async {
            collector.ready().await.map_err(|e| e.to_string())?;
            let codec = ProstCodec::<ExportRequest, ExportResponse>::default();
            collector.unary(tonic::Request::new(request), EXPORT, codec).await.map_err(|e| e.message().to_string())
        };
        let failed = match timeout(within, work).await {
            Ok(Ok(response)) => {
                let rejected = response.into_inner().partial_success.map_or(0, |p| p.rejected_spans);
                self.drop_spans(u64::try_from(rejected).unwrap_or_default());
                self.failing.store(false, Ordering::Relaxed);
                return;
            }
            Ok(Err(why)) => why,
            Err(_) => "no answer in time".into(),
        };
        self.drop_spans(count);
        if !self.failing.swap(true, Ordering::Relaxed) {
            tracing::warn!("spans are lost until the collector at {} takes them: {failed}", self.endpoint);
        }
    }
}
