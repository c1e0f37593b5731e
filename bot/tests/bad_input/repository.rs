//! Files of the policy repository that cannot be used: they are named, and the others go on.

use crate::world::{World, files, testdata, told};
use std::fs;

#[test]
fn a_wrong_file_is_named_and_the_others_go_on() {
    let mut count = 0;
    for entry in fs::read_dir(testdata("repository")).unwrap() {
        let path = entry.unwrap().path();
        if !path.is_dir() {
            continue;
        }
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let told = World::with(&files(&path)).told();
        if name.starts_with("guard-") {
            assert!(told.starts_with("exit code 1\n") && told.ends_with("nothing was written\n"), "{name}: {told}");
        } else {
            assert!(told.contains("summarize: promote 5 % → 10 %"), "{name}: {told}");
        }
        told!("repository", name, told);
        count += 1;
    }
    assert!(count > 10);
}

#[test]
fn the_world_itself_is_right() {
    let world = World::new();
    let run = world.propose().exits(0).says("chat: promote 5 % → 10 %").says("pull request #2: merged");
    assert_eq!(run.stderr, "");
    world.fsck();
    // Equal content means zero writes.
    let (refs, objects) = (world.refs(), world.objects());
    world.propose().exits(0).says("pull request #1: unchanged");
    assert_eq!((refs, objects), (world.refs(), world.objects()));
}

#[test]
fn a_file_of_any_size_or_depth_is_left_out_and_named() {
    let deep = "[".repeat(200_000);
    let wide = "a: b\n".repeat(300_000);
    let aliases = format!("a: &a [x]\nb: [{}]\n", "*a, ".repeat(5_000));
    for (text, message) in [
        (deep, "policies/odd.yaml:1:256: mappings and sequences are nested more than 64 deep; nest less"),
        (wide, "policies/odd.yaml: left out: 1500000 bytes are more than a policy file needs"),
        (aliases, "policies/odd.yaml:2:"),
    ] {
        let world = World::with(&[("policies/odd.yaml".to_owned(), text.into_bytes())]);
        world.propose().exits(3).says(message).says("pull request #2: merged");
    }
}

#[test]
fn a_guard_that_is_not_read_stops_every_decision() {
    let large = "# long\n".repeat(200_000).into_bytes();
    let world = World::with(&[("guards/large.yaml".to_owned(), large)]);
    world.refuses("guards cannot be read, so nothing is decided:\n  guards/large.yaml: left out: 1400000 bytes");

    let world = World::new();
    add_entry(&world, "120000", "guards/linked.yaml", b"../policies/chat.yaml");
    world.refuses("nothing is decided:\n  guards/linked.yaml: left out: it is a symbolic link");

    let world = World::new();
    add_entry(&world, "120000", "guards/team", b"../limits");
    world.refuses("nothing is decided:\n  guards/team: left out: it is a symbolic link");

    let world = World::new();
    add_entry(&world, "100644", "guards/\u{fffd}.yaml", b"kind: ShiftGuard\n");
    world.refuses("nothing is decided:\n  guards/\u{fffd}.yaml: left out: its name is not UTF-8");

    let world = World::new();
    world.plain_git(&["update-ref", "refs/heads/limits", "main"], b"");
    world.set_config(&world.config().replace("rollouts:", "guards: limits\nrollouts:"));
    add_entry(&world, "120000", "limits", b"guards");
    world.refuses("nothing is decided:\n  limits: left out: it is a symbolic link");
}

#[test]
fn a_link_and_a_name_that_is_not_utf_8_are_left_out_and_named() {
    for (mode, path, message) in [
        ("120000", "policies/linked.yaml", "policies/linked.yaml: left out: it is a symbolic link"),
        ("160000", "policies/module.yaml", "policies/module.yaml: left out: it is a submodule"),
        ("100644", "policies/\u{fffd}.yaml", "policies/\u{fffd}.yaml: left out: its name is not UTF-8"),
    ] {
        let world = World::new();
        add_entry(&world, mode, path, b"summarize.yaml");
        world.propose().exits(3).says(message).says("pull request #2: merged");
        world.fsck();
    }
}

