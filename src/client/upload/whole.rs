//! Sending a file in one request.

use std::sync::Arc;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Body, RequestBuilder, Response};

use super::{Known, Source, Upload, UploadError};
use crate::client::answers::{Answer, Uploaded};
use crate::client::body::{FileBody, Flow};
use crate::client::hash::Fingerprint;
use crate::client::progress::{Event, Observer, Phase};
use crate::client::retry::Backoff;
use crate::client::{Client, Error};

impl Client {
    /// Sends a file by `PUT`; tries again what can get better.
    pub(super) async fn upload_whole(
        &self,
        upload: &Upload,
        known: &mut Known,
        observer: &Observer,
    ) -> Result<Answer<Uploaded>, UploadError> {
        let mut backoff = Backoff::new(upload.retries);
        loop {
            match self.attempt(upload, known, observer).await {
                Ok(answer) => return Ok(answer),
                Err(error) => backoff.pause(error, observer).await?,
            }
        }
    }

    async fn attempt(
        &self,
        upload: &Upload,
        known: &mut Known,
        observer: &Observer,
    ) -> Result<Answer<Uploaded>, UploadError> {
        let Source { file, found } = known.open(&upload.path, observer).await?;
        observer(Event::Started { phase: Phase::Sending, done: 0, total: Some(found.size) });
        let (body, flow) = FileBody::new(file, 0..found.size, Arc::clone(observer));
        let answer = self.put(upload, &found, body, &flow).await;
        flow.cut();
        let answer = match (flow.take_failure(), answer) {
            // The file is the reason, whatever it looks like from the other end.
            (Some(error), Err(_)) => return Err(UploadError::of_reading(&upload.path, error)),
            (_, answer) => answer?,
        };
        if answer.value.hash != found.digest {
            return Err(UploadError::Mismatch { sent: found.digest, stored: answer.value.hash });
        }
        Ok(answer)
    }

    async fn put(
        &self,
        upload: &Upload,
        found: &Fingerprint,
        body: FileBody,
        flow: &Flow,
    ) -> Result<Answer<Uploaded>, Error> {
        let mut request = self
            .http
            .put(self.server.endpoint(&["files", upload.name.as_str()]))
            .query(&[("sha256", found.digest.to_string())])
            .header(CONTENT_TYPE, "application/octet-stream")
            // Also for an empty file, which HTTP could send without.
            .header(CONTENT_LENGTH, found.size);
        if let Some(priority) = upload.priority {
            request = request.query(&[("priority", u8::from(priority))]);
        }
        if upload.encrypt {
            request = request.query(&[("encryption", true)]);
        }
        let response = self.send_body(request, body, flow).await?;
        self.json(response).await
    }

    /// Sends a request with a body that is read as it goes. Gives an answer that says yes.
    pub(in crate::client) async fn send_body(
        &self,
        request: RequestBuilder,
        body: FileBody,
        flow: &Flow,
    ) -> Result<Response, Error> {
        let request = request.body(Body::wrap(body)).send();
        let response: Response = tokio::select! {
            response = request => response.map_err(|error| Error::of(&self.server, error))?,
            (awaited, after) = flow.stalled(self.timeouts.idle, self.timeouts.answer) => {
                return Err(self.timed_out(awaited, after));
            }
        };
        // An answer before the end of the body: the rest is of no use to the server.
        flow.hold();
        self.accept(response).await
    }
}
