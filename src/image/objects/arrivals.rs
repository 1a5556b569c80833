//! Who is told of each new object: readers may wait for one.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, Weak};

use crate::image::verity::VerityDigest;

/// Is told of objects that come. Called on the thread that has put the object: it must not wait for anything.
pub trait Arrivals: fmt::Debug + Send + Sync {
    /// The object has its name, and can be found by it.
    fn arrived(&self, object: &VerityDigest);
}

/// Those who are told.
#[derive(Debug, Default)]
pub(super) struct Listeners(RwLock<Vec<Weak<dyn Arrivals>>>);

impl Listeners {
    pub(super) fn add(&self, listener: &Arc<dyn Arrivals>) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.retain(|listener| listener.strong_count() > 0);
        all.push(Arc::downgrade(listener));
    }

    pub(super) fn tell(&self, object: &VerityDigest) {
        for listener in self.0.read().unwrap_or_else(PoisonError::into_inner).iter() {
            if let Some(listener) = listener.upgrade() {
                listener.arrived(object);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::image::objects::Objects;

    #[derive(Debug, Default)]
    struct Heard(Mutex<Vec<VerityDigest>>);

    impl Arrivals for Heard {
        fn arrived(&self, object: &VerityDigest) {
            self.0.lock().unwrap().push(*object);
        }
    }

    #[test]
    fn each_new_object_is_told_once_it_can_be_found() {
        let directory = tempfile::tempdir().unwrap();
        Objects::create(directory.path()).unwrap();
        let objects = Objects::open(directory.path(), false).unwrap();
        let heard = Arc::new(Heard::default());
        let listener: Arc<dyn Arrivals> = heard.clone();
        objects.tell(&listener);
        let (digest, _) = objects.clone().put(b"new").unwrap();
        objects.put(b"new").unwrap();
        assert_eq!(*heard.0.lock().unwrap(), [digest]);
        assert!(objects.is_here(&digest).unwrap());
        assert!(!objects.is_here(&VerityDigest::of(b"other")).unwrap());
        drop((heard, listener));
        objects.put(b"other").unwrap();
    }
}
