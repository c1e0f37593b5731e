//! Typed policies: the fields that decisions need, from YAML or from an admission request's JSON.
//!
//! Both object forms are read, Kubernetes (`apiVersion`, `kind`, `metadata`, `spec`) and Universal (`type`, `name`,
//! `mesh`, `spec`; the kinds that 3.0 removes are flat), in the shapes of Kuma 2.14 and 3.0. What a kind has beyond
//! these fields is left alone: whether a policy fits its kind is the schema's question.

mod mesh_http_route;
mod mesh_tcp_route;
mod target_ref;
mod traffic_route;
mod weight;

pub use mesh_http_route::{Filter, HttpConf, HttpRule, HttpTo, MeshHttpRoute, RequestRedirect};
pub use mesh_tcp_route::{MeshTcpRoute, TcpConf, TcpRule, TcpTo};
pub use target_ref::{BackendRef, TargetRef};
pub use traffic_route::{Selector, SplitEntry, TagSet, TrafficRoute, TrafficRouteConf, TrafficRouteHttp};
pub use weight::Weight;

use crate::diagnostic::Diagnostic;
use crate::field::{FieldPath, Segment};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// One policy, typed where decisions look into it.
#[derive(Debug, Clone, PartialEq)]
pub enum Policy {
    /// Routes HTTP requests; both generations.
    MeshHttpRoute(Resource<MeshHttpRoute>),
    /// Routes connections; both generations.
    MeshTcpRoute(Resource<MeshTcpRoute>),
    /// Routes requests and connections by tags; gone in 3.0.
    TrafficRoute(Resource<TrafficRoute>),
    /// Any other kind, Kuma's or not: it passes.
    Other(Identity),
}

/// A policy's envelope around its spec.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource<T> {
    /// Which policy it is.
    pub identity: Identity,
    /// Its labels; on Kubernetes those that the control plane computed are among them.
    pub labels: BTreeMap<String, String>,
    /// Where the spec sits: `spec`, or the document itself for flat kinds.
    pub at: FieldPath,
    /// What it says.
    pub spec: T,
}

/// Which policy it is, wherever its file is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Kuma's kind, such as `MeshHTTPRoute`.
    pub kind: String,
    /// The mesh it belongs to.
    pub mesh: String,
    /// Its Kubernetes namespace; absent in Universal form and for cluster-scoped kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

/// How configuration names a policy: `{kind: MeshHTTPRoute, name: summarize, namespace: demo}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyRef {
    /// Kuma's kind.
    pub kind: String,
    /// The policy's name.
    pub name: String,
    /// Its namespace; left out, any will do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

impl PolicyRef {
    /// Does it name this policy?
    pub fn matches(&self, identity: &Identity) -> bool {
        self.kind == identity.kind
            && self.name == identity.name
            && (self.namespace.is_none() || self.namespace == identity.namespace)
    }
}

impl fmt::Display for PolicyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)?;
        self.namespace.as_ref().map_or(Ok(()), |namespace| write!(f, " in namespace {namespace}"))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)?;
        if let Some(namespace) = &self.namespace {
            write!(f, " in namespace {namespace}")?;
        }
        write!(f, " of mesh {}", self.mesh)
    }
}

impl Policy {
    /// Reads a policy. Every value of a wrong type is reported, each with its field path.
    ///
    /// # Errors
    ///
    /// The diagnostics, when the document names no kind or a field that decisions need has a wrong type.
    pub fn read(value: &Value) -> Result<Self, Vec<Diagnostic>> {
        if !value.is_object() {
            return Err(vec![Diagnostic::error(MALFORMED, FieldPath::root(), "the document is no mapping")]);
        }
        let (header, wrong) = typed::<Header>(MALFORMED, value, &FieldPath::root());
        let Some(header) = header.filter(|header| header.kind().is_some()) else {
            let missing = || {
                let problem = "the document has neither `kind` nor `type`";
                vec![Diagnostic::error("policy-without-kind", FieldPath::root(), problem)]
            };
            return Err(if wrong.is_empty() { missing() } else { wrong });
        };
        let identity = header.identity();
        let foreign = header.is_kubernetes() && !header.api_version.starts_with("kuma.io/");
        match identity.kind.as_str() {
            "MeshHTTPRoute" if !foreign => resource(value, header, identity, wrong).map(Self::MeshHttpRoute),
            "MeshTCPRoute" if !foreign => resource(value, header, identity, wrong).map(Self::MeshTcpRoute),
            "TrafficRoute" if !foreign => resource(value, header, identity, wrong).map(Self::TrafficRoute),
            _ => Ok(Self::Other(identity)),
        }
    }

