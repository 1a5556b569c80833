//! What the program does with the API server, which is scripted; registry, mounts and kubelet's credential providers
//! are real. Needs root.

pub mod api;
mod credentials;
mod events;
mod objects;
mod prefetch;
mod progress;
mod stand_in;
