//! The controller: pins tags to digests.
