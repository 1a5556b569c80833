//! How a failed command ends: a message on standard error, for people or for programs.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use console::Term;
use serde::Serialize;

use super::args::{OUTPUT, Output};
use super::output::{columns, wrapped, wrapped_lines};
use super::stored::StoredError;
use crate::image::composefs::ImageError;
use crate::image::store::StoreError;
use crate::kind::Kind;
use crate::node::mount::{ImageFileError, MountError};
use crate::oci::SourceError;
use crate::oci::digest::DigestError;
use crate::oci::manifest::ManifestError;
use crate::oci::platform::PlatformError;
use crate::oci::reference::ReferenceError;
use crate::pull::PullError;
use crate::push::PushError;
use crate::text::Escaping;

/// A failure as a program reads it, in one line.
#[derive(Serialize)]
struct Report<'a> {
    error: &'a str,
    /// What sort of failure it is; `usage` if the command line is wrong.
    kind: Option<&'a str>,
}

/// Reports why a command has failed. If standard error is closed, the message is lost.
pub(super) fn report(error: &anyhow::Error, output: Output) -> ExitCode {
    let message = text(error);
    match output {
        Output::Json => print_json(&message, kind(error).map(Kind::name)),
        Output::Text => print(&format!("composefs-csi: {message}")),
    }
    ExitCode::FAILURE
}

/// Reports what is wrong with the command line, or prints the help that it asks for.
pub(super) fn report_usage(error: &clap::Error) -> ExitCode {
    if error.use_stderr() && wants_json(std::env::args_os(), std::env::var_os(OUTPUT)) {
        // The first paragraph says what is wrong; usage and hints for people follow.
        let message = error.render().to_string();
        let first = message.split("\n\n").next().unwrap_or_default();
        print_json(first.trim_start_matches("error: ").trim(), Some("usage"));
    } else {
        print_help(error);
    }
    u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// Whether a command line that could not be parsed asks for JSON.
fn wants_json(arguments: impl Iterator<Item = OsString>, variable: Option<OsString>) -> bool {
    let (mut wanted, mut is_value) = (variable.is_some_and(|value| value == "json"), false);
    for argument in arguments {
        match argument.to_str() {
            Some("--output=json") => wanted = true,
            Some("--output=text") => wanted = false,
            Some(value) if is_value => wanted = value == "json",
            _ => {}
        }
        is_value = argument == "--output";
    }
    wanted
}

/// The words of an error and of its causes. Most of our errors contain the words of their cause, for callers that show
/// one text only; what was said is not repeated.
pub(super) fn text(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.contains(&cause) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause);
    }
    // One line, whatever a name or a registry has put into the message.
    let mut line = Escaping(String::new());
    // Writing to a String cannot fail.
    let _ = line.write_str(&text);
    line.0
}

/// What sort of failure the outermost error with a kind is.
fn kind(error: &anyhow::Error) -> Option<Kind> {
    macro_rules! kind_of {
        ($cause:ident: $($error:ty),*) => {
            $(if let Some(error) = $cause.downcast_ref::<$error>() { return Some(error.kind()) })*
        };
    }
    error.chain().find_map(|cause| {
        kind_of!(cause: StoredError, PullError, PushError, SourceError, StoreError, MountError, ImageFileError, ImageError, ManifestError, ReferenceError,
                 DigestError, PlatformError);
        None
    })
}

fn print_json(error: &str, kind: Option<&str>) {
    if let Ok(line) = serde_json::to_string(&Report { error, kind }) {
        let _ = writeln!(std::io::stderr().lock(), "{line}");
    }
}

/// Prints a message, broken between words on a terminal. Elsewhere it stays one line, for `grep` and logs.
fn print(message: &str) {
    let shown = columns(&Term::stderr()).map(|width| wrapped(message, width, "  "));
    let _ = writeln!(std::io::stderr().lock(), "{}", shown.as_deref().unwrap_or(message));
}

/// Prints help, or the parser's complaint, in the width of the terminal. The parser breaks no lines by itself.
fn print_help(text: &clap::Error) {
    let stream = if text.use_stderr() { Term::stderr() } else { Term::stdout() };
    // If the stream is closed, the text is lost.
    let _ = match columns(&stream) {
        Some(width) if console::colors_enabled() => {
            stream.write_str(&wrapped_lines(&text.render().ansi().to_string(), width))
        }
        Some(width) => stream.write_str(&wrapped_lines(&text.render().to_string(), width)),
        None => text.print(),
    };
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("an image cannot be had: {source}; ask another registry")]
    struct Outer {
        source: std::io::Error,
    }

    #[test]
    fn nothing_is_said_twice() {
        let cause = std::io::Error::other("the wire is cut");
        let error = anyhow::Error::new(Outer { source: cause });
        assert_eq!(text(&error), "an image cannot be had: the wire is cut; ask another registry");
        let error = Err::<(), _>(std::io::Error::other("no such file")).context("in the auth file x");
        assert_eq!(text(&error.unwrap_err()), "in the auth file x: no such file");
    }

    #[test]
    fn the_kind_is_that_of_the_outermost_error_that_has_one() {
        let error = "x".parse::<crate::oci::reference::Reference>().unwrap_err();
        assert_eq!(kind(&anyhow::Error::new(error).context("while parsing")), Some(Kind::Invalid));
        assert_eq!(kind(&anyhow::anyhow!("3 objects are damaged")), None);
    }

    #[test]
    fn a_wrong_command_line_may_ask_for_json() {
        let words = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>().into_iter();
        let asks = |line: &str| wants_json(words(line), None);
        assert!(asks("x pull --output json") && asks("x --output=json pul"));
        assert!(!asks("x pull json") && !asks("x pull --output text json"));
        assert!(wants_json(words("x pul"), Some("json".into())));
        assert!(!wants_json(words("x pul --output text"), Some("json".into())));
    }
}
