use std::path::Path;

use super::*;
use crate::oci::mirrors::hosts_toml::parse_hosts;
use crate::oci::reference::Reference;
use crate::oci::registry::EndpointTls;

fn conf(text: &str) -> RegistriesConf {
    let mut conf = RegistriesConf::default();
    conf.add(text.as_bytes(), "registries.conf").unwrap_or_else(|fault| panic!("{fault}"));
    conf
}

fn hosts(text: &str) -> Vec<Arc<Host>> {
    let entries = parse_hosts(text.as_bytes(), Path::new("/")).unwrap_or_else(|fault| panic!("{fault}"));
    let host = |entry: crate::oci::mirrors::hosts_toml::HostEntry| {
        let tls = EndpointTls { skip_verify: entry.tls.skip_verify, ..EndpointTls::default() };
        Arc::new(Host::new(entry.address, entry.capabilities, entry.headers, tls))
    };
    entries.into_iter().map(host).collect()
}

fn route(
    image: &str,
    conf: Option<&RegistriesConf>,
    hosts: Option<(&[Arc<Host>], bool)>,
) -> Result<Route, SourceError> {
    let reference: Reference = image.parse().unwrap();
    let Reference::Registry(registry) = &reference else { panic!() };
    let plain = Arc::new(Host::plain());
    Ok(rewrite(registry, reference.digest().is_some(), conf)?.by_hosts(hosts, &plain))
}

/// `SCHEME AUTHORITY/ROOT REPOSITORY NAMESPACE` of each place.
fn places(route: &Route) -> Vec<String> {
    let place = |(place, is_own): (&Endpoint, bool)| {
        let (own, scheme) = (if is_own { "own " } else { "" }, place.scheme().unwrap_or("-"));
        let namespace = place.namespace().unwrap_or("-");
        format!("{own}{scheme} {}/{} {} {namespace}", place.host(), place.root(), place.repository())
    };
    route.all().map(place).collect()
}

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn without_files_there_is_the_registry() {
    let route = route("r.io/team/x:1", None, None).unwrap();
    assert_eq!(places(&route), ["own - r.io/v2 team/x -"]);
    assert!(route.is_plain());
}

#[test]
fn hosts_of_containerds_file_come_before_the_registry() {
    let hosts = hosts(
        "server = \"https://registry-1.docker.io\"\n[host.\"https://m.local:5000\"]\n[host.\"http://h.local/v2/hub\"]\noverride_path = true\n",
    );
    let found = route("docker.io/library/x:1", None, Some((&hosts, true))).unwrap();
    assert_eq!(
        places(&found),
        [
            "https m.local:5000/v2 library/x docker.io",
            "http h.local/v2/hub library/x docker.io",
            "own https docker.io/v2 library/x -"
        ]
    );
    assert_eq!(found.mirrors[1].credential_name(), ("h.local", "hub/library/x".to_owned()));
    assert!(found.is_believed() && !found.is_plain());
    let found = route("docker.io/library/x:1", None, Some((&hosts, false))).unwrap();
    assert!(!found.is_believed(), "anybody may run a registry that only _default is for");
}

#[test]
fn a_server_of_another_name_is_a_mirror_and_the_registry_is_asked_for_no_content() {
    let hosts = hosts("server = \"https://m.local\"\n");
    let found = route("r.io/x:1", None, Some((&hosts, true))).unwrap();
    assert_eq!(places(&found), ["https m.local/v2 x r.io", "own - r.io/v2 x -"]);
    assert!(!found.origin_serves());
    assert!(found.writable("r.io/x").is_err());
    let proving = |proof| found.proving(proof).map(|(place, _)| place.host().to_owned()).collect::<Vec<_>>();
    assert_eq!(proving(AccessProof::Origin), ["r.io"]);
    assert_eq!(proving(AccessProof::Mirror), ["m.local"]);
}

#[test]
fn hosts_without_use_are_left_out() {
    let hosts = hosts(
        "[host.\"https://a.io\"]\ncapabilities = [\"resolve\"]\n[host.\"https://b.io\"]\ncapabilities = [\"referrers\"]\n[host.\"https://c.io\"]\ncapabilities = [\"push\"]\n",
    );
    let found = route("r.io/x:1", None, Some((&hosts, true))).unwrap();
    assert_eq!(places(&found), ["https b.io/v2 x r.io", "own - r.io/v2 x -"]);
}

