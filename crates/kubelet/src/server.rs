//! The kubelet's HTTPS API: logs, exec, attach, port-forward, the list of pods, usage numbers.
//!
//! Listens on the kubelet's port; reads log files and the runtime's streams. Invariant: every answer but `/healthz` goes to
//! an identity that `access` allows, and everything started here ends with `shutdown`.

mod access;
mod route;
mod streams;
mod target;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use k8s_openapi::api::core::v1::Pod;
use pki::identity::Identity;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::container_logs::{self, Request as LogRequest};
use crate::pods::PodSource;
use crate::stats::{self, Collector};
use access::Access;
use route::{PodRef, Refusal, Route, Wanted};
use target::Problem;

pub use access::API_SERVER;

/// Connections served at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 1000;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Log chunks that wait for a slow reader.
const LOG_CHUNKS: usize = 4;

pub(crate) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// Where and as whom to serve.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Port 0 takes any free one.
    pub listen: SocketAddr,
    pub cert_pem: String,
    pub key_pem: String,
    pub client_ca_pem: String,
    pub node_name: String,
    /// Its file system is the node's in `/stats/summary`.
    pub data_dir: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot listen on {address}: {source}; choose another --kubelet-port, 0 takes any free one")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("the kubelet's serving certificate: {0}")]
    Tls(#[from] pki::Error),
}

pub struct Server {
    settings: Settings,
    listener: TcpListener,
    address: SocketAddr,
    tls: TlsAcceptor,
}

struct Context {
    runtime: cri::Client,
    pods: Arc<dyn PodSource>,
    access: Access,
    collector: Collector,
    node_name: String,
    shutdown: CancellationToken,
}

/// Binds and serves until `shutdown`.
pub async fn run(
    settings: Settings,
    runtime: cri::Client,
    client: kube::Client,
    pods: Arc<dyn PodSource>,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    Server::bind(settings).await?.run(runtime, client, pods, shutdown).await;
    Ok(())
}

impl Server {
    /// Takes the port and reads the certificates.
    pub async fn bind(settings: Settings) -> Result<Server, Error> {
        let fail = |source| Error::Listen { address: settings.listen, source };
        let listener = TcpListener::bind(settings.listen).await.map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        let identity = pki::Issued { certificate_pem: settings.cert_pem.clone(), key_pem: settings.key_pem.clone() };
        let tls = TlsAcceptor::from(Arc::new(pki::tls::server(&identity, Some(&settings.client_ca_pem))?));
        Ok(Server { settings, listener, address, tls })
    }

