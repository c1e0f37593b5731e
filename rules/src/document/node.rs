//! A document as a tree of nodes that know where they are written.

use super::scalar::Style;
use crate::field::{FieldPath, Segment};
use serde_json::{Map, Value};
use std::ops::Range;

/// Where the value of a field is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1, in characters.
    pub column: usize,
    /// The bytes of the value in the file, quotes included, anchors and tags not.
    pub span: Range<usize>,
}

/// The nodes of one document; the root is the first. A list instead of boxes, because an anchored node has several users.
#[derive(Debug, Clone, Default)]
pub(super) struct Tree {
    pub(super) nodes: Vec<Node>,
}

/// An index into [`Tree::nodes`].
pub(super) type Id = usize;

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) place: Place,
    /// How many aliases stand for this node; `None` without an anchor.
    pub(super) users: Option<usize>,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    /// Null, a boolean or a number in `typed`; otherwise it is text.
    Scalar {
        text: String,
        style: Style,
        typed: Option<Value>,
    },
    Alias(Id),
    Sequence(Vec<Id>),
    Mapping {
        entries: Vec<(Id, Id)>,
        /// The column of the keys, from 0; `None` in flow style.
        indent: Option<usize>,
    },
}

/// The way to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) node: Id,
    /// Why the node has more than one user.
    pub(super) shared: Option<Shared>,
}

/// Why a node has more than one user, and the node that makes it so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shared {
    Alias(Id),
    Merge(Id),
    Anchor(Id),
}

impl Tree {
    pub(super) const ROOT: Id = 0;

    /// Follows a field path, through aliases and merge keys.
    pub(super) fn find(&self, field: &FieldPath) -> Option<Found> {
        let mut found = self.follow(Found { node: Self::ROOT, shared: None });
        for segment in field.segments() {
            found = self.follow(self.step(found, segment)?);
        }
        Some(found)
    }

    fn step(&self, found: Found, segment: &Segment) -> Option<Found> {
        match (&self.nodes[found.node].kind, segment) {
            (Kind::Sequence(items), Segment::Index(index)) => Some(Found { node: *items.get(*index)?, ..found }),
            (Kind::Mapping { entries, .. }, Segment::Key(key)) => {
                if let Some((_, value)) = self.entry(entries, key) {
                    return Some(Found { node: value, ..found });
                }
                self.merges(entries).into_iter().find_map(|(merge, mapping)| {
                    let shared = Some(found.shared.unwrap_or(Shared::Merge(merge)));
                    self.step(Found { node: mapping, shared }, segment)
                })
            }
            _ => None,
        }
    }

    /// From an alias to what it stands for, noting that others may use the node too.
    fn follow(&self, mut found: Found) -> Found {
        if let Kind::Alias(target) = self.nodes[found.node].kind {
            found = Found { node: target, shared: found.shared.or(Some(Shared::Alias(found.node))) };
        }
        if self.nodes[found.node].users.is_some_and(|users| users > 0) {
            found.shared = found.shared.or(Some(Shared::Anchor(found.node)));
        }
        found
    }

    /// The entry a mapping itself has for a key: the ids of key and value.
    pub(super) fn entry(&self, entries: &[(Id, Id)], key: &str) -> Option<(Id, Id)> {
        entries.iter().copied().find(|(id, _)| self.text(*id) == key && !self.is_merge(*id))
    }

    /// The mappings that `<<` brings in, first come first served, each with its merge key.
    fn merges(&self, entries: &[(Id, Id)]) -> Vec<(Id, Id)> {
        let mut mappings = Vec::new();
        for (key, value) in entries.iter().copied().filter(|(key, _)| self.is_merge(*key)) {
            let target = self.target(value);
            match &self.nodes[target].kind {
                Kind::Sequence(items) => mappings.extend(items.iter().map(|item| (key, self.target(*item)))),
                _ => mappings.push((key, target)),
            }
        }
        mappings
    }

    /// Whether the value of a `<<` is something that can be merged.
    pub(super) fn can_merge(&self, value: Id) -> bool {
        let is_mapping = |id: Id| matches!(self.nodes[self.target(id)].kind, Kind::Mapping { .. });
        match &self.nodes[self.target(value)].kind {
            Kind::Sequence(items) => items.iter().all(|item| is_mapping(*item)),
            _ => is_mapping(value),
        }
    }

    /// `<<`, unless it is quoted.
    pub(super) fn is_merge(&self, key: Id) -> bool {
        matches!(&self.nodes[key].kind, Kind::Scalar { text, style: Style::Plain, .. } if text == "<<")
    }

    fn target(&self, id: Id) -> Id {
        match self.nodes[id].kind {
            Kind::Alias(target) => target,
            _ => id,
        }
    }

    /// The text of a key. Keys of JSON are text, so `80` and `"80"` are the same key.
    pub(super) fn text(&self, id: Id) -> &str {
        match &self.nodes[id].kind {
            Kind::Scalar { text, .. } => text,
            _ => "",
        }
    }

    pub(super) fn place(&self, id: Id) -> Place {
        self.nodes[id].place.clone()
    }

    /// What a node says. The bounds hold for aliases expanded, so neither depth nor size can surprise here.
    pub(super) fn value(&self, id: Id) -> Value {
        match &self.nodes[id].kind {
            Kind::Scalar { typed: Some(value), .. } => value.clone(),
            Kind::Scalar { text, .. } => Value::String(text.clone()),
            Kind::Alias(target) => self.value(*target),
            Kind::Sequence(items) => items.iter().map(|item| self.value(*item)).collect(),
            Kind::Mapping { entries, .. } => {
                let own = entries.iter().filter(|(key, _)| !self.is_merge(*key));
                let mut map: Map<String, Value> =
                    own.map(|(key, value)| (self.text(*key).to_owned(), self.value(*value))).collect();
                for (_, mapping) in self.merges(entries) {
                    if let Value::Object(merged) = self.value(mapping) {
                        for (key, value) in merged {
                            map.entry(key).or_insert(value);
                        }
                    }
                }
                Value::Object(map)
            }
        }
    }
}
