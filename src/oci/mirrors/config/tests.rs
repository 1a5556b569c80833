use std::fs;
use std::time::Instant;

use super::*;
use crate::oci::reference::Reference;

struct Fixture(tempfile::TempDir);

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["certs.d", "more.d"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        Self(directory)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn files(&self, conf: bool) -> MirrorFiles {
        let settings = MirrorSettings {
            hosts_dirs: vec![self.path("certs.d"), self.path("more.d")],
            registries_conf: conf.then(|| self.path("registries.conf")),
            ..MirrorSettings::default()
        };
        MirrorFiles::new(&settings).unwrap()
    }
}

fn route(files: &MirrorFiles, image: &str) -> Result<Option<Route>, String> {
    let reference: Reference = image.parse().unwrap();
    let Reference::Registry(registry) = &reference else { panic!() };
    files.route(registry, false).map_err(|error| error.to_string())
}

fn hosts(files: &MirrorFiles, image: &str) -> Vec<String> {
    let route = route(files, image).unwrap();
    route.iter().flat_map(Route::all).map(|(place, _)| place.host().to_owned()).collect()
}

fn mirror(name: &str) -> String {
    format!("[host.\"https://{name}\"]\n")
}

#[test]
fn directories_are_looked_for_as_containerd_does() {
    let fixture = Fixture::new();
    for (directory, name) in [
        ("certs.d/r.io_5000_", "underscores"),
        ("certs.d/r.io:5000", "colon"),
        ("certs.d/s.io:5000", "colon"),
        ("certs.d/_default", "default"),
        ("more.d/t.io", "second"),
        ("more.d/r.io:5000", "second"),
    ] {
        fixture.write(&format!("{directory}/hosts.toml"), &mirror(name));
    }
    let files = fixture.files(false);
    assert_eq!(hosts(&files, "r.io:5000/x:1"), ["underscores", "r.io:5000"]);
    assert_eq!(hosts(&files, "s.io:5000/x:1"), ["colon", "s.io:5000"]);
    assert_eq!(hosts(&files, "t.io/x:1"), ["default", "t.io"], "the first root that has one, _default too");
    let named = |image| route(&files, image).unwrap().unwrap().is_believed();
    assert!(named("s.io:5000/x:1") && !named("t.io/x:1"));
}

#[test]
fn a_file_that_cannot_be_used_refuses_what_it_concerns_and_nothing_else() {
    let fixture = Fixture::new();
    fixture.write("certs.d/r.io/hosts.toml", "server = \n");
    fixture.write("certs.d/s.io/hosts.toml", "ca = \"absent.pem\"\n");
    fixture.write("certs.d/t.io/hosts.toml", &mirror("m.io"));
    let files = fixture.files(false);
    let error = route(&files, "r.io/x:1").unwrap_err();
    assert!(error.contains("certs.d/r.io/hosts.toml, line 1"), "{error}");
    let error = route(&files, "s.io/x:1").unwrap_err();
    assert!(error.contains("certs.d/s.io/absent.pem"), "{error}");
    assert_eq!(hosts(&files, "t.io/x:1"), ["m.io", "t.io"]);
    assert!(route(&files, "u.io/x:1").unwrap().is_none());
    fixture.write("certs.d/_default/hosts.toml", "[host]\nx = 1\n");
    later(|| route(&files, "u.io/x:1").is_err());
    assert_eq!(hosts(&files, "t.io/x:1"), ["m.io", "t.io"]);
    fs::remove_dir_all(fixture.path("more.d")).unwrap();
    later(|| route(&files, "t.io/x:1").is_err_and(|error| error.contains("more.d")));
}

