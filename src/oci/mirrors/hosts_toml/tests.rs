use super::*;

fn hosts(text: &str) -> Vec<HostEntry> {
    parse_hosts(text.as_bytes(), Path::new("/certs.d/r.io")).unwrap_or_else(|fault| panic!("{text}: {fault}"))
}

fn fault(text: &str) -> Fault {
    parse_hosts(text.as_bytes(), Path::new("/certs.d/r.io")).expect_err(text)
}

#[test]
fn hosts_come_in_the_order_of_the_file_and_the_server_last() {
    let text = r#"
server = "https://r.io"
[host."https://b.local:5000"]
  capabilities = ["pull", "resolve"]
  ca = "b.pem"
  [host."https://b.local:5000".header]
    x-one = "1"
    X-Two = ["2", "3"]
[host."http://a.local"]
  capabilities = ["pull"]
  ca = ["/etc/a.pem", "c.pem"]
  client = [["a.cert", "a.key"]]
  skip_verify = true
  dial_timeout = "1500ms"
"#;
    let all = hosts(text);
    let authority = |entry: &HostEntry| entry.address.as_ref().map(|address| address.authority.clone());
    let order: Vec<_> = all.iter().filter_map(authority).collect();
    assert_eq!(order, ["b.local:5000", "a.local", "r.io"]);
    let [b, a, server] = &all[..] else { panic!("{all:?}") };
    assert_eq!(b.tls.authorities, [Path::new("/certs.d/r.io/b.pem")]);
    assert_eq!((b.capabilities.resolve, b.capabilities.push, b.capabilities.referrers), (true, false, false));
    let two: Vec<_> = b.headers.get_all("x-two").iter().map(|value| value.to_str().unwrap()).collect();
    assert_eq!((two, b.headers["x-one"].is_sensitive()), (vec!["2", "3"], true));
    assert_eq!(a.tls.authorities, [Path::new("/etc/a.pem"), Path::new("/certs.d/r.io/c.pem")]);
    let pair = (PathBuf::from("/certs.d/r.io/a.cert"), Some(PathBuf::from("/certs.d/r.io/a.key")));
    assert_eq!((a.tls.client.as_ref(), a.tls.skip_verify), (Some(&pair), true));
    assert_eq!(a.dial_timeout, Some(Duration::from_millis(1500)));
    assert!(a.capabilities.pull && !a.capabilities.resolve);
    assert_eq!(server.capabilities, Capabilities::ALL);
}

#[test]
fn what_stands_outside_of_hosts_is_the_servers() {
    for (text, address) in [
        ("", None),
        ("server = \"\"\n", None),
        ("ca = \"x.pem\"\n", None),
        ("server = \"r.io:5000\"\ncapabilities = [\"pull\"]\n", Some("r.io:5000")),
    ] {
        let all = hosts(text);
        let found = all[0].address.as_ref().map(|address| address.authority.as_str());
        assert_eq!((all.len(), found), (1, address), "{text}");
    }
    assert_eq!(hosts("ca = \"x.pem\"\n")[0].tls.authorities, [Path::new("/certs.d/r.io/x.pem")]);
    let empty = "[host.\"https://m.io\"]\ncapabilities = []\n";
    assert_eq!(hosts(empty)[0].capabilities, Capabilities::ALL, "as in containerd");
}

#[test]
fn the_path_of_the_api_is_appended_unless_it_is_there_or_overridden() {
    for (url, override_path, root) in [
        ("https://m.io", false, "v2"),
        ("https://m.io/", false, "v2"),
        ("https://m.io/v2", false, "v2"),
        ("https://m.io/v2/x/y", false, "v2/x/y/v2"),
        ("https://m.io/proxy", false, "proxy/v2"),
        ("https://m.io/v2/proxy", true, "v2/proxy"),
        ("https://m.io/proxy/v2/", true, "proxy/v2"),
        ("https://m.io", true, ""),
    ] {
        let text = format!("[host.\"{url}\"]\noverride_path = {override_path}\n");
        assert_eq!(hosts(&text)[0].address.as_ref().unwrap().root, root, "{url}");
    }
    let address = |url: &str| hosts(&format!("server = \"{url}\"")).remove(0).address.unwrap();
    assert_eq!(address("https://registry-1.docker.io").authority, "docker.io");
    assert_eq!(address("http://M.io:80").authority, "m.io");
    assert_eq!((address("http://m.io").scheme, address("m.io").scheme), (Scheme::Http, Scheme::Https));
}

#[test]
fn clients_are_a_file_or_one_pair() {
    let client = |value: &str| hosts(&format!("client = {value}")).remove(0).tls.client.unwrap();
    for one in ["\"c.pem\"", "[\"c.pem\"]", "[[\"c.pem\"]]", "[[\"c.pem\", \"\"]]"] {
        assert_eq!(client(one), ("/certs.d/r.io/c.pem".into(), None), "{one}");
    }
    for many in ["[[\"a\", \"b\"], [\"c\", \"d\"]]", "[\"a\", \"b\"]", "[[]]", "[[\"a\", \"b\", \"c\"]]", "1"]
    {
        assert!(fault(&format!("\nclient = {many}")).line.is_some(), "{many}");
    }
}

#[test]
fn a_mistake_is_an_error_with_its_line() {
    for (text, line, words) in [
        ("server = \"https://r.io\"\n[host.\"https://m.io\"]\ncapabilites = [\"pull\"]\n", 3, "capabilites"),
        ("[host.\"https://m.io\"]\n\ncapabilities = [\"pul\"]\n", 3, "pull, resolve, push or referrers"),
        ("[host.\"https://m.io\"]\nskip_verify = \"yes\"\n", 2, "true or false"),
        ("[host.\"https://m.io\"]\ndial_timeout = \"3\"\n", 2, "\"3s\""),
        ("[host.\"ftp://m.io\"]\n", 1, "https://"),
        ("[host.\"https://u:s3cret@m.io\"]\n", 1, "docker config"),
        ("[host.\"https://m.io?x=1\"]\n", 1, "query"),
        ("[host.\"https://\"]\n", 1, "https://"),
        ("[host]\nx = 1\n", 2, "table"),
        ("[host.\"https://m.io\".header]\nx = \"s3cret\\n\"\n", 2, "header \"x\""),
        ("[host.\"https://m.io\".header]\n\"a b\" = \"s3cret\"\n", 2, "name of an HTTP header"),
        ("[host.\"https://m.io\".rewrite]\n\"^a\" = \"b\"\n", 1, "rewrite"),
        ("server = \n", 1, "TOML"),
    ] {
        let fault = fault(text);
        assert_eq!(fault.line, Some(line), "{text}: {fault}");
        assert!(fault.problem.contains(words) && !fault.problem.contains("s3cret"), "{text}: {fault}");
    }
}

#[test]
fn what_a_file_may_name_is_bounded() {
    let many: String = (0..=HOSTS_MAX).map(|i| format!("[host.\"https://m{i}.io\"]\n")).collect();
    assert!(fault(&many).problem.contains("64 hosts"));
    let headers: String = (0..=ITEMS_MAX).map(|i| format!("x{i} = \"1\"\n")).collect();
    assert!(fault(&format!("[header]\n{headers}")).problem.contains("64 headers"));
    let files = vec!["\"x\""; ITEMS_MAX + 1].join(",");
    assert!(fault(&format!("ca = [{files}]")).problem.contains("64 files"));
}