    /// Reads a policy whose envelope is known and whose spec is JSON text: what [`Policy::read`] makes of the whole
    /// document, without building it.
    ///
    /// # Errors
    ///
    /// As [`Policy::read`]; a field that is there twice is refused too.
    pub fn of_spec(identity: Identity, labels: BTreeMap<String, String>, spec: &str) -> Result<Self, Vec<Diagnostic>> {
        match identity.kind.as_str() {
            "MeshHTTPRoute" => of_spec(identity, labels, spec).map(Self::MeshHttpRoute),
            "MeshTCPRoute" => of_spec(identity, labels, spec).map(Self::MeshTcpRoute),
            "TrafficRoute" => of_spec(identity, labels, spec).map(Self::TrafficRoute),
            _ => Ok(Self::Other(identity)),
        }
    }

    /// Which policy it is.
    pub fn identity(&self) -> &Identity {
        match self {
            Self::MeshHttpRoute(route) => &route.identity,
            Self::MeshTcpRoute(route) => &route.identity,
            Self::TrafficRoute(route) => &route.identity,
            Self::Other(identity) => identity,
        }
    }

    /// Is it stored without being applied (label `kuma.io/effect: shadow`)?
    pub fn is_shadow(&self) -> bool {
        let labels = match self {
            Self::MeshHttpRoute(route) => &route.labels,
            Self::MeshTcpRoute(route) => &route.labels,
            Self::TrafficRoute(_) | Self::Other(_) => return false,
        };
        labels.get("kuma.io/effect").is_some_and(|effect| effect == "shadow")
    }
}

const MALFORMED: &str = "policy-malformed";

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Header {
    api_version: String,
    kind: Option<String>,
    r#type: Option<String>,
    metadata: Option<Metadata>,
    name: Option<String>,
    mesh: Option<String>,
    #[serde(deserialize_with = "texts")]
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    #[serde(deserialize_with = "nullable")]
    name: String,
    namespace: Option<String>,
    #[serde(deserialize_with = "texts")]
    labels: BTreeMap<String, String>,
}

impl Header {
    fn is_kubernetes(&self) -> bool {
        self.kind.is_some() && (!self.api_version.is_empty() || self.metadata.is_some())
    }