#[test]
fn a_route_behind_a_link_is_not_written_through() {
    let world = World::new();
    world.commit(&[("elsewhere/chat.txt", "type: MeshHTTPRoute\n")]);
    add_entry(&world, "120000", "policies/chat.yaml", b"../elsewhere/chat.txt");
    let run = world.propose().exits(3).says("chat: error: no file defines MeshHTTPRoute chat");
    assert!(run.stderr.contains("policies/chat.yaml: left out: it is a symbolic link"), "{run}");
}

#[test]
fn an_empty_repository_has_no_branch() {
    let world = World::new();
    fs::remove_dir_all(world.path("policies.git")).unwrap();
    sluice_bot::repository::Repository::init_bare(&world.path("policies.git")).unwrap();
    world.refuses("error: the repository has no branch `main`: set `branch` in sluice.yaml");
}

#[test]
fn a_reference_that_is_no_pull_request_is_named() {
    let world = World::new();
    world.plain_git(&["update-ref", "refs/sluice/pulls/7", "main"], b"");
    world.refuses("error: `refs/sluice/pulls/7` is no pull request: it has no `pull.json`");
    world.run(&["verify", "7"]).fails("error: `refs/sluice/pulls/7` is no pull request");
    world.run(&["propose", "--dry-run"]).exits(0);
}

#[test]
fn an_object_that_is_gone_is_named_and_nothing_is_written() {
    let world = World::new();
    let blob = world.plain_git(&["rev-parse", "main:policies/chat.yaml"], b"");
    fs::remove_file(world.path("policies.git/objects").join(&blob[..2]).join(&blob[2..])).unwrap();
    let refs = world.refs();
    let run = world.propose();
    run.fails(&blob);
    assert_eq!(world.refs(), refs);
}

#[test]
fn versions_of_the_past_may_be_broken() {
    let world = World::new();
    let good = world.plain_git(&["show", "main:policies/chat.yaml"], b"");
    world.commit(&[("policies/chat.yaml", "{")]);
    world.commit(&[("policies/chat.yaml", &(good + "\n"))]);
    world.propose().exits(0).says("chat: promote 5 % → 10 %");
}

/// Commits an entry that no ordinary client would; a `\u{fffd}` in the path stands for the byte 0xff.
fn add_entry(world: &World, mode: &str, path: &str, bytes: &[u8]) {
    let id = match mode {
        "160000" => world.plain_git(&["rev-parse", "main"], b""),
        _ => world.plain_git(&["hash-object", "-w", "--stdin"], bytes),
    };
    let (folder, name) = path.rsplit_once('/').map_or(("", path), |(folder, name)| (folder, name));
    let place = if folder.is_empty() { "main^{tree}".to_owned() } else { format!("main:{folder}") };
    let listed = world.plain_git(&["ls-tree", "-z", &place], b"");
    let mut entries: Vec<Vec<u8>> = listed
        .split_terminator('\0')
        .filter(|entry| !entry.ends_with(&format!("\t{name}")))
        .map(|entry| entry.as_bytes().to_vec())
        .collect();
    let kind = if mode == "160000" { "commit" } else { "blob" };
    let mut entry = format!("{mode} {kind} {id}\t").into_bytes();
    entry.extend(name.chars().flat_map(|c| if c == '\u{fffd}' { vec![0xff] } else { c.to_string().into_bytes() }));
    entries.push(entry);
    let mut tree = world.plain_git(&["mktree", "-z"], &joined(&entries));
    if !folder.is_empty() {
        let listed = world.plain_git(&["ls-tree", "-z", "main"], b"");
        let mut entries: Vec<Vec<u8>> = listed
            .split_terminator('\0')
            .filter(|entry| !entry.ends_with(&format!("\t{folder}")))
            .map(|entry| entry.as_bytes().to_vec())
            .collect();
        entries.push(format!("040000 tree {tree}\t{folder}").into_bytes());
        tree = world.plain_git(&["mktree", "-z"], &joined(&entries));
    }
    let who = ["-c", "user.name=Team", "-c", "user.email=team@example.org"];
    let commit = [&who[..], &["commit-tree", &tree, "-p", "main", "-m", "odd"]].concat();
    let commit = world.plain_git(&commit, b"");
    world.plain_git(&["update-ref", "refs/heads/main", &commit], b"");
}

fn joined(entries: &[Vec<u8>]) -> Vec<u8> {
    entries.iter().flat_map(|entry| [entry.as_slice(), b"\0"].concat()).collect()
}
