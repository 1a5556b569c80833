//! Where files about mirrors would send a request. Pure: for those who hold the files against something else, such as
//! fuzzing.

use std::path::Path;
use std::sync::Arc;

use super::host::Host;
use super::hosts_toml::parse_hosts;
use super::registries_conf::RegistriesConf;
use super::route::rewrite;
use crate::oci::reference::RegistryReference;
use crate::oci::registry::EndpointTls;

/// The places that `reference` would be asked for in order, as `HOST/PATH/REPOSITORY`, if its registry had this `hosts.toml`
/// and the node this containers-registries.conf. Certificates that they name are not looked at.
///
/// # Errors
/// Why pulls would be refused.
pub fn places(
    reference: &RegistryReference,
    by_digest: bool,
    hosts_toml: Option<&[u8]>,
    registries_conf: Option<&[u8]>,
) -> Result<Vec<String>, String> {
    let mut conf = RegistriesConf::default();
    if let Some(bytes) = registries_conf {
        conf.add(bytes, "registries.conf").map_err(|fault| fault.to_string())?;
    }
    let rewritten = rewrite(reference, by_digest, Some(&conf)).map_err(|error| error.to_string())?;
    let hosts = match hosts_toml {
        None => Vec::new(),
        Some(bytes) => parse_hosts(bytes, Path::new("certs.d")).map_err(|fault| fault.to_string())?,
    };
    let hosts: Vec<_> = hosts
        .into_iter()
        .map(|entry| Host::new(entry.address, entry.capabilities, entry.headers, EndpointTls::default()))
        .map(Arc::new)
        .collect();
    let route = rewritten.by_hosts(hosts_toml.map(|_| (&hosts[..], true)), &Arc::new(Host::plain()));
    let served = route.all().filter(|(_, is_own)| !is_own || route.origin_serves());
    Ok(served.map(|(place, _)| format!("{}/{}/{}", place.host(), place.root(), place.repository())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::reference::Reference;

    fn shown(
        name: &str,
        by_digest: bool,
        hosts: Option<&str>,
        conf: Option<&str>,
    ) -> Result<Vec<String>, String> {
        let read = |seed: Option<&str>| {
            seed.map(|seed| {
                std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(seed)).unwrap()
            })
        };
        let Reference::Registry(reference) = name.parse().unwrap() else { panic!("{name}") };
        places(&reference, by_digest, read(hosts).as_deref(), read(conf).as_deref())
    }

    /// What the fuzzer starts from must be files that are taken, or it learns nothing.
    #[test]
    fn the_seeds_of_the_fuzzer_say_where_images_are() {
        let app = "registry.example/team/app:1";
        let of = |found: &[&str]| {
            Ok::<_, String>(found.iter().map(|place| (*place).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(shown(app, false, None, None), of(&["registry.example/v2/team/app"]));
        assert_eq!(
            shown(app, false, Some("hosts_toml/all"), None),
            of(&[
                "mirror.example:5000/cache/team/app",
                "127.0.0.1:4001/v2/team/app",
                "registry.example/v2/team/app"
            ])
        );
        assert_eq!(shown(app, false, Some("hosts_toml/odd"), None).map(|found| found.len()), Ok(3));
        let conf = Some("registries_conf/all");
        let moved = "mirror.example:5000/v2/cache/app";
        assert_eq!(shown(app, false, None, conf), of(&["other.example/v2/app", moved, moved]));
        assert_eq!(shown("docker.io/library/busybox:1", false, None, conf).map(|found| found.len()), Ok(1));
        assert_eq!(shown("docker.io/library/busybox:1", true, None, conf).map(|found| found.len()), Ok(2));
        let blocked = shown("registry.example:5000/team/app:1", false, None, Some("registries_conf/blocked"));
        assert!(blocked.unwrap_err().contains("block"));
    }
}
