//! The programming interface: paths, and their description as OpenAPI 3.1.

use crate::daemon::Daemon;
use crate::launch::Order;
use crate::memory::{Memory, claimed};
use crate::metrics::OPEN_METRICS;
use crate::refusal::{Input, Refusal};
use api::types::{
    Claim, Create, Destroyed, Domain, Event, Host, Managed, Past, Rename, Replace, Shutdown, Start,
    Started, Store, Stored, Who,
};
use axum::extract::{DefaultBodyLimit, Path, RawQuery, State};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use control::{ErrorCode, Failure, MAX_REPLY};
use std::sync::Arc;
use tokio::task::JoinError;
use utoipa::OpenApi;
use utoipa::openapi::RefOr;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Type of the stream of events.
const JSON_LINES: &str = "application/jsonl";

pub(crate) type Shared = State<Arc<Daemon>>;
pub(crate) type Answer<T> = Result<Json<T>, Refusal>;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "xend",
        description = "The control daemon of Xenolith, on a Unix socket. A `{domain}` is a name, a \
                       number or a UUID, and names win. Every failure has the same form; programs \
                       go by its `code`.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    components(schemas(Event))
)]
struct Description;

/// Paths and description.
fn api() -> OpenApiRouter<Arc<Daemon>> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(host))
        .routes(routes!(claims))
        .routes(routes!(domains, create))
        .routes(routes!(domain))
        .routes(routes!(pause))
        .routes(routes!(unpause))
        .routes(routes!(rename))
        .routes(routes!(shutdown))
        .routes(routes!(destroy))
        .routes(routes!(store))
        .routes(routes!(start))
        .routes(routes!(managed, replace, delete))
        .routes(routes!(history))
        .routes(routes!(metrics))
        .routes(routes!(events))
        .merge(crate::inside::api())
}

/// The description of the interface, as `docs/openapi.json` has it.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn openapi() -> serde_json::Result<String> {
    let (_, mut description) = api().split_for_parts();
    for item in description.paths.paths.values_mut() {
        let operations = [&mut item.get, &mut item.post, &mut item.put, &mut item.delete];
        for (status, answer) in operations
            .into_iter()
            .flatten()
            .flat_map(|operation| &mut operation.responses.responses)
        {
            // OpenAPI wants some words for each.
            if let RefOr::T(answer) = answer
                && answer.description.is_empty()
            {
                status
                    .parse::<u16>()
                    .map_or("Why not", |_| "As asked")
                    .clone_into(&mut answer.description);
            }
        }
    }
    Ok(description.to_pretty_json()? + "\n")
}

/// What answers requests.
pub(crate) fn router(daemon: Arc<Daemon>) -> Router {
    let (router, _) = api().split_for_parts();
    let refuse = |code, text: &str| Refusal(Failure::new(code, text));
    router
        .fallback(move || async move { refuse(ErrorCode::NotFound, "There is no such path") })
        .method_not_allowed_fallback(move || async move {
            refuse(ErrorCode::BadRequest, "There is no such method for this path")
        })
        .layer(DefaultBodyLimit::max(MAX_REPLY))
        .with_state(daemon)
}

/// Carries an order out to its end, whether its client waits for it or not: half of it would be what
/// the register knows and the daemon does not, or what nobody was told.
async fn to_its_end<T: Send + 'static>(
    order: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Answer<T> {
    let lost = |error: JoinError| Failure::new(ErrorCode::Host, error.to_string());
    Ok(Json(tokio::spawn(order).await.map_err(lost)??))
}

/// The host and its memory.
#[utoipa::path(get, path = "/v1/host", responses(
    (status = OK, body = Host), (status = "default", body = Failure)))]
async fn host(State(daemon): Shared) -> Answer<Host> {
    let known = daemon.known().await?;
    let memory = Memory::now();
    let claimed_mib = claimed(&known).saturating_add(daemon.claimed_by_starting());
    Ok(Json(Host {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        domains: known.len() as u64,
        total_mib: memory.total_mib,
        available_mib: memory.available_mib,
        claimed_mib,
        free_mib: memory
            .available_mib
            .saturating_sub(claimed_mib)
            .saturating_sub(daemon.reserve_mib),
    }))
}

