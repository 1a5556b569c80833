//! Some of the places that a reference is asked for, and how they are asked: in order, until one place answers. Nobody's
//! right to read is looked at here.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;

use super::host::{Capabilities, Host};
use super::memory::Memory;
use super::order::order;
use super::route::Endpoint;
use crate::oci::SourceError;
use crate::oci::digest::Digest;
use crate::oci::reference::Version;
use crate::oci::registry::RegistrySource;

/// A repository at one place, with the credential for that place.
#[derive(Debug)]
pub(in crate::oci) struct Place {
    pub(super) source: RegistrySource,
    pub(super) host: Arc<Host>,
    /// `HOST/REPOSITORY`, for messages.
    pub(super) name: String,
    /// Whether it is the registry itself.
    pub(super) is_own: bool,
}

impl Place {
    pub(in crate::oci) fn new(source: RegistrySource, endpoint: &Endpoint, is_own: bool) -> Self {
        Self { source, host: Arc::clone(&endpoint.host), name: endpoint.name(), is_own }
    }
}

/// All places of a reference, and what is remembered about them.
#[derive(Debug)]
pub(super) struct Places {
    /// `HOST/REPOSITORY` as the image is named, for messages.
    pub(super) image: String,
    /// The registry itself last.
    pub(super) all: Vec<Place>,
    pub(super) memory: Memory,
}

/// Some of them.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) places: Arc<Places>,
    pub(super) of: BTreeSet<usize>,
}

impl View {
    /// Asks the places in order for what `ask` fetches, until one has it.
    ///
    /// # Errors
    /// No place has it: what the registry itself said, or else the last place.
    pub(super) async fn first<'a, T, F>(
        &'a self,
        needs: impl Fn(Capabilities) -> bool,
        blob: Option<&Digest>,
        ask: impl Fn(&'a Place) -> F,
    ) -> Result<T, SourceError>
    where
        F: Future<Output = Result<T, SourceError>>,
    {
        let mut failure = None;
        for at in self.order(needs, blob) {
            let place = &self.places.all[at];
            match ask(place).await {
                Ok(found) => {
                    place.host.note(None);
                    return Ok(found);
                }
                Err(error) => failure = Some(self.failed(at, error, failure)),
            }
        }
        Err(failure.map_or_else(|| self.absent(), |(_, error)| error))
    }

    /// The error where no place may be asked.
    pub(super) fn absent(&self) -> SourceError {
        SourceError::NotFound { subject: self.places.image.clone() }
    }

    /// Fails if no place may be asked for `version`, with what to change.
    pub(super) fn require(&self, version: &Version) -> Result<(), SourceError> {
        if !self.order(needed(version), None).is_empty() {
            return Ok(());
        }
        let (image, needs) = (
            &self.places.image,
            match version {
                Version::Digest(_) => "pull",
                Version::Tag(_) | Version::Sole => "pull and resolve",
            },
        );
        let detail =
            format!("for {image} no host that may be asked has the capabilities {needs} in its hosts.toml");
        Err(SourceError::Settings { detail })
    }

    /// The places that are asked, in order.
    pub(super) fn order(&self, needs: impl Fn(Capabilities) -> bool, blob: Option<&Digest>) -> Vec<usize> {
        let all = &self.places.all;
        let wrong = blob.map(|blob| self.places.memory.wrong(blob)).unwrap_or_default();
        let is_wanted = |at: usize| self.of.contains(&at) && needs(all[at].host.capabilities);
        order(all.len(), is_wanted, |at| all[at].host.is_down(), &wrong)
    }

    /// Notes that a place has failed, and returns the failure to report so far.
    pub(super) fn failed(
        &self,
        at: usize,
        error: SourceError,
        before: Option<(bool, SourceError)>,
    ) -> (bool, SourceError) {
        let place = &self.places.all[at];
        place.host.note(Some(&error));
        if !place.is_own {
            // Not to have something is what mirrors do all day.
            if matches!(error, SourceError::NotFound { .. }) {
                tracing::debug!(mirror = place.name, %error, "a mirror does not have it; the next place is asked");
            } else {
                tracing::info!(mirror = place.name, %error, "a mirror did not serve; the next place is asked");
            }
        }
        match before {
            Some((true, own)) if !place.is_own => (true, own),
            _ => (place.is_own, error),
        }
    }

    /// Whether a stream of the blob could come from anywhere but where the last one did, whose bytes were wrong.
    pub(super) fn accuse(&self, blob: &Digest) -> bool {
        let all = &self.places.all;
        let own = (0..all.len()).filter(|at| all[*at].is_own).collect();
        let able = self.of.iter().copied().filter(|at| all[*at].host.capabilities.pull).collect();
        self.places.memory.accuse(blob, &own, &able)
    }
}

/// What a place must be able to do to be asked for `version`.
pub(super) fn needed(version: &Version) -> fn(Capabilities) -> bool {
    match version {
        // What a tag means is believed, so only those say it that are meant to.
        Version::Tag(_) | Version::Sole => |able| able.pull && able.resolve,
        Version::Digest(_) => |able| able.pull,
    }
}
