//! Referrers of an image: signatures, attestations, SBOMs (OCI distribution-spec 1.1, "Listing Referrers").
//!
//! A referrer proves nothing: anyone who can push to the repository can name any subject.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::oci::destination::NewManifest;
use crate::oci::digest::Digest;
use crate::oci::manifest::OCI_INDEX;
use list::{ReferrerEntry, ReferrerList};

mod list;

/// The maximum number of referrers listed.
pub(super) const REFERRERS_MAX: usize = 1000;

/// The maximum number of pages read of a listing.
pub(super) const PAGES_MAX: usize = 20;

/// A manifest that names an image as its subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Referrer {
    /// The digest of that manifest.
    pub digest: Digest,
    /// The artifact type that the list states. It is a hint only: some clients write a wrong type here.
    pub artifact_type: Option<String>,
}

/// The longest artifact type that is kept, in bytes.
const ARTIFACT_TYPE_MAX: usize = 255;

impl Referrer {
    /// What it takes in memory, in bytes.
    pub(crate) fn size(&self) -> usize {
        size_of::<Self>() + self.artifact_type.as_ref().map_or(0, String::len)
    }
}

/// The entries of an index of referrers. Entries that cannot be read, such as digests by another algorithm, are
/// skipped. `None` if it is not an index.
pub(super) fn parse(bytes: &Bytes) -> Option<Vec<Referrer>> {
    let list: ReferrerList = serde_json::from_slice(bytes).ok()?;
    let referrer = |entry: ReferrerEntry| {
        let digest = entry.digest?.parse().ok()?;
        let artifact_type = entry.artifact_type.filter(|name| name.len() <= ARTIFACT_TYPE_MAX);
        Some(Referrer { digest, artifact_type })
    };
    Some(list.manifests.into_iter().flat_map(|entries| entries.0).filter_map(referrer).collect())
}

/// The index of a fallback tag with one more entry, in the place of others of its artifact type; `None` if there is nothing
/// to change. Entries of others stay as they are.
///
/// # Errors
/// `before` is no index.
pub(super) fn with_referrer(
    before: Option<&[u8]>,
    manifest: &NewManifest,
    artifact_type: &str,
) -> Result<Option<Vec<u8>>, NoIndex> {
    let empty = || json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []});
    let mut index: Value = match before {
        Some(bytes) => serde_json::from_slice(bytes).map_err(|_| NoIndex)?,
        None => empty(),
    };
    if index.get("config").is_some() || index.get("layers").is_some() {
        return Err(NoIndex);
    }
    let entries = index.get_mut("manifests").ok_or(NoIndex)?;
    if entries.is_null() {
        *entries = Value::Array(Vec::new());
    }
    let entries = entries.as_array_mut().ok_or(NoIndex)?;
    let entry = json!({
        "mediaType": manifest.media_type, "digest": manifest.digest(), "size": manifest.bytes.len(),
        "artifactType": artifact_type,
    });
    let is_other = |old: &Value| old["artifactType"] != artifact_type && old["digest"] != entry["digest"];
    let mut new: Vec<Value> = entries.iter().filter(|old| is_other(old)).cloned().collect();
    new.push(entry);
    if *entries == new {
        return Ok(None);
    }
    *entries = new;
    Ok(Some(index.to_string().into_bytes()))
}

/// What is in the place of a list of referrers is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NoIndex;

/// The tag that holds the list in registries without a referrers API.
pub(super) fn fallback_tag(subject: &Digest) -> String {
    format!("sha256-{}", subject.hex())
}

