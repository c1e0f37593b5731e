//! What the watches told, kept small, and what follows from it.

use super::kinds::{KINDS, Kind, LEGACY, REQUIRED, Role};
use super::watch::{Key, Message, What, key};
use super::{Progress, Settings};
use crate::ledger::{Before, Seen};
use serde_json::{Value, json};
use sluice_rules::diagnostic::Diagnostic;
use sluice_rules::guard::{Approval, ShiftGuard};
use sluice_rules::health::Known;
use sluice_rules::policy::Policy;
use sluice_rules::validate::Version;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is kept of the cluster.
pub(super) struct State {
    settings: Settings,
    definitions: Option<BTreeSet<String>>,
    /// By CRD, then by place.
    objects: BTreeMap<&'static str, BTreeMap<Key, Object>>,
    /// The kinds whose first list is complete.
    listed: BTreeSet<&'static str>,
    known: Known,
    changed: Changed,
    known_published: Option<Instant>,
    unreadable: u64,
    complete: bool,
}

/// Shortest time between two copies of what is known: it is copied as a whole, and a control plane writes all the time.
const KNOWN_EVERY: Duration = Duration::from_millis(500);

/// What of the world has to be published anew.
#[derive(Default)]
struct Changed {
    guards: bool,
    approvals: bool,
    known: bool,
}

/// What is kept of one object.
struct Object {
    uid: String,
    version: String,
    mesh: Option<String>,
    content: Content,
}

enum Content {
    Guard(Option<Box<ShiftGuard>>),
    Approval(Option<Box<Approval>>),
    Route(Option<Box<Policy>>),
    /// Others keep what they need.
    Elsewhere,
}

