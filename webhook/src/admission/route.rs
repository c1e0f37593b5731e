//! Policies of Kuma: what a write does to traffic, and how healthy what is written is.

use super::cache::Parts;
use super::{Admission, Outcome, World, Write, examine};
use crate::ledger::{Asked, Unavailable};
use crate::review::{Cause, Object, Request, UserInfo};
use serde_json::{Value, json};
use sluice_rules::diagnostic::Diagnostic;
use sluice_rules::field::FieldPath;
use sluice_rules::guard::{self, Author, Code, Effect, Verdict};
use sluice_rules::health::{self, Health};
use sluice_rules::policy::{Identity, Policy};
use sluice_rules::split::{self, Change, Split};
use sluice_rules::validate;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

/// What there is to know about a write before guards are asked.
#[derive(Debug)]
pub(super) struct Assessed {
    /// Which policy.
    pub(super) identity: Identity,
    /// Its splits before; none when it was not there.
    pub(super) before: Arc<Vec<Split>>,
    /// Its splits afterwards; none when it is deleted.
    pub(super) after: Arc<Vec<Split>>,
    /// What changes.
    pub(super) change: Change,
    /// What Kuma answers to what is written; nothing when it goes away.
    pub(super) verdict: validate::Verdict,
    /// How healthy what is written is.
    pub(super) health: Health,
    /// The services that it is or was about, by all their names; none when there is nothing to say about its health.
    pub(super) services: BTreeSet<String>,
}

impl Admission {
    pub(super) async fn judge_policy(
        &self,
        write: &Write<'_>,
        request: &Request<'_, Object<'_>>,
        world: &World,
        deadline: Instant,
    ) -> Outcome {
        if write.changes_nothing() || write.lets_go() {
            return Outcome::passed();
        }
        let is_route = matches!(&*request.kind.kind, "MeshHTTPRoute" | "MeshTCPRoute" | "TrafficRoute");
        if !is_route && write.new.is_none() {
            return Outcome::passed();
        }
        let assessed = match self.assess(write, request, world) {
            Ok(assessed) => assessed,
            Err(wrong) => return Outcome::refused(causes_of(&wrong)),
        };
        let mut outcome = Outcome::passed();
        examine::report(&mut outcome, &assessed, world);
        if !assessed.change.rules.is_empty() {
            outcome.annotate("shift", round(assessed.change.shift));
            outcome.annotate("digest", &assessed.change.digest);
            if Instant::now() >= deadline {
                return Outcome::unavailable(format!("{}: apply again", Unavailable::Late));
            }
            let mut asked = Asked {
                request: guard::Request {
                    identity: assessed.identity.clone(),
                    author: author(&request.user_info),
                    change: assessed.change.clone(),
                },
                uid: write.object().and_then(|object| object.metadata.uid.as_deref()).unwrap_or_default().to_owned(),
                version: write.old.and_then(|old| Some(old.metadata.resource_version.as_deref()?.to_owned())),
                before: Arc::clone(&assessed.before),
                after: Arc::clone(&assessed.after),
                // What is refused anyway reserves nothing.
                dry_run: request.dry_run || outcome.is_denied(),
                now: self.clock.now(),
                deadline,
            };
            let mut judged = self.ledger.admit(&asked, world).await;
            // Whatever a guard asks of health, the way back stays open.
            if outcome.is_denied() && is_way_back(&judged) {
                if !request.dry_run {
                    asked.dry_run = false;
                    judged = self.ledger.admit(&asked, world).await;
                }
                if is_way_back(&judged) {
                    outcome.pardon();
                }
            }
            match judged {
                Ok(verdict) => limits(&mut outcome, &verdict, &assessed.change, world),
                Err(problem) if outcome.is_denied() => outcome.warn(problem.to_string()),
                Err(problem @ Unavailable::Contended(_)) => return Outcome::conflict(problem.to_string()),
                Err(problem) => return Outcome::unavailable(format!("{problem}: apply again")),
            }
        }
        outcome
    }

    /// The same write leads to the same, so that it is worked out once.
    fn assess(
        &self,
        write: &Write,
        request: &Request<'_, Object<'_>>,
        world: &World,
    ) -> Result<Arc<Assessed>, Vec<Diagnostic>> {
        let parts = parts(write, request);
        if let Some(assessed) = self.cache.find(&parts, &world.known, &world.kuma) {
            return Ok(assessed);
        }
        let assessed = Arc::new(assess(write, request, world)?);
        self.cache.keep(&parts, &world.known, &world.kuma, &assessed);
        Ok(assessed)
    }
}

