//! The account of a race: what etcd holds against what the ledgers say, and against the limits.

use super::scene::{SUBJECTS, canaries, canary_of};
use super::writer::{ANNOTATION, Act, Entry, Outcome};
use crate::support::etcd::Event;
use jiff::{SignedDuration, Timestamp};
use sluice_rules::guard::Ledger;
use sluice_rules::split::Shares;
use std::collections::{BTreeMap, BTreeSet};

/// A write that moved traffic of one destination.
#[derive(Debug, Clone)]
pub(crate) struct Move {
    /// The version that it led to.
    revision: u64,
    /// The version of the next move of the same split.
    next: u64,
    /// Kind and name.
    policy: (String, String),
    uid: String,
    destination: String,
    before: u32,
    after: u32,
    gone: bool,
    rollback: bool,
    /// It was written in between.
    sent: Timestamp,
    answered: Timestamp,
}

impl Move {
    fn shift(&self) -> u32 {
        self.before.abs_diff(self.after)
    }
}

/// What came of a race, for the table.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Moves that were written, and how many of them were no way back.
    pub(crate) moves: usize,
    pub(crate) forward: usize,
    /// The fullest window and its limit, by subject.
    pub(crate) fullest: Vec<(u32, u32)>,
}

/// An answer may be late by this much when none came at all.
const NO_ANSWER: SignedDuration = SignedDuration::from_secs(60);

/// What moved, in the order of revisions; fails when something was written that should not have been, or the reverse.
pub(crate) fn moves(events: &[Event], journal: &[Entry], problems: &mut Vec<String>) -> Vec<Move> {
    let mut shares: BTreeMap<(String, String), u32> = BTreeMap::new();
    let mut stable: BTreeMap<(String, String), u32> = BTreeMap::new();
    let mut uids: BTreeMap<String, String> = BTreeMap::new();
    let mut last: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut written = BTreeSet::new();
    let mut found: Vec<Move> = Vec::new();
    for event in events {
        let Event { revision, key, object } = event;
        let text = |at: &str| object.as_ref().and_then(|object| object.pointer(at)?.as_str()).map(str::to_owned);
        if let Some(uid) = text("/metadata/uid") {
            uids.insert(key.clone(), uid);
        }
        let uid = uids.get(key).cloned().unwrap_or_default();
        let entry = match object {
            Some(_) => text(&format!("/metadata/annotations/{}", ANNOTATION.replace('/', "~1")))
                .and_then(|entry| entry.parse::<usize>().ok()),
            // Two may have asked to delete it; who was told so did.
            None => {
                let ours = |entry: &&(usize, &Entry)| entry.1.uid.as_ref() == Some(&uid) && may_be_written(entry.1);
                let mut all: Vec<_> = journal.iter().enumerate().filter(|entry| ours(&entry)).collect();
                all.sort_by_key(|(_, entry)| !was_written(entry));
                let first = all.first().map(|(at, _)| *at);
                if first.is_none() {
                    problems.push(format!("{revision}: nobody deleted {key}"));
                }
                first
            }
        };
        if let Some(at) = entry {
            written.insert(at);
            if !may_be_written(&journal[at]) {
                problems.push(format!("{revision}: {key} was written by {:?}", journal[at]));
            }
        }
        let present = object.as_ref().map(canaries).unwrap_or_default();
        let known: Vec<_> = shares.keys().filter(|(of, _)| of == key).map(|(_, name)| name.clone()).collect();
        let names: BTreeSet<String> = present.keys().cloned().chain(known).collect();
        for name in names {
            let split = (key.clone(), name.clone());
            let after = present.get(&name).copied().unwrap_or(0);
            let before = shares.insert(split.clone(), after).unwrap_or(0);
            // What was there before the race has no entry.
            let Some(entry) = entry.map(|at| &journal[at]).filter(|_| before != after) else { continue };
            let stable = *stable.entry(split.clone()).or_insert(before);
            let kind = if key.contains("/meshtcproutes/") { "MeshTCPRoute" } else { "MeshHTTPRoute" };
            let answered = entry.answer.filter(|(_, outcome)| *outcome == Outcome::Passed);
            let no_answer = || entry.sent.saturating_add(NO_ANSWER).unwrap_or(Timestamp::MAX);
            if let Some(earlier) = last.insert(split, found.len()) {
                found[earlier].next = *revision;
            }
            found.push(Move {
                revision: *revision,
                next: u64::MAX,
                policy: (kind.to_owned(), key.rsplit('/').next().unwrap_or_default().to_owned()),
                uid: uid.clone(),
                destination: name,
                before,
                after,
                gone: object.is_none(),
                rollback: after.abs_diff(stable) < before.abs_diff(stable),
                sent: entry.sent,
                answered: answered.map_or_else(no_answer, |(at, _)| at),
            });
        }
    }
    for (at, entry) in journal.iter().enumerate() {
        if was_written(entry) && !written.contains(&at) {
            problems.push(format!("entry {at} passed and is nowhere: {entry:?}"));
        }
    }
    found
}

