//! Recordings nobody should count with.

use crate::world::{World, cases, told};
use std::fs;

#[test]
fn a_wrong_recording_is_refused_with_its_line() {
    for (name, path) in cases("recording", "jsonl") {
        let world = World::new();
        fs::copy(path, world.path("mesh.sluice.gz")).unwrap();
        let told = world.told();
        assert!(told.starts_with("exit code 1\nstderr: error: "), "{name}: {told}");
        assert!(told.ends_with("nothing was written\n"), "{name}: {told}");
        told!("recording", name, told);
    }
}

#[test]
fn a_recording_cut_short_anywhere_is_refused() {
    let world = World::new();
    let whole = fs::read(world.path("mesh.sluice.gz")).unwrap();
    for left in (0..whole.len()).step_by(whole.len() / 12).chain([whole.len() - 1]) {
        fs::write(world.path("mesh.sluice.gz"), &whole[..left]).unwrap();
        world.refuses("…/mesh.sluice.gz".trim_start_matches("…/"));
    }
    for place in (10..whole.len()).step_by(whole.len() / 12) {
        let mut damaged = whole.clone();
        damaged[place] ^= 0x10;
        fs::write(world.path("mesh.sluice.gz"), &damaged).unwrap();
        let run = world.propose();
        // The gzip header holds bytes that mean nothing; all others are covered by a checksum.
        assert!(run.code == Some(1) || place < 20, "byte {place}: {run}");
    }
    fs::write(world.path("mesh.sluice.gz"), &whole).unwrap();
    world.propose().exits(0);
}

#[test]
fn a_dump_that_is_no_dump_leaves_no_recording() {
    let world = World::new();
    let before = names(&world);
    for (text, message) in [
        ("# EOF", "error: cannot make a recording"),
        ("envoy_cluster_upstream_rq_xx{envoy_cluster_name=\"a\"", "error: cannot make a recording"),
        ("\u{0}", "error: cannot make a recording"),
    ] {
        fs::write(world.path("sluice.yaml"), text).unwrap();
        world.run(&["record", "--openmetrics", "sluice.yaml", "--out", "new.sluice.gz"]).fails(message);
        assert_eq!(names(&world), before);
    }
    world.run(&["record", "--openmetrics", "missing.txt"]).fails("missing.txt: there is no such file; check the path");
    let run = world.run(&["record", "--openmetrics", "mesh.sluice.gz", "--out", "mesh.sluice.gz"]);
    run.fails("is the dump itself; name another file with `--out`");
}

fn names(world: &World) -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> = fs::read_dir(world.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}