/// What domains were promised of the host's memory: those that run by number, then those that are
/// being started.
#[utoipa::path(get, path = "/v1/claims", responses(
    (status = OK, body = Vec<Claim>), (status = "default", body = Failure)))]
async fn claims(State(daemon): Shared) -> Answer<Vec<Claim>> {
    Ok(Json(daemon.claims().await?))
}

/// All domains: those that run by number, then those that are stored and halted by name.
#[utoipa::path(get, path = "/v1/domains",
    params(("brief" = Option<bool>, Query, description = "Without the configurations of those that run")),
    responses((status = OK, body = Vec<Domain>), (status = "default", body = Failure)))]
async fn domains(State(daemon): Shared, RawQuery(query): RawQuery) -> Answer<Vec<Domain>> {
    Ok(Json(daemon.show_all(is_brief(query.as_deref())?).await?))
}

fn is_brief(query: Option<&str>) -> Result<bool, Failure> {
    match query {
        None | Some("" | "brief=false") => Ok(false),
        Some("brief=true") => Ok(true),
        Some(_) => {
            let text = "The query is not understood; expected brief=true or brief=false";
            Err(Failure::new(ErrorCode::BadRequest, text))
        }
    }
}

/// Starts a new domain. The answer comes when it runs (or is paused, as asked); closing the
/// connection before calls it off.
#[utoipa::path(post, path = "/v1/domains", request_body = Create, responses(
    (status = OK, body = Started), (status = "default", body = Failure)))]
async fn create(State(daemon): Shared, Input(create): Input<Create>) -> Answer<Started> {
    let Create { config, paused, directory, environment } = create;
    let order = Order { config, paused, directory, environment, is_stored: false };
    Ok(Json(daemon.launch(order).await?))
}

/// One domain.
#[utoipa::path(get, path = "/v1/domains/{domain}", params(("domain" = String, Path,)), responses(
    (status = OK, body = Domain), (status = "default", body = Failure)))]
async fn domain(State(daemon): Shared, Path(domain): Path<String>) -> Answer<Domain> {
    Ok(Json(daemon.show(&domain).await?))
}

/// Stops its vCPUs.
#[utoipa::path(post, path = "/v1/domains/{domain}/pause", params(("domain" = String, Path,)),
    responses((status = OK, body = Who), (status = "default", body = Failure)))]
async fn pause(State(daemon): Shared, Path(domain): Path<String>) -> Answer<Who> {
    Daemon::not_the_host(&domain, "pause")?;
    to_its_end(async move { daemon.pause(&domain).await }).await
}

/// Lets its vCPUs run again.
#[utoipa::path(post, path = "/v1/domains/{domain}/unpause", params(("domain" = String, Path,)),
    responses((status = OK, body = Who), (status = "default", body = Failure)))]
async fn unpause(State(daemon): Shared, Path(domain): Path<String>) -> Answer<Who> {
    Daemon::not_the_host(&domain, "unpause")?;
    to_its_end(async move { daemon.unpause(&domain).await }).await
}

/// Gives it another name, whether it runs or is stored.
#[utoipa::path(post, path = "/v1/domains/{domain}/rename", params(("domain" = String, Path,)),
    request_body = Rename,
    responses((status = OK, body = Who), (status = "default", body = Failure)))]
async fn rename(
    State(daemon): Shared,
    Path(domain): Path<String>,
    Input(order): Input<Rename>,
) -> Answer<Who> {
    Daemon::not_the_host(&domain, "rename")?;
    to_its_end(async move { daemon.rename(&domain, &order.name).await }).await
}

/// Asks its guest to power off, halt or reboot; it may ignore it.
#[utoipa::path(post, path = "/v1/domains/{domain}/shutdown", params(("domain" = String, Path,)),
    request_body = Shutdown,
    responses((status = OK, body = Who), (status = "default", body = Failure)))]
async fn shutdown(
    State(daemon): Shared,
    Path(domain): Path<String>,
    Input(order): Input<Shutdown>,
) -> Answer<Who> {
    Daemon::not_the_host(&domain, "shut down")?;
    Ok(Json(daemon.shut_down(&domain, order).await?))
}