impl State {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            settings: settings.clone(),
            definitions: None,
            objects: BTreeMap::new(),
            listed: BTreeSet::new(),
            known: Known::default(),
            changed: Changed::default(),
            known_published: None,
            unreadable: 0,
            complete: false,
        }
    }

    /// Takes in what a watch told.
    pub(super) fn digest(&mut self, Message { kind, what }: Message) {
        match (kind.role, what) {
            (Role::Definition, What::Applied(object)) => {
                self.definitions.get_or_insert_default().insert(key(&object).1);
            }
            (Role::Definition, What::Deleted(object)) => {
                self.definitions.get_or_insert_default().remove(&key(&object).1);
            }
            (Role::Definition, What::Listed(keys)) => {
                self.definitions = Some(keys.into_iter().map(|(_, name)| name).collect());
                self.listed.insert(kind.name);
            }
            (_, What::Applied(object)) => self.apply(kind, object),
            (_, What::Deleted(object)) => {
                let version = text(&object, "resourceVersion");
                self.delete(kind, &key(&object), Some(version));
            }
            (_, What::Listed(keys)) => {
                let gone: Vec<Key> = self.of(kind).keys().filter(|key| !keys.contains(key)).cloned().collect();
                for key in gone {
                    self.delete(kind, &key, None);
                }
                self.listed.insert(kind.name);
            }
        }
    }

    /// Is the kind's CRD there?
    pub(super) fn exists(&self, kind: &Kind) -> bool {
        self.definitions.as_ref().is_some_and(|definitions| definitions.contains(kind.name))
    }

    /// The kind's CRD is gone, and every object with it.
    pub(super) fn forget(&mut self, kind: &'static Kind) {
        let keys: Vec<Key> = self.of(kind).keys().cloned().collect();
        for key in keys {
            self.delete(kind, &key, None);
        }
        self.listed.remove(kind.name);
    }

    /// When what was held back is to be published, if anything was.
    pub(super) fn publication_due(&self) -> Option<Duration> {
        let published = self.known_published.filter(|_| self.changed.known)?;
        Some(KNOWN_EVERY.saturating_sub(published.elapsed()))
    }

    /// Publishes what changed, and tells `progress` how far it is.
    pub(super) fn publish(&mut self, progress: &Progress) {
        for kind in KINDS.iter().filter(|kind| self.listed.contains(kind.name)) {
            progress.listed(kind.name);
        }
        for _ in 0..std::mem::take(&mut self.unreadable) {
            progress.count_unreadable();
        }
        let Some(definitions) = &self.definitions else { return };
        if !self.listed.contains(super::DEFINITIONS.name) {
            return;
        }
        let missing = REQUIRED.iter().filter(|name| !definitions.contains(**name));
        let complete = progress.settle(missing.map(|name| (*name).to_owned()).collect());
        if self.known.complete != complete {
            self.known.complete = complete;
            self.changed.known = true;
            // Whether absence means anything must not wait.
            self.known_published = None;
        }
        let kuma = self.settings.kuma.or_else(|| generation(definitions));
        self.write(kuma);
        if complete && !self.complete {
            self.complete = true;
            progress.set_ready();
        }
    }

    /// One write for everything that changed, so that no answer sees one part without the other.
    fn write(&mut self, kuma: Option<Version>) {
        let mut changed = std::mem::take(&mut self.changed);
        if changed.known && self.known_published.is_some_and(|published| published.elapsed() < KNOWN_EVERY) {
            (changed.known, self.changed.known) = (false, true);
        } else if changed.known {
            self.known_published = Some(Instant::now());
        }
        let world = &self.settings.world;
        let (in_cluster, version) = {
            let world = world.load();
            (world.in_cluster, world.kuma.version)
        };
        let version = kuma.unwrap_or(version);
        let same_kuma = in_cluster && world.load().kuma.version == version;
        if same_kuma && !changed.guards && !changed.approvals && !changed.known {
            return;
        }
        let guards: Option<Vec<_>> = changed.guards.then(|| {
            self.all(|content| match content {
                Content::Guard(guard) => guard.as_deref().cloned(),
                _ => None,
            })
        });
        let approvals: Option<Vec<_>> = changed.approvals.then(|| {
            self.all(|content| match content {
                Content::Approval(approval) => approval.as_deref().cloned(),
                _ => None,
            })
        });
        let known = changed.known.then(|| Arc::new(self.known.clone()));
        world.update(|world| {
            if let Some(guards) = &guards {
                world.guards.clone_from(guards);
            }
            if let Some(approvals) = &approvals {
                world.approvals.clone_from(approvals);
            }
            if let Some(known) = &known {
                world.known = known.clone();
            }
            Arc::make_mut(&mut world.kuma).version = version;
            world.in_cluster = true;
        });
    }

    fn all<T>(&self, of: impl Fn(&Content) -> Option<T>) -> Vec<T> {
        self.objects.values().flat_map(BTreeMap::values).filter_map(|object| of(&object.content)).collect()
    }

    fn of(&mut self, kind: &'static Kind) -> &mut BTreeMap<Key, Object> {
        self.objects.entry(kind.name).or_default()
    }

    fn apply(&mut self, kind: &'static Kind, mut object: Value) {
        strip(&mut object);
        let key = key(&object);
        let (uid, version) = (text(&object, "uid"), text(&object, "resourceVersion"));
        match self.of(kind).get(&key) {
            // A new list tells again what is known.
            Some(known) if known.uid == uid && known.version == version => return,
            // Deleted and created again while nobody looked.
            Some(known) if known.uid != uid => self.delete(kind, &key, None),
            _ => {}
        }
        let before = self.of(kind).remove(&key);
        let first = before.is_none() && !self.listed.contains(kind.name);
        let content = match kind.role {
            Role::Guard => {
                self.changed.guards = true;
                let read = ShiftGuard::read(&object).map(Box::new);
                Content::Guard(self.readable(kind, &key, read).or(match before {
                    // A guard that nobody can read guards as it did while it could be read.
                    Some(Object { content: Content::Guard(guard), .. }) => guard,
                    _ => None,
                }))
            }
            Role::Approval => {
                self.changed.approvals = true;
                let read = Approval::read(&object).map(Box::new);
                Content::Approval(self.readable(kind, &key, read))
            }
            Role::Route => {
                self.know(&object);
                let read = Policy::read(&object).map(Box::new);
                let present = self.readable(kind, &key, read);
                if let Some(policy) = present.as_deref().cloned() {
                    let before = match before.map(|object| object.content) {
                        None if first => Before::Unknown,
                        None => Before::Absent,
                        Some(Content::Route(Some(policy))) => Before::Was(*policy),
                        // It could not be read.
                        Some(_) => Before::Unknown,
                    };
                    let (uid, version) = (uid.clone(), version.clone());
                    let gone = object["metadata"]["deletionTimestamp"].is_string();
                    self.tell(Seen { policy, before, uid, version, gone });
                }
                Content::Route(present)
            }
            Role::Known | Role::Definition => {
                self.know(&object);
                Content::Elsewhere
            }
        };
        let mesh = mesh(&object).map(str::to_owned);
        self.of(kind).insert(key, Object { uid, version, mesh, content });
    }

    /// `at` is the version of the deletion, where the watch told one.
    fn delete(&mut self, kind: &'static Kind, key: &Key, at: Option<String>) {
        let Some(object) = self.of(kind).remove(key) else { return };
        match object.content {
            Content::Guard(_) => self.changed.guards = true,
            Content::Approval(_) => self.changed.approvals = true,
            Content::Route(Some(policy)) => {
                let (uid, version) = (object.uid, at.unwrap_or(object.version));
                let before = Before::Was(Policy::clone(&policy));
                self.tell(Seen { policy: *policy, before, uid, version, gone: true });
            }
            Content::Route(None) | Content::Elsewhere => {}
        }
        if matches!(kind.role, Role::Route | Role::Known) {
            let (namespace, name) = key;
            let labels = json!({"kuma.io/mesh": object.mesh});
            let metadata = json!({"namespace": namespace, "name": name, "labels": labels});
            let stub = json!({
                "apiVersion": "kuma.io/v1alpha1", "kind": kind.kind, "mesh": object.mesh, "metadata": metadata,
            });
            self.known.remove(&stub);
            self.changed.known = true;
        }
    }

    fn know(&mut self, object: &Value) {
        self.known.insert(object);
        self.changed.known = true;
    }

    fn readable<T>(&mut self, kind: &Kind, key: &Key, read: Result<T, Vec<Diagnostic>>) -> Option<T> {
        let wrong = match read {
            Ok(read) => return Some(read),
            Err(wrong) => wrong,
        };
        self.unreadable += 1;
        let (namespace, name) = (key.0.as_deref().unwrap_or_default(), &key.1);
        for problem in wrong {
            let (field, message) = (&problem.field, &problem.message);
            tracing::error!(kind = kind.kind, namespace, name, %field, "cannot be read: {message}");
        }
        None
    }

    fn tell(&self, seen: Seen) {
        // Nobody listening is no error.
        let _ = self.settings.seen.send(seen);
    }
}

/// The last generation with `TrafficRoute`, or the first without; none when Kuma is not installed.
fn generation(definitions: &BTreeSet<String>) -> Option<Version> {
    if definitions.contains(LEGACY) {
        return Some(Version::V2_14);
    }
    definitions.iter().any(|name| name.ends_with(".kuma.io")).then_some(Version::V3_0)
}

/// The kinds that 3.0 removes say `mesh` beside `metadata`, the others say it with a label.
fn mesh(object: &Value) -> Option<&str> {
    let label = || object["metadata"]["labels"]["kuma.io/mesh"].as_str();
    object["mesh"].as_str().or_else(label).filter(|mesh| !mesh.is_empty())
}

/// Drops what nobody reads and is often the largest part of an object.
fn strip(object: &mut Value) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    metadata.remove("managedFields");
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
}

fn text(object: &Value, field: &str) -> String {
    object["metadata"][field].as_str().unwrap_or_default().to_owned()
}
