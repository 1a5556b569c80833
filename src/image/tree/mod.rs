//! Folding layers into one tree.
