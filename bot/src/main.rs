//! Arguments and signals.

fn main() {}
