//! What was found out before: GitOps applies the same again and again, a dry run comes before the real write, and what
//! an object is was mostly admitted as what it shall be.
//!
//! A state of a policy is found by the whole text that it was made from, not by a hash of it, so that no two can be
//! taken for one; a write is found by its two states. Two generations of each: when the young one is full it becomes the
//! old one, and what is still asked for comes back.

use super::route::Assessed;
use crate::ledger::Splits;
use sluice_rules::health::Known;
use sluice_rules::validate::Kuma;
use std::collections::HashMap;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

/// What was found out before.
#[derive(Debug, Default)]
pub(super) struct Cache {
    sides: Generations<Side>,
    writes: Generations<Entry>,
}

/// A state of a policy.
#[derive(Debug)]
pub(super) struct Side {
    parts: Parts<Box<str>>,
    /// What it does with traffic.
    pub(super) splits: Arc<Splits>,
}

/// Kind, namespace, version, mesh, labels and spec: all that there is to know about a state beside the policy's name,
/// which splits do not depend on.
pub(super) type Parts<T> = [T; 6];

/// The two states of a write, as far as they are there and can be read.
#[derive(Debug, Clone)]
pub(super) struct Pair<'a> {
    /// The policy's name.
    pub(super) name: &'a str,
    /// What is.
    pub(super) old: Option<Arc<Side>>,
    /// What shall be.
    pub(super) new: Option<Arc<Side>>,
}

#[derive(Debug)]
struct Entry {
    name: Box<str>,
    old: Option<Arc<Side>>,
    new: Option<Arc<Side>>,
    known: Arc<Known>,
    kuma: Kuma,
    assessed: Arc<Assessed>,
}

impl Cache {
    /// A state that was read before.
    pub(super) fn side(&self, parts: &Parts<&str>) -> Option<Arc<Side>> {
        let same = |side: &Side| side.parts.iter().zip(parts).all(|(ours, theirs)| **ours == **theirs);
        self.sides.find(hash(parts), Side::size, same)
    }

    /// Keeps a state that was read.
    pub(super) fn keep_side(&self, parts: &Parts<&str>, splits: Splits) -> Arc<Side> {
        let side = Arc::new(Side { parts: parts.map(Into::into), splits: Arc::new(splits) });
        self.sides.put(hash(parts), side.size(), Arc::clone(&side));
        side
    }

    /// What was found out about this write in this world.
    pub(super) fn find(&self, pair: &Pair, known: &Arc<Known>, kuma: &Kuma) -> Option<Arc<Assessed>> {
        let same = |entry: &Entry| {
            *entry.name == *pair.name
                && is_same(entry.old.as_ref(), pair.old.as_ref())
                && is_same(entry.new.as_ref(), pair.new.as_ref())
                && Arc::ptr_eq(&entry.known, known)
                && entry.kuma == *kuma
        };
        self.writes.find(pair.hash(), Entry::size, same).map(|entry| Arc::clone(&entry.assessed))
    }

    /// Keeps what was found out.
    pub(super) fn keep(&self, pair: Pair, known: &Arc<Known>, kuma: &Kuma, assessed: &Arc<Assessed>) {
        let hash = pair.hash();
        let entry = Entry {
            name: pair.name.into(),
            old: pair.old,
            new: pair.new,
            known: Arc::clone(known),
            kuma: kuma.clone(),
            assessed: Arc::clone(assessed),
        };
        self.writes.put(hash, entry.size(), Arc::new(entry));
    }
}

impl Side {
    /// About what it takes, in bytes: splits are a few times as large as their text.
    fn size(&self) -> usize {
        1000 + 5 * self.parts.iter().map(|part| part.len()).sum::<usize>()
    }
}

impl Pair<'_> {
    fn hash(&self) -> u64 {
        let place = |side: &Option<Arc<Side>>| side.as_ref().map_or(0, |side| Arc::as_ptr(side).addr()).to_string();
        hash(&[self.name, &place(&self.old), &place(&self.new)])
    }
}

impl Entry {
    /// About what it takes, in bytes, with its states: it may outlive them in the other generations.
    fn size(&self) -> usize {
        let sides = [&self.old, &self.new].into_iter().flatten().map(|side| side.size()).sum::<usize>();
        1000 + sides + self.assessed.size()
    }
}

fn is_same(ours: Option<&Arc<Side>>, theirs: Option<&Arc<Side>>) -> bool {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) => Arc::ptr_eq(ours, theirs),
        (None, None) => true,
        _ => false,
    }
}

/// The most that one generation takes, in bytes.
const MOST_BYTES: usize = 6 * 1024 * 1024;
/// The most entries in one generation.
const MOST_ENTRIES: usize = 1024;

/// Two generations of what was found out.
#[derive(Debug)]
struct Generations<T>(Mutex<Two<T>>);

#[derive(Debug)]
struct Two<T> {
    young: HashMap<u64, Arc<T>>,
    old: HashMap<u64, Arc<T>>,
    bytes: usize,
}

impl<T> Default for Generations<T> {
    fn default() -> Self {
        Self(Mutex::new(Two { young: HashMap::new(), old: HashMap::new(), bytes: 0 }))
    }
}

impl<T> Generations<T> {
    fn find(&self, hash: u64, size: fn(&T) -> usize, same: impl FnOnce(&T) -> bool) -> Option<Arc<T>> {
        let (found, is_old) = {
            let two = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match two.young.get(&hash) {
                Some(found) => (Arc::clone(found), false),
                None => (Arc::clone(two.old.get(&hash)?), true),
            }
        };
        if !same(&found) {
            return None;
        }
        if is_old {
            self.put(hash, size(&found), Arc::clone(&found));
        }
        Some(found)
    }

    fn put(&self, hash: u64, size: usize, what: Arc<T>) {
        // One that fills a generation would push all others out.
        if size > MOST_BYTES / 4 {
            return;
        }
        let mut two = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = if two.bytes + size > MOST_BYTES || two.young.len() >= MOST_ENTRIES {
            two.bytes = 0;
            let young = mem::take(&mut two.young);
            mem::replace(&mut two.old, young)
        } else {
            HashMap::new()
        };
        two.bytes += size;
        two.young.insert(hash, what);
        drop(two);
        // Nobody waits for the lock while a whole generation is given back.
        drop(gone);
    }
}

/// Only finds the entry; a collision costs an entry and never an answer.
fn hash(parts: &[&str]) -> u64 {
    const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut hash = 0_u64;
    let mut add = |word: u64| hash = (hash.rotate_left(5) ^ word).wrapping_mul(FACTOR);
    for part in parts {
        let (words, rest) = part.as_bytes().as_chunks::<8>();
        words.iter().for_each(|word| add(u64::from_le_bytes(*word)));
        rest.iter().for_each(|byte| add(u64::from(*byte)));
        add(part.len() as u64);
    }
    hash
}
