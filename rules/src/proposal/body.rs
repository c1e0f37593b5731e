//! A proposal in words: title, body, commit message.
//!
//! The reader is an engineer who knows the service and no statistics: plain words first, numbers as odds, and the machine's
//! own notes folded away at the end. All foreign text goes through [`escape`].

pub mod escape;
mod plan;
mod trace;
pub use crate::words;

use super::{Kind, Proposal};
use crate::canary::{Call, SignalVerdict};
use crate::evidence::SignalClaim;
use escape::{code, plain, prose};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use words::{about, count, likelier, moment, odds, rate, ratio, share};

/// Characters a body may have: GitHub refuses more than 65,536, and a person may want to add a line. All but the details
/// fits by its own bounds, whatever the proposal holds.
const LIMIT: usize = 59_000;
/// Rows of a table, items of a list: enough for any mesh we know, and no flood from one we do not.
const ROWS: usize = 30;
/// Sentences of guards.
const GUARDS: usize = 10;

/// The title of the pull request, and the first line of its commit: `canary(summarize): 5 % → 10 % of demo/summarize`.
pub fn title(proposal: &Proposal) -> String {
    let (from, to) = (share(proposal.from), share(proposal.to));
    let what = match proposal.kind {
        Kind::Promote => format!("{from} → {to}"),
        Kind::Rollback => format!("roll back {from} → {to}"),
        Kind::Ask => format!("decide on {from} → {to}"),
    };
    let rollout = plain(&proposal.subject.rollout).replace(' ', "_");
    format!("canary({rollout}): {what} of {}", plain(route_name(&proposal.subject.route)))
}

/// The commit: the title, the reason in one line, and trailers that lead back to the evidence.
pub fn commit_message(proposal: &Proposal) -> String {
    let evidence = &proposal.evidence;
    format!(
        "{}\n\n{} goes from {} to {}.\nReason: {}.\n\nSluice-Rollout: {}\nSluice-Content: {}\nSluice-Evidence: {}\n",
        title(proposal),
        plain(&proposal.subject.canary),
        share(proposal.from),
        share(proposal.to),
        // A comma between digits would become `_` here.
        sentence(&evidence.claim.reason.replace(',', "")),
        plain(&proposal.subject.rollout),
        digest(proposal),
        hex_only(&evidence.digest),
    )
}

/// SHA-256 over what merging would do (kind, subject, path, document, changes and the share after), in hexadecimal.
/// The evidence is not part of it: newer evidence for the same change is the same proposal, and needs no write.
pub fn digest(proposal: &Proposal) -> String {
    let content = (
        proposal.kind,
        &proposal.subject,
        &proposal.path,
        proposal.document,
        &proposal.changes,
        // The bits, so that no formatting decides.
        proposal.to.to_bits(),
    );
    // Serialising plain data into memory cannot fail.
    let mut hasher = Sha256::new_with_prefix(serde_json::to_vec(&content).unwrap_or_default());
    // What was merged or declined in one run says nothing about the next.
    if let Some(begun) = proposal.begun {
        hasher.update(begun.as_second().to_be_bytes());
    }
    hex::encode(hasher.finalize())
}

/// The body of the pull request, in GitHub's Markdown. Shorter than 60,000 characters whatever the proposal holds.
pub fn body(proposal: &Proposal) -> String {
    let mut out = String::new();
    // Invariant: the marker is the first line, and nothing foreign comes before it, so no name can forge one.
    let _ = writeln!(out, "{}\n", Marker::of(proposal).comment());
    lead(&mut out, proposal);
    why(&mut out, proposal);
    stop(&mut out, proposal);
    weights(&mut out, proposal);
    seen(&mut out, proposal);
    if let Some(chart) = trace::mermaid(&proposal.evidence) {
        out.push_str(&chart);
    }
    if proposal.kind != Kind::Rollback {
        plan::section(&mut out, proposal);
    }
    check(&mut out, proposal);
    limits(&mut out, proposal);
    details(&mut out, proposal);
    out
}

