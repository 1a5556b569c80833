//! System calls that no crate offers; the only place with unsafe code.
