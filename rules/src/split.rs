//! Shares of a route over its backends; the shift between two splits.
//!
//! A [`Split`] is what one rule does with its traffic, in percent of the weight sum, so that 9:1 and 90:10 are the same
//! split. A rule is known by what it applies to and never by its place in the file.

mod backend;
mod change;
mod clients;
mod rule;
mod shape;
mod share;
mod shares;

pub use backend::{Backend, Entry, ServiceKey};
pub(crate) use change::distance;
pub use change::{Change, Raised, RuleChange, What, change, change_to, digest, hazards, shift};
pub use clients::Clients;
pub use rule::RuleKey;
pub use shape::Shape;
pub use share::{Reweigh, ShareError};
pub use shares::Shares;

use crate::diagnostic::Diagnostic;
use crate::field::FieldPath;
use crate::policy::{BackendRef, HttpRule, Identity, Policy, SplitEntry, TagSet, TargetRef};
use backend::{Backends, Service, Services};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What one rule does with its traffic.
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    /// The mesh.
    pub mesh: Arc<str>,
    /// The service that clients call, whatever the port: the subject of guards.
    pub destination: ServiceKey,
    /// The destination's namespace, where it has one.
    pub namespace: Option<Arc<str>>,
    /// Which rule it is.
    pub rule: RuleKey,
    /// Does the rule take every request to the destination?
    pub catch_all: bool,
    /// Whose traffic it is.
    pub clients: Clients,
    /// Where the list of backends is, or would be.
    pub field: FieldPath,
    /// The backends, each once; a rule that names none has its destination here, marked as implied.
    pub backends: Vec<Backend>,
}

