//! Maps, lists and artifacts, sound and hostile.
