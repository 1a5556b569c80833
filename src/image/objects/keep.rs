//! Who relies on an object says so first, so that it is not removed meanwhile.

use std::fmt;

use super::error::ObjectError;
use crate::image::verity::VerityDigest;

/// Keeps objects from being removed.
pub(in crate::image) trait Keep: fmt::Debug + Send + Sync {
    /// From now on the object stays if it is there or comes. Called before every look for an object that a caller is
    /// told to be present, and before every new one.
    fn keep(&self, digest: &VerityDigest) -> Result<(), ObjectError>;
}
