//! Accepts connections and keeps each within its bounds: how many, how long for a head, how long unread, and how the server
//! takes leave of them. Knows the service it carries only as a function.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use warp::http::Request;
use warp::reply::Response;

use crate::app::Phase;
use crate::config::ServerConfig;
use crate::patient::Patient;

/// Most headers of a request, and most bytes of its head.
const MAX_HEADERS: usize = 64;
const MAX_HEAD_BYTES: usize = 64 << 10;
/// How long to wait after a failed accept: most likely file descriptors ran out, and only time frees them.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A connection's place, held until its last handler is done; a WebSocket's handler outlives the HTTP connection.
#[derive(Clone)]
pub(crate) struct Slot {
    _place: Arc<OwnedSemaphorePermit>,
    /// Held by connections from before the drain, which waits for them. Later ones only ask how things are.
    _awaited: Option<mpsc::Sender<Infallible>>,
}

/// Accepts until all is closed: first until `shutdown`, then, `drain` having begun, until the connections from before it
/// are done or `drain_timeout` is over. Connections go on being accepted meanwhile, to be told that the server leaves.
pub(crate) async fn run<S>(
    listener: TcpListener,
    config: &ServerConfig,
    phase: &watch::Sender<Phase>,
    service: S,
    shutdown: impl Future<Output = ()>,
) where
    S: Handler,
{
    let places = Arc::new(Semaphore::new(config.max_connections));
    let (awaited, mut all_done) = mpsc::channel(1);
    let carrier = Carrier { service, config: config.clone(), places, phase: phase.subscribe() };
    tokio::select! {
        never = accept(&listener, &carrier, Some(&awaited)) => match never {},
        () = shutdown => {}
    }
    drop(awaited);
    phase.send_replace(Phase::Draining);
    tokio::select! {
        never = accept(&listener, &carrier, None) => match never {},
        _ = all_done.recv() => {}
        () = tokio::time::sleep(config.drain_timeout) => tracing::warn!("the drain took too long; closing"),
    }
    phase.send_replace(Phase::Closed);
}

/// What answers requests.
pub(crate) trait Handler: Clone + Send + Sync + 'static {
    /// Answers one request; called by the task of its connection.
    fn answer(&self, request: Request<Incoming>) -> impl Future<Output = Response> + Send;
}

struct Carrier<S> {
    service: S,
    config: ServerConfig,
    places: Arc<Semaphore>,
    phase: watch::Receiver<Phase>,
}

async fn accept<S: Handler>(
    listener: &TcpListener,
    carrier: &Carrier<S>,
    awaited: Option<&mpsc::Sender<Infallible>>,
) -> Infallible {
    loop {
        // With no place free the next connection waits in the kernel's queue, which is bounded too.
        let Ok(place) = carrier.places.clone().acquire_owned().await else { std::future::pending().await };
        match listener.accept().await {
            Ok((stream, _)) => {
                let slot = Slot { _place: Arc::new(place), _awaited: awaited.cloned() };
                let (service, phase) = (carrier.service.clone(), carrier.phase.clone());
                tokio::spawn(serve_connection(stream, service, carrier.config.clone(), slot, phase));
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_connection<S: Handler>(
    stream: TcpStream,
    service: S,
    config: ServerConfig,
    slot: Slot,
    mut phase: watch::Receiver<Phase>,
) {
    // Rounds are small and each is wanted at once.
    stream.set_nodelay(true).ok();
    let io = TokioIo::new(Patient::new(stream, config.write_timeout));
    let service = service_fn(move |mut request: Request<Incoming>| {
        let service = service.clone();
        request.extensions_mut().insert(slot.clone());
        async move { Ok::<_, Infallible>(service.answer(request).await) }
    });
    let draining = *phase.borrow_and_update() != Phase::Open;
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(config.header_timeout).keep_alive(!draining);
    http.max_headers(MAX_HEADERS).max_buf_size(MAX_HEAD_BYTES);
    let mut connection = pin!(http.serve_connection(io, service).with_upgrades());
    loop {
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%error, "a connection ended");
                }
                return;
            }
            changed = phase.changed() => match *phase.borrow() {
                Phase::Open => {}
                Phase::Draining if changed.is_ok() => connection.as_mut().graceful_shutdown(),
                _ => return,
            }
        }
    }
}
