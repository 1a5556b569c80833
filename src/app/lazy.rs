//! A lazy mount as a whole: an image is mounted, its content is brought, and what has come is compared with what was mounted.

use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use crate::image::store::Store;
use crate::image::verity::VerityDigest;
use crate::kind::Kind;
use crate::node::mount::{KernelMounter, LazyMount, MountError, MountSpec, Wanted};
use crate::pull::{Bring, ImageRequest, Images as _, PullError, Puller, Started, Watch, Wishes};

/// How long after a failed pull the next one begins; twice as long after each, up to the second.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(30);
/// How often is looked whether the image is still shown.
const LOOK: Duration = Duration::from_secs(1);

/// An image that is mounted and on its way. Dropped, what is missing cannot be opened any more; a later pull of the image
/// heals that.
#[derive(Debug)]
pub struct Coming {
    mount: LazyMount,
    started: Started,
    bring: Bring,
    request: ImageRequest,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// All is here, and the mount is as any other.
    Complete,
    /// Nothing showed it any more.
    Unmounted,
}

impl Wanted for Wishes {
    fn want(&self, object: &VerityDigest) {
        Self::want(self, object);
    }
}

impl Coming {
    /// Mounts what `images` has started for `request`. Blocking.
    ///
    /// # Errors
    /// Those of mounting; then nothing is mounted.
    pub fn mount(
        images: &Puller,
        mounter: &KernelMounter,
        store: &Store,
        request: ImageRequest,
        started: Started,
        (spec, target): (&MountSpec, &Path),
    ) -> Result<Self, MountError> {
        let (wishes, bring) = started.bring(images, &request);
        let objects = started.image.map.objects().map(|located| located.object);
        let mount = mounter.mount_lazily(spec, target, objects, wishes)?;
        store.objects().tell(mount.arrivals());
        // The tag may move meanwhile; what is mounted does not.
        let request = ImageRequest { pinned: Some(started.manifest), watch: Watch::default(), ..request };
        Ok(Self { mount, started, bring, request })
    }

    /// Where the counters of the pull will be.
    pub fn watch(&self) -> Watch {
        self.request.watch.clone()
    }

    /// Brings everything, however often it takes, and compares it. Failures that may pass are told to the readers that wait,
    /// and to the log.
    ///
    /// # Errors
    /// One that will not pass: the registry refuses, or what came is not what was mounted. The mount stays; what is missing
    /// of it cannot be opened.
    pub async fn complete(self, images: &Puller) -> Result<End, PullError> {
        let Self { mount, started, bring, request } = self;
        // Ends when the mount is gone, which it is not here.
        let mut bring = pin!(bring.run());
        let mut again = AGAIN;
        loop {
            let pulled = tokio::select! {
                pulled = images.ensure(&request) => pulled,
                () = &mut bring => return Ok(End::Unmounted),
                () = unmounted(&mount) => return Ok(End::Unmounted),
            };
            let error = match pulled {
                Ok(ready) => match started.check_pulled(images, &request, &ready).await {
                    Ok(()) => return Ok(End::Complete),
                    Err(error) => error,
                },
                Err(error) => error,
            };
            mount.fail(error.kind());
            if !may_pass(error.kind()) {
                return Err(error);
            }
            tracing::warn!(%error, seconds = again.as_secs(), "the content of a lazy mount does not come; trying again");
            tokio::select! {
                () = tokio::time::sleep(again) => {}
                () = &mut bring => return Ok(End::Unmounted),
                () = unmounted(&mount) => return Ok(End::Unmounted),
            }
            again = (again * 2).min(AGAIN_MAX);
        }
    }
}

/// Whether the same may succeed later.
fn may_pass(kind: Kind) -> bool {
    matches!(kind, Kind::Transient | Kind::Busy | Kind::Exhausted)
}

async fn unmounted(mount: &LazyMount) {
    while !mount.is_over() {
        tokio::time::sleep(LOOK).await;
    }
}
