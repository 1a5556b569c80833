//! The layers of `docs/ARCHITECTURE.md`, read from the imports. Tests may reach anywhere and are not read.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The parts of the program, and what each may import besides itself. Where one name begins with another, the
/// longer one counts.
const LAYERS: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    (
        "cli",
        &[
            "app",
            "node::mount",
            "node::service",
            "image::access",
            "image::composefs",
            "image::entry",
            "image::lazy",
            "pull",
            "push",
            "image::seal",
            "image::store",
            "image::tree",
            "image::verity",
            "trust",
            "oci",
            "duration",
            "integrity",
            "kind",
            "text",
            "units",
        ],
    ),
    (
        "app",
        &[
            "cluster",
            "csi",
            "node::corruption",
            "node::credential_providers",
            "node::mount",
            "node::prefetch",
            "node::service",
            "node::state_directory",
            "node::volume",
            "controller::prefetch",
            "controller::provision",
            "controller::service",
            "controller::states",
            "prefetch",
            "volume",
            "image::access",
            "pull",
            "image::store",
            "image::verity",
            "trust",
            "oci",
            "integrity",
            "metrics",
            "sys",
            "text",
            "kind",
        ],
    ),
    (
        "cluster",
        &[
            "controller::prefetch",
            "controller::provision",
            "node::credential_providers",
            "node::prefetch",
            "node::volume",
            "prefetch",
            "volume",
            "oci",
            "kind",
        ],
    ),
    ("node", &[]),
    ("node::service", &["csi", "node::credential_providers", "node::volume", "volume", "kind"]),
    (
        "node::volume",
        &[
            "node::corruption",
            "node::credential_providers",
            "node::mount",
            "node::state_directory",
            "volume",
            "pull",
            "image::store",
            "image::verity",
            "oci",
            "integrity",
            "durable_file",
            "metrics",
            "text",
            "units",
            "kind",
        ],
    ),
    (
        "node::mount",
        &[
            "image::composefs",
            "image::entry",
            "image::objects",
            "image::store",
            "image::tree",
            "image::verity",
            "integrity",
            "sys",
            "kind",
        ],
    ),
    (
        "node::prefetch",
        &[
            "node::credential_providers",
            "prefetch",
            "volume",
            "pull",
            "image::store",
            "oci",
            "metrics",
            "kind",
        ],
    ),
    ("node::corruption", &["image::objects", "image::store", "image::verity"]),
    ("node::credential_providers", &["volume", "oci", "duration", "kind", "program"]),
    ("node::state_directory", &["kind"]),
    ("controller", &[]),
    ("controller::prefetch", &["prefetch"]),
    ("controller::service", &["csi", "controller::provision", "volume", "kind"]),
    ("controller::provision", &["controller::states", "volume", "oci", "kind"]),
    ("controller::states", &["volume", "durable_file", "kind"]),
    ("csi", &["volume", "metrics", "kind"]),
    // Decisions alone: neither kube nor the store is known to them.
    ("prefetch", &["oci"]),
    ("volume", &["pull", "oci", "integrity", "kind"]),
    // The list of modules of the room, which its files are below.
    ("image", &[]),
    (
        "pull",
        &[
            "image::access",
            "image::chunked",
            "image::composefs",
            "image::layer",
            "image::lazy",
            "image::objects",
            "image::seal",
            "image::store",
            "image::tree",
            "image::verity",
            "trust",
            "oci",
            "fair",
            "metrics",
            "sys",
            "units",
            "kind",
        ],
    ),
    // Knows nothing of stores: what is pushed is read from the directory, and never kept.
    (
        "push",
        &[
            "image::chunked",
            "image::composefs",
            "image::entry",
            "image::seal",
            "image::tree",
            "image::verity",
            "oci",
            "durable_file",
            "units",
            "kind",
        ],
    ),
    (
        "image::store",
        &[
            "image::chunked",
            "image::composefs",
            "image::entry",
            "image::layer",
            "image::objects",
            "image::tree",
            "image::verity",
            "oci",
            "integrity",
            "durable_file",
            "metrics",
            "sys",
            "kind",
        ],
    ),
    ("image::lazy", &["image::composefs", "image::seal", "image::tree", "image::verity", "oci", "kind"]),
    ("image::seal", &["image::tree", "image::verity", "oci", "kind"]),
    ("image::access", &["oci", "kind"]),
    ("image::composefs", &["image::entry", "image::tree", "image::verity", "kind"]),
    ("image::chunked", &["image::entry", "image::objects", "image::verity", "oci"]),
    ("image::tree", &["image::entry", "image::verity", "oci", "kind"]),
    ("image::layer", &["image::entry", "image::objects", "image::tar", "image::verity", "oci", "kind"]),
    ("image::tar", &["image::entry", "oci", "kind"]),
    ("image::objects", &["image::verity", "metrics", "sys", "kind"]),
    ("image::entry", &["image::verity"]),
    ("image::verity", &[]),
    ("trust", &["trust::verifier", "oci", "fair", "integrity", "metrics", "text", "kind"]),
    // Knows only the protocol: strings in, verdicts out.
    ("trust::verifier", &["text"]),
    ("oci", &["duration", "durable_file", "fair", "metrics", "program", "text", "kind"]),
    ("metrics", &["kind"]),
    ("duration", &[]),
    ("durable_file", &[]),
    ("fair", &[]),
    ("program", &[]),
    ("sys", &[]),
    ("integrity", &[]),
    ("text", &[]),
    ("units", &[]),
    ("kind", &[]),
    // The list of modules itself.
    ("lib", &[]),
];

