//! Policies of Kuma: what a write does to traffic, and how healthy what is written is.

use super::cache::{Circumstances, Examined, Form, Pair, SPEC, State};
use super::{Admission, Outcome, World, Write, examine};
use crate::ledger::{Asked, Splits, Unavailable};
use crate::review::{Cause, Object, Request, UserInfo};
use serde_json::{Map, Value};
use sluice_rules::diagnostic::Diagnostic;
use sluice_rules::field::FieldPath;
use sluice_rules::guard::{self, Author, Code, Effect, Verdict};
use sluice_rules::health::{self, Health};
use sluice_rules::policy::{Identity, Policy};
use sluice_rules::split::{self, Change, Shape, Split};
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
    pub(super) before: Arc<Splits>,
    /// Its splits afterwards; none when it is deleted.
    pub(super) after: Arc<Splits>,
    /// What changes.
    pub(super) change: Arc<Change>,
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
        if let Some(old) = &write.old.map(|old| &old.metadata)
            && let (Some(uid), Some(version)) = (&old.uid, &old.resource_version)
        {
            self.ledger.shown(&assessed.identity, uid, version, &assessed.before, world);
        }
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
                    change: Arc::clone(&assessed.change),
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
        // What cannot be read was stored before there was a schema, and routes nothing.
        let old = write.old.and_then(|old| self.state(old, None, write, request).ok());
        let like = old.as_ref().map(|old| &old.form);
        let new = write.new.map(|new| self.state(new, like, write, request)).transpose()?;
        let pair = Pair { name: name(write, request), old, new };
        if let Some(assessed) = pair.find(world) {
            return Ok(assessed);
        }
        let assessed = Arc::new(assess_anew(write, request, world, &pair)?);
        pair.keep(world, &assessed);
        Ok(assessed)
    }

    /// One state of the policy, of a form that is probably the one given.
    fn state(
        &self,
        object: &Object,
        like: Option<&Arc<Form>>,
        write: &Write,
        request: &Request<'_, Object<'_>>,
    ) -> Result<State, Vec<Diagnostic>> {
        let own_mesh = object.mesh.as_deref().unwrap_or_default();
        let namespace = namespace(write, request).unwrap_or_default();
        let shape = Shape::of(object.spec());
        let mut parts =
            [&*request.kind.kind, namespace, &*object.api_version, own_mesh, object.raw_labels(), object.spec()];
        let read = |spec: &str| {
            let labels = object.labels();
            let identity = identity(mesh(object, &labels), write, request);
            let policy = Policy::of_spec(identity, labels, spec)?;
            Ok::<_, Vec<Diagnostic>>((policy.identity().mesh.clone(), split::splits(&policy).0))
        };
        if let Some(shape) = &shape {
            parts[SPEC] = shape.spec();
            if let Ok(form) = self.cache.form(&parts, like, read)
                && let Some(side) = form.side(Some(shape))
            {
                return Ok(State { form, side });
            }
            parts[SPEC] = object.spec();
        }
        let form = self.cache.form(&parts, like, read)?;
        let side = form.side(None).ok_or_else(Vec::new)?;
        Ok(State { form, side })
    }
}

fn assess_anew(
    write: &Write,
    request: &Request<'_, Object<'_>>,
    world: &World,
    pair: &Pair,
) -> Result<Assessed, Vec<Diagnostic>> {
    let splits = |state: &Option<State>| state.as_ref().map(|state| Arc::clone(&state.side.splits)).unwrap_or_default();
    let (before, after) = (splits(&pair.old), splits(&pair.new));
    let mesh = match pair.new.as_ref().or(pair.old.as_ref()) {
        Some(state) => state.form.mesh.clone(),
        None => write.object().map_or_else(String::new, |object| mesh(object, &object.labels())),
    };
    let mut assessed = Assessed {
        identity: identity(mesh, write, request),
        change: Arc::new(split::change_to(&before, &after, || after.digest().to_owned())),
        before,
        after,
        verdict: validate::Verdict::default(),
        health: Health::default(),
        services: BTreeSet::new(),
    };
    let changed = write.old.is_none_or(|old| write.new.is_some_and(|new| new.spec() != old.spec()));
    if let Some(object) = write.new.filter(|_| changed)
        && let Some(State { form, .. }) = &pair.new
    {
        let examined = match form.examined(pair.name, world) {
            Some(examined) => examined,
            None => examine(object, request, world, (pair.name, form))?,
        };
        let moves = Some(&*assessed.change).filter(|change| !change.rules.is_empty());
        assessed.verdict = examined.verdict.clone();
        assessed.health = examined.examination.health(moves);
        if assessed.has_something_to_say() {
            assessed.services = services(assessed.before.iter().chain(assessed.after.iter()));
            assessed.services.extend(examined.targets.iter().cloned());
        }
    }
    Ok(assessed)
}

