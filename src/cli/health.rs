//! `sft health`

use super::failure::Failure;
use super::output::{duration, printable};
use super::session::Session;

pub(super) async fn run(session: &Session) -> Result<(), Failure> {
    let answer = session.client.health().await?;
    let health = &answer.value;
    if health.status != "ok" {
        return Err(Failure::new(
            "unhealthy",
            format!("{} says {:?}", session.client.server(), health.status),
        ));
    }
    let version = health.version.as_deref().map(|version| format!(", version {}", printable(version)));
    let up = health.uptime_seconds.map(|seconds| format!(", up {}", duration(seconds)));
    let (version, up) = (version.unwrap_or_default(), up.unwrap_or_default());
    session.output.text(&format!("{}: ok{version}{up}", session.client.server()))?;
    session.output.json(&answer.json)
}