/// Ends it at once; the answer comes when it is gone. A process that does not answer is killed.
#[utoipa::path(post, path = "/v1/domains/{domain}/destroy", params(("domain" = String, Path,)),
    responses((status = OK, body = Destroyed), (status = "default", body = Failure)))]
async fn destroy(State(daemon): Shared, Path(domain): Path<String>) -> Answer<Destroyed> {
    Daemon::not_the_host(&domain, "destroy")?;
    Ok(Json(daemon.destroy(&domain).await?))
}

/// Stores a domain, which does not start.
#[utoipa::path(post, path = "/v1/managed", request_body = Store, responses(
    (status = OK, body = Stored), (status = "default", body = Failure)))]
async fn store(State(daemon): Shared, Input(store): Input<Store>) -> Answer<Stored> {
    to_its_end(async move { daemon.keep(store).await }).await
}

/// Starts a stored domain. The answer comes as for a new one.
#[utoipa::path(post, path = "/v1/managed/{domain}/start", params(("domain" = String, Path,)),
    request_body = Start,
    responses((status = OK, body = Started), (status = "default", body = Failure)))]
async fn start(
    State(daemon): Shared,
    Path(domain): Path<String>,
    Input(start): Input<Start>,
) -> Answer<Started> {
    Ok(Json(daemon.start(&domain, start).await?))
}

/// A stored domain's configuration, with which it starts next time.
#[utoipa::path(get, path = "/v1/managed/{domain}", params(("domain" = String, Path,)),
    responses((status = OK, body = Managed), (status = "default", body = Failure)))]
async fn managed(State(daemon): Shared, Path(domain): Path<String>) -> Answer<Managed> {
    Ok(Json(daemon.managed(&domain)?))
}

/// Gives a stored domain another configuration, which holds from its next start on.
#[utoipa::path(put, path = "/v1/managed/{domain}", params(("domain" = String, Path,)),
    request_body = Replace,
    responses((status = OK, body = Managed), (status = "default", body = Failure)))]
async fn replace(
    State(daemon): Shared,
    Path(domain): Path<String>,
    Input(replace): Input<Replace>,
) -> Answer<Managed> {
    to_its_end(async move { daemon.replace(&domain, replace).await }).await
}

/// Deletes a stored domain, which must not run.
#[utoipa::path(delete, path = "/v1/managed/{domain}", params(("domain" = String, Path,)),
    responses((status = OK, body = Stored), (status = "default", body = Failure)))]
async fn delete(State(daemon): Shared, Path(domain): Path<String>) -> Answer<Stored> {
    to_its_end(async move { daemon.delete(&domain).await }).await
}

/// How domains ended, oldest first.
#[utoipa::path(get, path = "/v1/history", responses(
    (status = OK, body = Vec<Past>), (status = "default", body = Failure)))]
async fn history(State(daemon): Shared) -> Answer<Vec<Past>> {
    // What ended just now.
    daemon.live()?;
    Ok(Json(daemon.state().history.iter().cloned().collect()))
}

/// What running domains have used and moved, for monitoring systems.
#[utoipa::path(get, path = "/v1/metrics", responses(
    (status = OK, body = String, content_type = "application/openmetrics-text"),
    (status = "default", body = Failure)))]
async fn metrics(State(daemon): Shared) -> Result<Response, Refusal> {
    let text = daemon.metrics().await?;
    Ok(([(CONTENT_TYPE, OPEN_METRICS)], text).into_response())
}

/// What happens from now on, until the client leaves. The first line says that it has begun.
#[utoipa::path(get, path = "/v1/events", responses(
    (status = OK, body = Event, content_type = "application/jsonl")))]
async fn events(State(daemon): Shared) -> Response {
    ([(CONTENT_TYPE, JSON_LINES)], crate::events::stream(&daemon)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_in_the_tree_is_the_present_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
        let checked_in = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            openapi().unwrap() == checked_in,
            "docs/openapi.json is old: cargo run -p xend -- openapi > docs/openapi.json"
        );
    }
}
