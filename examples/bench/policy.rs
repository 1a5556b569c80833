//! The cost of a signature policy for a publish: the same image in the same plugin, for pods whose namespaces differ
//! only in their policy.
//!
//! A judgement is cached while policy, image and signature do not change. So there are two costs: that of a pod whose
//! policy has judged the image before, and that of a pod whose policy has not.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Value, json};

use super::stats::percentile;
use crate::support::node::{Node, Volume};

/// By which policy images are admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judge {
    /// A policy without requirements.
    AcceptAll,
    /// A policy that requires a signature by one key, and has judged this image before.
    Signature,
    /// The same requirement in a policy of the namespace, which is read for this pod; the signature is verified
    /// again.
    SignatureAnew,
}

impl Judge {
    pub const ALL: [Self; 3] = [Self::AcceptAll, Self::Signature, Self::SignatureAnew];

    /// The namespace of pod number `number`.
    fn namespace(self, number: u32) -> String {
        match self {
            Self::AcceptAll => "open".to_owned(),
            Self::Signature => "signed".to_owned(),
            Self::SignatureAnew => format!("signed-{number}"),
        }
    }
}

/// Milliseconds of the publishes, by policy.
#[derive(Debug)]
pub struct Judged {
    all: Vec<(Judge, Vec<f64>)>,
}

impl Judged {
    pub fn count(&self) -> usize {
        self.all.first().map_or(0, |(_, times)| times.len())
    }

    pub fn percentile(&self, judge: Judge, percent: f64) -> f64 {
        let found = self.all.iter().find(|(other, _)| *other == judge);
        found.map_or(0.0, |(_, times)| percentile(times, percent))
    }
}

/// Publishes `image`, which `key` has signed as of `repository`, `count` times with each policy in turn.
///
/// One pod of every policy keeps it mounted throughout, so that image and signature are stored.
pub fn measure(
    program: &Path,
    base: &Path,
    registry: &str,
    image: &str,
    (key, repository): (&Path, &str),
    count: u32,
) -> Result<Judged> {
    let policies = write_policies(base, (key, repository), count)?;
    let policies = policies.display().to_string();
    let mut node = Node::start(program, base, &["--insecure-registry", registry, "--policy-dir", &policies])?;
    let volume = |judge: Judge, number: u32, of_all: u32| Volume {
        namespace: judge.namespace(number),
        ..Volume::new("pod", of_all, image)
    };
    let keepers = [volume(Judge::AcceptAll, 0, 0), volume(Judge::Signature, 0, 1)];
    for keeper in &keepers {
        node.publish(keeper)?;
    }
    let mut all = Judge::ALL.map(|judge| (judge, Vec::new()));
    for number in 1..=count {
        // The order changes, so that no policy always profits from the one before it.
        all.rotate_left(1);
        for (place, (judge, times)) in (0u32..).zip(&mut all) {
            let volume = volume(*judge, number, number * 3 + place);
            times.push(node.publish(&volume)?.as_secs_f64() * 1e3);
            node.unpublish(&volume)?;
        }
    }
    for keeper in &keepers {
        node.unpublish(keeper)?;
    }
    node.stop()?;
    Ok(Judged { all: all.into() })
}

/// A directory with one policy per namespace.
fn write_policies(base: &Path, (key, repository): (&Path, &str), count: u32) -> Result<PathBuf> {
    let directory = base.join("policies");
    fs::create_dir_all(&directory)?;
    let write = |namespace: String, requirement: &Value| {
        fs::write(directory.join(namespace + ".json"), json!({ "default": [requirement] }).to_string())
    };
    write(Judge::AcceptAll.namespace(0), &json!({"type": "insecureAcceptAnything"}))?;
    let identity = json!({"type": "exactRepository", "dockerRepository": repository});
    let signed = json!({"type": "sigstoreSigned", "keyPath": key, "signedIdentity": identity});
    write(Judge::Signature.namespace(0), &signed)?;
    for number in 1..=count {
        write(Judge::SignatureAnew.namespace(number), &signed)?;
    }
    Ok(directory)
}