fn was_written(entry: &Entry) -> bool {
    matches!(entry.answer, Some((_, Outcome::Passed))) && entry.act != Act::DryRun
}

/// Nobody knows of what was not answered.
fn may_be_written(entry: &Entry) -> bool {
    let open = entry.answer.is_none_or(|(_, outcome)| matches!(outcome, Outcome::Passed | Outcome::Unknown));
    open && !matches!(entry.act, Act::DryRun | Act::Unwanted)
}

/// Every move is in its ledger once, and nothing else is.
pub(crate) fn compare(moves: &[Move], ledgers: &[Ledger], problems: &mut Vec<String>) {
    let mut missing: Vec<&Move> = moves.iter().collect();
    for ledger in ledgers {
        let destination = ledger.destination.as_str().split('.').next().unwrap_or_default();
        for entry in &ledger.entries {
            let record = &entry.record;
            if entry.reserved.is_some() {
                problems.push(format!("nobody saw it: {entry:?}"));
            }
            let canary = |shares: &Shares| -> f64 {
                let ours = shares.iter().filter(|(service, _)| service.as_str().starts_with(&canary_of(destination)));
                ours.map(|(_, share)| share).sum()
            };
            let same = |known: &&Move| {
                let version = entry.version.as_deref().and_then(|version| version.parse::<u64>().ok()).unwrap_or(0);
                // What was not a move may have been written on top before anybody looked.
                let seen = known.gone || (known.revision..known.next).contains(&version);
                known.destination == destination
                    && (known.policy.0.as_str(), known.policy.1.as_str()) == (&record.policy.kind, &record.policy.name)
                    // A way back passes although its reservation lost every race. It is recorded once it is seen: by
                    // then the object may have been written on top, or deleted and created again.
                    && (known.rollback || known.uid == entry.uid && seen)
                    && record.rules.len() == 1
                    && record.rules.iter().all(|moved| {
                        near(canary(&moved.before), known.before) && near(canary(&moved.after), known.after)
                    })
            };
            // The very write, where there is one that fits.
            let exact = missing.iter().position(|known| same(known) && known.uid == entry.uid);
            match exact.or_else(|| missing.iter().position(same)) {
                None => problems.push(format!("the ledger says what was not written: {entry:?}")),
                Some(at) => {
                    let found = missing.remove(at);
                    if entry.observed && !found.rollback {
                        problems.push(format!("nobody admitted this: {entry:?}"));
                    }
                    // What was only observed may count as forward, never the other way round.
                    let told = record.rollback == found.rollback || entry.observed && found.rollback;
                    if !near(record.shift, found.shift()) || !told {
                        problems.push(format!("the ledger says of {found:?}: {record:?}"));
                    }
                }
            }
        }
    }
    problems.extend(missing.into_iter().map(|missing| format!("no ledger says {missing:?}")));
}

fn near(found: f64, expected: u32) -> bool {
    (found - f64::from(expected)).abs() < 1e-6
}

/// No window holds more than it may, and between two shifts there is the quiet time.
pub(crate) fn hold(moves: &[Move], problems: &mut Vec<String>) -> Tally {
    let forward = |found: &&Move| !found.rollback;
    let mut tally = Tally { moves: moves.len(), forward: moves.iter().filter(forward).count(), fullest: Vec::new() };
    for subject in &SUBJECTS {
        let ours: Vec<_> = moves.iter().filter(|found| found.destination == subject.name).collect();
        let mut fullest = 0;
        for (at, last) in ours.iter().enumerate().filter(|(_, last)| !last.rollback) {
            // Only what surely was written within the window: each write came between its request and its answer.
            let apart = |earlier: &Move| last.answered.duration_since(earlier.sent);
            let inside = ours[..=at].iter().filter(|earlier| !earlier.rollback && apart(earlier) < subject.window());
            let sum: u32 = inside.map(|earlier| earlier.shift()).sum();
            fullest = fullest.max(sum);
            if sum > subject.cap {
                problems.push(format!("{sum} points of {} moved within {} s: {last:?}", subject.name, subject.window));
            }
            let quiet = SignedDuration::from_secs(subject.quiet.unwrap_or(0));
            // A way back is never held up, not even while a step forward is on its way.
            let counts = |earlier: &Move| !earlier.rollback || earlier.answered <= last.sent;
            if let Some(early) = ours[..at].iter().find(|earlier| counts(earlier) && apart(earlier) < quiet) {
                problems.push(format!("no quiet time between {early:?} and {last:?}"));
            }
        }
        tally.fullest.push((fullest, subject.cap));
    }
    tally
}
