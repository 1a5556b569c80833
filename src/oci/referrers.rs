//! What refers to an image: signatures, attestations, bills of material (OCI distribution-spec 1.1, "Listing
//! Referrers"). All of it is hearsay: whoever may push to the repository may claim to refer to anything.

use bytes::Bytes;
use serde::Deserialize;

use crate::oci::digest::Digest;

/// Referrers beyond this number are not listed.
pub(super) const REFERRERS_MAX: usize = 1000;

/// Pages of a listing beyond this number are not read.
pub(super) const PAGES_MAX: usize = 20;

/// Something that is said to refer to an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Referrer {
    /// Its manifest.
    pub digest: Digest,
    /// What the list says that it is. Some clients write a wrong type here, so it is a hint at best.
    pub artifact_type: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct List {
    manifests: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    digest: Digest,
    artifact_type: Option<String>,
}

/// The entries of an index of referrers; those that cannot be read, such as digests by another algorithm, are passed
/// over. `None` if it is no index.
pub(super) fn parse(bytes: &Bytes) -> Option<Vec<Referrer>> {
    let list: List = serde_json::from_slice(bytes).ok()?;
    let entries = list.manifests.into_iter().filter_map(|entry| serde_json::from_value(entry).ok());
    let referrer = |entry: Entry| Referrer { digest: entry.digest, artifact_type: entry.artifact_type };
    Some(entries.map(referrer).collect())
}

/// The tag that stands for the list in registries without a referrers API.
pub(super) fn fallback_tag(subject: &Digest) -> String {
    format!("sha256-{}", subject.hex())
}

/// The query of the next page, from the values of `Link` (RFC 8288). Only the query: a registry has no say in where
/// credentials go next.
pub(super) fn next_page<'a>(links: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut all = links.flat_map(|value| value.split(','));
    let next = all.find(|link| {
        let mut parameters = link.split(';').skip(1).map(|parameter| parameter.trim().replace('"', ""));
        parameters.any(|parameter| parameter.eq_ignore_ascii_case("rel=next"))
    })?;
    let (_, rest) = next.split_once('<')?;
    let (target, _) = rest.split_once('>')?;
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
        assert_eq!(parse(&Bytes::from_static(b"{}")), None);
    }
}