#[test]
fn registries_conf_rewrites_names_and_adds_mirrors() {
    let conf = conf(
        "[[registry]]\nlocation = \"r.io\"\n[[registry.mirror]]\nlocation = \"m.io/cache\"\n[[registry.mirror]]\nlocation = \"n.io\"\ninsecure = true\npull-from-mirror = \"digest-only\"\n",
    );
    let by_tag = route("r.io/team/x:1", Some(&conf), None).unwrap();
    assert_eq!(places(&by_tag), ["- m.io/v2 cache/team/x -", "own - r.io/v2 team/x -"]);
    let by_digest = route(&format!("r.io/team/x:1@{DIGEST}"), Some(&conf), None).unwrap();
    assert_eq!(
        places(&by_digest),
        [
            "- m.io/v2 cache/team/x -",
            "https n.io/v2 team/x -",
            "http n.io/v2 team/x -",
            "own - r.io/v2 team/x -"
        ]
    );
    assert!(by_digest.mirrors[1].host.tls.skip_verify && !by_digest.mirrors[2].host.tls.skip_verify);
}

#[test]
fn a_location_of_another_name_is_a_mirror() {
    let conf = conf("[[registry]]\nprefix = \"r.io\"\nlocation = \"m.io/r\"\n");
    let found = route("r.io/x:1", Some(&conf), None).unwrap();
    assert_eq!(places(&found), ["- m.io/v2 r/x -", "own - r.io/v2 x -"]);
    assert!(!found.origin_serves());
}

#[test]
fn a_star_keeps_names_or_moves_them() {
    let kept = conf("[[registry]]\nprefix = \"*.example.com\"\n[[registry.mirror]]\nlocation = \"m.io\"\n");
    let found = route("a.b.example.com/x:1", Some(&kept), None).unwrap();
    assert_eq!(places(&found), ["- m.io/v2 x -", "own - a.b.example.com/v2 x -"]);
    let moved = conf("[[registry]]\nprefix = \"*.example.com\"\nlocation = \"m.io/all\"\n");
    let found = route("a.example.com/x:1", Some(&moved), None).unwrap();
    assert_eq!(places(&found)[0], "- m.io/v2 all/x -");
}

#[test]
fn what_is_blocked_is_blocked_by_the_name_as_written_and_as_it_becomes() {
    let by_written = conf("[[registry]]\nprefix = \"r.io\"\nlocation = \"m.io\"\nblocked = true\n");
    let error = route("r.io/x:1", Some(&by_written), None).unwrap_err();
    assert!(
        matches!(&error, SourceError::Blocked { stated, .. } if stated == "registries.conf, line 1"),
        "{error}"
    );
    // Also at a port, which a prefix without one is for.
    assert!(matches!(route("r.io:5000/x:1", Some(&by_written), None), Err(SourceError::Blocked { .. })));
    let by_location = conf(
        "[[registry]]\nprefix = \"r.io\"\nlocation = \"m.io\"\n[[registry]]\nprefix = \"m.io\"\nlocation = \"n.io\"\nblocked = true\n",
    );
    assert!(matches!(route("r.io/x:1", Some(&by_location), None), Err(SourceError::Blocked { .. })));
    let mirror = conf(
        "[[registry]]\nlocation = \"r.io\"\n[[registry.mirror]]\nlocation = \"m.io\"\n[[registry]]\nlocation = \"m.io\"\nblocked = true\n",
    );
    assert_eq!(places(&route("r.io/x:1", Some(&mirror), None).unwrap()), ["own - r.io/v2 x -"]);
}

#[test]
fn a_name_that_cannot_be_rewritten_is_an_error_that_names_the_rule() {
    let conf = conf("[[registry]]\nprefix = \"r.io\"\nlocation = \"m.io/r\"\n");
    let error = route("r.io:5000/x:1", Some(&conf), None).unwrap_err().to_string();
    assert!(error.contains("registries.conf, line 1") && error.contains("with the port"), "{error}");
}

#[test]
fn both_files_together_are_one_list() {
    let conf = conf(
        "[[registry]]\nlocation = \"r.io\"\ninsecure = true\n[[registry.mirror]]\nlocation = \"m.io\"\n",
    );
    let hosts = hosts("[host.\"https://h.io\"]\n");
    let found = route("r.io/x:1", Some(&conf), Some((&hosts, true))).unwrap();
    assert_eq!(
        places(&found),
        ["- m.io/v2 x -", "https h.io/v2 x r.io", "own https r.io/v2 x -", "own http r.io/v2 x -"]
    );
}
