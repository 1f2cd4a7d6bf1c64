//! The suites that run inside the test node.

fn main() {}
