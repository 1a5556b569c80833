//! zstd:chunked layers: a second version costs what has changed of it, and nothing that is wrong with layer, registry or
//! store costs more than the whole layer. The program itself, and a registry that counts bytes and treats ranges as told.

mod artifacts;
mod budget;
mod fallbacks;
mod registry;
mod reuse;
mod tenants;
