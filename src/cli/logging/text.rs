//! Lines of text as `tracing-subscriber` writes them, faster: a small download costs little more than its line.

use std::cell::Cell;
use std::error::Error;
use std::fmt;

use time::OffsetDateTime;
use time::macros::format_description;
use tracing::field::{Field, Visit};
use tracing_subscriber::field::{RecordFields, VisitOutput as _};
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultFields, DefaultVisitor, Writer};
use tracing_subscriber::fmt::time::FormatTime;

/// The fields of a line. What occurs in lines about transfers, numbers and harmless texts, is written as it is; the rest is left to
/// [`DefaultFields`], which knows how to escape it.
pub(super) struct Fields;

impl<'writer> FormatFields<'writer> for Fields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        if writer.has_ansi_escapes() {
            return DefaultFields::new().format_fields(writer, fields);
        }
        let mut line = Line { writer, is_empty: true, result: Ok(()) };
        fields.record(&mut line);
        line.result
    }
}

struct Line<'writer> {
    writer: Writer<'writer>,
    is_empty: bool,
    result: fmt::Result,
}

impl Line<'_> {
    /// Writes a field in pieces: `name=`, then these.
    fn write(&mut self, field: &Field, value: &[&str]) {
        let space = if self.is_empty { "" } else { " " };
        self.is_empty = false;
        let pieces = [space, field.name(), "="].into_iter().chain(value.iter().copied());
        for piece in pieces {
            self.result = self.result.and_then(|()| self.writer.write_str(piece));
        }
    }

    fn leave(&mut self, record: impl FnOnce(&mut DefaultVisitor<'_>)) {
        if self.result.is_ok() {
            let mut visitor = DefaultVisitor::new(self.writer.by_ref(), self.is_empty);
            record(&mut visitor);
            self.result = visitor.finish();
            self.is_empty = false;
        }
    }
}

impl Visit for Line<'_> {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if is_ordinary(field) {
            self.write(field, &[itoa::Buffer::new().format(value)]);
        } else {
            self.leave(|visitor| visitor.record_u64(field, value));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if is_ordinary(field) && is_harmless(value) {
            self.write(field, &["\"", value, "\""]);
        } else {
            self.leave(|visitor| visitor.record_str(field, value));
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.leave(|visitor| visitor.record_error(field, value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.leave(|visitor| visitor.record_debug(field, value));
    }
}

/// Whether a field is written as `name=value`.
fn is_ordinary(field: &Field) -> bool {
    let name = field.name();
    name != "message" && !name.starts_with("r#") && !name.starts_with("log.")
}

/// Whether a text is shown between quotes as it is.
fn is_harmless(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\')
}

/// The time of a line: RFC 3339 in UTC, to the microsecond. Most lines are of the same second as the one before.
pub(super) struct Clock;

impl FormatTime for Clock {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        thread_local! {
            static LAST: Cell<Second> = const { Cell::new(Second { at: i64::MIN, text: [0; 20] }) };
        }
        let now = OffsetDateTime::now_utc();
        let second = LAST.get().or_of(now)?;
        LAST.set(second);
        writer.write_str(str::from_utf8(&second.to_the_microsecond(now)).map_err(|_| fmt::Error)?)
    }
}

/// A second as it is shown, with a dot behind it.
#[derive(Clone, Copy)]
struct Second {
    at: i64,
    text: [u8; 20],
}

impl Second {
    /// The second of this time: the same, or another.
    fn or_of(self, now: OffsetDateTime) -> Result<Self, fmt::Error> {
        let at = now.unix_timestamp();
        if at == self.at {
            return Ok(self);
        }
        let seconds = format_description!(version = 2, "[year]-[month]-[day]T[hour]:[minute]:[second].");
        let text = now.format(seconds).map_err(|_| fmt::Error)?;
        Ok(Self { at, text: text.as_bytes().try_into().map_err(|_| fmt::Error)? })
    }

    fn to_the_microsecond(self, now: OffsetDateTime) -> [u8; 27] {
        let mut text = [b'Z'; 27];
        text[..20].copy_from_slice(&self.text);
        let mut rest = now.microsecond();
        for digit in text[20..26].iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use time::macros::datetime;
    use tracing::subscriber::with_default;
    use tracing_subscriber::fmt::{self as lines, MakeWriter};
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::registry;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Written {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    #[derive(Debug, thiserror::Error)]
    #[error("outer \u{1b}[31m")]
    struct Outer(#[source] io::Error);

    fn log() {
        for text in ["", "a b", "a\"b", "a\\b", "a\nb", "\u{1b}[31m", "\u{7f}", "é.txt", "日本", "a'b~"] {
            tracing::info!(text, number = 7_u64, "told");
            tracing::info!(text, "{text}");
        }
        tracing::info!(a = u64::MAX, b = i64::MIN, c = true, d = 1.5, e = 0_u64, f = u128::MAX, "numbers");
        tracing::info!(first = "no message", absent = None::<&str>, last = Some("here"));
        tracing::info!(r#type = "keyword", r#fn = 3_u64, log.name = "dotted", "names");
        let error = Outer(io::Error::other("inner"));
        tracing::warn!(error = &error as &dyn Error, shown = %error, debug = ?error, after = 1_u64, "errors");
        let span = tracing::info_span!("span", text = "of a span", number = 2_u64);
        span.in_scope(|| tracing::info!(inside = 1_u64, "within"));
        tracing::info!("alone");
    }

    #[test]
    fn lines_are_those_of_the_library() {
        for colour in [false, true] {
            let (ours, theirs) = (Written::default(), Written::default());
            let layer = lines::layer().with_writer(ours.clone()).with_ansi(colour).without_time();
            with_default(registry().with(layer.fmt_fields(Fields)), log);
            let layer = lines::layer().with_writer(theirs.clone()).with_ansi(colour).without_time();
            with_default(registry().with(layer), log);
            let text = |written: &Written| String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
            assert!(text(&theirs).lines().count() > 20);
            assert_eq!(text(&ours), text(&theirs));
        }
    }

    #[test]
    fn a_time_is_that_of_its_own_second() {
        let mut second = Second { at: i64::MIN, text: [0; 20] };
        for (now, shown) in [
            (datetime!(2026-11-30 23:59:59.000_000_999 UTC), "2026-11-30T23:59:59.000000Z"),
            (datetime!(2026-11-30 23:59:59.999_999_999 UTC), "2026-11-30T23:59:59.999999Z"),
            (datetime!(2026-12-01 00:00:00.000_001 UTC), "2026-12-01T00:00:00.000001Z"),
            (datetime!(2026-11-30 23:59:59.5 UTC), "2026-11-30T23:59:59.500000Z"),
        ] {
            second = second.or_of(now).unwrap();
            assert_eq!(str::from_utf8(&second.to_the_microsecond(now)).unwrap(), shown);
        }
    }
}