/// What Kuma and the rules say of a policy of this form.
fn examine(
    object: &Object,
    request: &Request<'_, Object<'_>>,
    world: &World,
    (name, form): (&str, &Form),
) -> Result<Arc<Examined>, Vec<Diagnostic>> {
    let document = document(object, form.spec(), request)?;
    let verdict = validate::verdict(&document, &world.kuma);
    let examination = health::examine(&document, &world.known, &world.kuma);
    let targets = targets(&document).collect();
    Ok(form.keep_examined(Circumstances::new(name, world), verdict, examination, targets))
}

fn name<'a>(write: &Write<'a>, request: &'a Request<'a, Object<'a>>) -> &'a str {
    let own = write.object().and_then(|object| object.metadata.name.as_deref());
    own.or(request.name.as_deref()).unwrap_or_default()
}

fn namespace<'a>(write: &Write<'a>, request: &'a Request<'a, Object<'a>>) -> Option<&'a str> {
    let own = write.object().and_then(|object| object.metadata.namespace.as_deref());
    own.or(request.namespace.as_deref()).filter(|namespace| !namespace.is_empty())
}

/// The mesh of a policy, as it names it itself or by a label.
fn mesh(object: &Object, labels: &BTreeMap<String, String>) -> String {
    let mesh = object.mesh.as_deref().or_else(|| labels.get("kuma.io/mesh").map(String::as_str));
    mesh.filter(|mesh| !mesh.is_empty()).unwrap_or("default").to_owned()
}

fn identity(mesh: String, write: &Write, request: &Request<'_, Object<'_>>) -> Identity {
    Identity {
        kind: request.kind.kind.to_string(),
        mesh,
        namespace: namespace(write, request).map(str::to_owned),
        name: name(write, request).to_owned(),
    }
}

impl Assessed {
    /// About what it takes beside the splits, in bytes.
    pub(super) fn size(&self) -> usize {
        let services = self.services.iter().map(|service| 64 + service.len()).sum::<usize>();
        let texts = self.verdict.violations.iter().map(|violation| violation.field.len() + violation.message.len());
        let found = self.health.findings.iter().map(|finding| finding.message.len() + finding.help.len() + 200);
        self.change.rules.len() * 1000 + services + texts.chain(found).sum::<usize>()
    }

    /// Is there anything that a guard could ask better health for?
    pub(super) fn has_something_to_say(&self) -> bool {
        !self.verdict.violations.is_empty() || !self.health.findings.is_empty()
    }
}

/// The object without what only Kubernetes looks at.
fn document(object: &Object, spec: &str, request: &Request<'_, Object<'_>>) -> Result<Value, Vec<Diagnostic>> {
    let spec = match spec {
        "" => Value::Null,
        spec => serde_json::from_str(spec).map_err(|error| vec![unreadable(&format!("spec: {error}"))])?,
    };
    let name = object.metadata.name.as_deref().or(request.name.as_deref()).unwrap_or_default();
    let mut metadata = Map::new();
    metadata.insert("name".to_owned(), name.into());
    metadata.insert("labels".to_owned(), object.labels().into_iter().collect());
    if let Some(namespace) = object.metadata.namespace.as_deref().or(request.namespace.as_deref()) {
        metadata.insert("namespace".to_owned(), namespace.into());
    }
    let mut document = Map::new();
    document.insert("apiVersion".to_owned(), object.api_version.as_ref().into());
    document.insert("kind".to_owned(), request.kind.kind.as_ref().into());
    document.insert("metadata".to_owned(), metadata.into());
    if let Some(mesh) = &object.mesh {
        document.insert("mesh".to_owned(), mesh.as_ref().into());
    }
    if !spec.is_null() {
        document.insert("spec".to_owned(), spec);
    }
    Ok(document.into())
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
        found.extend(split.backends.iter().map(|backend| backend.name.to_string()));
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
    let hundredths = (points * 100.0).round() as u64;
    match (hundredths / 100, hundredths % 100) {
        (whole, 0) => whole.to_string(),
        (whole, part) if part % 10 == 0 => format!("{whole}.{}", part / 10),
        (whole, part) => format!("{whole}.{part:02}"),
    }
}
