//! A pod whose image is on the node, and whose neighbours are not its business.

use std::time::{Duration, Instant};

use crate::control::Control;
use crate::node::Node;
use crate::registry::Registries;

/// Its name, and the image that nobody else uses.
const POD: &str = "innocent";
const IMAGE: usize = 0;
/// From one publish to the next.
const EVERY: Duration = Duration::from_millis(100);

/// The image of the innocent, which is on the node by now.
#[derive(Debug)]
pub struct Innocent {
    image: String,
}

/// How long it took.
#[derive(Debug, Default)]
pub struct Times {
    /// Each publish.
    pub publishes: Vec<Duration>,
    /// What the machine took by itself, right after.
    pub control: Vec<Duration>,
}

impl Innocent {
    /// Brings the image onto the node, where an operator keeps it.
    pub async fn arrive(node: &Node, registries: &Registries) -> Self {
        let image = registries.fair.reference(IMAGE);
        node.machine.run(&["pull", &image]);
        node.machine.run(&["pin", &image]);
        Self { image }
    }

    /// Publishes and unpublishes until `end`.
    ///
    /// A call that the plugin's death has interrupted is no publish, and neither is one on a full disk, which is
    /// refused at once: where a record cannot be written, nothing can be published.
    pub async fn measure(&self, node: &Node, end: Instant) -> Times {
        let (mut times, mut control) = (Times::default(), Control::start(&node.machine.state()));
        while Instant::now() < end {
            tokio::time::sleep(EVERY).await;
            let mut client = node.client().await;
            let request = node.machine.publish(POD, &self.image);
            let started = Instant::now();
            let published = client.node_publish_volume(request).await;
            let took = started.elapsed();
            match published {
                Ok(_) => times.publishes.push(took),
                Err(status) if is_gone(&status) || is_full(&status) => {}
                Err(status) => panic!("the innocent pod was refused: {status}\n{}", node.machine.log_tail()),
            }
            times.control.extend(control.measure().await);
            take_down(node, POD).await;
        }
        let count = times.publishes.len();
        assert!(count > 20, "only {count} publishes of an innocent pod");
        times
    }
}

/// Whether the plugin has ended under the call, or was about to.
pub fn is_gone(status: &tonic::Status) -> bool {
    let message = status.message();
    ["transport error", "broken pipe", "connection", "error reading", "being stopped"]
        .iter()
        .any(|part| message.contains(part))
}

fn is_full(status: &tonic::Status) -> bool {
    status.code() == tonic::Code::ResourceExhausted
}

/// Unpublishes until the plugin says that it is done.
///
/// # Panics
/// It does not within a minute, whatever is wrong with disk and registries.
pub async fn take_down(node: &Node, pod: &str) {
    let started = Instant::now();
    loop {
        let request = node.machine.unpublish(pod);
        match node.client().await.node_unpublish_volume(request).await {
            Ok(_) => return,
            Err(status) if started.elapsed() > Duration::from_secs(60) => {
                panic!("pod {pod} cannot be taken down: {status}\n{}", node.machine.log_tail());
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}
