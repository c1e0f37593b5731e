//! Hostile names, from the repository, the configuration and the recording, on their way to people.

use crate::world::{World, recording};

/// Everything that means something to Markdown, GitHub, HTML or a terminal.
const HOSTILE: &str = "@acme/oncall [x](https://example.org) <img src=x onerror=alert(1)> | `code` #1 www.example.org \u{1b}[31m\u{202e}\n# big";

/// Text as a YAML string.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

/// A world in which every text that may be foreign is hostile, and which still leads to a promotion.
fn hostile() -> World {
    let world = World::new();
    let route = world.plain_git(&["show", "main:policies/chat.yaml"], b"");
    let third = "              - { kind: MeshService, name: NAME, weight: 0 }\n".replace("NAME", &quoted(HOSTILE));
    let route = route.replace("mesh: default", &format!("mesh: {}", quoted(HOSTILE))) + "\n" + &third;
    let guard = format!(
        "apiVersion: sluice.dev/v1alpha1\nkind: ShiftGuard\nmetadata: {{ name: {name} }}\nspec:\n  match: {{ services: [\"*\"] }}\n  \
         enforcement: Enforce\n  caps: {{ maxShare: 7 }}\n",
        name = quoted(HOSTILE)
    );
    let git = world.git();
    let path = format!("policies/{}.yaml", HOSTILE.replace('/', "_"));
    let files = [(path, route.into_bytes()), ("guards/hostile.yaml".to_owned(), guard.into_bytes())];
    let first = git.commit(&[], None, &files, HOSTILE, &crate::world::team(crate::world::BEGIN)).unwrap();
    git.update_ref("refs/heads/main", first, git.head("main").unwrap()).unwrap();
    let (chat, _) =
        world.config().split_once("  - name: summarize").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    world.set_config(&chat.replace(
        "objectives: {errors: {ceiling: 1%}}",
        &format!(
            "objectives: {{errors: {{ceiling: 1%}}, {}: {{scale: [0, 1], nonInferiority: 0.5}}}}",
            quoted(HOSTILE)
        ),
    ));
    let mut recording = recording();
    recording.header.mesh = HOSTILE.to_owned();
    recording.header.source = HOSTILE.to_owned();
    for tick in &mut recording.ticks {
        for counts in tick.services.values_mut() {
            let score = sluice_rules::canary::Counts { n: 20_000.0, x: 18_000.0 };
            counts.scores.insert(HOSTILE.to_owned(), score);
        }
        let counts = tick.services["chat-v1"].clone();
        tick.services.insert(HOSTILE.to_owned(), counts);
    }
    recording.save(&world.path("mesh.sluice.gz")).unwrap();
    world
}

/// The Markdown that is neither code nor comment: where GitHub looks for links, mentions and tags.
fn outside_code(markdown: &str) -> String {
    let mut out = String::new();
    let mut fence: Option<String> = None;
    for line in markdown.lines().skip(1) {
        let ticks: String = line.chars().take_while(|c| *c == '`').collect();
        match &fence {
            Some(open) if line == open => fence = None,
            Some(_) => {}
            None if ticks.len() >= 3 => fence = Some(ticks),
            None => {
                assert_eq!(line.matches('`').count() % 2, 0, "{line}");
                out.extend(line.split('`').step_by(2));
                out.push('\n');
            }
        }
    }
    assert_eq!(fence, None);
    out
}

#[test]
fn a_hostile_name_never_becomes_a_link_a_mention_or_a_tag() {
    let world = hostile();
    world.propose().exits(0).says("chat: promote 5 % → 10 %");
    let show = |file: &str| world.plain_git(&["show", &format!("refs/sluice/pulls/1:{file}")], b"");
    let body = show("body.md");
    assert!(body.contains("the limit without approval is 7 %"), "{body}");
    assert_eq!(body.lines().filter(|line| line.contains("<!--")).count(), 1, "{body}");
    let outside = outside_code(&body);
    for sign in ["@", "](", "<img", "onerror", "www.", "://", "#1", "acme"] {
        assert!(!outside.contains(sign), "{sign}: {outside}");
    }
    for (number, line) in body.lines().enumerate() {
        assert!(!line.chars().any(|c| c.is_control() || c == '\u{202e}'), "line {number}: {line:?}");
        assert!(!line.starts_with("# big") && !line.contains("<img"), "line {number}: {line:?}");
    }
    let pull: serde_json::Value = serde_json::from_str(&show("pull.json")).unwrap();
    let title = pull["title"].as_str().unwrap();
    assert_eq!(title, "canary(chat): 5 % → 10 % of chat");
    let branch = pull["branch"].as_str().unwrap();
    let message = world.plain_git(&["log", "-1", "--format=%B", branch], b"");
    for sign in ["@", "](", "<", "www.", "://", "\u{1b}", "\u{202e}"] {
        assert!(!message.contains(sign), "{sign}: {message}");
    }
    world.run(&["verify", "1"]).exits(0);
    world.fsck();
}

#[test]
fn nothing_a_terminal_obeys_is_printed() {
    let world = hostile();
    let git = world.git();
    let head = git.head("main").unwrap().unwrap();
    let odd = (format!("policies/{}2.yaml", HOSTILE.replace('/', "_")), b"a: [".to_vec());
    let next = git.commit(&[head], Some(head), &[odd], "odd", &crate::world::team(crate::world::BEGIN + 1)).unwrap();
    git.update_ref("refs/heads/main", next, Some(head)).unwrap();
    // The evidence names signals, the notes name files and what was seen.
    world.set_config(&world.config().replace("canary: chat-v2", "canary: chat-v3"));
    for arguments in
        [&["propose"][..], &["propose", "--dry-run"], &["propose", "--format", "json"], &["config", "check"]]
    {
        let run = world.run(arguments);
        for text in [&run.stdout, &run.stderr] {
            assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{run}");
            assert!(!text.lines().any(|line| line.starts_with("# big")), "{run}");
        }
    }
}

#[test]
fn a_hostile_difference_is_printed_harmlessly() {
    let world = World::new();
    world.propose().exits(0);
    let text = world.plain_git(&["show", "refs/sluice/pulls/1:evidence.json"], b"");
    let text = text.replacen("\"reason\":\"", "\"reason\":\"\\u001b[31m\\n# big", 1);
    std::fs::write(world.path("evidence.json"), text).unwrap();
    let run = world.run(&["verify", "evidence.json"]).exits(4).says("claim.reason: claimed ⟨U+001B⟩[31m⟨U+000A⟩# big");
    assert!(!run.stdout.contains('\u{1b}'));
}
