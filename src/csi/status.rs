//! Maps a kind of failure to a gRPC code. No other file does this.
//!
//! The codes are those of the CSI specification 1.12, "Error Scheme", as kubelet and the sidecars interpret them.
//! Messages appear in pod Events, so they address the pod's owner, and are cut to a length that fits an Event and an
//! HTTP/2 header.

use std::fmt::Display;

use tonic::{Code, Status};

use crate::kind::Kind;

/// Longest message sent, in bytes. An Event holds 1024; the rest is for the sidecar's log.
const MESSAGE_MAX: usize = 2048;

/// The code for a kind of failure, for all calls except CreateVolume.
pub(crate) fn code(kind: Kind) -> Code {
    match kind {
        Kind::Invalid => Code::InvalidArgument,
        Kind::NotFound => Code::NotFound,
        Kind::Conflict => Code::AlreadyExists,
        Kind::Busy => Code::Aborted,
        Kind::Denied => Code::PermissionDenied,
        Kind::Exhausted => Code::ResourceExhausted,
        Kind::Transient => Code::Unavailable,
        Kind::Corrupt => Code::DataLoss,
        Kind::Unsupported => Code::FailedPrecondition,
        Kind::Pending => Code::DeadlineExceeded,
        Kind::Bug => Code::Internal,
    }
}

/// The code for a kind of failure of CreateVolume.
///
/// The external-provisioner takes Unavailable, Cancelled and DeadlineExceeded as "the volume may be in creation": it
/// does not give up and does not let the claim be deleted. Here, nothing goes on after the call, so these become
/// Internal, which is retried with the same name. Aborted stays: it is only returned while another call for the same
/// name runs.
pub(crate) fn create_volume_code(kind: Kind) -> Code {
    match kind {
        Kind::Transient | Kind::Pending => Code::Internal,
        _ => code(kind),
    }
}

/// The status of a failed call.
pub(crate) fn status(kind: Kind, error: &(impl Display + ?Sized)) -> Status {
    Status::new(code(kind), message(error))
}

/// The status of a failed CreateVolume.
pub(crate) fn create_volume_status(kind: Kind, error: &(impl Display + ?Sized)) -> Status {
    Status::new(create_volume_code(kind), message(error))
}

/// The error's text, cut to [`MESSAGE_MAX`].
fn message(error: &(impl Display + ?Sized)) -> String {
    let mut text = error.to_string();
    if text.len() > MESSAGE_MAX {
        let end = (0..=MESSAGE_MAX - 4).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
        text.push_str(" ...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_code() {
        let expected = [
            (Kind::Invalid, Code::InvalidArgument, Code::InvalidArgument),
            (Kind::NotFound, Code::NotFound, Code::NotFound),
            (Kind::Conflict, Code::AlreadyExists, Code::AlreadyExists),
            (Kind::Busy, Code::Aborted, Code::Aborted),
            (Kind::Denied, Code::PermissionDenied, Code::PermissionDenied),
            (Kind::Exhausted, Code::ResourceExhausted, Code::ResourceExhausted),
            (Kind::Transient, Code::Unavailable, Code::Internal),
            (Kind::Corrupt, Code::DataLoss, Code::DataLoss),
            (Kind::Unsupported, Code::FailedPrecondition, Code::FailedPrecondition),
            (Kind::Pending, Code::DeadlineExceeded, Code::Internal),
            (Kind::Bug, Code::Internal, Code::Internal),
        ];
        assert_eq!(expected.len(), Kind::ALL.len());
        for kind in Kind::ALL {
            let row = expected.iter().find(|row| row.0 == kind).unwrap();
            assert_eq!(code(kind), row.1, "{kind:?}");
            assert_eq!(create_volume_code(kind), row.2, "{kind:?} from CreateVolume");
        }
    }

    #[test]
    fn create_volume_never_claims_that_work_goes_on() {
        let ambiguous = [Code::Unavailable, Code::Cancelled, Code::DeadlineExceeded];
        for kind in Kind::ALL {
            assert!(!ambiguous.contains(&create_volume_code(kind)), "{kind:?}");
        }
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let sent = status(Kind::Bug, &"é".repeat(4000));
        assert!(sent.message().len() <= MESSAGE_MAX);
        assert!(sent.message().ends_with("é ..."));
        assert_eq!(status(Kind::Bug, "short").message(), "short");
    }
}