/// Words that only these layers may use, and why.
const RESERVED: &[(&str, &[&str], &str)] = &[
    ("tonic::", &["csi", "node::service", "controller::service"], "gRPC ends at the services"),
    ("oci_client::", &["oci"], "one room knows whose constants and descriptors the field's are"),
    ("clap::", &["cli"], "only the command line knows of arguments"),
    ("kube::", &["cluster"], "only one module knows of the API server"),
    ("prometheus::", &["metrics"], "owners describe their metrics; one module exports them"),
    ("std::env", &["cli", "app"], "settings come from the outside, once"),
    ("rustix::mount", &["node::mount", "sys"], "mounting happens in one place"),
    ("anyhow::", &["main", "cli", "app"], "everybody else has errors with kinds"),
    ("std::process::Command", &["trust::verifier"], "the driver runs no program but verifiers"),
    ("tokio::process", &["program"], "only programs that give credentials are run and waited for so"),
];

struct Source {
    path: PathBuf,
    module: Vec<String>,
    code: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            if name == "tests" || name == "testing" || name == "fake" || name.ends_with("_tests") {
                continue;
            }
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let inner = path.strip_prefix(&root).unwrap().with_extension("");
                let mut module: Vec<_> = inner.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
                if module.last().is_some_and(|last| last == "mod") {
                    module.pop();
                }
                let code = without_comments_and_tests(&std::fs::read_to_string(&path).unwrap());
                found.push(Source { path, module, code });
            }
        }
    }
    found
}

/// A test module that is written out is the last thing in its file; one in a file of its own may be named anywhere.
fn without_comments_and_tests(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = code.lines().map(|line| line.split("//").next().unwrap_or_default());
    // Who may see an item is no import.
    lines.collect::<Vec<_>>().join("\n").replace("pub(in crate::", "pub(in ")
}

/// The modules of this crate that a file names, from the crate's root.
fn imports(source: &Source) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (start, base) in bases(source) {
        // `use crate::{a::b, c};` as well as `crate::a::b`.
        let rest = &source.code[start..];
        if let Some(group) = rest.strip_prefix('{') {
            let group = group.split("};").next().unwrap_or_default();
            for item in group.split(',').map(str::trim).filter(|item| !item.is_empty()) {
                found.insert(join(&base, item));
            }
        } else {
            found.insert(join(&base, rest));
        }
    }
    found
}

/// Every place after `crate::`, `super::`, `super::super::` and so on, with the module that it stands for.
fn bases(source: &Source) -> Vec<(usize, Vec<String>)> {
    let mut found: Vec<_> =
        source.code.match_indices("crate::").map(|(at, word)| (at + word.len(), Vec::new())).collect();
    // The program's `main` is a crate of its own.
    found
        .extend(source.code.match_indices("composefs_csi::").map(|(at, word)| (at + word.len(), Vec::new())));
    for (at, _) in source.code.match_indices("super::") {
        if source.code[..at].ends_with("super::") {
            continue;
        }
        let (mut end, mut base) = (at, source.module.clone());
        while source.code[end..].starts_with("super::") {
            end += "super::".len();
            base.pop();
        }
        found.push((end, base));
    }
    found
}

fn join(base: &[String], path: &str) -> String {
    let path: String = path.chars().take_while(|&c| c.is_alphanumeric() || c == '_' || c == ':').collect();
    base.iter()
        .map(String::as_str)
        .chain(path.split("::").filter(|part| !part.is_empty()))
        .collect::<Vec<_>>()
        .join("::")
}

