//! `inspect`: shows an image in the store, or every path in it, or what one in a registry holds.

mod lazy;

use serde::Serialize;

use super::args::Output;
use super::images::Wanted;
use super::output;
use super::stored::Stored;
use crate::app::engine::{self, Engine, EngineSettings};
use crate::image::composefs::{self, ImageError};
use crate::image::store::{Member, Variant};
use crate::image::tree::Stop;
use crate::oci::Credentials;
use crate::oci::digest::Digest;
use crate::pull::{self, ManifestPath, Outline, OutlinedPart, StoredPart};
use crate::text;

/// `inspect IMAGE [--files]`.
pub async fn inspect(engine: &Engine, stored: Stored, files: bool, output: Output) -> anyhow::Result<()> {
    let ready = stored.find(engine, output).await?;
    // Written directly, because a tree may have millions of lines.
    if files {
        let name = ready.record.manifest.to_string();
        let (record, limits) = (&ready.record, &engine.limits.image);
        let tree = if record.is_combined() {
            pull::tree_of(&engine.store, record, limits, &name)?
        } else {
            let parts = (&*StoredPart::of(record), &record.choice);
            pull::fold(&engine.store, parts, record.rules, (limits, &Stop::default()), &name)?
        };
        let mut out = std::io::stdout().lock();
        let written = match output {
            Output::Text => composefs::dump(&tree, &mut out),
            Output::Json => composefs::dump_json(&tree, &mut out),
        };
        return match written {
            Err(ImageError::Write { source }) => output::unless_closed(source),
            other => Ok(other?),
        };
    }
    output::show(output, &ready.record, |r| {
        let variant = |v: &Variant| format!("  variant    {} ({} rules)\n", v.image, v.rules);
        let variants: String = r.variants.iter().map(variant).collect();
        let members: String = r.members.iter().map(member).collect();
        let layers: String = r.layers.iter().map(|l| format!("  layer      {l}\n")).collect();
        format!(
            "{}\n  manifest   {}\n{}  platform   {}\n  composefs  {}\n             {} image, {} rules, {}\n  content    {} in {}\n{variants}{members}{layers}",
            r.names.join("\n"),
            r.manifest,
            output::chosen(r),
            r.platform.as_deref().unwrap_or("not stated"),
            r.image,
            output::bytes(r.image_size),
            r.rules,
            if r.sealed { "compared with the manifest" } else { "recorded here" },
            output::bytes(r.bytes),
            output::count(r.inodes, "inode"),
        )
    })
}

fn member(member: &Member) -> String {
    let Member { name, manifest, image, path, at } = member;
    format!("  member     {name} at /{at}\n             /{path} of {image}, manifest {manifest}\n")
}

/// `inspect --remote IMAGE`. Reads manifest and config, and changes nothing on this node.
pub async fn remote(settings: &EngineSettings, wanted: Wanted, output: Output) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Remote {
        image: String,
        manifest: Digest,
        #[serde(flatten)]
        outline: Outline,
        lazy: lazy::Lazy,
    }
    let image = wanted.reference.to_string();
    let (sources, limits) = (engine::sources(settings)?, &settings.limits.image);
    sources.ask_helpers(&wanted.reference, &Credentials::none()).await;
    let source = sources.open(&wanted.reference, &Credentials::none())?;
    let top = source.resolve_to_read(&wanted.reference.version()).await?;
    let path = ManifestPath::resolve_platform(&*source, top, limits, &wanted.platform, &image).await?;
    let outline = pull::outline(&*source, &path.manifest, &wanted.choice, limits, &image).await?;
    let lazy = lazy::look(settings, &source, &path, &wanted.reference).await;
    let remote = Remote { image, manifest: path.digest, outline, lazy };
    output::show(output, &remote, |r| {
        let rows: Vec<_> = [["HOLDS", "SIZE", "MODE", "BLOB", ""].map(String::from).to_vec()]
            .into_iter()
            .chain(r.outline.parts.iter().map(row))
            .collect();
        let table = output::table(&rows, &[1], Some(output::width().unwrap_or(80)));
        let (wanted, total) = (output::bytes(r.outline.wanted_bytes), output::bytes(r.outline.total_bytes));
        let bytes = if wanted == total { total } else { format!("{wanted} of {total}") };
        let (image, kind, manifest) = (text::one_line(&r.image), &r.outline.kind, r.manifest);
        let lazy = &r.lazy;
        format!(
            "{image}\n  manifest   {manifest}\n  kind       {kind}\n  to fetch   {bytes}\n  lazy       {lazy}\n{table}"
        )
    })
}

fn row(part: &OutlinedPart) -> Vec<String> {
    let holds = match (&part.path, &part.within) {
        (Some(path), _) => path.clone(),
        (None, Some(within)) => format!("{within}/ (archive)"),
        (None, None) => "(archive)".to_owned(),
    };
    vec![
        text::one_line(&holds),
        output::bytes(part.size),
        part.mode.map_or_else(String::new, |mode| format!("{mode:04o}")),
        part.digest.short(),
        match (part.wanted, part.made) {
            (false, _) => "left out",
            (true, true) => "made of the config",
            (true, false) => "",
        }
        .to_owned(),
    ]
}
