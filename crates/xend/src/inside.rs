//! The part of the programming interface that looks into a running domain and gives it orders: what its
//! process is asked is passed on.

use crate::daemon::Daemon;
use crate::metrics;
use crate::refusal::{Input, Refusal, check_config};
use crate::routes::{Answer, Shared};
use crate::talk::{self, Talk, failure};
use api::Order;
use api::types::{AllStats, Device, Restarted, Who};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response as HttpResponse};
use control::{ClientError, DomainStats, EndedAs, ErrorCode, Failure, Request, Response};
use std::sync::Arc;
use std::time::Duration;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// How long an order may take for which the guest has to do something, or the host's disk.
const PATIENCE: Duration = Duration::from_secs(30);
/// A domain that is reset starts anew before it answers.
const PATIENCE_OF_RESETS: Duration = Duration::from_secs(60);
/// Type of what a guest printed: any bytes.
const BYTES: &str = "application/octet-stream";
/// Type of logs and reports.
const TEXT: &str = "text/plain; charset=utf-8";

/// These paths and their description.
pub(crate) fn api() -> OpenApiRouter<Arc<Daemon>> {
    OpenApiRouter::default()
        .routes(routes!(order))
        .routes(routes!(reset))
        .routes(routes!(stats))
        .routes(routes!(all_stats))
        .routes(routes!(devices))
        .routes(routes!(crate::hand_over::connection))
        .routes(routes!(console))
        .routes(routes!(log))
        .routes(routes!(crash_report))
}

/// Gives it an order. Paths must be absolute. If the daemon is killed before the answer comes, the
/// order may have been carried out.
#[utoipa::path(post, path = "/v1/domains/{domain}/orders", params(("domain" = String, Path,)),
    request_body = Order, responses((status = OK, body = Who), (status = "default", body = Failure)))]
async fn order(
    State(daemon): Shared,
    Path(domain): Path<String>,
    Input(order): Input<Order>,
) -> Answer<Who> {
    Daemon::not_the_host(&domain, "give orders to")?;
    if let Some(path) = order.relative_path() {
        let message = format!("'{path}' is not an absolute path");
        return Err(Failure::new(ErrorCode::BadRequest, message).into());
    }
    if let Order::Configure { config } = &order {
        check_config(config)?;
    }
    Ok(Json(daemon.order(&domain, order.into(), PATIENCE).await?))
}

/// Ends its guest at once and starts it anew. The answer comes when it runs.
#[utoipa::path(post, path = "/v1/domains/{domain}/reset", params(("domain" = String, Path,)),
    responses((status = OK, body = Restarted), (status = "default", body = Failure)))]
async fn reset(State(daemon): Shared, Path(domain): Path<String>) -> Answer<Restarted> {
    Daemon::not_the_host(&domain, "reset")?;
    match daemon.ask_one(&domain, &Request::Reset, PATIENCE_OF_RESETS).await? {
        Response::Ended(ended) => match ended.outcome {
            EndedAs::Restarted { domid } => Ok(Json(Restarted { domid })),
            _ => Err(Failure::new(ErrorCode::Ended, "It ended and did not start anew").into()),
        },
        _ => Err(unexpected().into()),
    }
}

/// What it has used and moved so far.
#[utoipa::path(get, path = "/v1/domains/{domain}/stats", params(("domain" = String, Path,)),
    responses((status = OK, body = DomainStats), (status = "default", body = Failure)))]
async fn stats(State(daemon): Shared, Path(domain): Path<String>) -> Answer<DomainStats> {
    match daemon.ask_one(&domain, &Request::Stats, metrics::PATIENCE).await? {
        Response::Stats(stats) => Ok(Json(*stats)),
        _ => Err(unexpected().into()),
    }
}

/// What all running domains have used and moved so far.
#[utoipa::path(get, path = "/v1/stats",
    responses((status = OK, body = AllStats), (status = "default", body = Failure)))]
async fn all_stats(State(daemon): Shared) -> Answer<AllStats> {
    Ok(Json(daemon.all_stats().await?))
}

/// Its devices of a class (`vbd`, `vif` or `console`), as xenstore has them: the frontend's nodes, those
/// of its first queue if it has several, its number as `id`, and under `backend-nodes` the backend's.
#[utoipa::path(get, path = "/v1/domains/{domain}/devices/{class}",
    params(("domain" = String, Path,), ("class" = String, Path,)),
    responses((status = OK, body = Vec<Object>), (status = "default", body = Failure)))]
async fn devices(
    State(daemon): Shared,
    Path((domain, class)): Path<(String, String)>,
) -> Answer<Vec<Device>> {
    Daemon::not_the_host(&domain, "list devices of")?;
    Ok(Json(daemon.devices(&domain, &class).await?))
}

/// The last that its guest printed on its console.
#[utoipa::path(get, path = "/v1/domains/{domain}/console", params(("domain" = String, Path,)),
    responses((status = OK, body = String, content_type = "application/octet-stream"),
        (status = "default", body = Failure)))]
async fn console(
    State(daemon): Shared,
    Path(domain): Path<String>,
) -> Result<HttpResponse, Refusal> {
    daemon.fetch(&domain, &Request::ConsoleHistory, BYTES).await
}

/// The end of its process's log.
#[utoipa::path(get, path = "/v1/domains/{domain}/log", params(("domain" = String, Path,)),
    responses((status = OK, body = String, content_type = "text/plain"),
        (status = "default", body = Failure)))]
async fn log(State(daemon): Shared, Path(domain): Path<String>) -> Result<HttpResponse, Refusal> {
    daemon.fetch(&domain, &Request::Log, TEXT).await
}

/// The last crash report of a domain of its name.
#[utoipa::path(get, path = "/v1/domains/{domain}/crash-report", params(("domain" = String, Path,)),
    responses((status = OK, body = String, content_type = "text/plain"),
        (status = "default", body = Failure)))]
async fn crash_report(
    State(daemon): Shared,
    Path(domain): Path<String>,
) -> Result<HttpResponse, Refusal> {
    daemon.fetch(&domain, &Request::CrashReport, TEXT).await
}

fn unexpected() -> Failure {
    Failure::new(ErrorCode::NotSupported, "The domain's process is of another version")
}

impl Daemon {
    async fn ask_one(
        self: &Arc<Self>,
        word: &str,
        request: &Request,
        patience: Duration,
    ) -> Result<Response, Failure> {
        let entry = self.running(word)?;
        talk::ask(&entry, request, patience).await.map_err(|error| failure(&error))
    }

    async fn fetch(
        self: &Arc<Self>,
        word: &str,
        request: &Request,
        kind: &'static str,
    ) -> Result<HttpResponse, Refusal> {
        let entry = self.running(word)?;
        let (domid, after) = (entry.domid, talk::PATIENCE);
        let asked = async { Talk::open(&entry).await?.fetch(request).await };
        let bytes = tokio::time::timeout(after, asked)
            .await
            .unwrap_or(Err(ClientError::Timeout { domid, after }));
        let bytes = bytes.map_err(|error| failure(&error))?;
        Ok(([(CONTENT_TYPE, kind)], bytes).into_response())
    }
}
