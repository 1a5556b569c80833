//! What is accepted, and where an error says it is.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::{key, parse, parse_default};
use crate::trust::policy::error::Problem;
use crate::trust::policy::requirement::Check;

/// containers-policy.json(5), "A reasonably locked-down system", without comments, and with the paths and the
/// stray space of the original put right. `pki` and `signedBy` load, and refuse where they govern.
const MAN_PAGE: &str = r#"{
    "default": [{"type": "reject"}],
    "transports": {
        "docker": {
            "docker.io/openshift": [{"type": "insecureAcceptAnything"}],
            "docker.io/library/busybox": [{"type": "insecureAcceptAnything"}],
            "*.temporary-project.example.com": [{"type": "insecureAcceptAnything"}],
            "hostname:5000/myns/sigstore-signed-with-full-references": [
                {"type": "sigstoreSigned", "keyPath": "/keys/sigstore.pub"}
            ],
            "hostname:5000/myns/sigstore-signed-byopki": [
                {
                    "type": "sigstoreSigned",
                    "pki": {
                        "caRootsPath": "/path/to/pki_root_crts.pem",
                        "caIntermediatesPath": "/path/to/pki_intermediate_crts.pem",
                        "subjectHostname": "test-user.example.com",
                        "subjectEmail": "test-user@example.com"
                    }
                }
            ],
            "hostname:5000/myns/sigstore-signed-allows-malicious-tag-substitution": [
                {
                    "type": "sigstoreSigned",
                    "keyPath": "/keys/sigstore.pub",
                    "signedIdentity": {"type": "matchRepository"}
                }
            ]
        },
        "dir": {"": [{"type": "insecureAcceptAnything"}]},
        "atomic": {
            "hostname:5000/myns/official": [
                {"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/path/to/official-pubkey.gpg"}
            ],
            "hostname:5000/vendor/product": [
                {
                    "type": "signedBy",
                    "keyType": "GPGKeys",
                    "keyPath": "/path/to/vendor-pubkey.gpg",
                    "signedIdentity": {
                        "type": "exactRepository",
                        "dockerRepository": "vendor-hostname/product/repository"
                    }
                },
                {"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/path/to/reviewer-pubkey.gpg"}
            ],
            "private-mirror:5000/vendor-mirror": [
                {
                    "type": "signedBy",
                    "keyType": "GPGKeys",
                    "keyPath": "/path/to/vendor-pubkey.gpg",
                    "signedIdentity": {
                        "type": "remapIdentity",
                        "prefix": "private-mirror:5000/vendor-mirror",
                        "signedPrefix": "vendor.example.com"
                    }
                }
            ]
        }
    }
}"#;

/// What Fedora and its relatives install.
const FEDORA: &str = r#"{
    "default": [{"type": "insecureAcceptAnything"}],
    "transports": {
        "docker": {
            "registry.access.redhat.com": [
                {"type": "signedBy", "keyType": "GPGKeys", "keyPaths": ["/etc/pki/rpm-gpg/RPM-GPG-KEY-redhat-release"]}
            ]
        },
        "docker-daemon": {"": [{"type": "insecureAcceptAnything"}]}
    }
}"#;

#[test]
fn policies_that_users_have_load() {
    for text in [MAN_PAGE, FEDORA, r#"{"default": [{"type": "insecureAcceptAnything"}]}"#] {
        parse(text).unwrap();
    }
    let policy = parse(FEDORA).unwrap();
    let rule = policy.rule(&"registry.access.redhat.com/ubi9:1".parse().unwrap(), None);
    assert!(matches!(rule.requirements[0].check, Check::Unsupported { kind: "signedBy", .. }));
}

