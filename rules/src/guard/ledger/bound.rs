//! A ledger stays small: what no guard asks about is forgotten, and what there is too much of is told in fewer words.

use super::{Cover, Entry, Known, Ledger};
use crate::guard::{Moved, Record};
use crate::policy::Identity;
use crate::split::{RuleKey, Shares, distance};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;

/// More entries than this are merged.
const MOST_ENTRIES: usize = 256;
/// More bytes than this are merged: an object may have about 1.5 MiB, and every reservation writes all of it.
const MOST_BYTES: usize = 224 * 1024;
/// What is kept of one record or of one policy.
pub(super) const MOST_RULES: usize = 128;
const MOST_BYTES_OF_RULES: usize = 24 * 1024;
/// What is kept of policies altogether.
pub(super) const MOST_POLICIES: usize = 64;
const MOST_BYTES_OF_POLICIES: usize = 64 * 1024;

impl Ledger {
    /// Forgets what is older than guards ask for, but for what tells the stable split, and merges what is too much: the
    /// sum of the shifts stays, the later time counts, so that a window is never emptier than it was.
    pub fn bound(&mut self, cover: &Cover, now: Timestamp) {
        for entry in &mut self.entries {
            if entry.record.is_long() {
                Arc::make_mut(&mut entry.record).cut();
            }
        }
        self.forget(cover, now);
        while self.entries.len() > MOST_ENTRIES || self.bytes() > MOST_BYTES {
            if self.entries.len() < 2 {
                break;
            }
            let (first, second) = self.oldest_pair().unwrap_or((0, 1));
            self.merge(first, second);
        }
        let entries = &self.entries;
        let is_used = |known: &Known| entries.iter().any(|entry| entry.record.policy == known.policy);
        self.policies.retain(|known| !known.gone || is_used(known));
        let bytes = |policies: &[Known]| policies.iter().map(Known::bytes).sum::<usize>();
        while self.policies.len() > MOST_POLICIES || bytes(&self.policies) > MOST_BYTES_OF_POLICIES {
            self.policies.remove(0);
        }
    }

    /// What is out of every window matters only while it belongs to the current run of shifts of its policy, whose
    /// beginning is the stable split; of such a run one entry is enough.
    fn forget(&mut self, cover: &Cover, now: Timestamp) {
        // Twice what clocks may differ by and more: whoever judges must find what it counts.
        let keep = cover.keep.saturating_add(MARGIN);
        let settle = cover.settle.saturating_add(MARGIN);
        let is_old = |entry: &Entry| entry.reserved.is_none() && now.duration_since(entry.record.time) >= keep;
        if !self.entries.iter().any(is_old) {
            return;
        }
        let mut runs: BTreeMap<&Identity, Timestamp> = BTreeMap::new();
        let mut needed: Vec<bool> = Vec::new();
        for entry in self.entries.iter().rev() {
            let later = runs.entry(&entry.record.policy).or_insert(now);
            let in_run = later.duration_since(entry.record.time) < settle;
            if in_run {
                *later = entry.record.time;
            } else {
                // Nothing before it belongs to the run.
                *later = Timestamp::MAX;
            }
            needed.push(in_run || !is_old(entry));
        }
        let mut needed = needed.into_iter().rev();
        self.entries.retain(|_| needed.next().unwrap_or(true));
        let mut at = 0;
        while at < self.entries.len() {
            let next = self.next_of_policy(at).filter(|next| is_old(&self.entries[at]) && is_old(&self.entries[*next]));
            match next {
                Some(next) => self.merge(at, next),
                None => at += 1,
            }
        }
    }

    fn next_of_policy(&self, at: usize) -> Option<usize> {
        let policy = &self.entries[at].record.policy;
        (at + 1..self.entries.len()).find(|next| self.entries[*next].record.policy == *policy)
    }

    fn oldest_pair(&self) -> Option<(usize, usize)> {
        let seen = |at: usize| self.entries[at].reserved.is_none();
        let pairs = (0..self.entries.len()).filter(|at| seen(*at));
        pairs.filter_map(|at| Some((at, self.next_of_policy(at)?))).find(|(_, next)| seen(*next))
    }

