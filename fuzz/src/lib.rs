//! What several fuzz targets share: they hold one part of the driver against another, or against the
//! composefs project's own code.

pub mod archive;
pub mod image;
pub mod script;
