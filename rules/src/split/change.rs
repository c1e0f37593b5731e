//! What changes between two states of a policy, rule by rule.

use super::{Backend, RuleKey, ServiceKey, Shares, Split};
use crate::diagnostic::Diagnostic;
use crate::field::FieldPath;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What changes between two states of a policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The rules whose traffic moves, in the order of their keys.
    pub rules: Vec<RuleChange>,
    /// The largest shift over the rules, in percentage points.
    pub shift: f64,
    /// Does it route clients that were not routed before?
    pub widened: bool,
    /// What an approval binds to: [`digest`] of the proposed splits, with a removed rule as one that names no backend.
    pub digest: String,
}

/// What happens to the traffic of one rule.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleChange {
    /// The mesh.
    pub mesh: Arc<str>,
    /// The service that clients call, whatever the port.
    pub destination: ServiceKey,
    /// Its namespace, where it has one.
    pub namespace: Option<Arc<str>>,
    /// Which rule.
    pub rule: RuleKey,
    /// Is it new, gone or changed?
    pub what: What,
    /// How far its traffic moves, in percentage points.
    pub shift: f64,
    /// The list of backends; of a removed rule, where it was.
    pub field: FieldPath,
    /// Who answered before.
    pub before: Shares,
    /// Who answers after.
    pub after: Shares,
    /// The backends that get more than before.
    pub raised: Vec<Raised>,
    /// Does it reach clients that it did not reach before?
    pub widened: bool,
}

/// Whether a rule is new, gone or changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// It is new: before, its traffic went wherever the other rules or the destination sent it.
    Added,
    /// It is gone: its traffic goes wherever the other rules or the destination send it.
    Removed,
    /// Its shares or its clients changed.
    Moved,
}

/// A backend that gets more than before.
#[derive(Debug, Clone, PartialEq)]
pub struct Raised {
    /// Which one.
    pub service: ServiceKey,
    /// Where its weight is; the list of backends when it is nowhere.
    pub field: FieldPath,
    /// Its percentage before.
    pub from: f64,
    /// Its percentage after.
    pub to: f64,
}

/// The distance between two splits: half the sum of absolute differences of shares, in percentage points.
///
/// Where every weight is 0 nobody answers; that is 100 points from any split that answers.
pub fn shift(old: &Split, new: &Split) -> f64 {
    let (before, after) = aligned(Side::Rule(old), Side::Rule(new));
    distance(&before, &after)
}

/// What changes between two states of a policy, rule by rule.
///
/// Deleting, creating and renaming are measured. A new rule is compared with what may have served its requests
/// before: any rule of the same destination, or the destination itself where none took every request; the largest
/// distance counts. A removed rule likewise, with what may serve them now. When other clients are reached, those who
/// join are compared with the destination, which answered them, and so are those who leave.
pub fn change(old: &[Split], new: &[Split]) -> Change {
    change_to(old, new, || digest(new))
}

/// [`change`] for whoever has the [`digest`] of the new splits at hand.
pub fn change_to(old: &[Split], new: &[Split], digest: impl FnOnce() -> String) -> Change {
    // Most changes neither add nor remove a rule.
    let (mut served_before, mut serve_now) = (None, None);
    let mut rules = Vec::new();
    let mut removed: Vec<Canon> = Vec::new();
    for pair in pairs(old, new) {
        let changed = match pair {
            (Some(before), Some(after)) if is_same(before, after) => None,
            (Some(before), Some(after)) => moved(before, after),
            (None, Some(after)) => {
                Some(appeared(after, served_before.get_or_insert_with(|| Served::by(old)), What::Added))
            }
            (Some(before), None) => {
                removed.push(canon(before, Side::Itself(before)));
                Some(appeared(before, serve_now.get_or_insert_with(|| Served::by(new)), What::Removed))
            }
            (None, None) => None,
        };
        rules.extend(changed.filter(|changed| changed.shift > 0.0 || changed.widened));
    }
    rules.sort_by(|a, b| a.rule.cmp(&b.rule));
    let digest = if removed.is_empty() {
        digest()
    } else {
        sealed(new.iter().map(|split| canon(split, Side::Rule(split))).chain(removed).collect())
    };
    Change {
        shift: rules.iter().map(|rule| rule.shift).fold(0.0, f64::max),
        widened: rules.iter().any(|rule| rule.widened),
        rules,
        digest,
    }
}

