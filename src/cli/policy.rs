//! `policy check`: explains, requirement by requirement, whether an image would be mounted.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde::Serialize;

use super::args::Output;
use super::images::Wanted;
use super::output;
use crate::app::engine::{self, EngineSettings};
use crate::image::seal::Seal;
use crate::oci::Credentials;
use crate::oci::digest::Digest;
use crate::pull::ManifestPath;
use crate::trust::collect::collect;
use crate::trust::{ClaimMemory, Examination, PolicyEngine as _, SignaturePolicyEngine, Subject};

/// What `policy check` prints.
#[derive(Debug, Serialize)]
struct Explained {
    image: String,
    /// The platform's manifest, then the indexes that lead to it.
    digests: Vec<Digest>,
    namespace: Option<String>,
    policy: Option<PathBuf>,
    policy_digest: Digest,
    scope: String,
    signatures_found: usize,
    requirements: Vec<Answer>,
    verifiers: Vec<Answer>,
    obstacle: Option<String>,
    integrity: Option<String>,
    admitted: bool,
    /// Why it would be refused if the policy did not only warn.
    warning: Option<String>,
    /// What admitted it, or why it is refused.
    because: String,
}

/// The result of one requirement or one verifier program.
#[derive(Debug, Serialize)]
struct Answer {
    name: String,
    /// Where a requirement stands in the policy.
    at: Option<String>,
    holds: bool,
    /// Whether a failure only warns.
    only_warns: bool,
    because: String,
}

/// Resolves the image, collects its claims, and judges it as for a pod of `namespace`. It pulls nothing, and changes
/// nothing on this node.
///
/// # Errors
/// The image is not admitted (the explanation is printed before), or it cannot be found.
pub(super) async fn check(
    settings: &EngineSettings,
    wanted: Wanted,
    namespace: Option<String>,
    output: Output,
) -> anyhow::Result<()> {
    let image = wanted.reference.to_string();
    let sources = engine::sources(settings)?;
    sources.ask_helpers(&wanted.reference, &Credentials::none()).await;
    let source = sources.open(&wanted.reference, &Credentials::none())?;
    let top = source.resolve_to_read(&wanted.reference.version()).await?;
    let path =
        ManifestPath::resolve_platform(&*source, top, &settings.limits.image, &wanted.platform, &image)
            .await?;
    let digests = path.digests();
    let subject = Subject {
        namespace,
        reference: wanted.reference,
        digests,
        target: path.target,
        // Whether the digest is right is known only when the image has been built.
        sealed: Seal::of(&path.manifest)?.is_some(),
    };
    // An engine of its own: nothing is opened or created in the state directory.
    let engine = SignaturePolicyEngine::new(&settings.trust, settings.trust_metrics.clone());
    let claims = collect(&*source, &subject, engine.hearing(&subject), &ClaimMemory::default()).await?;
    let explained = tokio::task::spawn_blocking(move || {
        let found = engine.examine(&subject, &claims);
        explain(subject, claims.found(), found)
    })
    .await?;
    output::show(output, &explained, text)?;
    // For scripts, the exit code says the same as the output.
    anyhow::ensure!(explained.admitted, "image {image} is not admitted");
    Ok(())
}

fn explain(subject: Subject, signatures_found: usize, found: Examination) -> Explained {
    let answer = |name: &str, at: Option<String>, only_warns, result: Result<String, String>| Answer {
        name: name.to_owned(),
        at,
        holds: result.is_ok(),
        only_warns,
        because: result.unwrap_or_else(|why| why),
    };
    Explained {
        image: subject.reference.to_string(),
        digests: subject.digests,
        namespace: subject.namespace,
        policy: found.policy,
        policy_digest: found.digest,
        scope: found.scope,
        signatures_found,
        requirements: found
            .outcomes
            .into_iter()
            .map(|o| answer(o.kind, Some(o.at), o.only_warns, o.result))
            .collect(),
        verifiers: found
            .verdicts
            .into_iter()
            .map(|v| answer(&v.program, None, found.verdicts_only_warn, v.result))
            .collect(),
        obstacle: found.obstacle,
        integrity: found.integrity.map(|level| level.to_string()),
        admitted: found.result.is_ok(),
        warning: found.warning,
        because: found.result.unwrap_or_else(|why| why),
    }
}

fn text(found: &Explained) -> String {
    let mut out = String::new();
    let policy = found.policy.as_ref().map_or("none".to_owned(), |file| file.display().to_string());
    let digests: Vec<_> = found.digests.iter().map(Digest::to_string).collect();
    for (name, value) in [
        ("image", found.image.as_str()),
        ("digests", &digests.join("\n            ")),
        ("namespace", found.namespace.as_deref().unwrap_or("none")),
        ("policy", &policy),
        ("scope", &found.scope),
        ("signatures", &format!("{} found", found.signatures_found)),
    ] {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{name:<11} {value}");
    }
    for answer in found.requirements.iter().chain(&found.verifiers) {
        let verdict = match (answer.holds, answer.only_warns) {
            (true, _) => "holds",
            (false, true) => "warns",
            (false, false) => "fails",
        };
        let place = answer.at.as_ref().map_or("verifier".to_owned(), |at| format!("at {at}"));
        let because = if answer.because.is_empty() {
            String::new()
        } else {
            format!("\n            {}", answer.because)
        };
        let _ = writeln!(out, "  {verdict}     {} {place}{because}", answer.name);
    }
    if let Some(obstacle) = &found.obstacle {
        let _ = writeln!(out, "  fails     {obstacle}");
    }
    if found.warning.is_some() {
        let _ = writeln!(out, "here the policy only warns: without that, the image would be refused");
    }
    let _ = match (found.admitted, &found.integrity) {
        (true, Some(level)) => writeln!(out, "admitted, with integrity level {level} or better"),
        (true, None) => writeln!(out, "admitted"),
        (false, _) => writeln!(out, "refused"),
    };
    out
}
