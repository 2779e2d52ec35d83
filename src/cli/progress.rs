//! How far a transfer is, on a terminal.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::{Output, printable};
use crate::client::{Event, Observer, Phase};

const KNOWN: &str = "{msg:9} [{bar:30}] {percent:>3}%  {binary_bytes:>10} of {binary_total_bytes}  {binary_bytes_per_sec}  {eta} left";
const UNKNOWN: &str = "{msg:9} {spinner} {binary_bytes:>10}  {binary_bytes_per_sec}";

/// A bar that shows a transfer, on standard error, if that is a terminal; and tells of retries.
pub(super) struct Progress {
    bar: ProgressBar,
    output: Output,
}

impl Progress {
    pub(super) fn new(output: Output) -> Self {
        // To what is no terminal nothing is drawn.
        let target = if output.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(None, target);
        if !bar.is_hidden() {
            // Speed and time go on while nothing arrives.
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Self { bar, output }
    }

    pub(super) fn observer(&self) -> Observer {
        let (bar, output) = (self.bar.clone(), self.output);
        Arc::new(move |event| match event {
            Event::Started { phase, done, total } => {
                bar.set_style(style(if total.is_some() { KNOWN } else { UNKNOWN }));
                match total {
                    Some(total) => bar.set_length(total),
                    None => bar.unset_length(),
                }
                bar.set_position(done);
                bar.set_message(word(phase));
                // What was there before does not count for the speed.
                bar.reset_elapsed();
                bar.reset_eta();
            }
            Event::Advanced(bytes) => bar.inc(bytes),
            Event::Lost(bytes) => bar.dec(bytes),
            Event::Resuming { have, total } => {
                bar.suspend(|| output.note(format_args!("resuming: {have} of {total} chunks are there")));
            }
            Event::StartedOver => {
                bar.suspend(|| {
                    output.note("note: what was there is of no use any more; starting from the beginning")
                });
            }
            Event::Retrying { error, wait, retry, retries } => bar.suspend(|| {
                let error = printable(&error.to_string());
                let stop = if error.ends_with(['.', '?', '!']) { "" } else { "." };
                let wait = wait.as_secs_f64();
                output.note(format_args!(
                    "{error}{stop} Trying again in {wait:.0} s (retry {retry} of {retries})"
                ));
            }),
        })
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    // Both templates are constant and tested: the default is never used.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

fn word(phase: Phase) -> Cow<'static, str> {
    Cow::Borrowed(match phase {
        Phase::Hashing => "hashing",
        Phase::Sending => "sending",
        Phase::Checking => "checking",
        Phase::Receiving => "receiving",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_sound() {
        for template in [KNOWN, UNKNOWN] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