fn parts<'a>(write: &Write<'a>, request: &'a Request<'a, Object<'a>>) -> Parts<&'a str> {
    let side = |object: Option<&'a Object<'a>>| match object {
        Some(object) => {
            let mesh = object.mesh.as_deref().unwrap_or_default();
            ["there", &*object.api_version, mesh, object.raw_labels(), object.spec()]
        }
        None => [""; 5],
    };
    let [was, old_version, old_mesh, old_labels, old_spec] = side(write.old);
    let [is, version, mesh, labels, spec] = side(write.new);
    let (kind, name) = (&*request.kind.kind, name(write, request));
    let namespace = namespace(write, request).unwrap_or_default();
    [kind, name, namespace, was, old_version, old_mesh, old_labels, old_spec, is, version, mesh, labels, spec]
}

fn name<'a>(write: &Write<'a>, request: &'a Request<'a, Object<'a>>) -> &'a str {
    let own = write.object().and_then(|object| object.metadata.name.as_deref());
    own.or(request.name.as_deref()).unwrap_or_default()
}

fn namespace<'a>(write: &Write<'a>, request: &'a Request<'a, Object<'a>>) -> Option<&'a str> {
    let own = write.object().and_then(|object| object.metadata.namespace.as_deref());
    own.or(request.namespace.as_deref()).filter(|namespace| !namespace.is_empty())
}

fn assess(write: &Write, request: &Request<'_, Object<'_>>, world: &World) -> Result<Assessed, Vec<Diagnostic>> {
    let identity_of = |object: &Object, labels: &BTreeMap<String, String>| {
        let mesh = object.mesh.as_deref().or_else(|| labels.get("kuma.io/mesh").map(String::as_str));
        Identity {
            kind: request.kind.kind.to_string(),
            mesh: mesh.filter(|mesh| !mesh.is_empty()).unwrap_or("default").to_owned(),
            namespace: namespace(write, request).map(str::to_owned),
            name: name(write, request).to_owned(),
        }
    };
    let read = |object: &Object| {
        let labels = object.labels();
        Policy::of_spec(identity_of(object, &labels), labels, object.spec())
    };
    // What cannot be read was stored before there was a schema, and routes nothing.
    let old = write.old.and_then(|old| read(old).ok());
    let new = write.new.map(read).transpose()?;
    let splits = |policy: &Option<Policy>| policy.as_ref().map(|policy| split::splits(policy).0).unwrap_or_default();
    let (before, after) = (Arc::new(splits(&old)), Arc::new(splits(&new)));
    let mut assessed = Assessed {
        identity: write.object().map(|object| identity_of(object, &object.labels())).ok_or_else(Vec::new)?,
        change: split::change(&before, &after),
        before,
        after,
        verdict: validate::Verdict::default(),
        health: Health::default(),
        services: BTreeSet::new(),
    };
    let changed = write.old.is_none_or(|old| write.new.is_some_and(|new| new.spec() != old.spec()));
    if let Some(object) = write.new.filter(|_| changed) {
        let document = document(object, request)?;
        assessed.verdict = validate::verdict(&document, &world.kuma);
        let moves = Some(&assessed.change).filter(|change| !change.rules.is_empty());
        let subject = health::Subject { document: &document, policy: new.as_ref(), change: moves };
        assessed.health = health::examine(&subject, &world.known, &world.kuma);
        if assessed.has_something_to_say() {
            assessed.services = services(assessed.before.iter().chain(&*assessed.after));
            assessed.services.extend(targets(&document));
        }
    }
    Ok(assessed)
}

impl Assessed {
    /// Is there anything that a guard could ask better health for?
    pub(super) fn has_something_to_say(&self) -> bool {
        !self.verdict.violations.is_empty() || !self.health.findings.is_empty()
    }
}

/// The object without what only Kubernetes looks at.
fn document(object: &Object, request: &Request<'_, Object<'_>>) -> Result<Value, Vec<Diagnostic>> {
    let spec = match object.spec() {
        "" => Value::Null,
        spec => serde_json::from_str(spec).map_err(|error| vec![unreadable(&format!("spec: {error}"))])?,
    };
    let name = object.metadata.name.as_deref().or(request.name.as_deref()).unwrap_or_default();
    let mut metadata = json!({"name": name, "labels": object.labels()});
    if let Some(namespace) = object.metadata.namespace.as_deref().or(request.namespace.as_deref()) {
        metadata["namespace"] = namespace.into();
    }
    let mut document = json!({"apiVersion": object.api_version, "kind": request.kind.kind, "metadata": metadata});
    if let Some(mesh) = &object.mesh {
        document["mesh"] = mesh.as_ref().into();
    }
    if !spec.is_null() {
        document["spec"] = spec;
    }
    Ok(document)
}

fn unreadable(problem: &str) -> Diagnostic {
    Diagnostic::error("policy-malformed", FieldPath::root(), problem)
}