    fn kind(&self) -> Option<&str> {
        if self.is_kubernetes() { self.kind.as_deref() } else { self.r#type.as_deref().or(self.kind.as_deref()) }
    }

    fn labels(&self) -> &BTreeMap<String, String> {
        self.metadata.as_ref().filter(|_| self.is_kubernetes()).map_or(&self.labels, |metadata| &metadata.labels)
    }

    fn identity(&self) -> Identity {
        let label = |key: &str| self.labels().get(key).cloned();
        let (name, namespace) = match &self.metadata {
            Some(metadata) if self.is_kubernetes() => (metadata.name.clone(), metadata.namespace.clone()),
            _ => {
                // An object of a Kubernetes zone, exported in Universal form, is called `name.namespace`.
                let name = self.name.clone().unwrap_or_default();
                let namespace = label("k8s.kuma.io/namespace");
                let suffix = namespace.as_ref().map(|namespace| format!(".{namespace}"));
                let short = suffix.as_ref().and_then(|suffix| name.strip_suffix(suffix.as_str())).map(str::to_owned);
                (short.unwrap_or(name), namespace)
            }
        };
        // The kinds that 3.0 removes say `mesh` beside `metadata`, the others say it with a label.
        let mesh = self.mesh.clone().or_else(|| label("kuma.io/mesh")).filter(|mesh| !mesh.is_empty());
        Identity {
            kind: self.kind().unwrap_or_default().to_owned(),
            mesh: mesh.unwrap_or_else(|| "default".to_owned()),
            namespace: namespace.filter(|namespace| !namespace.is_empty()),
            name,
        }
    }
}

fn resource<T: DeserializeOwned + Default>(
    value: &Value,
    header: Header,
    identity: Identity,
    mut wrong: Vec<Diagnostic>,
) -> Result<Resource<T>, Vec<Diagnostic>> {
    let flat = identity.kind == "TrafficRoute" && !header.is_kubernetes();
    let at = if flat { FieldPath::root() } else { FieldPath::root().key("spec") };
    let spec = if flat { Some(value) } else { value.get("spec").filter(|spec| !spec.is_null()) };
    let (spec, in_spec) = spec.map_or_else(|| (Some(T::default()), Vec::new()), |spec| typed(MALFORMED, spec, &at));
    wrong.extend(in_spec);
    match spec {
        Some(spec) if wrong.is_empty() => Ok(Resource { labels: header.labels().clone(), identity, at, spec }),
        _ => Err(wrong),
    }
}

fn of_spec<T: DeserializeOwned + Default>(
    identity: Identity,
    labels: BTreeMap<String, String>,
    spec: &str,
) -> Result<Resource<T>, Vec<Diagnostic>> {
    let at = FieldPath::root().key("spec");
    let read = match spec {
        "" => Ok(T::default()),
        spec => serde_json::from_str::<Option<T>>(spec).map(Option::unwrap_or_default),
    };
    let error = match read {
        Ok(spec) => return Ok(Resource { identity, labels, at, spec }),
        Err(error) => error,
    };
    // What went wrong is rare enough to be read again, slowly and with every mistake and its place.
    let malformed = |error: &serde_json::Error| vec![Diagnostic::error(MALFORMED, at.clone(), error.to_string())];
    let value: Value = serde_json::from_str(spec).map_err(|error| malformed(&error))?;
    let (_, wrong) = typed::<T>(MALFORMED, &value, &at);
    Err(if wrong.is_empty() { malformed(&error) } else { wrong })
}

/// Reads a value that sits at `at`, and goes on after a mistake: the wrong value is left out and the rest read again,
/// so that all mistakes are known at once. What comes back beside mistakes lacks the wrong values.
pub(crate) fn typed<T: DeserializeOwned>(
    id: &'static str,
    value: &Value,
    at: &FieldPath,
) -> (Option<T>, Vec<Diagnostic>) {
    let mut wrong = Vec::new();
    let mut rest: Option<Remainder> = None;
    for _ in 0..MOST_MISTAKES {
        let error = match serde_path_to_error::deserialize(rest.as_ref().map_or(value, |rest| &rest.value)) {
            Ok(typed) => return (Some(typed), wrong),
            Err(error) => error,
        };
        let rest = rest.get_or_insert_with(|| Remainder::new(value));
        let place = place(error.path());
        let as_written = rest.as_written(&place);
        let message = error.inner().to_string();
        if !rest.is_consequence(&as_written, &message) {
            let field = as_written.segments().into_iter().fold(at.clone(), |field, segment| match segment {
                Segment::Key(key) => field.key(key.clone()),
                Segment::Index(index) => field.index(*index),
            });
            wrong.push(Diagnostic::error(id, field, message));
        }
        if place.last().is_none() {
            return (None, wrong);
        }
        rest.leave_out(&place, as_written);
    }
    (None, wrong)
}

/// A document with more mistakes than this is reported up to here.
const MOST_MISTAKES: usize = 100;

fn place(path: &serde_path_to_error::Path) -> FieldPath {
    use serde_path_to_error::Segment as Step;
    path.iter().fold(FieldPath::root(), |place, step| match step {
        Step::Seq { index } => place.index(*index),
        Step::Map { key } => place.key(key.clone()),
        Step::Enum { .. } | Step::Unknown => place,
    })
}

/// A value without its mistakes, and where in the whole value its parts were.
struct Remainder {
    value: Value,
    /// Lists that lost items, to the places that the others had.
    kept: BTreeMap<FieldPath, Vec<usize>>,
    left_out: BTreeSet<FieldPath>,
}

impl Remainder {
    fn new(value: &Value) -> Self {
        Self { value: value.clone(), kept: BTreeMap::new(), left_out: BTreeSet::new() }
    }

    fn as_written(&self, place: &FieldPath) -> FieldPath {
        place.segments().into_iter().fold(FieldPath::root(), |path, segment| match segment {
            Segment::Key(key) => path.key(key.clone()),
            Segment::Index(index) => {
                let kept = self.kept.get(&path).and_then(|kept| kept.get(*index));
                path.index(*kept.unwrap_or(index))
            }
        })
    }

    /// A required field that was wrong is missing now.
    fn is_consequence(&self, place: &FieldPath, message: &str) -> bool {
        let missing = message.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
        missing.is_some_and(|key| self.left_out.contains(&place.key(key.to_owned())))
    }

