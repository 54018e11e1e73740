//! `/metrics` over HTTP on a unix socket, and `/healthz`. What a scrape costs is paid by the scrape: nothing is
//! collected between two of them.

use crate::api::Api;
use anyhow::Context;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::{Encoder, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Scrapers at a time; a monitoring host has one or two.
const CONNECTIONS: usize = 8;
/// Who sends no request by then is sent away.
const PATIENCE: Duration = Duration::from_secs(10);
/// Every state, so that a series that was once there does not vanish when nobody is in it.
const STATES: [&str; 10] = [
    "created", "waiting", "starting", "running", "paused", "stopping", "exited", "failed", "removing",
    "damaged",
];

/// Listen at `path`, mode 0600 like the private socket.
pub fn listen(path: &Path) -> anyhow::Result<UnixListener> {
    crate::bus::private::listen(path).context("the metrics socket")
}

/// Serve scrapes, for ever.
pub async fn serve(listener: UnixListener, api: Arc<Api>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut scrapers = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = scrapers.join_next() => continue,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let api = api.clone();
        scrapers.spawn(async move {
            let service = hyper::service::service_fn(move |request| answer(api.clone(), request));
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "a scraper");
            }
            drop(place);
        });
    }
}

async fn answer(api: Arc<Api>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => match tokio::task::spawn_blocking(move || collect(&api)).await {
            Ok(Ok(text)) => (StatusCode::OK, "text/plain; version=0.0.4", text),
            Ok(Err(error)) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "text/plain", format!("{error:#}\n").into())
            }
            Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, "text/plain", format!("{error}\n").into()),
        },
        (&Method::GET, "/healthz") => (StatusCode::OK, "text/plain", b"ok\n".to_vec()),
        (&Method::GET, _) => (StatusCode::NOT_FOUND, "text/plain", b"try /metrics or /healthz\n".to_vec()),
        (_, _) => (StatusCode::METHOD_NOT_ALLOWED, "text/plain", b"GET only\n".to_vec()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    Ok(response)
}

fn collect(api: &Api) -> anyhow::Result<Vec<u8>> {
    let registry = Registry::new();
    let gauge = |name: &str, help: &str, labels: &[&str]| -> anyhow::Result<IntGaugeVec> {
        let gauge = IntGaugeVec::new(Opts::new(name, help), labels)?;
        registry.register(Box::new(gauge.clone()))?;
        Ok(gauge)
    };
    let build = gauge("wharf_build_info", "1, with the version of wharfd", &["version"])?;
    build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    let states = gauge("wharf_containers", "Containers by state", &["state"])?;
    for state in STATES {
        states.with_label_values(&[state]).set(0);
    }
    let container = ["name", "id"];
    let ready = gauge("wharf_container_ready", "1 if the container can serve", &container)?;
    let oom = gauge(
        "wharf_container_oom_killed",
        "1 if the kernel killed a process of the current or last run for want of memory",
        &container,
    )?;
    let exit = gauge("wharf_container_exit_code", "Exit code of the last run that has ended", &container)?;
    let memory = gauge(
        "container_memory_working_set_bytes",
        "Memory less inactive file cache, as the kubelet counts it",
        &container,
    )?;
    let cpu = prometheus::CounterVec::new(
        Opts::new("container_cpu_usage_seconds_total", "CPU time of all processes"),
        &container,
    )?;
    registry.register(Box::new(cpu.clone()))?;
    let total = IntGauge::new("wharf_events_last_sequence", "Sequence number of the last event")?;
    registry.register(Box::new(total.clone()))?;
    total.set(i64::try_from(api.events.last()).unwrap_or(i64::MAX));

    for view in api.views.all() {
        states.with_label_values(&[view.state]).inc();
        let labels = [view.name.as_str(), view.id.as_str()];
        ready.with_label_values(&labels).set(view.ready.into());
        oom.with_label_values(&labels).set(view.oom_killed.into());
        if let Some(code) = view.exit_code {
            exit.with_label_values(&labels).set(code.into());
        }
        if let Some(stats) = api.stats_now(&view) {
            if let Some(bytes) = stats.memory_working_set {
                memory.with_label_values(&labels).set(i64::try_from(bytes).unwrap_or(i64::MAX));
            }
            if let Some(micros) = stats.cpu_usage {
                cpu.with_label_values(&labels).inc_by(micros as f64 / 1e6);
            }
        }
    }
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text)?;
    Ok(text)
}
