//! Fields of the text log, in which nothing from outside begins a line or hides one.
//!
//! Every message and value passes through here, whoever wrote it: a reference, a path, what a registry or a verifier
//! says. The JSON format needs none of this, because JSON has its own escapes.

use std::fmt;

use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultFields, Writer};

use crate::text::Escaping;

/// Formats fields as the default does, and escapes what is not plain text.
#[derive(Debug, Default)]
pub(super) struct EscapedFields(DefaultFields);

impl<'writer> FormatFields<'writer> for EscapedFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        self.0.format_fields(Writer::new(&mut Escaping(writer)), fields)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex, PoisonError};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn messages_fields_and_spans_stay_in_their_line() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .fmt_fields(EscapedFields::default())
            .with_writer(move || writer.clone())
            .finish();
        let forged = "oci:/a\nERROR forged\u{2028}\u{202e}";
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("pull", image.reference = forged, debugged = ?forged);
            let _inside = span.enter();
            tracing::info!(value = %forged, text = forged, "{forged}");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.trim_end().chars().all(crate::text::is_plain), "{text}");
        // In the message, in two values and in the two of the span.
        assert_eq!(text.matches(r"oci:/a\nERROR forged\u{2028}\u{202e}").count(), 5, "{text}");
    }
}
