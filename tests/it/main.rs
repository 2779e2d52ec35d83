//! Tests of the real server over a real socket.

mod support;

mod main_job;
