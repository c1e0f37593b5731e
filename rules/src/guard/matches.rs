//! Which traffic a guard guards.

use super::Match;
use crate::policy::Identity;
use crate::split::{ServiceKey, Split};

/// What guards are matched with: gathered once for a destination, asked by every guard.
pub(super) struct Traffic<'a> {
    mesh: &'a str,
    namespaces: Vec<&'a str>,
    names: Vec<&'a str>,
}

impl<'a> Traffic<'a> {
    /// `namespace`: of the policy.
    pub(super) fn new(mesh: &'a str, namespace: Option<&'a str>) -> Self {
        let mut traffic = Self { mesh, namespaces: Vec::new(), names: Vec::new() };
        traffic.add_namespace(namespace);
        traffic
    }

    pub(super) fn of_split(identity: &'a Identity, split: &'a Split) -> Self {
        let mut traffic = Self::new(&split.mesh, identity.namespace.as_deref());
        traffic.add_split(split);
        traffic
    }

    pub(super) fn add_split(&mut self, split: &'a Split) {
        self.add_namespace(split.namespace.as_deref());
        self.add(&split.destination);
        split.backends.iter().for_each(|backend| self.add(&backend.service));
    }

    pub(super) fn add_namespace(&mut self, namespace: Option<&'a str>) {
        let known = namespace.filter(|namespace| !self.namespaces.contains(namespace));
        self.namespaces.extend(known);
    }

    /// A service is known by its key, without port, and by its plain name.
    pub(super) fn add(&mut self, service: &'a ServiceKey) {
        let key = service.as_str();
        // The first name of a service is its key: rules of one destination name the same few services.
        if self.names.contains(&key) {
            return;
        }
        let unported = service.unported();
        let plain = unported.split_once('/').map_or(unported, |(_, name)| name);
        let plain = plain.find(['.', '{', '@']).map_or(plain, |end| &plain[..end]);
        for name in [key, unported, plain] {
            if !self.names.contains(&name) {
                self.names.push(name);
            }
        }
    }
}

impl Match {
    /// Any of the namespaces and any of the services is enough: whoever moves traffic of a guarded service does so from
    /// wherever the policy is.
    pub(super) fn fits(&self, traffic: &Traffic) -> bool {
        // Universal form has no namespaces; then only `*` fits.
        let namespaces = if traffic.namespaces.is_empty() { &[""] } else { traffic.namespaces.as_slice() };
        any(&self.meshes, &[traffic.mesh]) && any(&self.namespaces, namespaces) && any(&self.services, &traffic.names)
    }
}

fn any(patterns: &[String], texts: &[&str]) -> bool {
    patterns.iter().any(|pattern| pattern == "*" || texts.iter().any(|text| glob(pattern, text)))
}

/// Does the text fit the pattern, in which `*` stands for any text, also none?
pub fn glob(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(start) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.ends_with(end)
}