    fn leave_out(&mut self, place: &FieldPath, as_written: FieldPath) {
        let segments = place.segments();
        let (Some((last, steps)), Some(parent)) = (segments.split_last(), as_written.parent()) else { return };
        let inner = steps.iter().try_fold(&mut self.value, |value, step| match step {
            Segment::Key(key) => value.get_mut(&**key),
            Segment::Index(index) => value.get_mut(index),
        });
        match (inner, *last) {
            (Some(Value::Object(map)), Segment::Key(key)) => {
                map.shift_remove(&**key);
            }
            (Some(Value::Array(items)), Segment::Index(index)) if *index < items.len() => {
                let kept = self.kept.entry(parent).or_insert_with(|| (0..items.len()).collect());
                kept.remove(*index);
                items.remove(*index);
            }
            _ => {}
        }
        self.left_out.insert(as_written);
    }
}

/// `null` is what Go writes for an empty list or map.
pub(crate) fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// A `null` text is an empty one to Go.
fn texts<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    let texts: BTreeMap<String, Option<String>> = nullable(from)?;
    Ok(texts.into_iter().map(|(key, text)| (key, text.unwrap_or_default())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn yaml(text: &str) -> Value {
        serde_yaml::from_str(text).expect("the test's YAML")
    }

    #[test]
    fn reads_both_forms_of_a_route() {
        let kubernetes = yaml(
            "{apiVersion: kuma.io/v1alpha1, kind: MeshHTTPRoute, metadata: {name: a, namespace: demo, labels: {kuma.io/mesh: m}}, \
             spec: {targetRef: {kind: Mesh}, to: [{targetRef: {kind: MeshService, name: b}, rules: []}]}}",
        );
        let universal = yaml(
            "{type: MeshHTTPRoute, name: a, mesh: m, spec: {to: [{targetRef: {kind: MeshService, labels: {kuma.io/display-name: b}}}]}}",
        );
        let kubernetes = Policy::read(&kubernetes).unwrap();
        assert_eq!(kubernetes.identity().to_string(), "MeshHTTPRoute a in namespace demo of mesh m");
        let universal = Policy::read(&universal).unwrap();
        assert_eq!(universal.identity().to_string(), "MeshHTTPRoute a of mesh m");
    }

    #[test]
    fn reads_legacy_routes_nested_and_flat() {
        let nested = yaml(
            "{apiVersion: kuma.io/v1alpha1, kind: TrafficRoute, mesh: m, metadata: {name: a}, spec: {conf: {destination: {kuma.io/service: b}}}}",
        );
        let flat = yaml("{type: TrafficRoute, name: a, mesh: m, conf: {destination: {kuma.io/service: b}}}");
        let (Policy::TrafficRoute(nested), Policy::TrafficRoute(flat)) =
            (Policy::read(&nested).unwrap(), Policy::read(&flat).unwrap())
        else {
            panic!("both are traffic routes")
        };
        assert_eq!(nested.spec, flat.spec);
        assert_eq!(nested.identity, flat.identity);
        assert_eq!((nested.at.to_string().as_str(), flat.at.to_string().as_str()), ("spec", ""));
    }

    #[test]
    fn lets_unknown_kinds_pass_whatever_they_hold() {
        for text in [
            "{apiVersion: kuma.io/v1alpha1, kind: MeshGlobalRateLimit, metadata: {name: a}, spec: 7}",
            "{type: MeshFutureThing, name: a, spec: {to: {}}}",
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, labels: {n: 1}}}",
            "{apiVersion: other.io/v1, kind: MeshHTTPRoute, metadata: {name: a}, spec: 7}",
        ] {
            assert!(matches!(Policy::read(&yaml(text)), Ok(Policy::Other(_))), "{text}");
        }
    }

