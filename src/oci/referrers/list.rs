//! The list of referrers as it is written. Anybody who can push adds to it, so an entry of any shape is read, what is not
//! needed of it takes no memory, and only so many are kept.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::REFERRERS_MAX;

#[derive(Deserialize)]
pub(super) struct ReferrerList {
    /// Needed, but null where an encoder of Go had an empty list.
    #[serde(deserialize_with = "Option::deserialize")]
    pub manifests: Option<Entries>,
}

/// The first entries that name a digest.
pub(super) struct Entries(pub Vec<ReferrerEntry>);

#[derive(Default)]
pub(super) struct ReferrerEntry {
    pub digest: Option<String>,
    pub artifact_type: Option<String>,
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of referrers")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                while let Some(Lenient(entry)) = access.next_element::<Lenient<ReferrerEntry>>()? {
                    if entries.len() < REFERRERS_MAX && entry.digest.is_some() {
                        entries.push(entry);
                    }
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_seq(List)
    }
}

/// What can be read of any JSON value: of an object two of its fields, of a string the string, of others nothing.
struct Lenient<T>(T);

/// What is taken from a value of some sort.
trait Taken: Default {
    fn from_text(_: &str) -> Self {
        Self::default()
    }

    fn from_map<'de, A: MapAccess<'de>>(mut access: A) -> Result<Self, A::Error> {
        while access.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Self::default())
    }
}

impl Taken for Option<String> {
    fn from_text(text: &str) -> Self {
        Some(text.to_owned())
    }
}

impl Taken for ReferrerEntry {
    fn from_map<'de, A: MapAccess<'de>>(mut access: A) -> Result<Self, A::Error> {
        let mut entry = Self::default();
        while let Some(key) = access.next_key::<std::borrow::Cow<'_, str>>()? {
            match &*key {
                "digest" => Lenient(entry.digest) = access.next_value()?,
                "artifactType" => Lenient(entry.artifact_type) = access.next_value()?,
                _ => {
                    access.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(entry)
    }
}

impl<'de, T: Taken> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any<T>(std::marker::PhantomData<T>);
        impl<'de, T: Taken> Visitor<'de> for Any<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_unit<E>(self) -> Result<T, E> {
                Ok(T::default())
            }

            fn visit_bool<E>(self, _: bool) -> Result<T, E> {
                Ok(T::default())
            }

            fn visit_i64<E>(self, _: i64) -> Result<T, E> {
                Ok(T::default())
            }

            fn visit_u64<E>(self, _: u64) -> Result<T, E> {
                Ok(T::default())
            }

            fn visit_f64<E>(self, _: f64) -> Result<T, E> {
                Ok(T::default())
            }

            fn visit_str<E>(self, text: &str) -> Result<T, E> {
                Ok(T::from_text(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<T, A::Error> {
                while access.next_element::<IgnoredAny>()?.is_some() {}
                Ok(T::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<T, A::Error> {
                T::from_map(access)
            }
        }
        deserializer.deserialize_any(Any(std::marker::PhantomData)).map(Self)
    }
}