fn layer_of(module: &str) -> Option<&'static str> {
    let within = |name: &str| module == name || module.starts_with(&format!("{name}::"));
    LAYERS.iter().map(|(name, _)| *name).filter(|name| within(name)).max_by_key(|name| name.len())
}

#[test]
fn imports_point_downwards() {
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    let mut used = BTreeSet::new();
    for source in sources() {
        let module = source.module.join("::");
        let from =
            layer_of(&module).unwrap_or_else(|| panic!("{module} belongs to no layer; add it to LAYERS"));
        seen.insert(from);
        let allowed = LAYERS.iter().find(|(name, _)| *name == from).unwrap().1;
        for import in imports(&source) {
            let Some(to) = layer_of(&import).filter(|to| *to != from) else { continue };
            used.insert((from, to));
            if !allowed.contains(&to) {
                wrong.push(format!("{}: {from} imports {import} of {to}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "forbidden imports:\n{}", wrong.join("\n"));
    let empty: Vec<_> = LAYERS.iter().map(|(name, _)| *name).filter(|name| !seen.contains(name)).collect();
    assert!(empty.is_empty(), "layers without any file: {empty:?}");
    // A permission that no import needs would let an arrow in that nobody has looked at.
    let permitted = LAYERS.iter().flat_map(|(from, allowed)| allowed.iter().map(move |to| (*from, *to)));
    let unneeded: Vec<_> = permitted.filter(|arrow| !used.contains(arrow)).collect();
    assert!(unneeded.is_empty(), "permissions that no import needs: {unneeded:?}");
}

/// What the parts of the store stand on.
const BELOW_PARTS: &[&str] = &[
    "aside",
    "disk",
    "error",
    "file_name",
    "held",
    "hold",
    "holds",
    "image_record",
    "key",
    "lock",
    "markers",
    "member",
    "record",
    "space",
    "useless",
];

#[test]
fn a_part_of_the_store_knows_no_other_part() {
    const STORE: &str = "image::store::";
    let mut wrong = Vec::new();
    for source in sources() {
        let module = source.module.join("::");
        let Some(inner) = module.strip_prefix(STORE) else { continue };
        let part = inner.strip_prefix("parts::").map(|rest| rest.split("::").next().unwrap_or_default());
        if part.is_none() && !BELOW_PARTS.contains(&inner) {
            continue;
        }
        for import in imports(&source) {
            let Some(to) = import.strip_prefix(STORE) else { continue };
            let own = part.is_some_and(|part| to.starts_with(&format!("parts::{part}")));
            if !own && !BELOW_PARTS.contains(&to.split("::").next().unwrap_or_default()) {
                wrong.push(format!("{}: {inner} imports {import}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "imports that tie parts of the store together:\n{}", wrong.join("\n"));
}

#[test]
fn the_layers_have_no_circle() {
    // Taking away layers that import nothing that is left must take all of them away.
    let mut left: BTreeSet<&str> = LAYERS.iter().map(|(name, _)| *name).collect();
    loop {
        let free: Vec<_> = LAYERS
            .iter()
            .filter(|(name, to)| left.contains(name) && !to.iter().any(|to| left.contains(to)))
            .map(|(name, _)| *name)
            .collect();
        if free.is_empty() {
            break;
        }
        left.retain(|name| !free.contains(name));
    }
    assert!(left.is_empty(), "in a circle: {left:?}");
}

#[test]
fn some_things_are_done_in_one_place() {
    let mut wrong = Vec::new();
    for source in sources() {
        let module = source.module.join("::");
        let layer = layer_of(&module).unwrap_or_default();
        for &(word, layers, why) in RESERVED {
            if source.code.contains(word) && !layers.contains(&layer) {
                wrong.push(format!("{}: uses {word} ({why})", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_reader_of_imports_sees_every_form() {
    let source = Source {
        path: PathBuf::new(),
        module: vec!["node".into(), "service".into()],
        code: without_comments_and_tests(
            "use crate::{a::b, c};\nuse super::volume::X; // crate::no\nfn f() { crate::d::e::g(); \
             super::super::image::h() }\n#[cfg(test)]\nmod tests { use crate::never; }",
        ),
    };
    let found: Vec<_> = imports(&source).into_iter().collect();
    assert_eq!(found, ["a::b", "c", "d::e::g", "image::h", "node::volume::X"]);
    assert_eq!(layer_of("node::volume::plan"), Some("node::volume"));
    assert_eq!(layer_of("nodes"), None);
}
