//! A test of this binary in a process of its own, where it is measured or killed.

use std::process::Command;

/// Runs the test `name`, ignored or not, of the module whose `module_path!()` is given, and no other.
pub fn again(module: &str, name: &str) -> Command {
    // The first part is the crate, which is not part of a test's name.
    let path = module.split_once("::").map_or(String::new(), |(_, module)| format!("{module}::"));
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command.args(["--exact", &format!("{path}{name}"), "--include-ignored", "--nocapture", "--quiet"]);
    command
}
