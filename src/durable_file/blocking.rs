//! Finds files that are read, written or synced where tasks run.

/// The name that the runtime gives to its threads, to those for blocking work as well.
#[cfg(debug_assertions)]
const RUNTIME_THREAD: &str = "tokio-rt-worker";

/// Nothing, unless debug assertions are on and this is a thread on which the runtime runs tasks: a file may take as long
/// as its disk likes, and meanwhile no task of the thread goes on, not even those that answer the kubelet.
///
/// # Panics
/// There, with the runtime's own words: "Cannot start a runtime from within a runtime". `spawn_blocking`, `block_in_place`
/// and threads of one's own are the places for files.
pub fn assert_may_block() {
    #[cfg(debug_assertions)]
    if std::thread::current().name() == Some(RUNTIME_THREAD)
        && let Ok(runtime) = tokio::runtime::Handle::try_current()
    {
        // The runtime alone knows whether it runs a task here. It says so only to those who want to block.
        runtime.block_on(std::future::ready(()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap()
    }

    #[test]
    fn a_task_may_not_block_but_a_thread_for_that_may() {
        let runtime = runtime();
        assert_may_block();
        let found = runtime.block_on(async { tokio::spawn(async { assert_may_block() }).await });
        assert!(found.is_err_and(|error| error.is_panic()));
        runtime.block_on(async {
            tokio::task::spawn_blocking(assert_may_block).await.unwrap();
            tokio::spawn(async { tokio::task::block_in_place(assert_may_block) }).await.unwrap();
        });
    }
}
