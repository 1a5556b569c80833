//! Whether a waiting thread is being killed, from `/proc/TID/status` (proc_pid_status(5)).

use super::waiting::Fate;

/// The bit of SIGKILL in a mask of signals.
const KILL: u64 = 1 << (libc::SIGKILL - 1);

/// Looks at a thread. Blocking, but memory only.
pub(super) fn fate_of(thread: u32) -> Fate {
    std::fs::read_to_string(format!("/proc/{thread}/status"))
        .ok()
        .map_or(Fate::Unseen, |status| parse(&status))
}

fn parse(status: &str) -> Fate {
    let mask = |name: &str| {
        let mask = status.lines().find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(mask.trim(), 16).ok()
    };
    // A signal that ends a process is pending in each of its threads; on its way there, in what they share.
    match (mask("SigPnd:"), mask("ShdPnd:")) {
        (Some(own), Some(shared)) if (own | shared) & KILL != 0 => Fate::Dying,
        (Some(_), Some(_)) => Fate::Living,
        _ => Fate::Unseen,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sigkill_counts() {
        let status = |own: &str, shared: &str| {
            format!("Name:\tcat\nSigPnd:\t{own}\nShdPnd:\t{shared}\nSigBlk:\t0100\n")
        };
        let nothing = "0000000000000000";
        assert_eq!(parse(&status("0000000000000100", nothing)), Fate::Dying);
        assert_eq!(parse(&status(nothing, "0000000000000100")), Fate::Dying);
        assert_eq!(parse(&status("0000000000002000", "0000000000004001")), Fate::Living);
        assert_eq!(parse("Name:\tcat\n"), Fate::Unseen);
    }

    #[test]
    fn this_thread_lives_and_no_thread_is_unseen() {
        let own = rustix::thread::gettid().as_raw_pid() as u32;
        assert_eq!(fate_of(own), Fate::Living);
        assert_eq!(fate_of(u32::MAX), Fate::Unseen);
    }
}
