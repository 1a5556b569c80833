//! JSON that every reader understands alike. A key given twice is refused, because another reader may take the other
//! value. `serde_json` bounds the nesting at 128.

use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Parses one JSON document without duplicate keys.
///
/// # Errors
/// What `serde_json` says, or the name of the key given twice.
pub(super) fn strict<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    // In a separate pass, because `serde` accepts duplicate keys in maps and in ignored fields.
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    NoDuplicates.deserialize(&mut reader)?;
    reader.end()?;
    serde_json::from_slice(bytes)
}

struct NoDuplicates;

impl<'de> DeserializeSeed<'de> for NoDuplicates {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for NoDuplicates {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = std::collections::HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            map.next_value_seed(NoDuplicates)?;
            if let Some(twice) = seen.replace(key) {
                return Err(A::Error::custom(format!("the key {twice:?} is given twice")));
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(NoDuplicates)?.is_some() {}
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::strict;

    #[test]
    fn a_key_given_twice_is_refused_at_any_depth() {
        for bad in
            [r#"{"a":1,"a":1}"#, r#"[{"b":{"a":1,"c":2,"a":3}}]"#, r#"{"a":1,"\u0061":2}"#, "{} {}", "{", ""]
        {
            assert!(strict::<Value>(bad.as_bytes()).is_err(), "{bad}");
        }
        for good in [r#"{"a":1,"b":{"a":[null,true,-1,1.5,"x"]}}"#, "[]", " {} "] {
            strict::<Value>(good.as_bytes()).unwrap();
        }
        assert!(strict::<Value>("[".repeat(100_000).as_bytes()).is_err());
    }
}
