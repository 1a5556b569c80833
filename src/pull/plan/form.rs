//! Last part of the plan: which composefs image of a stored manifest the caller is given, if any.
//!
//! The flags of a volume's mount do not reach every container, so what a pod may not do is not in the image that it
//! gets. An image that is not sealed is built without it; a sealed one is refused ([`Excess`]).

use std::sync::Arc;

use super::facts::Facts;
use super::step::{Obstacle, Step, Terms};
use crate::image::store::ImageRecord;
use crate::image::verity::VerityDigest;
use crate::pull::excess::Excess;
use crate::pull::limits::Kept;
use crate::trust::Admission;

/// The composefs image for the caller, and the record that names it.
pub(super) fn form(
    terms: &Terms,
    facts: &Facts,
    record: Arc<ImageRecord>,
    admission: Option<&Admission>,
) -> Result<(Arc<ImageRecord>, VerityDigest), Step> {
    let own = record.image;
    if !terms.is_mounted {
        return Ok((record, own));
    }
    if record.sealed {
        // Before the pod is known, nothing is shown and nobody can say what is allowed.
        let excess = terms.is_judged.then(|| Excess::of(&record, terms.kept, admission, terms.noexec));
        return match excess.flatten() {
            Some(excess) => Err(Step::Refuse(Obstacle::Excess(excess))),
            None => Ok((record, own)),
        };
    }
    let privileges = terms.kept.privileges || admission.is_some_and(|admission| admission.keep_privileges);
    let rules = Kept { privileges, ..terms.kept }.rules(terms.noexec);
    match record.image_by(rules) {
        Some(image) => Ok((record, image)),
        None => facts.variant.clone().ok_or(Step::Vary(record, rules)),
    }
}
