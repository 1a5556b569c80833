//! Commands that fetch one image: `pull`, `digest`.

use serde::Serialize;

use super::args::{Output, Policy, RulesArg};
use super::{output, progress};
use crate::app::engine::Engine;
use crate::image::store::ImageRecord;
use crate::image::tree::{Reduction, Rules, Stop, XattrRule};
use crate::oci::Credentials;
use crate::oci::choice::Choice;
use crate::oci::digest::Digest;
use crate::oci::platform::Platform;
use crate::oci::reference::Reference;
use crate::pull::{self, Caller, ImageRequest, Images as _, PullPolicy, Ready, StoredPart, Watch};

impl From<Policy> for PullPolicy {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::Always => Self::Always,
            Policy::IfNotPresent => Self::IfNotPresent,
            Policy::Never => Self::Never,
        }
    }
}

impl From<RulesArg> for Rules {
    fn from(rules: RulesArg) -> Self {
        match rules {
            RulesArg::Faithful => Self::Faithful,
            RulesArg::Verbatim => Self::Verbatim,
            RulesArg::Unprivileged => Self::Reduced { to: Reduction::Unprivileged, special_files: false },
            RulesArg::Noexec => Self::Reduced { to: Reduction::NotExecutable, special_files: false },
            RulesArg::Canonical => Self::Canonical { xattrs: XattrRule::AllowlistOnly },
            RulesArg::CanonicalUserXattrs => Self::Canonical { xattrs: XattrRule::KeepUser },
        }
    }
}

/// An image as the user names it, and the platform to select from an index.
pub struct Wanted {
    pub reference: Reference,
    pub platform: Platform,
    /// What of it.
    pub choice: Choice,
    /// Whether nothing in it may be executed, where it is mounted.
    pub noexec: bool,
}

impl Wanted {
    /// Parses arguments of the command line.
    pub fn parse(image: &str, platform: Option<&str>) -> anyhow::Result<Self> {
        let platform = platform.map(str::parse).transpose()?.unwrap_or_else(Platform::host);
        Ok(Self { reference: image.parse()?, platform, choice: Choice::default(), noexec: false })
    }

    /// The same, of what `choice` takes.
    pub fn choosing(self, choice: Choice) -> Self {
        Self { choice, ..self }
    }

    /// Ensures that the image is in the store, and shows progress.
    pub async fn ensure(self, engine: &Engine, policy: PullPolicy, output: Output) -> anyhow::Result<Ready> {
        self.ensure_for(Caller::Operator, engine, policy, output).await
    }

    /// The same on behalf of `caller`.
    pub async fn ensure_for(
        self,
        caller: Caller,
        engine: &Engine,
        policy: PullPolicy,
        output: Output,
    ) -> anyhow::Result<Ready> {
        self.ensure_watched(caller, engine, policy, output, Watch::default()).await
    }

    /// The request on behalf of `caller`.
    pub(super) fn request(self, caller: Caller, policy: PullPolicy, watch: Watch) -> ImageRequest {
        ImageRequest {
            credentials: Credentials::none(),
            caller,
            pinned: None,
            noexec: self.noexec,
            reference: self.reference,
            choice: self.choice,
            platform: self.platform,
            policy,
            watch,
        }
    }

    async fn ensure_watched(
        self,
        caller: Caller,
        engine: &Engine,
        policy: PullPolicy,
        output: Output,
        watch: Watch,
    ) -> anyhow::Result<Ready> {
        let request = self.request(caller, policy, watch.clone());
        tokio::select! {
            // The result first: the progress future never ends by itself.
            biased;
            ready = engine.images.ensure(&request) => Ok(ready?),
            () = progress::show(watch, output) => anyhow::bail!("progress ended before the pull"),
        }
    }
}

/// `pull IMAGE`.
pub async fn pull(engine: &Engine, wanted: Wanted, policy: PullPolicy, output: Output) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Pulled {
        #[serde(flatten)]
        record: ImageRecord,
        /// By what the store knows it: the manifest, or a choice of it.
        key: Digest,
        fetched_bytes: u64,
        /// Compressed, of layers that were fetched in parts.
        here_bytes: u64,
        seconds: f64,
    }
    let started = std::time::Instant::now();
    let watch = Watch::default();
    let ready = wanted.ensure_watched(Caller::Preload, engine, policy, output, watch.clone()).await?;
    let seconds = started.elapsed().as_secs_f64();
    let here_bytes = watch.get().map_or(0, |progress| progress.here());
    let key = ready.record.key();
    let pulled = Pulled { record: ready.record, key, fetched_bytes: ready.fetched, here_bytes, seconds };
    output::show(output, &pulled, |p| {
        let origin = match (p.fetched_bytes, p.here_bytes) {
            (0, _) => "already here".to_owned(),
            (fetched, 0) => format!("{} fetched in {:.1} s", output::bytes(fetched), p.seconds),
            (fetched, here) => format!(
                "{} fetched in {:.1} s, {} less than the layers have: their files were here",
                output::bytes(fetched),
                p.seconds,
                output::bytes(here)
            ),
        };
        format!(
            "{}\n  manifest   {}\n{}  composefs  {}\n  content    {} in {}, {origin}",
            p.record.names.first().map_or("", String::as_str),
            p.record.manifest,
            output::chosen(&p.record),
            p.record.image,
            output::bytes(p.record.bytes),
            output::count(p.record.inodes, "inode"),
        )
    })
}

/// `digest IMAGE`.
pub async fn digest(
    engine: &Engine,
    wanted: Wanted,
    rules: Option<RulesArg>,
    output: Output,
) -> anyhow::Result<()> {
    #[derive(Serialize)]
    struct Digests {
        manifest: Digest,
        composefs: String,
    }
    let ready = wanted.ensure(engine, PullPolicy::IfNotPresent, output).await?;
    let record = ready.record;
    let composefs = match rules.map(Rules::from).filter(|rules| *rules != record.rules) {
        // The stored image was built by these rules.
        None => record.image,
        Some(rules) => {
            let (limits, name) = ((&engine.limits.image, &Stop::default()), record.manifest.to_string());
            pull::write(&engine.store, (&StoredPart::of(&record), &record.choice), rules, limits, &name)?
                .digest()
        }
    };
    let digests = Digests { manifest: record.manifest, composefs: composefs.hex() };
    output::show(output, &digests, |d| d.composefs.clone())
}
