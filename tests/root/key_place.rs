//! The plugin says whether the node key lies beside the store. Needs root, and /dev/shm.

use crate::support::driver::Machine;

const BESIDE: &str = "the node key lies on the filesystem of the store";

#[tokio::test(flavor = "multi_thread")]
async fn a_key_beside_the_store_is_mentioned_and_one_elsewhere_is_not() {
    let machine = Machine::new(&[]);
    drop(machine.start().await);
    assert_eq!(machine.log().matches(BESIDE).count(), 1, "{}", machine.log());
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    let machine = Machine::new(&[&format!("--node-key={}/node.key", elsewhere.path().display())]);
    drop(machine.start().await);
    assert!(!machine.log().contains(BESIDE), "{}", machine.log());
    assert!(elsewhere.path().join("node.key").exists());
}
