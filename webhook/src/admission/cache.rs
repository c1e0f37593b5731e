//! What was found out before: a dry run comes before the real write, one apply is reviewed several times, and what an
//! object is was mostly admitted as what it shall be.
//!
//! The steps of a canary differ in their weights alone. So a spec is known by its [`Shape`], the form of which is read
//! and examined once, and by its weights, from which its splits follow; a write is known by its two states. Whatever is
//! found is compared as a whole, not by a hash, so that no two can be taken for one. Forms are kept in two generations:
//! when the young one is full it becomes the old one, and what is still asked for comes back.

use super::route::Assessed;
use crate::ledger::Splits;
use crate::world::World;
use sluice_rules::health::{Examination, Known};
use sluice_rules::split::{Shape, Split};
use sluice_rules::validate::{Kuma, Verdict};
use std::collections::{BTreeSet, HashMap};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What was found out before.
#[derive(Debug, Default)]
pub(super) struct Cache(Generations<Form>);

/// A policy, whatever its name and its weights.
#[derive(Debug)]
pub(super) struct Form {
    parts: Parts<Box<str>>,
    /// The mesh, as the policy or its labels name it.
    pub(super) mesh: String,
    /// What it does with traffic, with the numbers of the shape for weights.
    splits: Splits,
    recent: Mutex<Recent>,
}

/// Kind, namespace, version, mesh, labels and spec: all that there is to know about a policy beside its name, which
/// splits do not depend on.
pub(super) type Parts<T> = [T; 6];

/// The place of the spec among the parts.
pub(super) const SPEC: usize = 5;

/// What was found out about a form last: mostly one policy has it, and one canary goes from step to step.
#[derive(Debug, Default)]
struct Recent {
    sides: Vec<Arc<Side>>,
    last: Option<Ends>,
    write: Option<Found>,
    examined: Option<Arc<Examined>>,
}

/// The weights in a form, and what they do with traffic.
#[derive(Debug)]
pub(super) struct Side {
    weights: Box<[u32]>,
    pub(super) splits: Arc<Splits>,
}

/// A state of a policy.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) form: Arc<Form>,
    pub(super) side: Arc<Side>,
}

/// The two states of a write, as far as they are there and can be read.
#[derive(Debug)]
pub(super) struct Pair<'a> {
    /// The policy's name.
    pub(super) name: &'a str,
    /// What is.
    pub(super) old: Option<State>,
    /// What shall be.
    pub(super) new: Option<State>,
}

/// A policy of this name, when this was known of others, in this Kuma.
#[derive(Debug, Clone)]
pub(super) struct Circumstances {
    name: Box<str>,
    known: Arc<Known>,
    kuma: Arc<Kuma>,
}

/// What Kuma and the rules say of a form.
#[derive(Debug)]
pub(super) struct Examined {
    of: Circumstances,
    /// What Kuma answers.
    pub(super) verdict: Verdict,
    /// What the rules find.
    pub(super) examination: Examination,
    /// The services that it is about.
    pub(super) targets: BTreeSet<String>,
}

/// From which state to which.
type Ends = [Option<Arc<Side>>; 2];

#[derive(Debug)]
struct Found {
    of: Circumstances,
    ends: Ends,
    assessed: Arc<Assessed>,
}

/// States of one form that are kept, those that were asked for last: what is, what shall be, and one more.
const MOST_SIDES: usize = 3;

impl Cache {
    /// A form, read unless it was read before; `like` is one that it probably is.
    pub(super) fn form<E>(
        &self,
        parts: &Parts<&str>,
        like: Option<&Arc<Form>>,
        read: impl FnOnce(&str) -> Result<(String, Vec<Split>), E>,
    ) -> Result<Arc<Form>, E> {
        let same = |form: &Form| form.parts.iter().zip(parts).all(|(ours, theirs)| **ours == **theirs);
        if let Some(like) = like.filter(|like| same(like)) {
            return Ok(Arc::clone(like));
        }
        let hash = hash(parts);
        if let Some(form) = self.0.find(hash, Form::size, same) {
            return Ok(form);
        }
        let (mesh, splits) = read(parts[SPEC])?;
        let splits = Splits::from(splits);
        let form = Arc::new(Form { parts: parts.map(Into::into), mesh, splits, recent: Mutex::default() });
        self.0.put(hash, form.size(), Arc::clone(&form));
        Ok(form)
    }
}

impl Form {
    /// About what it takes at most, in bytes, with all that is kept of it. Keys of rules say much of the text again.
    fn size(&self) -> usize {
        let text = self.parts.iter().map(|part| part.len()).sum::<usize>();
        let splits = self.splits.iter().map(|split| 120 + 130 * split.backends.len()).sum::<usize>();
        2000 + 2 * text + splits * (4 + MOST_SIDES)
    }

    /// The spec, as JSON.
    pub(super) fn spec(&self) -> &str {
        &self.parts[SPEC]
    }

