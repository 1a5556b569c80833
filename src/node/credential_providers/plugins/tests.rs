//! Real programs as plugins: shell scripts that note what they were asked and answer.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use super::*;
use crate::volume::attributes::PodInfo;
use crate::volume::secrets::Tokens;

struct Node {
    directory: tempfile::TempDir,
}

impl Node {
    /// A plugin `helper` for `*.r.example` whose script goes on with `body`; `extra` is more configuration.
    fn new(body: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let node = Self { directory };
        let log = node.log();
        let script = format!(
            "#!/bin/sh\nrequest=$(cat)\nprintf '%s|%s|%s\\n' \"$request\" \"$*\" \"$(env | cut -d= -f1 | sort | tr '\\n' ' ')\" >> {}\n{body}\n",
            log.display()
        );
        let program = node.directory.path().join("helper");
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        node
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("asked")
    }

    fn asked(&self) -> Vec<String> {
        fs::read_to_string(self.log()).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    fn plugins(&self, extra: &str, accounts: Option<Arc<dyn Accounts>>) -> Plugins {
        let config = format!(
            "kind: CredentialProviderConfig\napiVersion: kubelet.config.k8s.io/v1\nproviders:\n- name: helper\n  \
             matchImages: ['*.r.example']\n  defaultCacheDuration: 1h\n  \
             apiVersion: credentialprovider.kubelet.k8s.io/v1\n  args: [get]\n  env: [{{name: REGION, value: x}}]\n{extra}"
        );
        Plugins::new(Path::new("/config"), &config, self.directory.path(), accounts).unwrap()
    }
}

fn answering(cache: &str) -> String {
    format!(
        r#"echo '{{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1",{cache},"auth":{{"*.r.example":{{"username":"u","password":"hunter2"}}}}}}'"#
    )
}

const TOKEN: &str = "  tokenAttributes: {serviceAccountTokenAudience: aud, cacheType: ServiceAccount, requireServiceAccount: true";

/// A token as the API server makes them, but for the signature.
fn identity(account: &str, uid: &str, serial: u8) -> PodIdentity {
    let payload = format!(
        r#"{{"jti":{serial},"kubernetes.io":{{"namespace":"ns","serviceaccount":{{"name":"{account}","uid":"{uid}"}}}}}}"#
    );
    let token = format!("h.{}.s", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(payload));
    let json = format!(r#"{{"aud":{{"token":"{token}","expirationTimestamp":"2030-01-01T00:00:00Z"}}}}"#);
    let secrets = [("csi.storage.k8s.io/serviceAccount.tokens".to_owned(), json)].into();
    let pod = PodInfo { namespace: "ns".into(), service_account: account.into(), ..PodInfo::default() };
    PodIdentity { pod, tokens: Tokens::of(&secrets).unwrap() }
}

async fn covered(plugins: &Plugins, image: &str, identity: &PodIdentity) -> bool {
    let image: Reference = image.parse().unwrap();
    plugins.credentials(&image, identity).await.unwrap().cover(&image)
}

#[tokio::test]
async fn asked_as_kubelet_asks_and_once_per_what_the_answer_is_good_for() {
    let node = Node::new(&answering(r#""cacheKeyType":"Registry","cacheDuration":"10m""#));
    let plugins = node.plugins("", None);
    let nobody = PodIdentity::default();
    assert!(covered(&plugins, "a.r.example/team/app:1", &nobody).await);
    assert!(
        covered(
            &plugins,
            "a.r.example/other@sha256:0000000000000000000000000000000000000000000000000000000000000000",
            &nobody
        )
        .await
    );
    assert!(!covered(&plugins, "s.example/app:1", &nobody).await, "not matched, not asked");
    let asked = node.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    let (request, rest) = asked[0].split_once('|').unwrap();
    let request: serde_json::Value = serde_json::from_str(request).unwrap();
    assert_eq!(
        request,
        serde_json::json!({
            "kind": "CredentialProviderRequest",
            "apiVersion": "credentialprovider.kubelet.k8s.io/v1",
            "image": "a.r.example/team/app",
        })
    );
    assert_eq!(rest.split_once('|').unwrap().0, "get");
    // The shell adds PWD and _ by itself.
    let environment: Vec<_> = rest
        .split_once('|')
        .unwrap()
        .1
        .split_whitespace()
        .filter(|v| !matches!(*v, "PWD" | "_" | "OLDPWD" | "SHLVL"))
        .collect();
    assert_eq!(environment, ["PATH", "REGION"]);
    assert!(covered(&plugins, "b.r.example/app:1", &nobody).await);
    assert_eq!(node.asked().len(), 2, "another registry");
}

#[tokio::test]
async fn a_token_buys_for_its_own_account_only() {
    let node = Node::new(&answering(r#""cacheKeyType":"Global""#));
    let plugins = node.plugins(&format!("{TOKEN}}}\n"), None);
    for (account, uid, serial, asked) in
        [("a", "1", 1, 1), ("a", "1", 2, 1), ("b", "2", 1, 2), ("a", "3", 1, 3), ("a", "1", 3, 3)]
    {
        assert!(covered(&plugins, "x.r.example/app:1", &identity(account, uid, serial)).await);
        assert_eq!(node.asked().len(), asked, "{account} {uid} {serial}");
    }
    assert!(node.asked()[0].contains(r#""serviceAccountToken":"h."#), "{:?}", node.asked());
    assert!(
        !covered(&plugins, "x.r.example/app:1", &PodIdentity::default()).await,
        "no token, no credentials"
    );
    assert_eq!(node.asked().len(), 3, "and the plugin is not asked");
}

#[derive(Debug)]
struct Annotated;

#[async_trait]
impl Accounts for Annotated {
    async fn annotations(&self, namespace: &str, name: &str) -> Result<BTreeMap<String, String>, String> {
        assert_eq!((namespace, name), ("ns", "a"));
        Ok([("role", "reader"), ("secret", "hunter3")].map(|(k, v)| (k.to_owned(), v.to_owned())).into())
    }
}

#[tokio::test]
async fn annotations_that_are_asked_for_and_no_others() {
    let node = Node::new(&answering(r#""cacheKeyType":"Image""#));
    let wants = |keys: &str| format!("{TOKEN}, requiredServiceAccountAnnotationKeys: [{keys}]}}\n");
    let image = "x.r.example/app:1";
    let plugins = node.plugins(&wants("role"), Some(Arc::new(Annotated)));
    assert!(covered(&plugins, image, &identity("a", "1", 1)).await);
    let asked = node.asked().remove(0);
    assert!(asked.contains(r#""serviceAccountAnnotations":{"role":"reader"}"#), "{asked}");
    let plugins = node.plugins(&wants("role, absent"), Some(Arc::new(Annotated)));
    assert!(!covered(&plugins, image, &identity("a", "1", 1)).await);
    assert!(!covered(&node.plugins(&wants("role"), None), image, &identity("a", "1", 1)).await);
    assert_eq!(node.asked().len(), 1);
}

#[tokio::test]
async fn answers_that_are_none() {
    let wrong = answering(r#""cacheKeyType":"Forever""#);
    let other = answering(r#""cacheKeyType":"Image""#).replace("/v1", "/v1beta1");
    let endless =
        "while :; do printf 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'; done";
    for body in ["exit 3", "echo hunter2", &wrong, &other, endless, "true"] {
        let node = Node::new(body);
        let plugins = node.plugins("", None);
        let why = plugins
            .ask(&plugins.providers[0], &"x.r.example/app:1".parse().unwrap(), &PodIdentity::default())
            .await
            .unwrap_err();
        assert!(!why.contains("hunter2"), "{body}: {why}");
        assert!(!covered(&plugins, "x.r.example/app:1", &PodIdentity::default()).await);
        assert_eq!(node.asked().len(), 2, "a failure is not kept");
    }
}
