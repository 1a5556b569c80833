//! Tar streams in every dialect that image builders write.
