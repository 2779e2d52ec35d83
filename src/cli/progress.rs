//! How far a transfer is, on a terminal.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
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
            Event::Resuming { .. } | Event::StartedOver | Event::Retrying { .. } => {
                bar.suspend(|| output.note(note(&event)));
            }
        })
    }
}

/// One of several files: what of it the bar of all has counted.
#[derive(Default)]
struct Part {
    sending: bool,
    counted: u64,
}

impl Progress {
    /// A bar over several files of so many bytes together.
    pub(super) fn over(output: Output, total: u64) -> Self {
        let progress = Self::new(output);
        progress.bar.set_style(style(KNOWN));
        progress.bar.set_length(total);
        progress.bar.set_message(word(Phase::Sending));
        progress
    }

    /// An observer of one of the files. Only what is sent of it moves the bar, back too if it is sent again.
    pub(super) fn observer_of(&self, name: &str) -> Observer {
        let (bar, output, name) = (self.bar.clone(), self.output, printable(name));
        let part = Mutex::new(Part::default());
        Arc::new(move |event| {
            // A panic while it was held leaves at worst a bar that is not quite right.
            let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
            match event {
                Event::Started { phase, done, .. } => {
                    part.sending = phase == Phase::Sending;
                    if part.sending {
                        bar.dec(std::mem::replace(&mut part.counted, done));
                        bar.inc(done);
                    }
                }
                Event::Advanced(bytes) if part.sending => {
                    part.counted += bytes;
                    bar.inc(bytes);
                }
                Event::Advanced(_) => (),
                Event::Lost(bytes) => {
                    part.counted = part.counted.saturating_sub(bytes);
                    bar.dec(bytes);
                }
                Event::Resuming { .. } | Event::StartedOver | Event::Retrying { .. } => {
                    bar.suspend(|| output.note(format_args!("{name}: {}", note(&event))));
                }
            }
        })
    }
}

/// What is told of a transfer beside its bar.
fn note(event: &Event<'_>) -> String {
    match event {
        Event::Resuming { have, total } => format!("resuming: {have} of {total} chunks are there"),
        Event::StartedOver => {
            "note: what was there is of no use any more; starting from the beginning".to_owned()
        }
        Event::Retrying { error, wait, retry, retries } => {
            let error = printable(&error.to_string());
            let stop = if error.ends_with(['.', '?', '!']) { "" } else { "." };
            let wait = wait.as_secs_f64();
            format!("{error}{stop} Trying again in {wait:.0} s (retry {retry} of {retries})")
        }
        Event::Started { .. } | Event::Advanced(_) | Event::Lost(_) => String::new(),
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