/// All names of the services that splits are about: with and without port, and plain.
fn services<'a>(splits: impl Iterator<Item = &'a Split>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for split in splits {
        let keys = split.backends.iter().flat_map(|backend| [backend.service.as_str(), backend.unported.as_str()]);
        found.extend(keys.chain([split.destination.as_str()]).map(str::to_owned));
        found.extend(split.backends.iter().map(|backend| backend.name.clone()));
        found.insert(plain(split.destination.as_str()).to_owned());
    }
    found
}

/// The name without kind, namespace, tags and mesh.
fn plain(key: &str) -> &str {
    let name = key.split_once('/').map_or(key, |(_, name)| name);
    name.find(['.', '{', '@']).map_or(name, |end| &name[..end])
}

/// The services that a policy of any kind is about.
fn targets(document: &Value) -> impl Iterator<Item = String> + '_ {
    let spec = &document["spec"];
    let to = spec["to"].as_array().into_iter().flatten().map(|to| &to["targetRef"]);
    to.chain([&spec["targetRef"]]).filter_map(|target| {
        let name = target["name"].as_str().or_else(|| target["labels"]["kuma.io/display-name"].as_str());
        name.map(str::to_owned)
    })
}

/// Who asks, as guards see it.
pub(super) fn author(user: &UserInfo) -> Author {
    Author::Account { name: user.username.clone(), groups: user.groups.clone() }
}

/// What is wrong with an object, as causes.
pub(super) fn causes_of(wrong: &[Diagnostic]) -> Vec<Cause> {
    let cause = |diagnostic: &Diagnostic| Cause {
        reason: "FieldValueInvalid",
        message: match &diagnostic.help {
            Some(help) => format!("{}: {help}", diagnostic.message),
            None => diagnostic.message.clone(),
        },
        field: diagnostic.field.to_string(),
    };
    wrong.iter().map(cause).collect()
}

/// Tells what guards say about a change.
fn limits(outcome: &mut Outcome, verdict: &Verdict, change: &Change, world: &World) {
    let mut causes = Vec::new();
    let mut approvable = BTreeSet::new();
    for cause in &verdict.causes {
        let code = name_of(cause.code);
        let sentence = format!("guard `{}`, {code}: {}", cause.guard, cause.message);
        match cause.effect {
            Effect::Denied => {
                outcome.reason(&cause.guard, code);
                let guard = world.guards.iter().find(|guard| guard.name() == cause.guard);
                approvable.extend(guard.filter(|guard| guard.spec.approvals.is_some()).map(guard::ShiftGuard::name));
                causes.push(Cause { reason: reason_of(cause.code), message: sentence, field: cause.field.to_string() });
            }
            Effect::Warned => {
                outcome.reason(&cause.guard, code);
                outcome.warn_of_limit(sentence);
            }
            Effect::Audited => outcome.annotate("audit", sentence),
            Effect::Approved => outcome.annotate("approved", sentence),
            Effect::Personal => outcome.annotate("personal", sentence),
        }
    }
    if !approvable.is_empty() {
        // A person copies this into an approval, so all of it is here.
        let message = format!(
            "the digest of this change is {}: whoever approves it creates a ShiftApproval with it in `spec.digest`",
            change.digest
        );
        causes.push(Cause { reason: "Digest", message, field: "spec".to_owned() });
    }
    outcome.refuse(causes);
    for note in &verdict.notes {
        outcome.warn_of_limit(note.clone());
    }
    let known = verdict.records.iter().filter(|record| record.rollback).count();
    if known > 0 && known == verdict.records.len() {
        outcome.annotate("rollback", true);
    }
}

/// Does all of it move back towards the stable split?
fn is_way_back(judged: &Result<Verdict, Unavailable>) -> bool {
    judged
        .as_ref()
        .is_ok_and(|verdict| !verdict.records.is_empty() && verdict.records.iter().all(|record| record.rollback))
}

/// The limit as guards write it.
fn name_of(code: Code) -> &'static str {
    match code {
        Code::MaxStep => "maxStep",
        Code::PerWindow => "perWindow",
        Code::MinInterval => "minInterval",
        Code::MaxShare => "maxShare",
        Code::Freeze => "freeze",
    }
}

/// The limit as Kubernetes writes reasons.
fn reason_of(code: Code) -> &'static str {
    match code {
        Code::MaxStep => "MaxStep",
        Code::PerWindow => "PerWindow",
        Code::MinInterval => "MinInterval",
        Code::MaxShare => "MaxShare",
        Code::Freeze => "Freeze",
    }
}

/// Percentage points with two decimals at most.
fn round(points: f64) -> String {
    let text = format!("{points:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
