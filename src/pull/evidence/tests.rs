use super::*;
use crate::trust::signature::Claim;

fn document(text: &str) -> RawDocument {
    RawDocument { media_type: "application/json".to_owned(), text: text.to_owned() }
}

fn index(of: &Digest) -> RawDocument {
    document(&format!(r#"{{"manifests":[{{"digest":"sha512:00"}},{{"digest":"{of}"}}]}}"#))
}

fn digest(document: &RawDocument) -> Digest {
    Digest::of(document.text.as_bytes())
}

/// manifest <- inner <- outer, and an index of something else.
fn documents() -> [RawDocument; 4] {
    let manifest = document(r#"{"config":{}}"#);
    let inner = index(&digest(&manifest));
    let outer = index(&digest(&inner));
    [outer, index(&Digest::of(b"other")), inner, manifest]
}

fn evidence() -> Evidence {
    let [outer, other, inner, manifest] = documents();
    let about = digest(&manifest);
    let written = EvidenceToWrite {
        format: FORMAT,
        documents: vec![&outer, &other, &inner, &manifest],
        signatures: &Claims::all(vec![Claim::Bundle { json: "{}".to_owned() }]),
    };
    Evidence::parse(&serde_json::to_vec(&written).unwrap(), about).unwrap()
}

#[test]
fn only_what_leads_to_the_manifest_counts() {
    let [outer, _, inner, manifest] = documents();
    let evidence = evidence();
    assert_eq!(evidence.digests(), [digest(&manifest), digest(&outer), digest(&inner)]);
    assert_eq!(evidence.target(None).digest, digest(&outer), "from the top");
    assert_eq!(evidence.target(Some(digest(&inner))).digest, digest(&inner));
    assert!(evidence.is_complete());
    let again = Evidence::parse(&evidence.render().unwrap(), digest(&manifest));
    assert_eq!(again.as_ref(), Some(&evidence));
}

#[test]
fn a_changed_document_is_none() {
    let [outer, _, inner, manifest] = documents();
    let written = String::from_utf8(evidence().render().unwrap()).unwrap();
    // One byte of the inner index: the outer one leads nowhere then, either.
    let changed = written.replace("sha512:00", "sha512:01");
    let parsed = Evidence::parse(changed.as_bytes(), digest(&manifest)).unwrap();
    assert!(!parsed.digests().contains(&digest(&outer)) && !parsed.digests().contains(&digest(&inner)));
    let changed = written.replace("config", "konfig");
    let parsed = Evidence::parse(changed.as_bytes(), digest(&manifest)).unwrap();
    assert!(!parsed.is_complete());
    assert_eq!(parsed.digests()[0], digest(&manifest), "the manifest is named all the same");
}

#[test]
fn of_another_image_nothing_counts() {
    let other = Digest::of(b"another manifest");
    let parsed = Evidence::parse(&evidence().render().unwrap(), other).unwrap();
    assert_eq!(parsed.digests(), [other]);
    assert!(!parsed.is_complete());
}

#[test]
fn every_truncation_and_other_formats_are_none() {
    let bytes = evidence().render().unwrap();
    let about = digest(&documents()[3]);
    for length in 0..bytes.len() {
        assert_eq!(Evidence::parse(&bytes[..length], about), None, "{length}");
    }
    let newer = String::from_utf8(bytes).unwrap().replace("\"format\":1", "\"format\":2");
    assert_eq!(Evidence::parse(newer.as_bytes(), about), None);
}

#[test]
fn the_number_of_documents_is_bounded() {
    let manifest = document("{}");
    let about = digest(&manifest);
    let many: Vec<_> = (0..20)
        .map(|number| document(&format!(r#"{{"n":{number},"manifests":[{{"digest":"{about}"}}]}}"#)).into())
        .collect();
    assert_eq!(leading(many, &about).len(), DOCUMENTS_MAX);
}