#[test]
fn every_way_to_give_keys_and_authorities() {
    let data = BASE64.encode(key());
    let certificate = BASE64.encode(super::certificate());
    for requirement in [
        r#"{"type":"sigstoreSigned","keyPath":"/keys/a.pub"}"#.to_owned(),
        r#"{"type":"sigstoreSigned","keyPaths":["/keys/a.pub","/keys/b.pub"]}"#.to_owned(),
        // Relative paths start at the policy's directory.
        r#"{"type":"sigstoreSigned","keyPath":"../../keys/a.pub"}"#.replace("../../keys", "/keys"),
        format!(r#"{{"type":"sigstoreSigned","keyData":"{data}"}}"#),
        format!(
            r#"{{"type":"sigstoreSigned","keyDatas":["{data}","{data}"],"rekorPublicKeyData":"{data}"}}"#
        ),
        format!(
            r#"{{"type":"sigstoreSigned","rekorPublicKeyPaths":["/keys/r.pub"],
                "fulcio":{{"caData":"{certificate}","oidcIssuer":"https://i","subjectEmail":"a@b"}}}}"#
        ),
        r#"{"type":"sigstoreBundle","keyPath":"/keys/a.pub","ignoreTlog":true}"#.to_owned(),
        r#"{"type":"sigstoreBundle","keyPath":"/keys/a.pub","ignoreTlog":true,
            "predicateTypes":["https://slsa.dev/provenance/v1"]}"#
            .to_owned(),
    ] {
        let policy =
            parse_default(&format!("[{requirement}]")).unwrap_or_else(|e| panic!("{requirement}: {e}"));
        let Check::Signature(check) = &policy.default[0].check else { panic!("{requirement}") };
        assert!(!check.signers.is_empty());
    }
}

#[test]
fn a_list_may_ask_for_more_than_a_signature() {
    let policy = parse_default(
        r#"[{"type":"insecureAcceptAnything"},{"type":"composefs","requireDigest":true,"integrity":"read"}]"#,
    );
    assert_eq!(policy.unwrap().default.len(), 2);
}

