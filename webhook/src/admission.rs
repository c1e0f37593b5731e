//! AdmissionReview in, `rules`, AdmissionReview out.

mod approval;
mod cache;
mod examine;
mod ledger;
mod outcome;
mod route;
mod shift_guard;

use crate::ledger::Ledger;
use crate::review::{self, Cause, Object, Request, Unreadable};
use crate::world::{Shared, World};
use bytes::Bytes;
use cache::Cache;
use jiff::Timestamp;
use outcome::Outcome;
use std::sync::Arc;
use std::time::Instant;

/// The admission handler.
#[derive(Debug)]
pub struct Admission {
    /// What is known.
    pub world: Shared,
    /// Where history is kept.
    pub ledger: Ledger,
    /// Who is who.
    pub settings: Settings,
    /// What time it is.
    pub clock: Clock,
    cache: Cache,
}

/// Accounts with a role of their own. Names are user names, such as `system:serviceaccount:NAMESPACE:NAME`.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whose writes pass unjudged and are counted: the control plane, and the controllers that Kubernetes depends on.
    pub exempt: Vec<String>,
    /// The webhook itself, the only writer of `ShiftLedger`s.
    pub webhook: String,
    /// The bot, which writes a `ShiftApproval` for whoever approved its pull request.
    pub bot: String,
}

impl Default for Settings {
    fn default() -> Self {
        let account = |name: &str| format!("system:serviceaccount:{name}");
        Self {
            exempt: [
                "kuma-system:kuma-control-plane",
                "kong-mesh-system:kong-mesh-control-plane",
                "kong-mesh-system:kuma-control-plane",
                "kube-system:generic-garbage-collector",
                "kube-system:namespace-controller",
                "kube-system:storage-version-migrator",
                "kube-system:storage-version-migrator-controller",
            ]
            .map(account)
            .to_vec(),
            webhook: account("sluice-system:sluice-webhook"),
            bot: account("sluice-system:sluice-bot"),
        }
    }
}

/// What time it is.
#[derive(Debug, Clone, Copy, Default)]
pub enum Clock {
    /// The system's time.
    #[default]
    System,
    /// Always this moment, to answer old reviews as they would have been answered.
    Fixed(Timestamp),
}

impl Clock {
    /// The time.
    pub fn now(self) -> Timestamp {
        match self {
            Self::System => Timestamp::now(),
            Self::Fixed(time) => time,
        }
    }
}

/// An answer: what goes over the wire, and what metrics and logs say of it.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status: 200 for every verdict; another only when there is no uid to echo.
    pub status: u16,
    /// The body, JSON.
    pub body: Bytes,
    /// What happened, for metrics and logs.
    pub summary: Summary,
}

/// What happened, for metrics and logs.
#[derive(Debug, Default, Clone)]
pub struct Summary {
    /// `allowed`, `warned`, `denied`, `exempt`, `unavailable` or `malformed`.
    pub verdict: &'static str,
    /// The guards and their codes that decided, such as (`llm-serving`, `maxStep`).
    pub reasons: Vec<(String, &'static str)>,
    /// The uid of the review.
    pub uid: String,
    /// One line for a log: who, what, why. Empty when there is nothing to say.
    pub line: String,
}

impl Admission {
    /// A handler with the usual accounts and the system's clock.
    pub fn new(world: Shared, ledger: Ledger) -> Self {
        Self { world, ledger, settings: Settings::default(), clock: Clock::System, cache: Cache::default() }
    }

    /// Answers one review.
    pub async fn answer(&self, body: &[u8], deadline: Instant) -> Answer {
        let review = match review::read(body) {
            Ok(review) => review,
            Err(Unreadable::Object(version, request, error)) if version == review::VERSION => {
                return self.without_object(&request, &error);
            }
            Err(Unreadable::Object(version, request, _)) => return outcome::other_version(&version, &request.uid),
            Err(Unreadable::Review(error)) => {
                return outcome::malformed(body, &format!("the body is no AdmissionReview: {error}"));
            }
        };
        let Some(request) = &review.request else {
            return outcome::malformed(body, "the AdmissionReview has no `request`");
        };
        if request.uid.is_empty() {
            return outcome::malformed(body, "the AdmissionReview has no `request.uid`");
        }
        if review.api_version != review::VERSION {
            return outcome::other_version(&review.api_version, &request.uid);
        }
        self.judge(request, deadline).await.into_answer(request)
    }

