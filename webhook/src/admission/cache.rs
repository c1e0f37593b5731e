//! What was found out about a change before: GitOps applies the same again and again, and a dry run comes before the
//! real one.
//!
//! An entry is found by the whole text that it was made from, not by a hash of it, so that no two changes can be taken
//! for one. Two generations: when the young one is full it becomes the old one, and what is still asked for comes back.

use super::route::Assessed;
use sluice_rules::health::Known;
use sluice_rules::validate::Kuma;
use std::collections::HashMap;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

/// The most text in one generation, in bytes.
const MOST_TEXT: usize = 2 * 1024 * 1024;
/// The most entries in one generation.
const MOST_ENTRIES: usize = 512;

/// What was found out before.
#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<u64, Arc<Entry>>,
    old: HashMap<u64, Arc<Entry>>,
    text: usize,
}

#[derive(Debug)]
struct Entry {
    parts: Parts<Box<str>>,
    known: Arc<Known>,
    kuma: Kuma,
    assessed: Arc<Assessed>,
}

/// Everything that an assessment is made from, beside the world: kind, name, namespace, then of both sides whether it
/// is there, its version, mesh, labels and spec.
pub(super) type Parts<T> = [T; 13];

impl Cache {
    /// What was found out for these parts in this world.
    pub(super) fn find(&self, parts: &Parts<&str>, known: &Arc<Known>, kuma: &Kuma) -> Option<Arc<Assessed>> {
        let hash = hash(parts);
        let (entry, is_old) = {
            let generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match generations.young.get(&hash) {
                Some(entry) => (Arc::clone(entry), false),
                None => (Arc::clone(generations.old.get(&hash)?), true),
            }
        };
        let same = entry.parts.iter().zip(parts).all(|(ours, theirs)| **ours == **theirs);
        if !same || !Arc::ptr_eq(&entry.known, known) || entry.kuma != *kuma {
            return None;
        }
        let assessed = Arc::clone(&entry.assessed);
        if is_old {
            self.put(hash, entry);
        }
        Some(assessed)
    }

    /// Keeps what was found out.
    pub(super) fn keep(&self, parts: &Parts<&str>, known: &Arc<Known>, kuma: &Kuma, assessed: &Arc<Assessed>) {
        let entry = Entry {
            parts: parts.map(Into::into),
            known: Arc::clone(known),
            kuma: kuma.clone(),
            assessed: Arc::clone(assessed),
        };
        self.put(hash(parts), Arc::new(entry));
    }

    fn put(&self, hash: u64, entry: Arc<Entry>) {
        let size: usize = entry.parts.iter().map(|part| part.len()).sum();
        // One object that fills a generation would push all others out.
        if size > MOST_TEXT / 4 {
            return;
        }
        let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if generations.text + size > MOST_TEXT || generations.young.len() >= MOST_ENTRIES {
            generations.old = mem::take(&mut generations.young);
            generations.text = 0;
        }
        generations.text += size;
        generations.young.insert(hash, entry);
    }
}

/// Only finds the entry; a collision costs an entry and never an answer.
fn hash(parts: &Parts<&str>) -> u64 {
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