#[test]
fn without_a_hosts_toml_certificates_are_dockers() {
    let fixture = Fixture::new();
    let (certificate, key) = certificate("client");
    fixture.write("certs.d/r.io/a.crt", &certificate);
    fixture.write("certs.d/r.io/client.cert", &certificate);
    fixture.write("certs.d/r.io/client.key", &key);
    let files = fixture.files(false);
    let found = route(&files, "r.io/x:1").unwrap().unwrap();
    let (own, _) = found.all().next().unwrap();
    assert_eq!((own.host.tls.authorities.len(), own.host.tls.identity.is_some()), (1, true));
    // A key that is not the certificate's.
    fixture.write("certs.d/r.io/client.key", &self::certificate("other").1);
    later(|| {
        route(&files, "r.io/x:1").is_err_and(|error| error.contains("client.cert is not the certificate"))
    });
    fs::remove_file(fixture.path("certs.d/r.io/client.key")).unwrap();
    later(|| route(&files, "r.io/x:1").is_err_and(|error| error.contains("client.key cannot be read")));
}

#[test]
fn a_mirror_of_registries_conf_has_the_certificates_of_its_own_directory() {
    let fixture = Fixture::new();
    fixture.write(
        "registries.conf",
        "[[registry]]\nlocation = \"r.io\"\n[[registry.mirror]]\nlocation = \"m.io/cache\"\n[[registry.mirror]]\nlocation = \"n.io\"\n",
    );
    fixture.write("certs.d/m.io/ca.crt", &certificate("ca").0);
    fixture.write("certs.d/_default/ca.crt", &certificate("ca").0);
    let files = fixture.files(true);
    let found = route(&files, "r.io/x:1").unwrap().unwrap();
    let authorities = found.all().map(|(place, _)| (place.host(), place.host.tls.authorities.len()));
    assert_eq!(authorities.collect::<Vec<_>>(), [("m.io", 1), ("n.io", 0), ("r.io", 1)]);
}

#[test]
fn registries_conf_and_its_drop_ins_are_followed() {
    let fixture = Fixture::new();
    let files = fixture.files(true);
    let error = route(&files, "r.io/x:1").unwrap_err();
    assert!(error.contains("registries.conf: it cannot be read"), "{error}");
    fixture.write("registries.conf", "");
    later(|| route(&files, "r.io/x:1").is_ok());
    fixture.write("registries.conf.d/10-a.conf", "[[registry]]\nlocation = \"r.io\"\nblocked = true\n");
    fixture.write("registries.conf.d/readme.txt", "[[");
    later(|| route(&files, "r.io/x:1").is_err_and(|error| error.contains("10-a.conf, line 1")));
    fixture.write("registries.conf.d/20-b.conf", "[[registry]]\nlocation = \"r.io\"\n");
    later(|| route(&files, "r.io/x:1").is_ok());
    fixture.write("registries.conf.d/20-b.conf", "[[registry]\n");
    later(|| route(&files, "s.io/x:1").is_err_and(|error| error.contains("20-b.conf, line 1")));
}

/// Files are looked at once a second.
fn later(holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed().as_secs() < 60, "it is not noticed");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// A certificate and its key.
fn certificate(name: &str) -> (String, String) {
    use openssl::asn1::Asn1Time;
    use openssl::hash::MessageDigest;
    use openssl::rsa::Rsa;
    use openssl::x509::{X509, X509NameBuilder};

    let key = openssl::pkey::PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    let mut subject = X509NameBuilder::new().unwrap();
    subject.append_entry_by_text("CN", name).unwrap();
    let subject = subject.build();
    let mut builder = X509::builder().unwrap();
    builder.set_subject_name(&subject).unwrap();
    builder.set_issuer_name(&subject).unwrap();
    builder.set_pubkey(&key).unwrap();
    builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::days_from_now(1).unwrap()).unwrap();
    builder.sign(&key, MessageDigest::sha256()).unwrap();
    let certificate = builder.build().to_pem().unwrap();
    // As openssl genrsa wrote them for decades, and not PKCS#8.
    let key = key.rsa().unwrap().private_key_to_pem().unwrap();
    (String::from_utf8(certificate).unwrap(), String::from_utf8(key).unwrap())
}
