//! Who sends an upload: what the handlers ask of a request, and what the log says of it at the end.

use std::time::Instant;

use axum::extract::FromRequestParts;
use http::request::Parts;

use super::client::RequestClient;
use super::edge::RequestId;
use super::error::ApiError;
use crate::app::App;
use crate::domain::{Client, FileName, TransferId};

/// The client of a request that brings a file or a part of it, the request's id, and when it came.
pub(super) struct Sender {
    pub(super) client: Client,
    pub(super) request: RequestId,
    begun: Instant,
}

impl FromRequestParts<App> for Sender {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let RequestClient(client) = RequestClient::from_request_parts(parts, app).await?;
        // The edge gives every request one.
        let request = parts.extensions.get::<RequestId>().cloned().ok_or_else(ApiError::internal)?;
        Ok(Self { client, request, begun: Instant::now() })
    }
}

impl Sender {
    /// One line a transfer, when it has ended. `bytes`: those that this request has brought.
    pub(super) fn log(
        &self,
        id: TransferId,
        filename: &FileName,
        bytes: u64,
        what: &'static str,
        error: Option<&str>,
    ) {
        let seconds = self.begun.elapsed().as_secs_f64();
        let speed = (bytes as f64 / seconds.max(1e-6)) as u64;
        let milliseconds = (seconds * 1e3) as u64;
        let (client, agent) = (&*self.client.ip, &*self.client.agent);
        let request = &*self.request.0;
        tracing::info!(transfer = %id, filename = filename.as_str(), bytes, milliseconds, speed, client, agent, error, request, "{what}");
    }
}
