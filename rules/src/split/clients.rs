//! Whose traffic a policy routes.

use crate::policy::{Selector, TargetRef};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Whose traffic a policy routes: any of these groups.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Clients(BTreeSet<Group>);

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
        other.0.iter().all(|theirs| self.0.iter().any(|ours| ours.covers(theirs)))
    }
}

impl FromIterator<Group> for Clients {
    fn from_iter<T: IntoIterator<Item = Group>>(groups: T) -> Self {
        Self(groups.into_iter().collect())
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

impl fmt::Display for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, group) in self.0.iter().enumerate() {
            let Group { kind, name, namespace, section, labels, proxy_types } = group;
            let separator = if position == 0 { "" } else { ", " };
            write!(f, "{separator}{kind}")?;
            for (word, value) in [("", name), ("namespace ", namespace), ("port ", section)] {
                if let Some(value) = value {
                    write!(f, " {word}{value}")?;
                }
            }
            for (key, value) in labels {
                write!(f, " {key}={value}")?;
            }
            for proxy_type in proxy_types {
                write!(f, " {proxy_type}")?;
            }
        }
        Ok(())
    }
}
