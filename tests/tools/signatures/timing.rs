//! How long a verification takes.

use std::time::Instant;

use super::sigstore::{Cosign, Key};
use super::*;

/// Run with `--ignored --nocapture`, in release.
#[test]
#[ignore = "prints figures and asserts nothing"]
fn verification_takes() {
    let world = World::start();
    for kind in ["p256", "p384", "p521", "rsa2048", "rsa4096", "ed25519"] {
        let key = Key::generate(kind);
        for (name, cosign) in [("sig", Cosign::two()), ("bundle", Cosign::three())] {
            let target = world.push(&format!("{name}-{kind}"));
            let mut sign = cosign.command_with(&world.sigstore);
            sign.args(["sign", "--yes", "--key"]).arg(key.private());
            match name {
                "sig" => sign.arg("--tlog-upload=false"),
                _ => sign.arg("--signing-config").arg(world.sigstore.config("none")),
            };
            registry::run(sign.arg("--allow-http-registry").arg(&target.manifest));
            let Some(claim) = target.evidence().claims.pop() else { continue };
            let expectation = by_keys(&[PublicKey::parse(&key.public()).unwrap()], Log::Ignored);
            let mut times: Vec<_> = (0..2000)
                .map(|_| {
                    let start = Instant::now();
                    verify(&claim, &expectation, &target.digests).unwrap();
                    start.elapsed().as_nanos()
                })
                .collect();
            times.sort_unstable();
            println!("{name} {kind}: p50 {} us, p99 {} us", times[1000] / 1000, times[1980] / 1000);
        }
    }
}