/// The machine's notes in a body: what the pull request is about. Not signed, so trust it only in a pull request whose
/// author is the bot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Marker {
    /// The version of this block.
    pub version: u32,
    /// What the proposal does.
    pub kind: Kind,
    /// The rollout's name in `sluice.yaml`.
    pub rollout: String,
    /// The mesh.
    pub mesh: String,
    /// The route.
    pub route: String,
    /// The arm that served before.
    pub stable: String,
    /// The arm on trial.
    pub canary: String,
    /// The file in the repository.
    pub path: String,
    /// The document in the file, from 0.
    pub document: usize,
    /// The canary's share before, in percent.
    pub from: f64,
    /// The canary's share after, in percent.
    pub to: f64,
    /// [`digest`] of the proposal.
    pub content: String,
    /// The digest of the evidence the body was written from.
    pub evidence: String,
}

impl Marker {
    /// The version that [`body`] writes.
    pub const VERSION: u32 = 1;

    /// The marker of a proposal. Texts beyond 100 characters are cut; the digests speak for the whole.
    pub fn of(proposal: &Proposal) -> Self {
        let cut = |text: &str| text.chars().take(100).collect::<String>();
        let subject = &proposal.subject;
        Self {
            version: Self::VERSION,
            kind: proposal.kind,
            rollout: cut(&subject.rollout),
            mesh: cut(&subject.mesh),
            route: cut(&subject.route),
            stable: cut(&subject.stable),
            canary: cut(&subject.canary),
            path: cut(&proposal.path),
            document: proposal.document,
            from: proposal.from,
            to: proposal.to,
            content: digest(proposal),
            evidence: hex_only(&proposal.evidence.digest),
        }
    }

    /// The marker of a body that [`body`] wrote: its first line, nowhere else. GitHub may have changed line endings.
    pub fn find(body: &str) -> Option<Self> {
        let line = body.lines().next()?.trim();
        let json = line.strip_prefix("<!-- sluice ")?.strip_suffix(" -->")?;
        serde_json::from_str(json).ok()
    }

    /// The hidden comment. Pure ASCII without `<`, `>`, `&`, `@`, `#`: nothing ends the comment early or shows in a
    /// notification.
    fn comment(&self) -> String {
        let json = serde_json::to_string(self).unwrap_or_default();
        let mut safe = String::with_capacity(json.len());
        for c in json.chars() {
            if (' '..='~').contains(&c) && !matches!(c, '<' | '>' | '&' | '@' | '#' | '`') {
                safe.push(c);
            } else {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(safe, "\\u{unit:04x}");
                }
            }
        }
        format!("<!-- sluice {safe} -->")
    }
}

fn lead(out: &mut String, proposal: &Proposal) {
    let Proposal { from, to, subject, .. } = proposal;
    let (canary, stable) = (code(&subject.canary), code(&subject.stable));
    let route = code(route_name(&subject.route));
    let (was, will, rest) = (share(*from), share(*to), share(100.0 - to));
    let _ = match proposal.kind {
        Kind::Promote => writeln!(
            out,
            "**{canary} gets {will} of the traffic of {route}, up from {was}.** {stable} {}.",
            if *to < 100.0 { format!("keeps {rest}") } else { "serves nothing after that".to_owned() }
        ),
        Kind::Rollback => writeln!(
            out,
            "**{canary} goes back from {was} to {will} of the traffic of {route}.** {stable} serves {rest} again."
        ),
        Kind::Ask => writeln!(
            out,
            "**A person decides whether {canary} gets {will} of the traffic of {route}; it has {was} now.**\n\n\
             - **Merging** does what the edit says: {canary} goes from {was} to {will}, {stable} to {rest}.\n\
             - **Closing** leaves everything as it is: {canary} stays at {was}, and the bot does not ask again until \
             the proposed change is a different one."
        ),
    };
    if let Some(person) = &proposal.person {
        let _ = writeln!(out, "\n> **Why a person must decide:** {}", prose(person));
    }
    if !proposal.then.is_empty() {
        let shares: Vec<_> = proposal.then.iter().take(ROWS).map(|next| share(*next)).collect();
        let _ = writeln!(
            out,
            "\nThis is one write of several on the way to the rung that was cleared: {} follow{}, \
             so that no single one moves more than the guards allow and none swaps all traffic at once.",
            shares.join(", then "),
            if shares.len() == 1 { "s in a pull request of its own" } else { " in pull requests of their own" }
        );
    }
}

