//! Whose traffic a policy routes.

use crate::policy::{Selector, TargetRef};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::sync::Arc;

/// Whose traffic a policy routes: any of these groups.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Clients(Arc<Told>);

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Told {
    groups: BTreeSet<Group>,
    /// As a person reads it, and as a digest binds to it.
    text: String,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    kind: String,
    name: Option<String>,
    namespace: Option<String>,
    section: Option<String>,
    labels: BTreeMap<String, String>,
    proxy_types: BTreeSet<String>,
}

impl Clients {
    pub(super) fn of_target(target: Option<&TargetRef>) -> Self {
        let target = target.cloned().unwrap_or_default();
        let kind = match target.kind.as_str() {
            "" | "MeshSubset" => "Mesh",
            "MeshServiceSubset" => "MeshService",
            kind => kind,
        };
        let mut labels = target.labels;
        labels.extend(target.tags);
        Self::from_iter([Group {
            kind: kind.to_owned(),
            name: target.name,
            namespace: target.namespace,
            section: target.section_name,
            labels: specific(labels),
            proxy_types: target.proxy_types.into_iter().collect(),
        }])
    }

    pub(super) fn of_sources(sources: &[Selector]) -> Self {
        sources
            .iter()
            .map(|source| Group {
                kind: "Mesh".to_owned(),
                name: None,
                namespace: None,
                section: None,
                labels: specific(source.r#match.clone()),
                proxy_types: BTreeSet::new(),
            })
            .collect()
    }

    /// Is everybody in `other` surely in here too? In doubt, no.
    pub fn covers(&self, other: &Self) -> bool {
        let covered = |theirs: &Group| self.0.groups.iter().any(|ours| ours.covers(theirs));
        Arc::ptr_eq(&self.0, &other.0) || other.0.groups.iter().all(covered)
    }
}

impl FromIterator<Group> for Clients {
    fn from_iter<T: IntoIterator<Item = Group>>(groups: T) -> Self {
        let groups: BTreeSet<Group> = groups.into_iter().collect();
        let text = told(&groups);
        Self(Arc::new(Told { groups, text }))
    }
}

impl Group {
    fn covers(&self, other: &Self) -> bool {
        let open = |ours: &Option<String>, theirs: &Option<String>| ours.is_none() || ours == theirs;
        let proxies = self.proxy_types.is_empty()
            || (!other.proxy_types.is_empty() && other.proxy_types.is_subset(&self.proxy_types));
        let labels = self.labels.iter().all(|(key, value)| other.labels.get(key) == Some(value));
        // Tags of a mesh's subset and labels of a Dataplane are different things: only the whole mesh covers both.
        let kinds = self.kind == other.kind || (self.kind == "Mesh" && self.labels.is_empty());
        kinds
            && proxies
            && labels
            && open(&self.name, &other.name)
            && open(&self.namespace, &other.namespace)
            && open(&self.section, &other.section)
    }
}

/// `*` selects any value and so says nothing.
fn specific(labels: BTreeMap<String, String>) -> BTreeMap<String, String> {
    labels.into_iter().filter(|(_, value)| value != "*").collect()
}

fn told(groups: &BTreeSet<Group>) -> String {
    let mut text = String::new();
    for Group { kind, name, namespace, section, labels, proxy_types } in groups {
        let separator = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{separator}{kind}");
        for (word, value) in [("", name), ("namespace ", namespace), ("port ", section)] {
            if let Some(value) = value {
                let _ = write!(text, " {word}{value}");
            }
        }
        for (key, value) in labels {
            let _ = write!(text, " {key}={value}");
        }
        for proxy_type in proxy_types {
            let _ = write!(text, " {proxy_type}");
        }
    }
    text
}

impl fmt::Display for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

impl Clients {
    pub(super) fn as_str(&self) -> &str {
        &self.0.text
    }
}
