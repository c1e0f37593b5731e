//! What was found out before: a dry run comes before the real write, one apply is reviewed several times, and what an
//! object is was mostly admitted as what it shall be.
//!
//! The steps of a canary differ in their weights alone. So a spec is known by its [`Shape`], which is read and examined
//! once, and by its weights, from which its splits follow; a write is known by its two states. Whatever is found is
//! compared as a whole, not by a hash, so that no two can be taken for one. Two generations of each: when the young one
//! is full it becomes the old one, and what is still asked for comes back.

use super::route::Assessed;
use crate::ledger::Splits;
use sluice_rules::health::{Examination, Known};
use sluice_rules::split::{Shape, Split};
use sluice_rules::validate::{Kuma, Verdict};
use std::collections::{BTreeSet, HashMap};
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

/// What was found out before.
#[derive(Debug, Default)]
pub(super) struct Cache {
    forms: Generations<Form>,
    sides: Generations<Side>,
    writes: Generations<Entry>,
}

/// A policy, whatever its name and its weights.
#[derive(Debug)]
pub(super) struct Form {
    parts: Parts<Box<str>>,
    /// What it does with traffic, with the numbers of the shape for weights.
    pub(super) splits: Vec<Split>,
    /// What was said of it last: mostly one policy alone has this form.
    examined: Mutex<Option<Arc<Examined>>>,
}

/// Kind, namespace, version, mesh, labels and spec: all that there is to know about a policy beside its name, which
/// splits do not depend on.
pub(super) type Parts<T> = [T; 6];

/// What Kuma and the rules say of a form.
#[derive(Debug)]
pub(super) struct Examined {
    /// Of the policy of this name.
    pub(super) name: Box<str>,
    /// When this was known of others.
    pub(super) known: Arc<Known>,
    /// In this Kuma.
    pub(super) kuma: Kuma,
    /// What Kuma answers.
    pub(super) verdict: Verdict,
    /// What the rules find.
    pub(super) examination: Examination,
    /// The services that it is about.
    pub(super) targets: BTreeSet<String>,
}

/// A state of a policy.
#[derive(Debug)]
pub(super) struct Side {
    /// Whatever the weights.
    pub(super) form: Arc<Form>,
    /// The weights that the form leaves out.
    weights: Box<[u32]>,
    /// What it does with traffic.
    pub(super) splits: Arc<Splits>,
}

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
    /// A form, read unless it was read before.
    pub(super) fn form<E>(
        &self,
        parts: &Parts<&str>,
        read: impl FnOnce(&str) -> Result<Vec<Split>, E>,
    ) -> Result<Arc<Form>, E> {
        let hash = hash(parts);
        let same = |form: &Form| form.parts.iter().zip(parts).all(|(ours, theirs)| **ours == **theirs);
        if let Some(form) = self.forms.find(hash, Form::size, same) {
            return Ok(form);
        }
        let splits = read(parts[SPEC])?;
        let form = Arc::new(Form { parts: parts.map(Into::into), splits, examined: Mutex::default() });
        self.forms.put(hash, form.size(), Arc::clone(&form));
        Ok(form)
    }

    /// A state of this form; none where it cannot be told what these weights are to it.
    pub(super) fn side(&self, form: &Arc<Form>, shape: Option<&Shape>) -> Option<Arc<Side>> {
        let weights = shape.map_or(&[][..], Shape::weights);
        let hash = weights.iter().fold(step(0, place(Some(form))), |hash, weight| step(hash, u64::from(*weight)));
        let same = |side: &Side| Arc::ptr_eq(&side.form, form) && *side.weights == *weights;
        if let Some(side) = self.sides.find(hash, Side::size, same) {
            return Some(side);
        }
        let splits = match shape {
            Some(shape) => shape.fill(&form.splits)?,
            None => form.splits.clone(),
        };
        let splits = Arc::new(Splits::from(splits));
        let side = Arc::new(Side { form: Arc::clone(form), weights: weights.into(), splits });
        self.sides.put(hash, side.size(), Arc::clone(&side));
        Some(side)
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

/// The place of the spec among the parts.
pub(super) const SPEC: usize = 5;

impl Form {
    /// About what it takes, in bytes. Keys of rules say much of the text again.
    fn size(&self) -> usize {
        let text = self.parts.iter().map(|part| part.len()).sum::<usize>();
        2000 + 2 * text + 2 * size(&self.splits)
    }

    /// The spec, as JSON.
    pub(super) fn spec(&self) -> &str {
        &self.parts[SPEC]
    }

    /// What was said of it under this name, in this world.
    pub(super) fn examined(&self, name: &str, known: &Arc<Known>, kuma: &Kuma) -> Option<Arc<Examined>> {
        let last = self.examined.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        (*last.name == *name && Arc::ptr_eq(&last.known, known) && last.kuma == *kuma).then_some(last)
    }

    /// Keeps what was said.
    pub(super) fn keep(&self, examined: Examined) -> Arc<Examined> {
        let examined = Arc::new(examined);
        *self.examined.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&examined));
        examined
    }
}

impl Side {
    /// About what it takes, in bytes, with its form, which it may outlive in the other generations.
    fn size(&self) -> usize {
        500 + 4 * self.weights.len() + size(&self.splits) + self.form.size()
    }
}

/// About what splits take that share their texts with others.
fn size(splits: &[Split]) -> usize {
    splits.iter().map(|split| 200 + 250 * split.backends.len()).sum()
}

impl Pair<'_> {
    fn hash(&self) -> u64 {
        step(step(hash(&[self.name]), place(self.old.as_ref())), place(self.new.as_ref()))
    }
}

impl Entry {
    /// About what it takes, in bytes, with its states: it may outlive them in the other generations.
    fn size(&self) -> usize {
        let sides = [&self.old, &self.new].into_iter().flatten().map(|side| side.size()).sum::<usize>();
        1000 + sides + self.assessed.size()
    }
}

fn place<T>(of: Option<&Arc<T>>) -> u64 {
    of.map_or(0, |of| Arc::as_ptr(of).addr() as u64)
}

fn is_same(ours: Option<&Arc<Side>>, theirs: Option<&Arc<Side>>) -> bool {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) => Arc::ptr_eq(ours, theirs),
        (None, None) => true,
        _ => false,
    }
}

/// The most that one generation takes, in bytes.
const MOST_BYTES: usize = 8 * 1024 * 1024;
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
    let mut hash = 0;
    for part in parts {
        let (words, rest) = part.as_bytes().as_chunks::<8>();
        hash = words.iter().fold(hash, |hash, word| step(hash, u64::from_le_bytes(*word)));
        hash = rest.iter().fold(hash, |hash, byte| step(hash, u64::from(*byte)));
        hash = step(hash, part.len() as u64);
    }
    hash
}

fn step(hash: u64, word: u64) -> u64 {
    const FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;
    (hash.rotate_left(5) ^ word).wrapping_mul(FACTOR)
}