fn why(out: &mut String, proposal: &Proposal) {
    let claim = &proposal.evidence.claim;
    let _ = writeln!(out, "\n### Why now\n");
    let mut reason = prose(&claim.reason);
    let name = claim.signals.keys().any(|name| claim.reason.starts_with(name.as_str()));
    if let Some(first) = reason.get(..1).filter(|_| !name).map(str::to_ascii_uppercase) {
        reason.replace_range(..1, &first);
    }
    let _ = write!(out, "{reason}.");
    if let Some(rung) = trace::rungs(&proposal.evidence.ticks).last() {
        let _ = write!(
            out,
            " {} at {} so far, last looked at {}.",
            about((rung.until - rung.since) as f64),
            share(rung.share),
            moment(rung.until)
        );
    }
    out.push('\n');
    let policy = &proposal.evidence.policy;
    let worst = claim.signals.iter().max_by(|a, b| a.1.harm.total_cmp(&b.1.harm));
    if let (Some((name, signal)), true) = (worst, proposal.kind == Kind::Rollback || claim.call == Call::Rollback) {
        let worse = if signal.score {
            "falls short of its margin".to_owned()
        } else {
            format!("has more than {} times the bad requests of the stable arm", ratio(policy.harm_ratio))
        };
        let _ = writeln!(
            out,
            "\nWhat {} shows is {}. {} were enough to go back.",
            code(name),
            likelier(signal.harm, &format!("the canary {worse}"), "it does not"),
            odds(signal.harm_bound),
        );
    } else if proposal.kind == Kind::Promote && proposal.from > 0.0 {
        let weakest = claim.signals.iter().min_by(|a, b| a.1.safe.total_cmp(&b.1.safe));
        if let Some((name, signal)) = weakest {
            let bad = if signal.score {
                "were no better than its margin".to_owned()
            } else {
                format!(
                    "had {} times the bad requests of the stable arm and no comfortably low rate",
                    ratio(policy.margin_at(proposal.from))
                )
            };
            let _ = writeln!(
                out,
                "\nThe weakest signal is {}: what was seen is {}. {} are asked for on this rung.",
                code(name),
                likelier(signal.safe, "the canary is fine", &format!("it {bad}")),
                odds((1.0 / policy.beta).ln()),
            );
        }
    }
}

fn stop(out: &mut String, proposal: &Proposal) {
    let policy = &proposal.evidence.policy;
    let _ = writeln!(out, "\n### What would stop it\n");
    if proposal.kind == Kind::Rollback {
        let _ = writeln!(
            out,
            "Nothing should: going back to the arm that served before is never capped, frozen or delayed. Until this \
             is merged the canary keeps its share and its users keep what was measured below."
        );
        return;
    }
    let bound = proposal.evidence.claim.signals.values().map(|signal| signal.harm_bound).fold(f64::INFINITY, f64::min);
    let bound = if bound.is_finite() { odds(bound) } else { odds((1.0 / policy.alpha).ln()) };
    let _ = writeln!(
        out,
        "- Harm in any signal ({bound}, before or after merging): a rollback is proposed instead.\n\
         - No data from both arms for {} looks in a row: the bot waits. Missing data is neither good nor bad news.\n\
         - The canary getting clearly more or fewer requests than its weight says: the bot stops and says so.\n\
         - A commit by a person on this branch: the bot stops writing to it.",
        policy.blind_after
    );
    if proposal.guards.is_empty() {
        let _ = writeln!(out, "\nGuards: nothing stands in the way.");
    } else {
        let _ = writeln!(out, "\nGuards:\n");
        for guard in proposal.guards.iter().take(GUARDS) {
            let _ = writeln!(out, "- {}", prose(guard));
        }
        if proposal.guards.len() > GUARDS {
            let _ = writeln!(out, "- and {} more", proposal.guards.len() - GUARDS);
        }
    }
}

