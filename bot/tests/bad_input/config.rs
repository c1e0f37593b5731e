//! `sluice.yaml`: every mistake with its place, and nothing written.

use crate::world::{World, cases, told};
use std::fs;

#[test]
fn a_wrong_configuration_is_refused_with_its_place() {
    for (name, path) in cases("config", "yaml") {
        let world = World::new();
        world.set_config(&fs::read_to_string(path).unwrap());
        let told = world.told();
        assert!(told.starts_with("exit code 1\nstderr: error: "), "{name}: {told}");
        assert!(told.ends_with("nothing was written\n"), "{name}: {told}");
        told!("config", name, told);
    }
}

#[test]
fn a_configuration_that_is_not_there_is_named() {
    let world = World::new();
    let run = world.run(&["propose", "--config", "missing.yaml"]);
    run.fails("error: missing.yaml: cannot read it: No such file or directory");
    world.run(&["propose", "--config", "policies.git"]).fails("policies.git: cannot read it: Is a directory");
    world.run(&["config", "check", "missing.yaml"]).fails("missing.yaml: cannot read it");
    fs::write(world.path("binary.yaml"), [0xff, 0xfe, 0x00]).unwrap();
    world.run(&["propose", "--config", "binary.yaml"]).fails("binary.yaml: it is not UTF-8");
    world.run(&["propose", "--config", "/dev/zero"]).fails("/dev/zero: it has more than 1048576 bytes");
}

#[test]
fn wrong_usage_exits_with_2_and_shows_what_is_right() {
    let world = World::new();
    for arguments in
        [&["propos"][..], &["propose", "--at", "yesterday"], &["judge"], &["verify"], &["propose", "--format", "xml"]]
    {
        let run = world.run(arguments);
        assert_eq!((run.code, run.stdout.as_str()), (Some(2), ""), "{run}");
        assert!(run.stderr.contains("For more information, try '--help'"), "{run}");
    }
}
