//! `store fsck`: whether what the store's files say of each other is so.

use anyhow::bail;

use super::args::Output;
use super::output::{self, count};
use crate::app::engine::Engine;
use crate::image::store::{Checked, Finding, Weight};
use crate::text;

/// `store fsck`.
pub fn fsck(engine: &Engine, output: Output) -> anyhow::Result<()> {
    let mounted = || engine.mounted_images().map_err(|error| error.to_string());
    let checked = engine.store.check(&mounted)?;
    output::show(output, &checked, text_of)?;
    match checked.findings.iter().filter(|finding| finding.weight == Weight::Fault).count() as u64 {
        0 => Ok(()),
        faults => bail!("{} in the store's structure; each says what to do", count(faults, "fault")),
    }
}

fn text_of(checked: &Checked) -> String {
    let line = |finding: &Finding| {
        let weight = match finding.weight {
            Weight::Note => "note",
            Weight::Fault => "FAULT",
        };
        let (about, what) = (text::one_line(&finding.about), text::one_line(&finding.what));
        format!("{weight:<5} {about}: {what}\n      {}\n", finding.remedy)
    };
    let lines: String = checked.findings.iter().map(line).collect();
    let (images, layers) = (count(checked.images, "image"), count(checked.layers, "layer record"));
    let findings = count(checked.findings.len() as u64, "finding");
    format!("{lines}{images} and {layers}, which name objects {} times: {findings}\n", checked.objects)
}