/// The same rules before and afterwards. Those with one key are paired in their order: to swap two of them is a change,
/// the later one counts in Kuma.
fn pairs<'a>(old: &'a [Split], new: &'a [Split]) -> Vec<(Option<&'a Split>, Option<&'a Split>)> {
    if old.len() == new.len() && old.iter().zip(new).all(|(old, new)| old.rule == new.rule) {
        return old.iter().map(Some).zip(new.iter().map(Some)).collect();
    }
    let mut sides: BTreeMap<&RuleKey, (Vec<&Split>, Vec<&Split>)> = BTreeMap::new();
    for split in old {
        sides.entry(&split.rule).or_default().0.push(split);
    }
    for split in new {
        sides.entry(&split.rule).or_default().1.push(split);
    }
    let mut pairs = Vec::with_capacity(sides.len());
    for (before, after) in sides.into_values() {
        let longest = before.len().max(after.len());
        pairs.extend((0..longest).map(|position| (before.get(position).copied(), after.get(position).copied())));
    }
    pairs
}

/// SHA-256 (hex) over the canonical form of splits: rules, clients and reduced shares, in the order of their keys.
/// Scale, order and entries without weight do not matter.
pub fn digest<'a>(splits: impl IntoIterator<Item = &'a Split>) -> String {
    sealed(splits.into_iter().map(|split| canon(split, Side::Rule(split))).collect())
}

/// What costs requests although the shares are fine.
///
/// A backend that gives up its last weight vanishes from the callers a moment before another that had none appears. A
/// rollback may do that: the share it cuts off is the broken one.
pub fn hazards(change: &Change) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for rule in change.rules.iter().filter(|rule| rule.what == What::Moved) {
        let emptied = rule.before.services().find(|service| !rule.after.contains(service));
        let first = rule.after.services().find(|service| !rule.before.contains(service));
        if let (Some(emptied), Some(first)) = (emptied, first) {
            let problem = format!("`{emptied}` gives up its last weight in the change that gives `{first}` its first");
            let remedy = "take two steps and leave both a weight in between, such as 1 and 99";
            found.push(Diagnostic::warning("last-weight-with-first", rule.field.clone(), problem).help(remedy));
        }
    }
    found
}

/// A split, or the destination of its rule as if the rule did not exist.
#[derive(Clone, Copy)]
enum Side<'a> {
    Rule(&'a Split),
    Itself(&'a Split),
}

impl Side<'_> {
    fn split(&self) -> &Split {
        match self {
            Self::Rule(split) | Self::Itself(split) => split,
        }
    }

    fn is_itself(&self) -> bool {
        match self {
            Self::Rule(split) => split.is_implied(),
            Self::Itself(_) => true,
        }
    }

    fn shares(&self) -> Shares {
        match self {
            Self::Rule(split) => split.shares(),
            Self::Itself(split) => Shares::from([(split.destination.clone(), 100.0)]),
        }
    }
}

/// The shares of both sides under comparable keys: where one side is the destination itself, whose port nobody wrote,
/// the other side's ports of that service do not count.
fn aligned(old: Side, new: Side) -> (Shares, Shares) {
    let (mut before, mut after) = (old.shares(), new.shares());
    if old.is_itself() || new.is_itself() {
        for (side, shares) in [(old, &mut before), (new, &mut after)] {
            let destination = &side.split().destination;
            let same = |backend: &&Backend| backend.unported == *destination && backend.service != *destination;
            let ports: BTreeSet<_> =
                side.split().backends.iter().filter(same).map(|backend| &backend.service).collect();
            if !ports.is_empty() {
                *shares = shares.renamed(|service| if ports.contains(service) { destination } else { service }.clone());
            }
        }
    }
    (before, after)
}

pub(crate) fn distance(before: &Shares, after: &Shares) -> f64 {
    match (before.is_empty(), after.is_empty()) {
        (true, true) => return 0.0,
        (true, false) | (false, true) => return 100.0,
        _ => {}
    }
    let sum: f64 = before.beside(after).map(|(_, before, after)| (before - after).abs()).sum();
    (sum / 2.0).min(100.0)
}

/// Do both surely do the same with the same traffic? In doubt, no.
fn is_same(old: &Split, new: &Split) -> bool {
    let same = |(a, b): (&Backend, &Backend)| {
        a.weight == b.weight && a.implied == b.implied && a.service == b.service && a.unported == b.unported
    };
    std::ptr::eq(old, new)
        || (old.clients == new.clients
            && old.destination == new.destination
            && old.backends.len() == new.backends.len()
            && old.backends.iter().zip(&new.backends).all(same))
}

fn moved(old: &Split, new: &Split) -> Option<RuleChange> {
    let widened = !old.clients.covers(&new.clients);
    let narrowed = !new.clients.covers(&old.clients);
    let itself = [
        widened.then_some((Side::Itself(new), Side::Rule(new))),
        narrowed.then_some((Side::Rule(old), Side::Itself(old))),
    ];
    let mut changed = farthest([(Side::Rule(old), Side::Rule(new))].into_iter().chain(itself.into_iter().flatten()))?;
    changed.what = What::Moved;
    changed.widened = widened;
    changed.field = new.field.clone();
    Some(changed)
}