/// The splits of a policy, and what is odd about them.
///
/// A policy without rules that send traffic has none, and neither has one that is stored without being applied.
pub fn splits(policy: &Policy) -> (Vec<Split>, Vec<Diagnostic>) {
    let mut found = Splits::default();
    match policy {
        _ if policy.is_shadow() => {
            let field = FieldPath::root();
            let problem = "the policy is stored and not applied: label `kuma.io/effect` is `shadow`";
            found.diagnostics.push(Diagnostic {
                severity: crate::diagnostic::Severity::Info,
                ..Diagnostic::warning("route-is-shadow", field, problem)
            });
        }
        Policy::MeshHttpRoute(route) => {
            let clients = Clients::of_target(route.spec.target_ref.as_ref());
            let mut services = Services::default();
            for (t, to) in route.spec.to.iter().enumerate() {
                let place = Place::of_target(&route.identity, &to.target_ref, clients.clone());
                let rules = route.at.key("to").index(t).key("rules");
                for (r, rule) in to.rules.iter().enumerate() {
                    let field = rules.index(r).key("default").key("backendRefs");
                    let (matches, catch_all) = rule::canonical_matches(&rule.matches);
                    let key = place.rule(&to.hostnames, &matches);
                    let split = match redirected(rule) {
                        Some(backend) => place.split(key, catch_all, &field, vec![backend(&field)]),
                        None => place.split_of_refs(key, catch_all, &field, &rule.default.backend_refs, &mut services),
                    };
                    found.add(split);
                }
            }
        }
        Policy::MeshTcpRoute(route) => {
            let clients = Clients::of_target(route.spec.target_ref.as_ref());
            let mut services = Services::default();
            for (t, to) in route.spec.to.iter().enumerate() {
                let place = Place::of_target(&route.identity, &to.target_ref, clients.clone());
                let rules = route.at.key("to").index(t).key("rules");
                for (r, rule) in to.rules.iter().enumerate() {
                    let field = rules.index(r).key("default").key("backendRefs");
                    let key = place.rule(&[], rule::ANY);
                    found.add(place.split_of_refs(key, true, &field, &rule.default.backend_refs, &mut services));
                }
            }
        }
        Policy::TrafficRoute(route) => {
            let clients = Clients::of_sources(&route.spec.sources);
            let conf = route.at.key("conf");
            for destination in &route.spec.destinations {
                let place = Place::of_tags(&route.identity, &destination.r#match, clients.clone());
                for (h, http) in route.spec.conf.http.iter().enumerate() {
                    let field = conf.key("http").index(h);
                    let (matches, catch_all) = rule::canonical_matches(http.r#match.as_slice());
                    let key = place.rule(&[], &matches);
                    found.add(place.split_of_tags(key, catch_all, &field, &http.split, &http.destination));
                    found.need_weights(&field, &http.split);
                }
                let rest = &route.spec.conf;
                if !rest.split.is_empty() || !rest.destination.is_empty() {
                    let key = place.rule(&[], rule::ANY);
                    found.add(place.split_of_tags(key, true, &conf, &rest.split, &rest.destination));
                    found.need_weights(&conf, &rest.split);
                }
            }
        }
        Policy::Other(_) => {}
    }
    (found.splits, found.diagnostics)
}

impl Split {
    /// The sum of the weights.
    pub fn total(&self) -> u64 {
        self.backends.iter().map(|backend| backend.weight).sum()
    }

    /// The percentage that goes to `service`, named by its key or its plain name; 0 when no weight is above 0.
    pub fn share(&self, service: &str) -> f64 {
        let weight = self.backends.iter().filter(|backend| backend.is(service)).map(|backend| backend.weight).sum();
        percent(weight, self.total())
    }

    /// The percentages of all backends that get any traffic; empty when every weight is 0.
    pub fn shares(&self) -> Shares {
        let total = self.total();
        let served = self.backends.iter().filter(|backend| backend.weight > 0);
        served.map(|backend| (backend.service.clone(), percent(backend.weight, total))).collect()
    }

    /// Does the rule name no backend, so that its destination answers itself?
    pub fn is_implied(&self) -> bool {
        self.backends.iter().all(|backend| backend.implied)
    }
}

/// Exact up to one rounding, so that equal ratios give equal percentages on any scale.
fn percent(weight: u64, total: u64) -> f64 {
    if total == 0 { 0.0 } else { (weight * 100) as f64 / total as f64 }
}

#[derive(Default)]
struct Splits {
    splits: Vec<Split>,
    rules: BTreeSet<RuleKey>,
    diagnostics: Vec<Diagnostic>,
    /// What is said already: the same place may be part of several splits.
    reported: BTreeSet<(FieldPath, String)>,
}

impl Splits {
    fn add(&mut self, split: Split) {
        if split.total() == 0 {
            let problem = Diagnostic::error("weights-all-zero", split.field.clone(), "every weight is 0");
            self.report(problem.help("give at least one backend a weight above 0"));
        }
        for backend in &split.backends {
            for repeated in &backend.also {
                let at = repeated.field.parent().unwrap_or_default();
                let problem = format!("`{}` is named twice in one rule, its weights add up", backend.service);
                self.report(Diagnostic::warning("backend-repeated", at, problem).help("name it once with the sum"));
            }
        }
        if !self.rules.insert(split.rule.clone()) {
            let at = split.field.parent().and_then(|default| default.parent()).unwrap_or_default();
            let problem = "an earlier rule applies to the same requests of the same destination, Kuma merges the two";
            self.report(Diagnostic::warning("rule-repeated", at, problem).help("keep one of them"));
        }
        self.splits.push(split);
    }

    /// Kuma has no default weight here and refuses the policy.
    fn need_weights(&mut self, at: &FieldPath, list: &[SplitEntry]) {
        for (index, _) in list.iter().enumerate().filter(|(_, entry)| entry.weight.is_none()) {
            let field = at.key("split").index(index).key("weight");
            let problem = Diagnostic::error("weight-missing", field, "a `TrafficRoute` has no default weight");
            self.report(problem.help("write it, 0 if the backend shall get nothing"));
        }
    }

    /// A legacy route with several destinations reads the same list for each: one report is enough.
    fn report(&mut self, diagnostic: Diagnostic) {
        if self.reported.insert((diagnostic.field.clone(), diagnostic.message.clone())) {
            self.diagnostics.push(diagnostic);
        }
    }
}

/// What the rules of one destination have in common.
struct Place<'a> {
    identity: &'a Identity,
    mesh: Arc<str>,
    destination: Service,
    clients: Clients,
}

impl<'a> Place<'a> {
    fn of_target(identity: &'a Identity, target: &TargetRef, clients: Clients) -> Self {
        let destination = Service::of_target(target, identity.namespace.as_deref());
        Self { identity, mesh: identity.mesh.as_str().into(), destination, clients }
    }

    fn of_tags(identity: &'a Identity, tags: &TagSet, clients: Clients) -> Self {
        Self { identity, mesh: identity.mesh.as_str().into(), destination: Service::of_tags(tags), clients }
    }

    fn rule(&self, hostnames: &[String], matches: &str) -> RuleKey {
        RuleKey::new(&self.identity.mesh, &self.identity.kind, &self.destination.key, hostnames, matches)
    }

    fn split(&self, rule: RuleKey, catch_all: bool, field: &FieldPath, backends: Vec<Backend>) -> Split {
        Split {
            mesh: self.mesh.clone(),
            destination: self.destination.unported.clone(),
            namespace: self.destination.namespace.clone(),
            rule,
            catch_all,
            clients: self.clients.clone(),
            field: field.clone(),
            backends: if backends.is_empty() { vec![self.itself(field)] } else { backends },
        }
    }

    fn split_of_refs<'r>(
        &self,
        rule: RuleKey,
        catch_all: bool,
        field: &FieldPath,
        refs: &'r [BackendRef],
        services: &mut Services<'r>,
    ) -> Split {
        let mut backends = Backends::with_capacity(refs.len());
        for (index, reference) in refs.iter().enumerate() {
            let service = services.of_backend(reference, self.identity.namespace.as_deref());
            let weight = reference.weight.map(|weight| u64::from(weight.0));
            let entry = Entry::new(field.index(index).key("weight"), weight);
            backends.add(service, entry);
        }
        self.split(rule, catch_all, field, backends.all())
    }

    fn split_of_tags(
        &self,
        rule: RuleKey,
        catch_all: bool,
        at: &FieldPath,
        list: &[SplitEntry],
        only: &TagSet,
    ) -> Split {
        if list.is_empty() {
            let field = at.key("destination");
            let backends = match only.is_empty() {
                true => Vec::new(),
                false => vec![Backend::alone(Service::of_tags(only), &field)],
            };
            return self.split(rule, catch_all, &field, backends);
        }
        let field = at.key("split");
        let mut backends = Backends::default();
        for (index, entry) in list.iter().enumerate() {
            let weight = entry.weight.map(|weight| u64::from(weight.0));
            let place = field.index(index).key("weight");
            backends.add(Service::of_tags(&entry.destination), Entry::new(place, weight));
        }
        self.split(rule, catch_all, &field, backends.all())
    }

    fn itself(&self, field: &FieldPath) -> Backend {
        let mut backend = Backend::alone(self.destination.clone(), field);
        backend.service = self.destination.unported.clone();
        backend.implied = true;
        backend
    }
}

/// A rule that redirects sends nobody to its backends.
fn redirected(rule: &HttpRule) -> Option<impl Fn(&FieldPath) -> Backend + use<>> {
    let filter = rule.default.filters.iter().find(|filter| filter.r#type == "RequestRedirect")?;
    let host = filter.request_redirect.clone().unwrap_or_default().hostname.unwrap_or_default();
    Some(move |field: &FieldPath| Backend::alone(Service::redirect(&host), field))
}

#[cfg(test)]
mod tests;
