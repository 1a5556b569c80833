//! How the program finds the scripted API server, and what that may answer.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::http::Server;

/// The token that the program shows; it must be in no log.
pub const TOKEN: &str = "hunter-api";

/// Writes a configuration that leads to `server`; gives the argument that names it.
pub fn kubeconfig(directory: &Path, server: &Server) -> String {
    kubeconfig_of(directory, &server.url())
}

/// The same for any server.
pub fn kubeconfig_of(directory: &Path, url: &str) -> String {
    let path = directory.join("kubeconfig");
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {"token": TOKEN}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    });
    fs::write(&path, text.to_string()).unwrap();
    format!("--kubeconfig={}", path.display())
}

/// An object with its status.
pub fn answer(status: u16, object: &Value) -> (u16, Vec<u8>) {
    (status, object.to_string().into_bytes())
}

/// How the API server says no.
pub fn refusal(code: u16, reason: &str) -> (u16, Vec<u8>) {
    answer(code, &json!({"kind":"Status","apiVersion":"v1","status":"Failure","reason":reason,"code":code}))
}