fn weights(out: &mut String, proposal: &Proposal) {
    let _ = writeln!(out, "\n### What changes\n");
    let document = match proposal.document {
        0 => String::new(),
        later => format!(", document {} of the file", later + 1),
    };
    let _ = writeln!(out, "In {}{document}:\n", code(&proposal.path));
    let _ = writeln!(out, "| backend | weight | field |\n|---|---:|---|");
    for change in proposal.changes.iter().take(ROWS) {
        let field = code(&change.field.to_string());
        let _ = writeln!(out, "| {} | {} → {} | {field} |", code(&change.backend), change.from, change.to);
    }
    left_out(out, proposal.changes.len());
}

fn seen(out: &mut String, proposal: &Proposal) {
    let evidence = &proposal.evidence;
    let policy = &evidence.policy;
    let _ = writeln!(out, "\n### What was seen on this rung\n");
    if evidence.claim.signals.values().all(|signal| signal.canary.n <= 0.0 && signal.stable.n <= 0.0) {
        let _ = writeln!(out, "Nothing yet: no signal had data.");
        return;
    }
    let safe_bound = odds((1.0 / policy.beta).ln());
    let _ = writeln!(
        out,
        "| signal | canary: bad of all | stable: bad of all | ratio | harm (rollback at) | safety ({safe_bound} needed) | verdict |\n\
         |---|---|---|---|---|---|---|"
    );
    for (name, signal) in evidence.claim.signals.iter().take(ROWS) {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} ({}) | {} | {} |",
            code(name),
            arm(signal, true),
            arm(signal, false),
            compared(signal),
            odds(signal.harm),
            odds(signal.harm_bound),
            odds(signal.safe),
            verdict(signal),
        );
    }
    left_out(out, evidence.claim.signals.len());
    let _ = writeln!(
        out,
        "\nHow to read the odds: `1,240 to 1` means that what was seen is 1,240 times more likely if the claim holds \
         than if it does not; `1 to 37` speaks against the claim. *Harm* claims that the canary has more than {} times \
         the bad requests of the stable arm, and looks back over the canary's whole life. *Safety* claims that it has \
         fewer than {} times as many, or a rate comfortably low, and starts anew on each rung. The odds hold however \
         often one looks.",
        ratio(policy.harm_ratio),
        ratio(policy.margin_at(proposal.from)),
    );
    if evidence.claim.signals.values().any(|signal| signal.score) {
        let _ = writeln!(
            out,
            "\nA business metric shows its mean in each arm and the difference; it is safe when the canary's mean \
             clears its margin, and falling short of it asks a person."
        );
    }
}

fn check(out: &mut String, proposal: &Proposal) {
    let _ = writeln!(
        out,
        "\n### Check it, undo it\n\n\
         - **Check:** `sluice verify <number of this pull request>` recomputes every number above from the recorded \
         counts, offline, and names what differs."
    );
    let _ = match proposal.kind {
        Kind::Rollback => writeln!(
            out,
            "- **Undo:** revert this pull request. The bot does not raise this canary again by itself: a rollback \
             ends the trial, and a new version begins a new one."
        ),
        Kind::Promote | Kind::Ask => writeln!(
            out,
            "- **Undo:** revert this pull request; moving back towards {} is never refused. If harm shows after the \
             merge, the bot proposes the way back by itself.",
            code(&proposal.subject.stable)
        ),
    };
}

