//! Room for a pull that would not fit: what housekeeping would remove, a little earlier.

use crate::image::store::gc::Policy;
use crate::image::store::{Store, StoreError};
use crate::node::mount;
use crate::pull::MakeRoom;

/// Removes images by the ages of a policy, and nothing that is mounted.
#[derive(Debug)]
pub(super) struct ForPulls(pub Policy);

impl MakeRoom for ForPulls {
    fn make_room(&self, store: &Store, bytes: u64) -> Result<(), StoreError> {
        let mounted = || mount::mounted_images(store.root()).map_err(|error| error.to_string());
        let made = store.make_room(bytes, &self.0, &mounted)?;
        tracing::info!(
            images = made.images.len(),
            objects = made.swept.objects,
            bytes = made.swept.bytes,
            enough = !made.above_mark,
            "space was freed in the store for a pull"
        );
        Ok(())
    }
}