/// The query of the next page, from the values of `Link` (RFC 8288). Only the query is taken, so that a registry
/// cannot send the credential to another host.
pub(super) fn next_page<'a>(links: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut all = links.flat_map(|value| value.split(','));
    let next = all.find(|link| {
        let mut parameters = link.split(';').skip(1).map(|parameter| parameter.trim().replace('"', ""));
        parameters.any(|parameter| parameter.eq_ignore_ascii_case("rel=next"))
    })?;
    let (_, rest) = next.split_once('<')?;
    let (target, _) = rest.split_once('>')?;
    // A target without a query would be the first page again.
    let (_, query) = target.split_once('?')?;
    Some(query.split('#').next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_query_of_the_next_page_is_taken() {
        let next = |link: &str| next_page(std::iter::once(link));
        assert_eq!(next(r#"</v2/a/referrers/sha256:0?n=2&last=b>; rel="next""#).unwrap(), "n=2&last=b");
        assert_eq!(next("<https://evil.example/steal?last=1#f>;rel=next").unwrap(), "last=1");
        assert_eq!(next("</first?a=1>; rel=first, </next?a=2>; rel=next").unwrap(), "a=2");
        for none in ["", "<x?y>; rel=prev", "</no-query>; rel=next", "rel=next", "<?a; rel=next"] {
            assert_eq!(next(none), None, "{none}");
        }
    }

    #[test]
    fn entries_that_cannot_be_read_hide_no_others() {
        let digest = Digest::of(b"a");
        let list = format!(
            r#"{{"manifests":[7,{{"digest":"sha512:00"}},{{"digest":"{digest}","artifactType":"t"}}],"x":1}}"#
        );
        let found = parse(&Bytes::from(list)).unwrap();
        assert_eq!(found, [Referrer { digest, artifact_type: Some("t".into()) }]);
        assert_eq!(parse(&Bytes::from_static(b"{\"manifests\":null}")), Some(Vec::new()));
        assert_eq!(parse(&Bytes::from_static(b"{}")), None);
        assert_eq!(parse(&Bytes::from_static(b"{\"manifests\":7}")), None);
    }

    #[test]
    fn a_referrer_takes_the_place_of_its_like_and_leaves_the_others() {
        let manifest = |text: &'static str| NewManifest { media_type: "m".to_owned(), bytes: text.into() };
        let with = |before: Option<&[u8]>, text, kind| with_referrer(before, &manifest(text), kind).unwrap();
        let first = with(None, "a", "t").unwrap();
        let both = with(Some(&first), "b", "u").unwrap();
        let replaced = with(Some(&both), "c", "t").unwrap();
        assert_eq!(with(Some(&replaced), "c", "t"), None, "nothing to change");
        let listed = parse(&Bytes::from(replaced)).unwrap();
        let listed: Vec<_> = listed.iter().map(|one| (one.digest, one.artifact_type.as_deref())).collect();
        assert_eq!(listed, [(Digest::of(b"b"), Some("u")), (Digest::of(b"c"), Some("t"))]);
        let empty = br#"{"manifests":null,"annotations":{"mine":"stays"}}"#;
        let kept = String::from_utf8(with(Some(empty), "a", "t").unwrap()).unwrap();
        assert!(kept.contains("stays"), "{kept}");
        for other in ["junk", "[]", "{}", r#"{"manifests":7}"#, r#"{"manifests":[],"config":{}}"#] {
            assert_eq!(with_referrer(Some(other.as_bytes()), &manifest("a"), "t"), Err(NoIndex), "{other}");
        }
    }

    #[test]
    fn the_number_of_entries_is_bounded_whatever_they_are() {
        for (entry, kept) in [("{}", 0), ("[[1],\"a\"]", 0), (ENTRY, REFERRERS_MAX)] {
            let many = vec![entry; 3 * REFERRERS_MAX].join(",");
            let found = parse(&Bytes::from(format!("{{\"manifests\":[{many}]}}"))).unwrap();
            assert_eq!(found.len(), kept, "{entry}");
        }
    }

    const ENTRY: &str = concat!(
        r#"{"mediaType":{"a":[1]},"artifactType":7,"digest":"sha256:"#,
        r#"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","x":null}"#
    );

    #[test]
    fn long_artifact_types_are_dropped() {
        let long = format!(r#""artifactType":"{}""#, "a".repeat(ARTIFACT_TYPE_MAX + 1));
        let list = format!(r#"{{"manifests":[{}]}}"#, ENTRY.replace(r#""artifactType":7"#, &long));
        let found = parse(&Bytes::from(list)).unwrap();
        assert_eq!(found.iter().map(|one| &one.artifact_type).collect::<Vec<_>>(), [&None]);
    }
}
