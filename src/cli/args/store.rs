//! What `store` and `pin` are told.

use std::time::Duration;

use clap::{Subcommand, ValueEnum};

/// Questions about the store.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// List the images; the same as `ls`.
    Ls,
    /// Show what each image takes, alone and together with others; the largest first.
    Du {
        /// What is listed.
        #[arg(long, value_enum, default_value_t = By::Image)]
        by: By,
    },
    /// Check that records, objects, volumes, pins and mounts fit each other. `verify` reads the contents.
    Fsck,
    /// Read all objects again, as the node plugin does by --scrub-days: goes on with the plugin's round, or begins one.
    Scrub {
        /// The most MiB a second to read; 0 for as fast as it goes.
        #[arg(long, value_name = "MIB", default_value_t = 0)]
        rate: u64,
    },
    /// Read the objects of images, fetch those that are damaged again from where they came, and put them in their place
    /// under running mounts. Uses the credentials that `pull` uses.
    Repair {
        /// Only this image, as for `inspect`.
        image: Option<String>,
    },
    /// Say what keeps an image or an object, and where images show it.
    Why {
        /// An image as for `inspect`; an object, by six digits or more of its digest or by the path of its file; or a path in
        /// images, from their root, as `/usr/bin/python3`.
        what: String,
    },
}

/// What `store du` lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// Images.
    Image,
    /// The namespaces whose pods' volumes keep images.
    Namespace,
}

/// A time as `12h`, `1h30m` or `30d`.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    let days = text.strip_suffix('d').and_then(|days| days.parse::<u32>().ok());
    let time = days.map(|days| Duration::from_secs(u64::from(days) * 86_400));
    time.or_else(|| crate::duration::parse(text))
        .filter(|time| !time.is_zero())
        .ok_or_else(|| "write a time as 90m, 12h or 30d".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_may_have_days() {
        let seconds = |text| time(text).map(|time| time.as_secs());
        assert_eq!((seconds("2d"), seconds("90m"), seconds("1h30m")), (Ok(172_800), Ok(5400), Ok(5400)));
        for text in ["", "0", "0d", "d", "-1h", "3 days", "99999999999d"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