    /// Where it listens, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown`.
    pub async fn run(
        self,
        runtime: cri::Client,
        client: kube::Client,
        pods: Arc<dyn PodSource>,
        shutdown: CancellationToken,
    ) {
        let node_name = self.settings.node_name.clone();
        let context = Arc::new(Context {
            access: Access::new(client, node_name.clone()),
            collector: Collector::new(node_name.clone(), self.settings.data_dir.clone(), runtime.clone(), pods.clone()),
            runtime,
            pods,
            node_name,
            shutdown: shutdown.clone(),
        });
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            let stream = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            let stream = match stream {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, most likely: give others time to end.
                    tracing::warn!(%error, "accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (tls, context) = (self.tls.clone(), context.clone());
            tokio::spawn(async move {
                let shutdown = context.shutdown.clone();
                tokio::select! { () = shutdown.cancelled() => {}, () = connection(stream, tls, context) => {} }
                drop(slot);
            });
        }
    }
}

async fn connection(stream: TcpStream, tls: TlsAcceptor, context: Arc<Context>) {
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "tls handshake"),
        Err(_) => return,
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| pki::identity::of_der(chain.first()?));
    let service = service_fn(move |request| {
        let (context, certificate) = (context.clone(), certificate.clone());
        async move { Ok::<_, Infallible>(answer(&context, certificate.as_ref(), request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(30));
    if let Err(error) = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
        tracing::debug!(error, "connection");
    }
}

async fn answer(context: &Context, certificate: Option<&Identity>, request: Request<Incoming>) -> Response<Body> {
    let (path, query) = (request.uri().path().to_owned(), request.uri().query().unwrap_or_default().to_owned());
    let route = match route::parse(&path, &query) {
        Ok(Route::Healthz) => return text(StatusCode::OK, "ok"),
        other => other,
    };
    let Some(identity) = context.access.identify(certificate, request.headers()).await else {
        return text(StatusCode::UNAUTHORIZED, "Unauthorized");
    };
    if let Some(refusal) = context.access.refusal(&identity, request.method(), &path).await {
        return text(StatusCode::FORBIDDEN, refusal);
    }
    let done = match route {
        Err(Refusal::NotFound) => Err((404, "404 page not found\n".to_owned())),
        Err(Refusal::BadRequest(message)) => Err((400, message)),
        Ok(route) => context.serve(route, &query, request).await,
    };
    done.unwrap_or_else(|(status, message)| {
        text(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), message)
    })
}

impl Context {
    async fn serve(&self, route: Route, query: &str, request: Request<Incoming>) -> Result<Response<Body>, Problem> {
        match route {
            Route::Healthz => Ok(text(StatusCode::OK, "ok")),
            Route::Pods => Ok(json_body(&pod_list(self.pods.pods().iter().map(|pod| json!(pod.as_ref())).collect()))),
            Route::RunningPods => Ok(json_body(&pod_list(self.running_pods()))),
            Route::Metrics => {
                let containers =
                    self.pods.pods().iter().map(|pod| self.running(pod)).filter(|count| *count > 0).collect::<Vec<_>>();
                Ok(metrics(stats::prometheus::own(&self.node_name, containers.len(), containers.iter().sum())))
            }
            Route::Summary => Ok(json_body(&stats::summary::document(&self.usage().await?))),
            Route::MetricsCadvisor => Ok(metrics(stats::prometheus::cadvisor(&self.usage().await?))),
            Route::MetricsResource => Ok(metrics(stats::prometheus::resource(&self.usage().await?))),
            Route::Logs { pod, container } => self.logs(&pod, &container, query).await,
            Route::Exec { pod, container, command, wanted } => {
                let container_id = self.container_id(&pod, &container)?;
                let Wanted { stdin, stdout, stderr, tty } = wanted;
                let exec = cri::v1::ExecRequest { container_id, cmd: command, tty, stdin, stdout, stderr };
                let url = self.runtime.exec(exec).await.map_err(|error| (500, error.to_string()))?;
                Ok(streams::proxy(request, &url, self.shutdown.clone()).await)
            }
            Route::Attach { pod, container, wanted } => {
                let container_id = self.container_id(&pod, &container)?;
                let Wanted { stdin, stdout, stderr, tty } = wanted;
                let attach = cri::v1::AttachRequest { container_id, stdin, tty, stdout, stderr };
                let url = self.runtime.attach(attach).await.map_err(|error| (500, error.to_string()))?;
                Ok(streams::proxy(request, &url, self.shutdown.clone()).await)
            }
            Route::PortForward { pod, ports } => {
                let pod = self.pod(&pod)?;
                let uid = pod.metadata.uid.as_deref().unwrap_or_default();
                let sandbox = self
                    .pods
                    .sandbox_id(uid)
                    .ok_or((404, "pod sandbox not found: the pod is not running".to_owned()))?;
                let url = self.runtime.port_forward(&sandbox, ports).await.map_err(|error| (500, error.to_string()))?;
                Ok(streams::proxy(request, &url, self.shutdown.clone()).await)
            }
        }
    }

    fn pod(&self, wanted: &PodRef) -> Result<Arc<Pod>, Problem> {
        let pod = self.pods.pod(&wanted.namespace, &wanted.name);
        let pod = pod.filter(|pod| wanted.uid.is_none() || wanted.uid == pod.metadata.uid);
        pod.ok_or_else(|| (404, "pod does not exist".to_owned()))
    }

    fn container_id(&self, pod: &PodRef, container: &str) -> Result<String, Problem> {
        let pod = self.pod(pod)?;
        let instances = self.pods.containers(pod.metadata.uid.as_deref().unwrap_or_default());
        target::for_streams(&pod, &instances, container).map(|instance| instance.id.clone())
    }

    async fn logs(&self, pod: &PodRef, container: &str, query: &str) -> Result<Response<Body>, Problem> {
        let (options, previous) =
            route::log_options(query, jiff::Timestamp::now()).map_err(|refusal| match refusal {
                Refusal::BadRequest(message) => (400, message),
                Refusal::NotFound => (404, String::new()),
            })?;
        let pod = self.pod(pod)?;
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let instances = self.pods.containers(&uid);
        let instance = target::for_logs(&pod, &instances, container, previous)?.clone();
        let path = instance.log_path.clone();
        if !path.exists() {
            return Err((500, format!("failed to open log file \"{}\": it does not exist", path.display())));
        }
        let pods = self.pods.clone();
        let running = move || pods.containers(&uid).iter().any(|other| other.id == instance.id && other.running);
        let (sender, receiver) = mpsc::channel(LOG_CHUNKS);
        let request = LogRequest { path, options, running: Box::new(running) };
        let reading = tokio::spawn(container_logs::stream(request, sender));
        let chunks = futures::stream::unfold((receiver, Some(reading)), |(mut receiver, mut reading)| async move {
            if let Some(chunk) = receiver.recv().await {
                return Some((Ok(Frame::data(chunk)), (receiver, reading)));
            }
            // A log that could not be read to its end breaks the answer off: the client must not take it for whole.
            let error = reading.take()?.await.map_err(std::io::Error::other).flatten().err()?;
            tracing::warn!(%error, "reading a container log");
            Some((Err(error), (receiver, None)))
        });
        let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(chunks)));
        response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain"));
        Ok(response)
    }

    async fn usage(&self) -> Result<stats::Usage, Problem> {
        self.collector.collect().await.map_err(|error| (500, format!("the container runtime gave no stats: {error}")))
    }

    fn running(&self, pod: &Pod) -> usize {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        self.pods.containers(uid).iter().filter(|container| container.running).count()
    }

    fn running_pods(&self) -> Vec<Value> {
        let pods = self.pods.pods();
        let running = pods.iter().filter(|pod| self.running(pod) > 0);
        running
            .map(|pod| {
                let meta = &pod.metadata;
                let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
                let containers: Vec<Value> = containers.map(|container| json!({"name": container.name, "image": container.image, "resources": {}})).collect();
                json!({"metadata": {"name": meta.name, "namespace": meta.namespace, "uid": meta.uid}, "spec": {"containers": containers}, "status": {}})
            })
            .collect()
    }
}

fn pod_list(items: Vec<Value>) -> Value {
    json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})
}

fn body(status: StatusCode, content_type: &'static str, bytes: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(bytes).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}

pub(crate) fn text(status: StatusCode, message: impl Into<String>) -> Response<Body> {
    body(status, "text/plain; charset=utf-8", Bytes::from(message.into()))
}

fn metrics(text: String) -> Response<Body> {
    body(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", Bytes::from(text))
}

fn json_body(value: &Value) -> Response<Body> {
    body(StatusCode::OK, "application/json", Bytes::from(value.to_string()))
}

#[cfg(test)]
mod tests;
