//! `sft serve`: the server.

use std::io;
use std::process::ExitCode;

use tokio::net::TcpListener;

use super::{allocator, config, logging};
use crate::app::App;
use crate::config::{Flags, Settings};
use crate::http::serve;
use crate::store::os;

/// Runs the server until it is told to stop.
pub(super) fn run(flags: Flags) -> ExitCode {
    let settings = match config::load(&flags) {
        Ok(settings) => settings,
        Err(status) => return status,
    };
    match start(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sft: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start(settings: Settings) -> Result<(), String> {
    allocator::tune();
    let _log = logging::start(&settings).map_err(|error| format!("server_log_file: {error}"))?;
    match os::raise_file_limit() {
        Ok(limit) if limit < settings.max_connections as u64 + 64 => {
            tracing::warn!(
                limit,
                max_connections = settings.max_connections,
                "the limit on open files is lower than that on connections"
            );
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the limit on open files could not be raised"),
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(crate::services::BLOCKING_THREADS)
        .build();
    let runtime = runtime.map_err(|error| format!("cannot start: {error}"))?;
    let served = runtime.block_on(serve_until_stopped(settings));
    // Work that nobody waits for any more must not hold the end up.
    const MOST: std::time::Duration = std::time::Duration::from_secs(5);
    crate::services::settle(MOST);
    runtime.shutdown_timeout(MOST);
    served
}

async fn serve_until_stopped(settings: Settings) -> Result<(), String> {
    let (host, port) = (settings.server_host.clone(), settings.port);
    // Told to stop while it starts, the server stops as soon as it has started.
    let stop = stop_signal().map_err(|error| format!("cannot listen for signals: {error}"))?;
    // The directory first: whoever can connect finds a server that is ready.
    let (app, held) = App::start(settings).await.map_err(|error| error.to_string())?;
    let listener = TcpListener::bind((host.as_str(), port)).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("port: {port} is in use on {host}; choose another with --port, or stop what uses it")
        }
        _ => format!("cannot listen on {host}, port {port}: {error}"),
    })?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "listening on http://{address}");
    let result = serve::run(listener, app, stop).await.map_err(|error| error.to_string());
    // Transfers that were ended have told the store; now it writes down everything.
    let closed = tokio::task::spawn_blocking(move || drop(held)).await;
    closed.map_err(|error| format!("the status could not be closed: {error}"))?;
    tracing::info!("stopped");
    result
}

/// Resolves when the process is told to stop: SIGTERM, SIGINT, Ctrl-C.
fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(async move {
            tokio::select! {
                _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
                _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
            }
        })
    }
    #[cfg(not(unix))]
    Ok(async {
        if let Err(error) = tokio::signal::ctrl_c().await {
            tracing::error!(%error, "Ctrl-C can't be listened for");
            std::future::pending::<()>().await;
        }
    })
}
