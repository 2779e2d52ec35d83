//! Smart File Transfer: a server that moves files safely, and its command line.
//!
//! An arrow points only down:
//!
//! ```text
//! cli ──────► client                        main: parse, tracing, dispatch, exit code
//! http ─► services ─► events, store ─► crypto, domain
//! ```
//!
//! [`domain`] does no I/O. [`crypto`] knows bytes and keys, not files or HTTP. [`store`] is the only code that touches the
//! storage directory. [`events`] tell whoever watches of every change. [`services`] hold the rules and know nothing of
//! HTTP. [`http`] is thin: extract, one service call, render.

pub mod app;
pub mod cli;
pub mod client;
pub mod config;
pub mod crypto;
pub mod domain;
pub mod events;
pub mod http;
pub mod services;
pub mod store;
