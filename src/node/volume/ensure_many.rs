//! Ensures that a volume's several images are on this node, and that they are one.
//!
//! Each is asked for as if the volume showed it alone: by its own credentials, judged by its own policy, at every publish.
//! They are pulled at the same time. Only when all of them are here and admitted they become one, or the one that they
//! have become before is found: whoever may not have one of them does not get, and does not learn of, what it is part of.

use std::path::Path;

use futures_util::future::try_join_all;

use super::ensure_image::{ChosenImage, Ensured};
use super::record::{PinnedImage, PinnedMember};
use super::request::VolumeRequest;
use super::{VolumeError, Volumes};
use crate::image::store::Member;
use crate::kind::Kind;
use crate::oci::digest::Digest;
use crate::pull::{Caller, Combination};
use crate::volume::content::{self, Content, Many};

impl Volumes {
    /// Refuses images that are directories which volumes may not name.
    pub(super) fn check_content(&self, request: &VolumeRequest) -> Result<(), VolumeError> {
        request.content.images().into_iter().enumerate().try_for_each(|(index, attributes)| {
            let allowed = self.0.layouts.check(&attributes.image).map_err(VolumeError::from);
            match &request.content {
                Content::One(_) => allowed,
                Content::Many(many) => allowed.map_err(|error| about(many, index, error)),
            }
        })
    }

    /// Makes available all images of a volume, and what they are together. `pinned` is what the volume shows already.
    pub(super) async fn ensure_many(
        &self,
        request: &VolumeRequest,
        many: &Many,
        (caller, pinned): (Caller, Option<PinnedImage>),
        deadline: tokio::time::Instant,
    ) -> Result<ChosenImage, VolumeError> {
        let shown = pinned.map(|pinned| pinned.members).unwrap_or_default();
        let each = many.members.iter().enumerate().map(|(index, member)| {
            let terms = (caller.clone(), shown.get(index).map(|shown| shown.manifest));
            let ensured = self.ensure_image(request, (index, &member.attributes), terms, deadline);
            async move { ensured.await.map_err(|error| about(many, index, error)) }
        });
        let images: Vec<Ensured> = try_join_all(each).await?;
        if let Some(waited) = images.iter().map(|image| image.waited).max() {
            self.0.pulls.ended(&request.volume, waited);
        }
        let members: Vec<_> = many.members.iter().zip(&images).map(member).collect();
        let wanted = Combination { name: request.content.to_string(), members };
        let Some(first) = images.first() else {
            return Err(VolumeError::Lost("a list of images is empty".to_owned()));
        };
        let combined = self.0.images.combine(&first.request, wanted);
        let combined =
            tokio::time::timeout_at(deadline, combined).await.map_err(|_| VolumeError::Pulling {
                image: request.content.to_string(),
                progress: "all are here and become one".to_owned(),
            })??;
        let (record, composefs) = (&combined.record, combined.image);
        let of = |image: &Ensured| {
            let record = &image.ready.record;
            PinnedMember { image: record.key(), manifest: record.manifest }
        };
        let members: Vec<PinnedMember> = images.iter().map(of).collect();
        let (bytes, inodes) = (record.bytes, record.inodes);
        let pinned = PinnedImage {
            image: record.manifest,
            manifest: record.manifest,
            composefs,
            bytes,
            inodes,
            members,
        };
        let fetched = images.iter().map(|image| image.ready.fetched).sum();
        let ready = images.into_iter().map(|image| image.ready).chain([combined]).collect();
        Ok(ChosenImage { pinned, fetched, ready })
    }
}

/// A member as it is combined, with its layers.
fn member((member, image): (&content::Member, &Ensured)) -> (Member, Vec<Digest>) {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let record = &image.ready.record;
    let combined = Member {
        name: image.request.reference.to_string(),
        manifest: record.manifest,
        image: image.ready.image,
        path: text(&member.attributes.path),
        at: text(&member.at),
    };
    (combined, record.layers.clone())
}

/// Says which image an error concerns, unless that is no failure.
fn about(many: &Many, index: usize, error: VolumeError) -> VolumeError {
    if error.kind() == Kind::Pending {
        return error;
    }
    let image = many.members.get(index).map(|member| member.attributes.image.to_string());
    let (number, image) = (index + 1, image.unwrap_or_default());
    VolumeError::Member { number, image, error: Box::new(error) }
}