fn limits(out: &mut String, proposal: &Proposal) {
    let evidence = &proposal.evidence;
    let policy = &evidence.policy;
    let _ = writeln!(out, "\n### What this does not tell\n");
    let _ = writeln!(
        out,
        "- The promises: a canary that harms nobody is rolled back in at most {} of all lives, and one as bad as the \
         rung's margin is called safe in at most {} per rung and signal. Both rest on requests failing independently \
         of each other.",
        rate(policy.alpha),
        rate(policy.beta),
    );
    let bursty = evidence.claim.signals.iter().filter(|(_, signal)| !signal.score);
    if let Some((name, signal)) = bursty.max_by(|a, b| a.1.burstiness.total_cmp(&b.1.burstiness)) {
        let _ = writeln!(
            out,
            "- Bursts break that. They are measured on the stable arm and the evidence is discounted for them: the \
             rate of {} jumps by about {} from look to look beyond what counting explains. The discount is measured, \
             not exact.",
            code(name),
            rate(signal.burstiness.max(0.0).sqrt()),
        );
    }
    if proposal.kind != Kind::Rollback {
        match evidence.ticks.iter().rev().find_map(|tick| tick.replicas) {
            None => {
                let _ = writeln!(
                    out,
                    "- How many replicas serve each arm is not known, so the load of the next share was not \
                     projected: a canary that is too small for {} shows it only there.",
                    share(proposal.to)
                );
            }
            Some(replicas) => {
                let _ = writeln!(
                    out,
                    "- The load of the next share was projected onto {} canary replicas as they were last seen; \
                     scaling down afterwards is not foreseen.",
                    count(replicas.canary)
                );
            }
        }
    }
    let gaps = trace::gaps(&evidence.ticks);
    if gaps > 0 {
        let _ = writeln!(
            out,
            "- {gaps} of {} looks lacked data from an arm. They count as nothing, neither good nor bad.",
            evidence.ticks.len()
        );
    }
    let _ = writeln!(out, "- Only the signals in the table are watched. What none of them measures may still break.");
}

fn details(out: &mut String, proposal: &Proposal) {
    const CLOSE: &str = "\n</details>\n";
    const CUT: &str = "\nThe rest of the details is left out: a pull request has no room for more. The recorded evidence holds it all.\n";
    let evidence = &proposal.evidence;
    let policy = &evidence.policy;
    let numbers = |numbers: &[f64]| numbers.iter().take(ROWS).map(|n| trim(*n)).collect::<Vec<_>>().join(", ");
    let mut lines = vec![
        format!("- Engine {}, evidence format {}", code(&evidence.engine), evidence.format),
        format!("- Evidence digest `{}`", hex_only(&evidence.digest)),
        format!("- Content digest `{}`", digest(proposal)),
        format!("- Mesh {}, route {}", code(&proposal.subject.mesh), code(&proposal.subject.route)),
        format!(
            "- Ladder {} (percent), at least {} on each rung, a person is asked after {}",
            numbers(&policy.rungs()),
            policy.dwell,
            policy.deadline
        ),
        format!(
            "- α {}, β {}, harm ratio {}, floor {}, warm-up {}, burstiness assumed at first {}",
            trim(policy.alpha),
            trim(policy.beta),
            trim(policy.harm_ratio),
            trim(policy.floor),
            policy.warmup,
            trim(policy.dispersion)
        ),
    ];
    for (name, signal) in &policy.signals {
        let mut line = format!("- Signal {}", code(name));
        if let Some(ceiling) = signal.ceiling {
            let _ = write!(line, ", objective: at most {} bad", rate(ceiling));
        }
        if let Some(margin) = signal.score_margin() {
            let _ = write!(line, ", business metric with margin {}", trim(margin));
        }
        lines.push(line);
    }
    for (name, signal) in &evidence.claim.signals {
        lines.push(format!(
            "- {}: ln E harm {:.4} (bound {:.4}), ln E safety {:.4} (bound {:.4}), burstiness {:.4}",
            code(name),
            signal.harm,
            signal.harm_bound,
            signal.safe,
            (1.0 / policy.beta).ln(),
            signal.burstiness
        ));
    }
    lines.push(String::new());
    lines.push("Counts by rung:\n".to_owned());
    for rung in trace::rungs(&evidence.ticks) {
        let mut line = format!(
            "- {} from {} to {}, {} looks",
            share(rung.share),
            moment(rung.since),
            moment(rung.until),
            rung.looks
        );
        for (name, [canary, stable]) in rung.counts.iter().take(ROWS) {
            let _ = write!(
                line,
                "; {} canary {} of {}, stable {} of {}",
                code(name),
                count(canary.x),
                count(canary.n),
                count(stable.x),
                count(stable.n)
            );
        }
        lines.push(line);
    }
    let _ = writeln!(out, "\n<details>\n<summary>Digests, policy and counts</summary>\n");
    let mut length = out.chars().count() + CLOSE.len() + CUT.len();
    for line in lines {
        length += line.chars().count() + 1;
        if length > LIMIT {
            out.push_str(CUT);
            break;
        }
        out.push_str(&line);
        out.push('\n');
    }
    out.push_str(CLOSE);
}

