//! `refresh`: asks for the tags that volumes of the running node plugin follow.

use std::path::Path;
use std::time::Duration;

use super::args::Output;
use super::output;
use crate::app::plugin_socket::{self, FollowedVolume};
use crate::text;
use crate::units;

/// `refresh [WHAT]`.
///
/// # Errors
/// No plugin is running, `what` names no volume, or a volume does not show what its tag names.
pub async fn refresh(state_dir: &Path, what: &str, output: Output) -> anyhow::Result<()> {
    let volumes = plugin_socket::refresh(state_dir, what.trim()).await?;
    anyhow::ensure!(
        what.is_empty() || !volumes.is_empty(),
        "no volume {what} follows a tag, and none follows that image; `composefs-csi refresh` lists those that do"
    );
    output::show(output, &volumes, |volumes| {
        if volumes.is_empty() {
            return "no volume follows a tag".to_owned();
        }
        volumes.iter().map(lines).collect()
    })?;
    let behind = volumes.iter().filter(|volume| volume.problem.is_some()).count();
    anyhow::ensure!(
        behind == 0,
        "{} not show what the tag names; the list says why",
        if behind == 1 { "1 volume does".to_owned() } else { format!("{behind} volumes do") }
    );
    Ok(())
}

fn lines(volume: &FollowedVolume) -> String {
    let shows = volume.digest.as_deref().unwrap_or("not known yet");
    let asked = match (volume.asking, volume.seconds) {
        (true, _) => "being asked now".to_owned(),
        (false, Some(seconds)) => format!("asked {} ago", units::time(Duration::from_secs(seconds))),
        (false, None) => "not asked yet".to_owned(),
    };
    // Names of pods come from the API server, ids of volumes from whoever made them.
    let of = if volume.pod.is_empty() { String::new() } else { format!(" of {}", volume.pod) };
    let title = text::one_line(&format!("volume {}{of}", volume.volume));
    let problem = volume.problem.as_deref().map(text::one_line);
    let problem = problem.map_or_else(String::new, |problem| format!("  NOT SWITCHED: {problem}\n"));
    format!("{}\n  {title}\n  shows {shows} ({asked})\n{problem}", volume.image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_and_what_is_wrong() {
        let mut volume = FollowedVolume {
            volume: "csi-1".to_owned(),
            pod: "shop/web-0".to_owned(),
            image: "r.io/a:1".to_owned(),
            digest: Some("sha256:ab".to_owned()),
            seconds: Some(90),
            problem: None,
            asking: false,
        };
        assert_eq!(
            lines(&volume),
            "r.io/a:1\n  volume csi-1 of shop/web-0\n  shows sha256:ab (asked 1 min 30 s ago)\n"
        );
        volume.problem = Some("denied\nby policy".to_owned());
        (volume.pod, volume.asking) = (String::new(), true);
        let text = lines(&volume);
        assert!(text.contains("  volume csi-1\n") && text.contains("(being asked now)\n"), "{text}");
        assert_eq!(text.lines().count(), 4, "{text}");
    }
}
