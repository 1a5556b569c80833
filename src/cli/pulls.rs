//! Commands about the pulls of the running node plugin: `pulls`, `pulls cancel`.

use std::path::Path;

use super::args::Output;
use super::output::{self, bytes};
use crate::app::plugin_socket;
use crate::pull::{LayerState, PullUnderWay};

/// `pulls`.
pub async fn list(state_dir: &Path, output: Output) -> anyhow::Result<()> {
    let pulls = plugin_socket::pulls(state_dir).await?;
    output::show(output, &pulls, |pulls| {
        if pulls.is_empty() { "no image is being pulled".to_owned() } else { table(pulls) }
    })
}

/// `pulls cancel IMAGE`.
pub async fn cancel(state_dir: &Path, image: &str, output: Output) -> anyhow::Result<()> {
    let ended = plugin_socket::cancel(state_dir, image).await?;
    anyhow::ensure!(
        !ended.is_empty(),
        "no image {image} is being pulled; `composefs-csi pulls` lists what is"
    );
    output::show(output, &ended, |ended| {
        let line = |pull: &PullUnderWay| format!("ended the pull of {} ({})\n", pull.image, pull.digest);
        ended.iter().map(line).collect()
    })
}

fn table(pulls: &[PullUnderWay]) -> String {
    let heading = ["IMAGE", "DIGEST", "LAYERS", "BYTES", "RATE", "AGE", "WAITING", "STATE"];
    let mut rows = vec![heading.map(String::from).to_vec()];
    rows.extend(pulls.iter().map(cells));
    output::table(&rows, &[2, 3, 4, 5, 6], output::width())
}

fn cells(pull: &PullUnderWay) -> Vec<String> {
    let settled = pull.layers.iter().filter(|layer| layer.done_bytes == layer.total_bytes).count();
    vec![
        pull.image.clone(),
        pull.digest.short(),
        format!("{settled}/{}", pull.layers.len()),
        format!("{}/{}", bytes(pull.done_bytes), bytes(pull.total_bytes)),
        format!("{}/s", bytes(pull.bytes_per_second)),
        format!("{} s", pull.seconds),
        pull.waiting.to_string(),
        state(pull),
    ]
}

/// `building`, or how many of its layers stand where.
fn state(pull: &PullUnderWay) -> String {
    if pull.building {
        return "building".to_owned();
    }
    let states =
        [(LayerState::Fetching, "fetching"), (LayerState::Aside, "aside"), (LayerState::Waiting, "waiting")];
    let counts = states.map(|(state, name)| {
        let count = pull.layers.iter().filter(|layer| layer.state == state).count();
        (count > 0).then(|| format!("{count} {name}"))
    });
    counts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::digest::Digest;
    use crate::pull::LayerUnderWay;

    #[test]
    fn a_line_says_where_the_layers_stand() {
        let digest = Digest::of(b"m");
        let layer = |state, done_bytes| LayerUnderWay {
            blob: digest,
            state,
            done_bytes,
            total_bytes: 1000,
            bytes_per_second: 5,
        };
        let mut pull = PullUnderWay {
            image: "r.io/x:1".to_owned(),
            digest,
            waiting: 2,
            seconds: 7,
            done_bytes: 1500,
            total_bytes: 4000,
            bytes_per_second: 10,
            building: false,
            layers: vec![
                layer(LayerState::Reused, 1000),
                layer(LayerState::Aside, 500),
                layer(LayerState::Fetching, 0),
                layer(LayerState::Aside, 0),
            ],
        };
        let cells = [
            "r.io/x:1",
            &digest.short(),
            "1/4",
            "1.5 kB/4.0 kB",
            "10 B/s",
            "7 s",
            "2",
            "1 fetching, 2 aside",
        ];
        assert_eq!(super::cells(&pull), cells);
        pull.building = true;
        assert_eq!(state(&pull), "building");
    }
}
