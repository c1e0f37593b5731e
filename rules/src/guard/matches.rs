//! Which traffic a guard guards.

use super::Match;
use crate::policy::Identity;
use crate::split::{ServiceKey, Split};
use std::collections::BTreeSet;

/// What guards are matched with: gathered once for a destination, asked by every guard.
pub(super) struct Traffic<'a> {
    mesh: &'a str,
    namespaces: Vec<&'a str>,
    names: BTreeSet<&'a str>,
    /// The letters that the names begin with, a bit each: most patterns begin with another one.
    letters: u128,
}

impl<'a> Traffic<'a> {
    /// `namespace`: of the policy.
    pub(super) fn new(mesh: &'a str, namespace: Option<&'a str>) -> Self {
        let mut traffic = Self { mesh, namespaces: Vec::new(), names: BTreeSet::new(), letters: 0 };
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
        if self.names.contains(key) {
            return;
        }
        let unported = service.unported();
        let plain = unported.split_once('/').map_or(unported, |(_, name)| name);
        let plain = plain.find(['.', '{', '@']).map_or(plain, |end| &plain[..end]);
        for name in [key, unported, plain] {
            if self.names.insert(name) {
                self.letters |= name.bytes().next().map_or(0, bit);
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
        any(&self.meshes, &[traffic.mesh]) && any(&self.namespaces, namespaces) && self.serves(traffic)
    }
}

impl Match {
    /// May some traffic be under both? A service has several names, so that two patterns which share no text may still
    /// mean one service: then this says no.
    pub(super) fn meets(&self, other: &Self) -> bool {
        let meet = |ours: &[String], theirs: &[String]| ours.iter().any(|a| theirs.iter().any(|b| share(a, b)));
        meet(&self.meshes, &other.meshes)
            && meet(&self.namespaces, &other.namespaces)
            && meet(&self.services, &other.services)
    }
}

/// Is there a text that fits both patterns?
fn share(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    // Whether the first bytes of one and the first of the other can stand for one text, row by row.
    let mut row = vec![false; b.len() + 1];
    for i in 0..=a.len() {
        let above = std::mem::replace(&mut row, vec![false; b.len() + 1]);
        for j in 0..=b.len() {
            let ours = i.checked_sub(1).map(|i| a[i]);
            let theirs = j.checked_sub(1).map(|j| b[j]);
            let down = ours.is_some() && above[j];
            let right = j > 0 && row[j - 1];
            row[j] = match (ours, theirs) {
                (None, None) => true,
                (Some(b'*'), Some(b'*')) => down || right || above[j - 1],
                // A star stands for nothing, or for what the other says next.
                (Some(b'*'), _) => down || right,
                (_, Some(b'*')) => right || down,
                (Some(ours), Some(theirs)) => ours == theirs && above[j - 1],
                _ => false,
            };
        }
    }
    row[b.len()]
}

impl Match {
    fn serves(&self, traffic: &Traffic) -> bool {
        let may_fit = |pattern: &&String| match pattern.bytes().next() {
            None | Some(b'*') => true,
            Some(first) => traffic.letters & bit(first) != 0,
        };
        let fits = |pattern: &String| pattern == "*" || traffic.names.iter().any(|name| glob(pattern, name));
        self.services.iter().filter(may_fit).any(fits)
    }
}

/// Bytes beyond ASCII share the bits of others: that only costs a comparison.
fn bit(byte: u8) -> u128 {
    1 << (byte % 128)
}

fn any(patterns: &[String], texts: &[&str]) -> bool {
    patterns.iter().any(|pattern| pattern == "*" || texts.iter().any(|text| glob(pattern, text)))
}

/// Does the text fit the pattern, in which `*` stands for any text, also none?
pub fn glob(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(start) else { return false };
    let (parts, end) = rest.rsplit_once('*').unwrap_or(("", rest));
    for part in parts.split('*') {
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_meet_where_one_text_fits_both() {
        for (a, b) in
            [("*", ""), ("a*", "*b"), ("llm-*", "*"), ("a", "a"), ("a*c", "ab*"), ("*a*", "*b*"), ("a**", "a")]
        {
            assert!(share(a, b) && share(b, a), "{a} {b}");
        }
        for (a, b) in [("a", "b"), ("a*", "b*"), ("*a", "*b"), ("", "a"), ("a*c", "ab"), ("a", "aa")] {
            assert!(!share(a, b) && !share(b, a), "{a} {b}");
        }
    }
}