/// Every row: a policy, the place that the error names, and words that it has.
const WRONG: &[(&str, &str, &str)] = &[
    ("", "", "not valid JSON"),
    ("{", "", "not valid JSON"),
    (r#"{"default":[{"type":"reject"}]} x"#, "", "trailing"),
    (r#"{"default":[{"type":"reject"}], /* no */ "transports":{}}"#, "", "comments"),
    ("[]", "", "expected an object, found a list"),
    ("{}", "", "\"default\" is missing"),
    (r#"{"default":[]}"#, "default", "is empty"),
    (r#"{"default":{}}"#, "default", "expected a list, found an object"),
    (r#"{"default":[1]}"#, "default[0]", "expected an object, found a number"),
    (r#"{"default":[{"type":"reject"}],"default":[{"type":"insecureAcceptAnything"}]}"#, "default", "twice"),
    (r#"{"default":[{"type":"reject"}],"defaults":[]}"#, "", "\"defaults\" is not known"),
    (r#"{"default":[{}]}"#, "default[0]", "\"type\" is missing"),
    (r#"{"default":[{"type":"accept"}]}"#, "default[0].type", "\"accept\" is not known; known are reject"),
    (
        r#"{"default":[{"type":"reject","why":"x"}]}"#,
        "default[0]",
        "\"why\" is not known here; known are type",
    ),
    (r#"{"default":[{"type":"reject","type":"insecureAcceptAnything"}]}"#, "default[0].type", "twice"),
    (r#"{"default":[{"type":null}]}"#, "default[0].type", "expected a string, found null"),
    (r#"{"default":[{"type":"reject"}],"transports":[]}"#, "transports", "expected an object"),
    (r#"{"default":[{"type":"reject"}],"transports":{"dokcer":{}}}"#, "transports.dokcer", "is not known"),
    (
        r#"{"default":[{"type":"reject"}],"transports":{"docker":{"a.b/c":[]}}}"#,
        r#"transports.docker["a.b/c"]"#,
        "is empty",
    ),
    (
        r#"{"default":[{"type":"reject"}],"transports":{"docker":{"a.b/c":[{"type":"reject"},{"type":"x"}]}}}"#,
        r#"transports.docker["a.b/c"][1].type"#,
        "is not known",
    ),
    (
        r#"{"default":[{"type":"reject"}],"transports":{"docker":{"a.b":[{"type":"reject"}],"a.b":[{"type":"insecureAcceptAnything"}]}}}"#,
        r#"transports.docker["a.b"]"#,
        "twice",
    ),
    // Of transports that are not used, the form counts as well.
    (
        r#"{"default":[{"type":"reject"}],"transports":{"dir":{"/a":[{"type":"x"}]}}}"#,
        r#"transports.dir["/a"][0].type"#,
        "is not known",
    ),
    (r#"{"default":[{"type":"sigstoreSigned"}]}"#, "default[0]", "exactly one of keyPath"),
    (r#"{"default":[{"type":"sigstoreSigned","keyPath":""}]}"#, "default[0].keyPath", "is empty"),
    (r#"{"default":[{"type":"sigstoreSigned","keyPath":5}]}"#, "default[0].keyPath", "expected a string"),
    (r#"{"default":[{"type":"sigstoreSigned","keyPaths":[]}]}"#, "default[0].keyPaths", "is empty"),
    (
        r#"{"default":[{"type":"sigstoreSigned","keyPaths":["/keys/a.pub",7]}]}"#,
        "default[0].keyPaths[1]",
        "a string",
    ),
    (
        r#"{"default":[{"type":"sigstoreSigned","keyPath":"/keys/a.pub","keyData":"QQ=="}]}"#,
        "default[0]",
        "at most one",
    ),
    (
        r#"{"default":[{"type":"sigstoreSigned","keyPath":"/no/a.pub"}]}"#,
        "default[0].keyPath",
        "cannot read /no/a.pub",
    ),
    (
        r#"{"default":[{"type":"sigstoreSigned","keyPaths":["/keys/a.pub","b.pub"]}]}"#,
        "default[0].keyPaths[1]",
        "cannot read /etc/p/b.pub",
    ),
    (r#"{"default":[{"type":"sigstoreSigned","keyData":"?"}]}"#, "default[0].keyData", "is not base64"),
    (
        r#"{"default":[{"type":"sigstoreSigned","keyDatas":["QQ=="]}]}"#,
        "default[0].keyDatas[0]",
        "cannot be used",
    ),
    (
        r#"{"default":[{"type":"sigstoreSigned","fulcio":{"caData":"QQ==","oidcIssuer":"i","subjectEmail":"e"}}]}"#,
        "default[0]",
        "Rekor key",
    ),
    (
        r#"{"default":[{"type":"sigstoreSigned","rekorPublicKeyPath":"/keys/r.pub","fulcio":{"oidcIssuer":"i","subjectEmail":"e"}}]}"#,
        "default[0].fulcio",
        "caPath and caData",
    ),
    (
        r#"{"default":[{"type":"sigstoreSigned","rekorPublicKeyPath":"/keys/r.pub","fulcio":{"caData":"QQ==","subjectEmail":"e"}}]}"#,
        "default[0].fulcio",
        "\"oidcIssuer\" is missing",
    ),
    (
        r#"{"default":[{"type":"sigstoreSigned","rekorPublicKeyPath":"/keys/r.pub","fulcio":{"caData":"QQ==","oidcIssuer":"i","subjectEmail":"e"}}]}"#,
        "default[0].fulcio.caData",
        "cannot be used",
    ),
    (
        r#"{"default":[{"type":"sigstoreSigned","keyPath":"/keys/a.pub","rekorPublicKeyPath":"/keys/r.pub","rekorPublicKeyData":"QQ=="}]}"#,
        "default[0]",
        "at most one of rekorPublicKeyPath",
    ),
    (
        r#"{"default":[{"type":"sigstoreSigned","keyPath":"/keys/a.pub","signedIdentity":{"type":"matchAll"}}]}"#,
        "default[0].signedIdentity.type",
        "\"matchAll\" is not known; known are matchExact",
    ),
    (
        r#"{"default":[{"type":"sigstoreSigned","keyPath":"/keys/a.pub","signedIdentity":{"type":"exactRepository"}}]}"#,
        "default[0].signedIdentity",
        "\"dockerRepository\" is missing",
    ),
    (
        r#"{"default":[{"type":"sigstoreSigned","keyPath":"/keys/a.pub","signedIdentity":{"type":"exactReference","dockerReference":"a.b/c"}}]}"#,
        "default[0].signedIdentity.dockerReference",
        "with a tag or digest",
    ),
    (
        r#"{"default":[{"type":"sigstoreSigned","keyPath":"/keys/a.pub","signedIdentity":{"type":"remapIdentity","prefix":"a.b","signedPrefix":"c"}}]}"#,
        "default[0].signedIdentity.signedPrefix",
        "in full",
    ),
    (
        r#"{"default":[{"type":"sigstoreSigned","keyPath":"/keys/a.pub","signedIdentity":{"type":"matchExact","x":1}}]}"#,
        "default[0].signedIdentity",
        "\"x\" is not known",
    ),
    (
        r#"{"default":[{"type":"sigstoreSigned","pki":{"roots":"x"}}]}"#,
        "default[0].pki",
        "\"roots\" is not known",
    ),
    (r#"{"default":[{"type":"signedBy","keyType":"GPGKeys"}]}"#, "default[0]", "exactly one of keyPath"),
    (
        r#"{"default":[{"type":"signedBy","keyType":"GPGKeys","keyDatas":["QQ=="]}]}"#,
        "default[0]",
        "exactly one of keyPath, keyPaths and keyData",
    ),
    (r#"{"default":[{"type":"sigstoreBundle"}]}"#, "default[0]", "exactly one of keyPath"),
    (r#"{"default":[{"type":"sigstoreBundle","keyPath":"/keys/a.pub"}]}"#, "default[0]", "ignoreTlog"),
    (
        r#"{"default":[{"type":"sigstoreBundle","keyPath":"/keys/a.pub","ignoreTlog":"yes"}]}"#,
        "default[0].ignoreTlog",
        "expected true or false, found a string",
    ),
    (
        r#"{"default":[{"type":"sigstoreBundle","identities":[{"issuer":"i","subject":"s"}]}]}"#,
        "default[0]",
        "need a trusted root",
    ),
    (
        r#"{"default":[{"type":"sigstoreBundle","trustedRootData":"e30=","identities":[{"issuer":"i"}]}]}"#,
        "default[0].identities[0]",
        "exactly one of subject and subjectRegex",
    ),
    (
        r#"{"default":[{"type":"sigstoreBundle","trustedRootData":"e30=","identities":[{"issuer":"i","subject":"s","subjectRegex":"s"}]}]}"#,
        "default[0].identities[0]",
        "found 2",
    ),
    (
        r#"{"default":[{"type":"sigstoreBundle","trustedRootData":"e30=","identities":[{"issuer":"i","subject":"s"}]}]}"#,
        "default[0].trustedRootData",
        "cannot be used",
    ),
    (
        r#"{"default":[{"type":"sigstoreBundle","keyPath":"/keys/a.pub","ignoreTlog":true,"predicateTypes":[]}]}"#,
        "default[0].predicateTypes",
        "is empty",
    ),
    (
        r#"{"default":[{"type":"sigstoreBundle","keyPath":"/keys/a.pub","ignoreTlog":true,"signedIdentity":{"type":"matchExact"}}]}"#,
        "default[0]",
        "\"signedIdentity\" is not known",
    ),
    (r#"{"default":[{"type":"composefs","requireDigest":true}]}"#, "default", "who made an image"),
    (r#"{"default":[{"type":"reject"},{"type":"composefs"}]}"#, "default[1]", "asks for nothing"),
    (
        r#"{"default":[{"type":"reject"},{"type":"composefs","keepPrivileges":"yes"}]}"#,
        "default[1].keepPrivileges",
        "true",
    ),
    (r#"{"default":[{"type":"composefs","keepPrivileges":true}]}"#, "default", "who made an image"),
    (
        r#"{"default":[{"type":"reject"},{"type":"composefs","integrity":"write"}]}"#,
        "default[1].integrity",
        "read, mount or fetch",
    ),
];

#[test]
fn every_error_names_its_place() {
    for (text, at, words) in WRONG {
        let error = parse(text).expect_err(text);
        assert_eq!(error.fault.at, *at, "{text}: {error}");
        let message = error.to_string();
        assert!(message.starts_with("policy /etc/p/policy.json: "), "{message}");
        assert!(message.contains(words), "{text}: {message}");
        assert!(message.len() < 600, "{message}");
    }
}

#[test]
fn scopes_that_hold_nothing_are_errors() {
    for (transport, scope, words) in [
        ("docker", "busybox", "registry's host"),
        ("docker", "library/busybox", "registry's host"),
        ("docker", "docker://a.b/c", "without a transport"),
        ("docker", "a.b/c/", "empty parts"),
        ("docker", "/a.b", "empty parts"),
        ("docker", "example*.*.com", "wildcard"),
        ("docker", "*.example.com/a", "wildcard covers whole hosts"),
        ("docker", "*.example.com:5000", "wildcard covers whole hosts"),
        ("docker", "*.", "wildcard covers whole hosts"),
        ("docker", "a.b/*", "wildcard stands only in front"),
        ("docker", "a.b/c d", "characters"),
        ("docker", "r.io./a", "final dot"),
        ("docker", "127.1:5000/a", "192.0.2.1"),
        ("docker", "r.io:0443", "leading zeros"),
        ("docker", "*.0.0.1", "192.0.2.1"),
        ("oci", "srv/images", "absolute"),
        ("oci", "/", "empty scope"),
        ("oci", "/srv/../etc", "'..'"),
        ("oci", "/srv//a", "empty parts"),
        ("oci", "/srv/", "empty parts"),
        ("oci", "/srv/a:1", "without the image's name"),
    ] {
        let text = format!(
            r#"{{"default":[{{"type":"reject"}}],"transports":{{"{transport}":{{"{scope}":[{{"type":"reject"}}]}}}}}}"#
        );
        let error = parse(&text).expect_err(scope);
        assert!(matches!(error.fault.problem, Problem::Scope(_)), "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.fault.at.contains(transport) && error.fault.at.contains(scope), "{error}");
    }
    for (scope, canonical) in [
        ("Example.com/a", "example.com"),
        ("*.Example.com", "example.com"),
        ("index.docker.io/library", "docker.io"),
        ("registry-1.docker.io", "docker.io"),
        ("r.io:443/a", "r.io"),
        ("[0:0:0:0:0:0:0:1]:5000/a", "[::1]:5000"),
        ("[::FFFF:127.0.0.1]", "127.0.0.1"),
    ] {
        let text = format!(
            r#"{{"default":[{{"type":"reject"}}],"transports":{{"docker":{{"{scope}":[{{"type":"reject"}}]}}}}}}"#
        );
        let error = parse(&text).expect_err(scope);
        assert!(matches!(error.fault.problem, Problem::Host { .. }), "{error}");
        assert!(error.to_string().contains(&format!(" {canonical}; write it so")), "{error}");
    }
    for scope in [
        "a.b",
        "[::1]",
        "[::1]:5000/a",
        "127.0.0.1:5000",
        "a.b:5000",
        "localhost/x",
        "hostname:5000/myns",
        "a.b/c:Tag_1",
        "*.example.com",
        "",
    ] {
        let text = format!(
            r#"{{"default":[{{"type":"reject"}}],"transports":{{"docker":{{"{scope}":[{{"type":"reject"}}]}}}}}}"#
        );
        parse(&text).unwrap();
    }
}

#[test]
fn size_and_depth_are_bounded() {
    let deep = format!(r#"{{"default":{}"#, "[".repeat(100_000));
    assert!(parse(&deep).unwrap_err().to_string().contains("JSON"));
    let long = format!(r#"{{"default":[{{"type":"reject"}}]{}}}"#, " ".repeat(2 << 20));
    assert!(parse(&long).unwrap_err().to_string().contains("longer than"));
}