    #[test]
    fn names_every_wrong_value_with_its_field() {
        let route = yaml(
            "{type: MeshHTTPRoute, name: a, spec: {targetRef: {kind: [x]}, to: [{targetRef: {kind: MeshService, name: b}, rules: [{default: {backendRefs: [\
             {name: v1, weight: -1}, {name: v2, weight: 1.5}, {name: v3, weight: '90'}, {name: v4, weight: 4294967296}, {name: v5, port: x}, 7, null]}}]}]}}",
        );
        let wrong: Vec<_> = Policy::read(&route).unwrap_err().iter().map(ToString::to_string).collect();
        let refs = "error[policy-malformed] spec.to[0].rules[0].default.backendRefs";
        let range = "a weight is a whole number from 0 to 4294967295";
        let expected = [
            "error[policy-malformed] spec.targetRef.kind: invalid type: sequence, expected a string".to_owned(),
            format!("{refs}[0].weight: {range}, not -1"),
            format!("{refs}[1].weight: {range}, not 1.5"),
            format!("{refs}[2].weight: {range}, not the text \"90\""),
            format!("{refs}[3].weight: {range}, not 4294967296"),
            format!("{refs}[4].port: invalid type: string \"x\", expected u32"),
            format!("{refs}[5]: invalid type: integer `7`, expected struct BackendRef"),
            format!("{refs}[6]: invalid type: null, expected struct BackendRef"),
        ];
        assert_eq!(wrong, expected);
    }

    #[test]
    fn takes_null_for_empty_as_kuma_does() {
        let route = yaml(
            "{type: MeshTCPRoute, name: a, labels: null, spec: {targetRef: {kind: MeshSubset, tags: {version: null}}, \
             to: [{targetRef: {kind: MeshService, name: b}, rules: [{default: {backendRefs: null}}]}]}}",
        );
        assert!(matches!(Policy::read(&route), Ok(Policy::MeshTcpRoute(_))));
    }

    #[test]
    fn says_when_a_document_names_no_kind() {
        for (text, problem) in [("{a: 1}", "neither `kind` nor `type`"), ("[]", "no mapping"), ("{kind: 3}", "kind")] {
            let wrong = Policy::read(&yaml(text)).unwrap_err();
            assert!(wrong[0].to_string().contains(problem), "{}", wrong[0]);
        }
    }

    #[test]
    fn reads_a_spec_alone_as_in_its_document() {
        let route = yaml(
            "{apiVersion: kuma.io/v1alpha1, kind: MeshHTTPRoute, metadata: {name: a, labels: {kuma.io/effect: shadow}}, \
             spec: {to: [{targetRef: {kind: MeshService, name: b}, rules: [{default: {backendRefs: [{name: v1, weight: 7}]}}]}]}}",
        );
        let whole = Policy::read(&route).unwrap();
        let read = |spec: &str| {
            let labels = BTreeMap::from([("kuma.io/effect".to_owned(), "shadow".to_owned())]);
            Policy::of_spec(whole.identity().clone(), labels, spec)
        };
        assert_eq!(read(&route["spec"].to_string()).unwrap(), whole);
        for nothing in ["", "null", "{}"] {
            assert!(matches!(read(nothing), Ok(Policy::MeshHttpRoute(route)) if route.spec.to.is_empty()), "{nothing}");
        }
        let wrong = read(r#"{"to": [{"rules": [{"default": {"backendRefs": [{"weight": -1}]}}]}]}"#).unwrap_err();
        assert_eq!(wrong[0].field.to_string(), "spec.to[0].rules[0].default.backendRefs[0].weight");
        let wrong = read(r#"{"to": [], "to": []}"#).unwrap_err();
        assert!(wrong[0].message.starts_with("duplicate field `to`"), "{}", wrong[0]);
        let wrong = read(&"[".repeat(10_000)).unwrap_err();
        assert!(wrong[0].message.contains("recursion limit"), "{}", wrong[0]);
    }

    #[test]
    fn finds_a_policy_by_its_identity() {
        let identity = |namespace: Option<&str>| Identity {
            kind: "MeshHTTPRoute".into(),
            mesh: "default".into(),
            namespace: namespace.map(Into::into),
            name: "a".into(),
        };
        let wanted: PolicyRef =
            serde_json::from_value(yaml("{kind: MeshHTTPRoute, name: a, namespace: demo}")).unwrap();
        assert!(wanted.matches(&identity(Some("demo"))));
        assert!(!wanted.matches(&identity(Some("prod"))));
        assert!(!wanted.matches(&identity(None)));
        assert!(PolicyRef { namespace: None, ..wanted }.matches(&identity(Some("prod"))));
    }

    #[test]
    fn takes_the_namespace_of_an_exported_object_from_its_label() {
        let route =
            yaml("{type: MeshHTTPRoute, name: a.demo, mesh: m, labels: {k8s.kuma.io/namespace: demo}, spec: {}}");
        let policy = Policy::read(&route).unwrap();
        assert_eq!(policy.identity().name, "a");
        assert_eq!(policy.identity().namespace.as_deref(), Some("demo"));
    }
}