    /// The state of it with the weights of a shape; none where it cannot be told what these weights are to it.
    pub(super) fn side(&self, shape: Option<&Shape>) -> Option<Arc<Side>> {
        let weights = shape.map_or(&[][..], Shape::weights);
        let mut recent = self.recent();
        if let Some(at) = recent.sides.iter().position(|side| *side.weights == *weights) {
            recent.sides[..=at].rotate_right(1);
            return recent.sides.first().cloned();
        }
        drop(recent);
        let splits = match (shape, self.spare()) {
            (None, _) => self.splits.to_vec(),
            (Some(shape), None) => shape.fill(&self.splits)?,
            (Some(shape), Some(mut splits)) => shape.refill(&self.splits, &mut splits).then_some(splits)?,
        };
        let side = Arc::new(Side { weights: weights.into(), splits: Arc::new(Splits::from(splits)) });
        let sides = &mut self.recent().sides;
        sides.truncate(MOST_SIDES - 1);
        sides.insert(0, Arc::clone(&side));
        Some(side)
    }

    /// The splits of a state that makes room and that nobody looks at any more.
    fn spare(&self) -> Option<Vec<Split>> {
        let sides = &mut self.recent().sides;
        let is_full = sides.len() >= MOST_SIDES;
        let last = sides.pop_if(|last| is_full && Arc::strong_count(last) == 1);
        Arc::into_inner(Arc::into_inner(last?)?.splits).map(Splits::into_inner)
    }

    /// What was said of it.
    pub(super) fn examined(&self, name: &str, world: &World) -> Option<Arc<Examined>> {
        self.recent().examined.clone().filter(|last| last.of.are(name, world))
    }

    /// Keeps what was said.
    pub(super) fn keep_examined(
        &self,
        of: Circumstances,
        verdict: Verdict,
        examination: Examination,
        targets: BTreeSet<String>,
    ) -> Arc<Examined> {
        let examined = Arc::new(Examined { of, verdict, examination, targets });
        let fits = examined.size() <= self.size();
        self.recent().examined = fits.then(|| Arc::clone(&examined));
        examined
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pair<'_> {
    /// What was found out about this write in this world.
    pub(super) fn find(&self, world: &World) -> Option<Arc<Assessed>> {
        let recent = self.form()?.recent();
        let found = recent.write.as_ref().filter(|found| self.is_between(&found.ends))?;
        found.of.are(self.name, world).then(|| Arc::clone(&found.assessed))
    }

    /// Keeps what was found out about a write that comes for the second time: most steps come only once, and what was
    /// kept of the one before would have to be fetched from afar to be given up.
    pub(super) fn keep(&self, world: &World, assessed: &Arc<Assessed>) {
        let Some(form) = self.form().filter(|form| assessed.size() <= form.size()) else { return };
        let side = |state: &Option<State>| state.as_ref().map(|state| Arc::clone(&state.side));
        let ends = [side(&self.old), side(&self.new)];
        let mut recent = form.recent();
        if recent.last.as_ref().is_some_and(|last| self.is_between(last)) {
            let of = Circumstances::new(self.name, world);
            let gone = recent.write.replace(Found { of, ends, assessed: Arc::clone(assessed) });
            drop(recent);
            drop(gone);
        } else {
            recent.last = Some(ends);
        }
    }

    fn is_between(&self, [old, new]: &Ends) -> bool {
        is_same(old.as_ref(), self.old.as_ref()) && is_same(new.as_ref(), self.new.as_ref())
    }

    /// Where it is kept.
    fn form(&self) -> Option<&Form> {
        self.new.as_ref().or(self.old.as_ref()).map(|state| &*state.form)
    }
}

impl Circumstances {
    pub(super) fn new(name: &str, world: &World) -> Self {
        Self { name: name.into(), known: Arc::clone(&world.known), kuma: Arc::clone(&world.kuma) }
    }

    fn are(&self, name: &str, world: &World) -> bool {
        *self.name == *name && Arc::ptr_eq(&self.known, &world.known) && self.kuma == world.kuma
    }
}

impl Examined {
    /// About what it takes, in bytes.
    fn size(&self) -> usize {
        let texts = self.verdict.violations.iter().map(|violation| violation.field.len() + violation.message.len());
        let found = self.examination.findings().iter();
        let found = found.map(|finding| finding.message.len() + finding.help.len() + 200);
        let targets = self.targets.iter().map(|target| 64 + target.len()).sum::<usize>();
        500 + targets + texts.chain(found).sum::<usize>()
    }
}

fn is_same(ours: Option<&Arc<Side>>, theirs: Option<&State>) -> bool {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) => Arc::ptr_eq(ours, &theirs.side),
        (None, None) => true,
        _ => false,
    }
}

/// The most that one generation takes, in bytes.
const MOST_BYTES: usize = 12 * 1024 * 1024;
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
