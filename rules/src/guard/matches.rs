//! Which traffic a guard guards.

use super::Match;
use crate::split::ServiceKey;

impl Match {
    /// Any of the namespaces and any of the services is enough: whoever moves traffic of a guarded service does so from
    /// wherever the policy is.
    pub(super) fn fits(&self, mesh: &str, namespaces: &[Option<&str>], services: &[&ServiceKey]) -> bool {
        let any = |patterns: &[String], text: &str| patterns.iter().any(|pattern| glob(pattern, text));
        // Universal form has no namespaces; then only `*` fits.
        let known: Vec<_> = namespaces.iter().flatten().copied().collect();
        let namespaces = if known.is_empty() { vec![""] } else { known };
        any(&self.meshes, mesh)
            && namespaces.into_iter().any(|namespace| any(&self.namespaces, namespace))
            && services.iter().any(|service| names(service).iter().any(|name| any(&self.services, name)))
    }
}

/// A service by its key, without port, and by its plain name.
fn names(service: &ServiceKey) -> [&str; 3] {
    let key = service.as_str();
    let unported = service.unported();
    let plain = unported.split_once('/').map_or(unported, |(_, name)| name);
    let plain = plain.find(['.', '{', '@']).map_or(plain, |end| &plain[..end]);
    [key, unported, plain]
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
