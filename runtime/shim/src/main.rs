//! The containerd shim: one process for each pod.

fn main() {}
