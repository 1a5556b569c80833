//! What this process lacks for writable volumes.

use rustix::thread::CapabilitySet;

/// What overlayfs writes a pod's changes with, which are the rights of whoever mounted it: other owners than root, the modes
/// of their files, the set-group-ID bit of directories, file capabilities; and to find a file by its handle, which keeps its
/// names together (`index=on`). Without these a pod would find files that it cannot change, or that become two.
const NEEDED: [(&str, CapabilitySet); 6] = [
    ("CHOWN", CapabilitySet::CHOWN),
    ("DAC_OVERRIDE", CapabilitySet::DAC_OVERRIDE),
    ("DAC_READ_SEARCH", CapabilitySet::DAC_READ_SEARCH),
    ("FOWNER", CapabilitySet::FOWNER),
    ("FSETID", CapabilitySet::FSETID),
    ("SETFCAP", CapabilitySet::SETFCAP),
];

/// The names of the missing ones. What cannot be asked for is not missing.
pub(super) fn lacking_to_write() -> Vec<&'static str> {
    let Ok(own) = rustix::thread::capabilities(None) else { return Vec::new() };
    NEEDED.iter().filter(|(_, needed)| !own.effective.contains(*needed)).map(|(name, _)| *name).collect()
}
