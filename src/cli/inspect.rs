//! `inspect`: shows an image in the store, or every path in it.

use super::args::Output;
use super::output;
use super::stored::Stored;
use crate::app::engine::Engine;
use crate::image::composefs::{self, ImageError};
use crate::image::store::{Member, Variant};
use crate::image::tree::Stop;
use crate::pull::{self, StoredPart};

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
            let parts = StoredPart::of(record);
            pull::fold(&engine.store, &parts, record.rules, (limits, &Stop::default()), &name)?
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
            "{}\n  manifest   {}\n  platform   {}\n  composefs  {}\n             {} image, {} rules, {}\n  content    {} in {}\n{variants}{members}{layers}",
            r.names.join("\n"),
            r.manifest,
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