/// Who may serve a destination's requests, rule by rule.
struct Served<'a>(BTreeMap<(&'a str, &'a ServiceKey), Serving<'a>>);

#[derive(Default)]
struct Serving<'a> {
    /// One rule for each of the different splits.
    different: BTreeMap<Vec<(&'a ServiceKey, u64, u64)>, &'a Split>,
    catch_all: bool,
}

/// More different splits than this are not compared one by one with every new rule: it counts as a full shift.
const MOST_DIFFERENT: usize = 64;

impl<'a> Served<'a> {
    fn by(splits: &'a [Split]) -> Self {
        let mut served = Self(BTreeMap::new());
        for split in splits {
            let serving = served.0.entry((&split.mesh, &split.destination)).or_default();
            serving.catch_all |= split.catch_all;
            if serving.different.len() <= MOST_DIFFERENT {
                serving.different.entry(canon(split, Side::Rule(split)).2).or_insert(split);
            }
        }
        served
    }
}

fn appeared(split: &Split, others: &Served, what: What) -> RuleChange {
    let nobody = Serving::default();
    let serving = others.0.get(&(&*split.mesh, &split.destination)).unwrap_or(&nobody);
    let countless = serving.different.len() > MOST_DIFFERENT;
    let mut places = Vec::new();
    if !serving.catch_all || countless {
        places.push(Side::Itself(split));
    }
    if !countless {
        places.extend(serving.different.values().map(|other| Side::Rule(other)));
    }
    let sides = places.into_iter().map(|place| match what {
        What::Removed => (Side::Rule(split), place),
        What::Added | What::Moved => (place, Side::Rule(split)),
    });
    let mut changed = farthest(sides).unwrap_or_else(|| measure(Side::Itself(split), Side::Rule(split)));
    if countless {
        changed.shift = 100.0;
    }
    changed.rule = split.rule.clone();
    changed.field = split.field.clone();
    changed.what = what;
    changed
}

fn farthest<'a>(sides: impl IntoIterator<Item = (Side<'a>, Side<'a>)>) -> Option<RuleChange> {
    let changes = sides.into_iter().map(|(old, new)| measure(old, new));
    changes.reduce(|most, next| if next.shift > most.shift { next } else { most })
}

fn measure(old: Side, new: Side) -> RuleChange {
    let (before, after) = aligned(old, new);
    let split = new.split();
    let mut places: Vec<_> = split.backends.iter().filter(|backend| !backend.implied).collect();
    places.sort_by(|a, b| a.service.cmp(&b.service));
    let field = |service: &ServiceKey| {
        let found = places.binary_search_by(|backend| backend.service.cmp(service)).ok();
        found.map_or(&split.field, |place| &places[place].field).clone()
    };
    let raised = before.beside(&after).filter(|(_, from, to)| to > from);
    RuleChange {
        mesh: split.mesh.clone(),
        destination: split.destination.clone(),
        namespace: split.namespace.clone(),
        rule: split.rule.clone(),
        what: What::Moved,
        shift: distance(&before, &after),
        field: split.field.clone(),
        raised: raised
            .map(|(service, from, to)| Raised { service: service.clone(), field: field(service), from, to })
            .collect(),
        before,
        after,
        widened: false,
    }
}

type Canon<'a> = (&'a RuleKey, &'a str, Vec<(&'a ServiceKey, u64, u64)>);

fn canon<'a>(split: &'a Split, side: Side) -> Canon<'a> {
    let mut shares = Vec::new();
    if side.is_itself() {
        shares.push((&split.destination, 1, 1));
    } else {
        let total = split.total();
        for backend in split.backends.iter().filter(|backend| backend.weight > 0) {
            let common = common_divisor(backend.weight, total);
            shares.push((&backend.service, backend.weight / common, total / common));
        }
        shares.sort();
    }
    (&split.rule, split.clients.as_str(), shares)
}

/// Rules with one key keep their order, as it matters to Kuma.
fn sealed(mut canons: Vec<Canon>) -> String {
    canons.sort_by(|a, b| a.0.cmp(b.0));
    // Texts and whole numbers can always be written.
    let length = canons.iter().map(|(rule, clients, shares)| rule.len() + clients.len() + 50 * (shares.len() + 1));
    let mut text = Vec::with_capacity(length.sum());
    // Nothing in it fails to be written.
    let _ = serde_json::to_writer(&mut text, &canons);
    hex::encode(Sha256::digest(text))
}

fn common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a.max(1) } else { common_divisor(b, a % b) }
}