    /// Tells two entries as one. Where nothing better is left to merge they may be of two policies, or nobody has seen
    /// them yet: then they count as if they were real.
    fn merge(&mut self, first: usize, second: usize) {
        let mut earlier = self.entries.remove(first);
        let later = &mut self.entries[second - 1];
        for entry in [&mut earlier, later].into_iter().filter(|entry| entry.creates()) {
            Arc::make_mut(&mut entry.record).forget_rules();
        }
        let record = Arc::make_mut(&mut later.record);
        let shift = |record: &Record| if record.rollback { 0.0 } else { record.shift };
        let sum = shift(&earlier.record) + shift(record);
        if record.policy == earlier.record.policy {
            let mut rules: BTreeMap<RuleKey, Moved> =
                earlier.record.rules.iter().map(|moved| (moved.rule.clone(), moved.clone())).collect();
            for moved in record.rules.drain(..) {
                match rules.get_mut(&moved.rule) {
                    Some(known) => known.after = moved.after,
                    None => drop(rules.insert(moved.rule.clone(), moved)),
                }
            }
            record.rules = rules.into_values().collect();
            record.more = record.more.max(earlier.record.more);
        }
        record.rollback &= earlier.record.rollback;
        if !record.rollback {
            record.shift = sum;
        }
        record.automated |= earlier.record.automated;
        record.time = record.time.max(earlier.record.time);
        record.cut();
        later.observed |= earlier.observed;
        // Seen or not, of what was merged nothing can be given back any more.
        later.reserved = None;
    }

    fn bytes(&self) -> usize {
        self.entries.iter().map(|entry| ENTRY + entry.digest.len() + entry.record.bytes()).sum()
    }
}

/// More than clocks may be apart.
const MARGIN: SignedDuration = SignedDuration::from_mins(5);

/// What an entry or a known policy takes beside its rules, names and texts.
const ENTRY: usize = 400;
const RULE: usize = 48;
const SHARE: usize = 32;

fn bytes_of_shares(shares: &Shares) -> usize {
    shares.services().map(|service| SHARE + service.as_str().len()).sum()
}

fn bytes_of_identity(policy: &Identity) -> usize {
    policy.kind.len() + policy.mesh.len() + policy.name.len() + policy.namespace.as_ref().map_or(0, String::len)
}

impl Moved {
    fn bytes(&self) -> usize {
        RULE + self.rule.len() + bytes_of_shares(&self.before) + bytes_of_shares(&self.after)
    }
}

impl Record {
    fn bytes(&self) -> usize {
        let names = self.mesh.len() + self.destination.as_str().len() + bytes_of_identity(&self.policy);
        names + self.rules.iter().map(Moved::bytes).sum::<usize>()
    }

    /// Keeps that there was a shift, and not from what to what.
    pub(super) fn forget_rules(&mut self) {
        self.rules.clear();
        self.more = 0;
    }

    fn is_long(&self) -> bool {
        self.rules.len() > MOST_RULES || self.bytes() > MOST_BYTES_OF_RULES
    }

    /// Keeps what there is room for: one of each different move first, then the largest. What is left out moved like
    /// one of those, as far as there was room.
    pub(super) fn cut(&mut self) {
        if !self.is_long() {
            return;
        }
        let mut rules = std::mem::take(&mut self.rules);
        let listed = rules.len();
        rules.sort_by(|a, b| distance(&b.before, &b.after).total_cmp(&distance(&a.before, &a.after)));
        let mut different: Vec<(Shares, Shares)> = Vec::new();
        let (first, rest): (Vec<_>, Vec<_>) = rules.into_iter().partition(|moved| {
            let known = different.iter().any(|(before, after)| *before == moved.before && *after == moved.after);
            let first = !known && different.len() < MOST_RULES;
            if first {
                different.push((moved.before.clone(), moved.after.clone()));
            }
            first
        });
        let mut room = MOST_BYTES_OF_RULES;
        for moved in first.into_iter().chain(rest) {
            let bytes = moved.bytes();
            if self.rules.len() < MOST_RULES && bytes <= room {
                room -= bytes;
                self.rules.push(moved);
            }
        }
        self.more += listed - self.rules.len();
        self.rules.sort_by(|a, b| a.rule.cmp(&b.rule));
    }
}

impl Known {
    fn bytes(&self) -> usize {
        let rules = self.rules.iter().map(|held| RULE + held.rule.len() + bytes_of_shares(&held.shares));
        ENTRY + bytes_of_identity(&self.policy) + rules.sum::<usize>()
    }

    /// Keeps the first rules that there is room for.
    pub(super) fn cut(&mut self) {
        let (mut room, mut kept) = (MOST_BYTES_OF_RULES, 0);
        for held in self.rules.iter().take(MOST_RULES) {
            let bytes = RULE + held.rule.len() + bytes_of_shares(&held.shares);
            if bytes > room {
                break;
            }
            room -= bytes;
            kept += 1;
        }
        self.more += self.rules.len() - kept;
        self.rules.truncate(kept);
    }
}
