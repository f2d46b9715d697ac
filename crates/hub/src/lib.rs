//! Content-addressed blobs, repositories and revisions.