fn arm(signal: &SignalClaim, canary: bool) -> String {
    let counts = if canary { signal.canary } else { signal.stable };
    if counts.n <= 0.0 {
        "no data".to_owned()
    } else if signal.score {
        format!("mean {:.3} of {}", counts.x / counts.n, count(counts.n))
    } else {
        format!("{} of {} ({})", count(counts.x), count(counts.n), rate(counts.x / counts.n))
    }
}

fn compared(signal: &SignalClaim) -> String {
    let (canary, stable) = (signal.canary, signal.stable);
    if canary.n <= 0.0 || stable.n <= 0.0 {
        return "–".to_owned();
    }
    let (a, b) = (canary.x / canary.n, stable.x / stable.n);
    if signal.score {
        format!("{:+.3}", a - b)
    } else if b <= 0.0 {
        "stable had none".to_owned()
    } else {
        format!("{:.2}", a / b)
    }
}

fn verdict(signal: &SignalClaim) -> &'static str {
    match (signal.verdict, signal.score) {
        (SignalVerdict::Harm, false) => "**harm**: worse than allowed",
        (SignalVerdict::Harm, true) => "**below its margin**",
        (SignalVerdict::Safe, false) => "safe on this rung",
        (SignalVerdict::Safe, true) => "clears its margin",
        (SignalVerdict::Undecided, _) => "undecided: too little seen",
    }
}

/// Says what a table lacks.
fn left_out(out: &mut String, all: usize) {
    if all > ROWS {
        let _ = writeln!(out, "\nand {} more", all - ROWS);
    }
}

/// `demo/summarize` of `MeshHTTPRoute demo/summarize`.
fn route_name(route: &str) -> &str {
    route.split_once(' ').map_or(route, |(_, name)| name)
}

/// A reason for a commit message, where `%`, commas and colons are welcome and foreign text is not trusted either.
fn sentence(text: &str) -> String {
    let words: Vec<String> = text
        .split_whitespace()
        .take(60)
        .map(|word| {
            let bare = word.trim_end_matches([':', ',', '%']);
            format!("{}{}", if bare.is_empty() { String::new() } else { plain(bare) }, &word[bare.len()..])
        })
        .collect();
    words.join(" ")
}

fn hex_only(text: &str) -> String {
    text.chars().filter(char::is_ascii_hexdigit).take(64).collect()
}

fn trim(number: f64) -> String {
    let text = format!("{number:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
