//! Every rule of the fold, through the dump of the tree it gives.

use super::*;
use crate::image::composefs;
use crate::image::layer::entry::{Entry, EntryKind, Meta, Mtime};
use crate::image::limits::{Cap, Limits};
use crate::image::verity::VerityDigest;

mod fixtures;
mod hardlinks;
mod layers;
mod limits;
mod paths;
mod rules;
