//! Every rule of the fold, through the dump of the resulting tree.

use super::*;
use crate::image::entry::{EntryKind, LayerEntry, Meta, Mtime};
use crate::image::verity::VerityDigest;
use crate::oci::limits::{Cap, ImageLimits};

mod choices;
mod fixtures;
mod hardlinks;
mod layers;
mod limits;
mod model;
mod parts;
mod paths;
mod reduced;
mod rules;
