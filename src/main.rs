//! The `composefs-csi` program; everything it does is in the library.

fn main() -> std::process::ExitCode {
    composefs_csi::cli::run()
}