    async fn judge(&self, request: &Request<'_, Object<'_>>, deadline: Instant) -> Outcome {
        if let Some(outcome) = self.passes_by(request) {
            return outcome;
        }
        let write = match Write::of(request) {
            Ok(write) => write,
            Err(missing) => return Outcome::malformed(missing),
        };
        let world = Arc::clone(&self.world.load());
        match (&*request.kind.group, &*request.kind.kind) {
            (SLUICE, "ShiftLedger") => ledger::judge(&write, request, &self.settings),
            (SLUICE, "ShiftApproval") => approval::judge(&write, request, self, &world),
            (SLUICE, "ShiftGuard") => shift_guard::judge(&write, request, self, &world),
            _ => self.judge_policy(&write, request, &world, deadline).await,
        }
    }

    /// What needs no look at the object: kinds that are not ours, parts of an object, exempt writers.
    fn passes_by<O>(&self, request: &Request<'_, O>) -> Option<Outcome> {
        let ours = match &*request.kind.group {
            KUMA => true,
            SLUICE => matches!(&*request.kind.kind, "ShiftLedger" | "ShiftApproval" | "ShiftGuard"),
            _ => false,
        };
        let part = request.sub_resource.as_ref().is_some_and(|part| !part.is_empty());
        if !ours || part || !matches!(&*request.operation, "CREATE" | "UPDATE" | "DELETE") {
            return Some(Outcome::passed());
        }
        // A ledger is the webhook's own and an approval is a person's word: no controller writes either.
        let own = request.kind.group == SLUICE
            && (request.kind.kind == "ShiftLedger"
                || request.kind.kind == "ShiftApproval" && request.operation != "DELETE");
        let exempt = !own && self.settings.exempt.contains(&request.user_info.username);
        exempt.then(Outcome::exempt)
    }

    /// A review whose object has a field that no object of Kubernetes has: only what needs no object may pass.
    fn without_object(&self, request: &Request<'_, &serde_json::value::RawValue>, error: &serde_json::Error) -> Answer {
        if request.uid.is_empty() {
            return outcome::refused_without_uid("the AdmissionReview has no `request.uid`");
        }
        let outcome = self.passes_by(request);
        outcome
            .unwrap_or_else(|| Outcome::malformed(format!("the object cannot be read: {error}")))
            .into_answer(request)
    }
}

const KUMA: &str = "kuma.io";
const SLUICE: &str = "sluice.dev";

/// A write with the sides that its operation has.
#[derive(Debug, Clone, Copy)]
struct Write<'a> {
    old: Option<&'a Object<'a>>,
    new: Option<&'a Object<'a>>,
}

impl<'a> Write<'a> {
    fn of(request: &'a Request<'a, Object<'a>>) -> Result<Self, String> {
        let (old, new) = (request.old_object.as_ref(), request.object.as_ref());
        let missing = |what: &str| format!("{} without `request.{what}`", request.operation);
        match &*request.operation {
            "CREATE" => Ok(Self { old: None, new: Some(new.ok_or_else(|| missing("object"))?) }),
            "DELETE" => Ok(Self { old: Some(old.ok_or_else(|| missing("oldObject"))?), new: None }),
            _ => Ok(Self {
                old: Some(old.ok_or_else(|| missing("oldObject"))?),
                new: Some(new.ok_or_else(|| missing("object"))?),
            }),
        }
    }

    /// Does the object say the same as before? Other labels may switch a policy on or move it to another mesh.
    fn changes_nothing(&self) -> bool {
        let (Some(old), Some(new)) = (self.old, self.new) else { return false };
        old.spec() == new.spec() && old.mesh == new.mesh && old.raw_labels() == new.raw_labels()
    }

    /// Is it the end of an object that says the same as before? Whoever hinders that makes it stay for ever.
    fn lets_go(&self) -> bool {
        let (Some(old), Some(new)) = (self.old, self.new) else { return false };
        let telling = |object: &Object| {
            let labels = object.labels();
            ["kuma.io/effect", "kuma.io/mesh"].map(|key| labels.get(key).cloned())
        };
        new.metadata.deletion_timestamp.is_some()
            && old.spec() == new.spec()
            && old.mesh == new.mesh
            && telling(old) == telling(new)
    }

    /// The object, as it would be or was.
    fn object(&self) -> Option<&'a Object<'a>> {
        self.new.or(self.old)
    }
}
