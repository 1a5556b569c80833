//! Every rule of the fold, through the dump of the tree it gives.

use super::*;
use crate::image::composefs;
use crate::image::entry::{Entry, EntryKind, Meta, Mtime};
use crate::image::verity::VerityDigest;
use crate::oci::limits::{Cap, Limits};

mod fixtures;
mod hardlinks;
mod layers;
mod limits;
mod paths;
mod rules;
