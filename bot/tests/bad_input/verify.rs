//! `sluice verify`: what is no evidence, or not the evidence that was judged.

use crate::world::{SLUICE, World, cases, told};
use assert_cmd::Command;
use std::fs;

#[test]
fn what_is_no_evidence_is_refused() {
    let world = World::new();
    for (name, path) in cases("evidence", "json") {
        fs::copy(path, world.path("evidence.json")).unwrap();
        let run = world.run(&["verify", "evidence.json"]);
        assert!(run.code == Some(1) && run.stdout.is_empty(), "{name}: {run}");
        told!("evidence", name, run.to_string());
    }
    world.run(&["verify", "mesh.sluice.gz"]).fails("`mesh.sluice.gz` holds no evidence of format 1");
    world.run(&["verify", "policies.git"]).fails("cannot read `policies.git`: give a pull request's number or a file");
    world.run(&["verify", "missing.json"]).fails("cannot read `missing.json`: give a pull request's number or a file");
    world.run(&["verify", "/dev/zero"]).fails("`/dev/zero` is larger than 67108864 bytes");
    fs::write(world.path("deep.json"), "[".repeat(1_000_000)).unwrap();
    world.run(&["verify", "deep.json"]).fails("`deep.json` holds no evidence of format 1");
}

#[test]
fn a_pull_request_that_is_not_there_is_named() {
    let world = World::new();
    world.run(&["verify", "3"]).fails("error: there is no pull request #3 in this repository");
    world.run(&["verify", "0"]).fails("error: there is no pull request #0 in this repository");
    let run = world.run(&["verify", "3", "--repository", "nowhere"]);
    run.fails("error: cannot open the repository `nowhere`");
    let run = world.run(&["verify", "3", "--config", "missing.yaml"]);
    run.fails("error: which repository? give `--repository DIR` or `--config FILE`");
}

#[test]
fn changed_evidence_differs_and_cut_evidence_is_refused_at_every_length() {
    let world = World::new();
    world.propose().exits(0);
    world.run(&["verify", "1"]).exits(0).says("equal: Promote at 10 %");
    let text = world.plain_git(&["show", "refs/sluice/pulls/1:evidence.json"], b"");
    let verify = |text: &[u8]| {
        let done = Command::new(SLUICE).args(["verify", "-"]).write_stdin(text).output().unwrap();
        crate::world::Run::of(&done, &world.path("none"))
    };
    verify(text.as_bytes()).exits(0);
    for left in (0..text.len()).step_by(text.len() / 20).chain([text.len() - 1]) {
        verify(&text.as_bytes()[..left]).fails("`-` holds no evidence of format 1");
    }
    let changed = text.replacen("[500.0,", "[501.0,", 1);
    let changed = if changed == text { text.replacen("[500,", "[501,", 1) } else { changed };
    assert_ne!(changed, text);
    verify(changed.as_bytes()).exits(4).says("different:").says("ticks[0]");
    verify(text.replacen("\"call\":\"promote\"", "\"call\":\"hold\"", 1).as_bytes()).exits(4).says("claim.call");
}

#[test]
fn evidence_that_was_swapped_whole_is_noticed() {
    let world = World::new();
    world.propose().exits(0);
    // The other pull request's evidence is right in itself.
    let tree = world.plain_git(&["ls-tree", "refs/sluice/pulls/1"], b"");
    let (own, other) = (
        world.plain_git(&["rev-parse", "refs/sluice/pulls/1:evidence.json"], b""),
        world.plain_git(&["rev-parse", "refs/sluice/pulls/2:evidence.json"], b""),
    );
    let tree = world.plain_git(&["mktree"], tree.replace(&own, &other).as_bytes());
    let who = ["-c", "user.name=Eve", "-c", "user.email=eve@example.org"];
    let commit = world.plain_git(&[&who[..], &["commit-tree", &tree, "-m", "swap"]].concat(), b"");
    world.plain_git(&["update-ref", "refs/sluice/pulls/1", &commit], b"");
    world.run(&["verify", "1"]).exits(4).says("digest in the pull request: claimed another");
}
