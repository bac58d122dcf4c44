//! Connections to domains' processes, handed to clients: for streams and descriptors, and for orders whose
//! answer must not depend on this process.

use crate::daemon::Daemon;
use crate::refusal::Refusal;
use crate::routes::Shared;
use crate::talk;
use api::types::{CONNECTION, Who};
use axum::Extension;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::{CONNECTION as CONNECTION_FIELD, HeaderMap, UPGRADE};
use axum::response::{IntoResponse, Response};
use control::{ErrorCode, Failure, Record, kill_point, send_with};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::io;
use std::os::fd::OwnedFd;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;

/// A connection to its process, for consoles, the guest's agent, its memory, and orders whose answer comes
/// even if the daemon ends. Asked for with `Connection: upgrade` and `Upgrade: xenolith-control`; after
/// `101 Switching Protocols` follows one line of JSON, the domain (`Who`), whose first byte brings a
/// descriptor along (`SCM_RIGHTS`): the connection, on which nothing was said yet. It speaks lines of JSON,
/// see docs/xend.md.
#[utoipa::path(post, path = "/v1/domains/{domain}/connection", params(("domain" = String, Path,)),
    responses((status = SWITCHING_PROTOCOLS), (status = "default", body = Failure)))]
pub(crate) async fn connection(
    State(daemon): Shared,
    Path(domain): Path<String>,
    fields: HeaderMap,
    upgrade: Option<Extension<OnUpgrade>>,
) -> Result<Response, Refusal> {
    Daemon::not_the_host(&domain, "connect to")?;
    let is_asked = fields.get(UPGRADE).is_some_and(|word| word == CONNECTION);
    let Some(Extension(upgrade)) = upgrade.filter(|_| is_asked) else {
        let message = format!("A connection is asked for with 'Upgrade: {CONNECTION}'");
        return Err(Failure::new(ErrorCode::BadRequest, message).into());
    };
    let entry = daemon.running(&domain)?;
    let connection = talk::connection(&entry).await.map_err(|error| talk::failure(&error))?;
    let who = Who::running(&entry);
    tokio::spawn(async move {
        if let Err(error) = hand_over(upgrade, &who, connection).await {
            let record = Record::warning("a client did not take its connection to a domain");
            daemon.log(record.with("domain", &who.name).with("error", error));
        }
    });
    let fields = [(CONNECTION_FIELD, "upgrade"), (UPGRADE, CONNECTION)];
    Ok((StatusCode::SWITCHING_PROTOCOLS, fields).into_response())
}

async fn hand_over(upgrade: OnUpgrade, who: &Who, connection: OwnedFd) -> io::Result<()> {
    let upgraded = upgrade.await.map_err(io::Error::other)?;
    let other = |_| io::Error::other("it is no Unix socket");
    let parts = upgraded.downcast::<TokioIo<UnixStream>>().map_err(other)?;
    let mut client = parts.io.into_inner();
    kill_point("xend.connection.promised");
    let line = serde_json::to_vec(who)?.into_iter().chain([b'\n']).collect::<Vec<u8>>();
    let send = || send_with(&client, &line, &connection);
    let sent = client.async_io(Interest::WRITABLE, send).await?;
    client.write_all(line.get(sent..).unwrap_or_default()).await
}
