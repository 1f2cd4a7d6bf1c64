//! The virtual machine monitor: one process for each pod.

fn main() {}
