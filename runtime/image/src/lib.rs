//! Image layers to EROFS, and the node's cache of them.
