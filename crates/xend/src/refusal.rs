//! Failures as HTTP answers, and bodies of requests as values.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_LENGTH;
use axum::response::{IntoResponse, Response};
use config::DomainConfig;
use control::{ErrorCode, Failure, MAX_REPLY};
use serde::de::DeserializeOwned;
use std::time::Duration;
use tokio::time::timeout;

/// How long a client may take to send the body of a request.
const PATIENCE: Duration = Duration::from_secs(10);

/// An answer that says why not.
#[derive(Debug)]
pub(crate) struct Refusal(pub Failure);

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self(failure)
    }
}

/// The status for a code; the code says more.
fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::BadRequest => StatusCode::BAD_REQUEST,
        ErrorCode::NotPermitted => StatusCode::FORBIDDEN,
        ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::WrongState | ErrorCode::Busy => StatusCode::CONFLICT,
        ErrorCode::Ended => StatusCode::GONE,
        ErrorCode::Config | ErrorCode::Kernel => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorCode::Host => StatusCode::INTERNAL_SERVER_ERROR,
        ErrorCode::NotSupported => StatusCode::NOT_IMPLEMENTED,
        ErrorCode::Timeout => StatusCode::GATEWAY_TIMEOUT,
        ErrorCode::Memory => StatusCode::INSUFFICIENT_STORAGE,
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (status(self.0.code), Json(self.0)).into_response()
    }
}

/// Refuses a configuration that no file could have: types of JSON are wider than the rules for files.
///
/// # Errors
/// In the words of whoever reads files.
pub(crate) fn check_config(config: &DomainConfig) -> Result<(), Failure> {
    config.validate().map_err(|error| {
        Failure::new(ErrorCode::Config, error.to_string())
            .with_hint("'xl create -n FILE' prints the JSON of a configuration file.")
    })
}

/// A body of JSON. One that is not what is wanted is refused as every failure is.
pub(crate) struct Input<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Input<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let bad = |why: String| Refusal(Failure::new(ErrorCode::BadRequest, why));
        let length = request.headers().get(CONTENT_LENGTH).and_then(|text| text.to_str().ok());
        let length = length.and_then(|text| text.parse::<u64>().ok());
        if length.is_some_and(|length| length > MAX_REPLY as u64) {
            return Err(bad(format!("A request has at most {MAX_REPLY} bytes")));
        }
        let body = timeout(PATIENCE, Bytes::from_request(request, state)).await;
        let body = body.map_err(|_| bad("The request does not come to its end".into()))?;
        let body = body.map_err(|error| bad(error.body_text()))?;
        let parsed = serde_json::from_slice(&body);
        let parsed = parsed.map_err(|error| bad(format!("The request is not understood: {error}")));
        parsed.map(Self)
    }
}
