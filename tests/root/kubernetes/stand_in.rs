//! A stand-in for an API server that keeps objects: lists, watches, conflicts, and what merge patches make of a status.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::api::{answer, refusal};
use crate::support::http::{Answer, Asked, Server};

/// How long a watch without news is held open.
const HELD: Duration = Duration::from_millis(200);
pub const GROUP: &str = "/apis/csi.composefs.dev/v1alpha1";

/// The server and its objects.
pub struct StandIn {
    pub server: Server,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    version: u64,
    /// By path.
    objects: BTreeMap<String, Value>,
    /// What happened at which version: path, type and object.
    events: Vec<(u64, String, &'static str, Value)>,
    /// Paths that nobody may read.
    forbidden: Vec<String>,
}

impl StandIn {
    pub async fn start() -> Self {
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = Arc::clone(&state);
        let server =
            Server::start(move |asked| tokio::task::block_in_place(|| respond(&shared, asked))).await;
        Self { server, state }
    }

    /// Creates or replaces an object as a user does. Its status stays.
    pub fn put(&self, path: &str, mut object: Value) {
        let mut state = self.state();
        let before = state.objects.get(path).cloned();
        let count =
            before.as_ref().map_or(0, |before| before["metadata"]["generation"].as_u64().unwrap_or(0));
        object["metadata"]["generation"] = json!(count + 1);
        object["metadata"]["uid"] = match &before {
            Some(before) => before["metadata"]["uid"].clone(),
            None => json!(format!("uid-{}", state.version)),
        };
        if let Some(status) = before.as_ref().and_then(|before| before.get("status")) {
            object["status"] = status.clone();
        }
        state.write(path, object);
    }

    pub fn get(&self, path: &str) -> Option<Value> {
        self.state().objects.get(path).cloned()
    }

    pub fn remove(&self, path: &str) {
        self.state().remove(path);
    }

    /// Whether nobody may read `path` from now on.
    pub fn forbid(&self, path: &str, forbidden: bool) {
        let mut state = self.state();
        state.forbidden.retain(|other| other != path);
        if forbidden {
            state.forbidden.push(path.to_owned());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl State {
    fn write(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let (name, rest) = (path.rsplit('/').next().unwrap(), path.split("/namespaces/").nth(1));
        object["metadata"]["name"] = json!(name);
        if let Some(namespace) = rest.and_then(|rest| rest.split('/').next()) {
            object["metadata"]["namespace"] = json!(namespace);
        }
        object["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        let sort = if self.objects.contains_key(path) { "MODIFIED" } else { "ADDED" };
        self.objects.insert(path.to_owned(), object.clone());
        self.events.push((self.version, path.to_owned(), sort, object.clone()));
        object
    }

    fn remove(&mut self, path: &str) {
        if let Some(mut object) = self.objects.remove(path) {
            self.version += 1;
            object["metadata"]["resourceVersion"] = json!(self.version.to_string());
            self.events.push((self.version, path.to_owned(), "DELETED", object));
        }
    }

    /// The objects of a collection, of all namespaces.
    fn list(&self, collection: &str) -> Value {
        let items: Vec<&Value> =
            self.objects.iter().filter(|(path, _)| belongs(path, collection)).map(|(_, o)| o).collect();
        json!({
            "apiVersion": "v1", "kind": "List", "items": items,
            "metadata": {"resourceVersion": self.version.to_string()},
        })
    }

    fn since(&self, collection: &str, version: u64) -> Vec<u8> {
        let news = self.events.iter().filter(|(at, path, ..)| *at > version && belongs(path, collection));
        let lines = news.map(|(_, _, sort, object)| format!("{}\n", json!({"type": sort, "object": object})));
        lines.collect::<String>().into_bytes()
    }
}

/// Whether an object is of a collection, which is named without namespaces.
fn belongs(path: &str, collection: &str) -> bool {
    let Some((parent, _)) = path.rsplit_once('/') else { return false };
    match parent.split_once("/namespaces/") {
        Some((group, rest)) => {
            rest.split_once('/').is_some_and(|(_, kind)| format!("{group}/{kind}") == collection)
        }
        None => parent == collection,
    }
}

fn respond(shared: &Mutex<State>, asked: &Asked) -> Answer {
    let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
    let parameter = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}=")));
    if parameter("watch") == Some("true") || parameter("watch") == Some("1") {
        let version = parameter("resourceVersion").and_then(|text| text.parse().ok()).unwrap_or(0);
        let until = Instant::now() + HELD;
        loop {
            let news = shared.lock().unwrap().since(path, version);
            if !news.is_empty() || Instant::now() >= until {
                return (200, news);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    let mut state = shared.lock().unwrap();
    if state.forbidden.iter().any(|forbidden| forbidden == path) {
        return refusal(403, "Forbidden");
    }
    let object = path.strip_suffix("/status").unwrap_or(path);
    let kind = path.rsplit('/').next().unwrap();
    match asked.method.as_str() {
        "GET" if ["imageprefetches", "nodeimagecaches", "nodes"].contains(&kind) => {
            answer(200, &state.list(path))
        }
        "GET" => match state.objects.get(object) {
            Some(found) => answer(200, found),
            None => refusal(404, "NotFound"),
        },
        "POST" => {
            let made = asked.json();
            let path = format!("{path}/{}", made["metadata"]["name"].as_str().unwrap());
            match state.objects.contains_key(&path) {
                true => refusal(409, "AlreadyExists"),
                false => answer(201, &state.write(&path, made)),
            }
        }
        "PATCH" => {
            let Some(mut found) = state.objects.get(object).cloned() else { return refusal(404, "NotFound") };
            let patch = asked.json();
            let wanted = &patch["metadata"]["resourceVersion"];
            if !wanted.is_null() && *wanted != found["metadata"]["resourceVersion"] {
                return refusal(409, "Conflict");
            }
            found["status"] = patch["status"].clone();
            answer(200, &state.write(object, found))
        }
        "DELETE" => {
            state.remove(object);
            answer(200, &json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
        }
        _ => refusal(405, "MethodNotAllowed"),
    }
}
