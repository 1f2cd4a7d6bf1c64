//! The guest's PID 1: runs the containers of a pod.

fn main() {}
