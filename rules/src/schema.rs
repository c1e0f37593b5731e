//! Does a document fit its kind's schema, in the words of who checks it?
//!
//! The resource definitions of both generations are compiled in and read when they are first asked for. The schema is
//! walked here rather than by a general JSON Schema validator because the answer must be Kuma's: the API server and the
//! REST API word one fault differently, report one fault several times, drop nulls at different moments, and the same
//! walk finds what would be pruned in silence. `rules/tests/schema_oracle.rs` holds the walk to the `jsonschema` crate.

mod check;
mod crds;
mod node;
mod place;

pub(crate) use check::{Asker, Check};
pub(crate) use node::{Kind, Node};
pub(crate) use place::Place;

use crate::field::FieldPath;
use crate::validate::Version;
use serde_json::Value;
use std::sync::OnceLock;

/// The API group of Kuma's kinds.
pub(crate) const GROUP: &str = "kuma.io/";

/// A resource definition's text, and its schema once somebody asked.
struct Source {
    kind: &'static str,
    yaml: &'static str,
    schema: OnceLock<Option<Schema>>,
}

impl Source {
    const fn new(kind: &'static str, yaml: &'static str) -> Self {
        Self { kind, yaml, schema: OnceLock::new() }
    }
}

/// What one kind looks like in one version.
#[derive(Debug)]
pub(crate) struct Schema {
    /// The kind lives in namespaces.
    pub(crate) namespaced: bool,
    /// The whole object, as Kubernetes has it.
    pub(crate) root: Node,
    /// The definition as written, for tests against another validator.
    text: Value,
}

impl Schema {
    fn read(yaml: &str) -> Option<Self> {
        let definition: Value = serde_yaml::from_str(yaml).ok()?;
        let text = definition.pointer("/spec/versions/0/schema/openAPIV3Schema")?.clone();
        let namespaced = definition.pointer("/spec/scope")? == "Namespaced";
        Some(Self { namespaced, root: Node::read(&text), text })
    }

    /// The schema of `spec`.
    pub(crate) fn spec(&self) -> Option<&Node> {
        Some(&self.root.property("spec")?.node)
    }

    /// The schema says something about `spec`. It does not for the old kinds, whose Universal form is flat.
    pub(crate) fn is_structural(&self) -> bool {
        self.spec().is_some_and(|spec| !spec.open)
    }
}

/// The schema of a kind in a version; none when the version does not have the kind.
pub(crate) fn of(kind: &str, version: Version) -> Option<&'static Schema> {
    let source = source(kind, version)?;
    source.schema.get_or_init(|| Schema::read(source.yaml)).as_ref()
}

fn source(kind: &str, version: Version) -> Option<&'static Source> {
    let sources = match version {
        Version::V2_14 => crds::V2_14.as_slice(),
        Version::V3_0 => crds::V3_0.as_slice(),
    };
    let at = sources.binary_search_by(|source| source.kind.cmp(kind)).ok()?;
    sources.get(at)
}

/// Does this version have this kind? `TrafficRoute`, say, exists in 2.14 and not in 3.0.
pub fn exists(kind: &str, version: Version) -> bool {
    source(kind, version).is_some()
}

/// The kinds of a version, sorted.
pub fn kinds(version: Version) -> impl Iterator<Item = &'static str> {
    let sources = match version {
        Version::V2_14 => crds::V2_14.as_slice(),
        Version::V3_0 => crds::V3_0.as_slice(),
    };
    sources.iter().map(|source| source.kind)
}

/// The `openAPIV3Schema` of a kind as its definition writes it, for editors and other validators.
pub fn definition(kind: &str, version: Version) -> Option<&'static Value> {
    Some(&of(kind, version)?.text)
}

/// The fields that the schema does not know, in the order of the document.
///
/// The API server prunes them in silence and the REST API keeps them from having any effect; only `kubectl` with its
/// strict validation says so. Kinds with an opaque `spec`, and kinds that the version does not have, yield nothing.
/// `metadata` is not looked into.
pub fn unknown_fields(document: &Value, version: Version) -> Vec<FieldPath> {
    let mut found = Vec::new();
    let Some(object) = document.as_object() else { return found };
    let Some(form) = Form::of(document) else { return found };
    let kind = form.kind();
    let Some(schema) = of(kind, version) else { return found };
    match form {
        Form::Kubernetes(_) => {
            for (name, value) in object {
                let place = Place::ROOT.field(name);
                match schema.root.property(name) {
                    None => found.push(place.to_field_path()),
                    Some(_) if name == "metadata" => {}
                    Some(property) => unknown_in(&property.node, value, &place, &mut found),
                }
            }
        }
        Form::Universal(_) if schema.is_structural() => {
            for (name, value) in object {
                let place = Place::ROOT.field(name);
                match name.as_str() {
                    "spec" | "status" => match schema.root.property(name) {
                        Some(property) => unknown_in(&property.node, value, &place, &mut found),
                        None => found.push(place.to_field_path()),
                    },
                    "type" | "name" | "mesh" | "labels" | "creationTime" | "modificationTime" | "kri" => {}
                    _ => found.push(place.to_field_path()),
                }
            }
        }
        Form::Universal(_) => {}
    }
    found
}

fn unknown_in(node: &Node, value: &Value, place: &Place<'_>, found: &mut Vec<FieldPath>) {
    match value {
        // Whatever is expected here: an object in the place of a text loses all its fields.
        Value::Object(object) if !node.open => {
            for (name, value) in object {
                let place = place.field(name);
                match (node.property(name), &node.values) {
                    (Some(property), _) => unknown_in(&property.node, value, &place, found),
                    (None, Some(values)) => unknown_in(values, value, &place, found),
                    (None, None) => found.push(place.to_field_path()),
                }
            }
        }
        Value::Array(list) if !node.open => {
            let nothing = Node::default();
            for (index, item) in list.iter().enumerate() {
                unknown_in(node.items.as_deref().unwrap_or(&nothing), item, &place.index(index), found);
            }
        }
        _ => {}
    }
}

/// Which of Kuma's two forms a document has, and its kind.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Form<'a> {
    Kubernetes(&'a str),
    Universal(&'a str),
}

impl<'a> Form<'a> {
    /// The form; none for what is not Kuma's.
    pub(crate) fn of(document: &'a Value) -> Option<Self> {
        let object = document.as_object()?;
        match object.get("apiVersion") {
            Some(version) if version.as_str()?.starts_with(GROUP) => {
                Some(Self::Kubernetes(object.get("kind")?.as_str()?))
            }
            Some(_) => None,
            None => Some(Self::Universal(object.get("type")?.as_str()?)),
        }
    }

    pub(crate) fn kind(self) -> &'a str {
        match self {
            Self::Kubernetes(kind) | Self::Universal(kind) => kind,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_every_definition_with_every_pattern() {
        for version in [Version::V2_14, Version::V3_0] {
            let sources: Vec<&str> = kinds(version).collect();
            assert!(sources.is_sorted(), "the lookup is a binary search");
            for kind in sources {
                let schema = of(kind, version).unwrap_or_else(|| panic!("{version} {kind} cannot be read"));
                assert_patterns(&schema.text, &schema.root, kind);
            }
        }
        assert_eq!((kinds(Version::V2_14).count(), kinds(Version::V3_0).count()), (54, 33));
    }

    fn assert_patterns(text: &Value, node: &Node, at: &str) {
        assert_eq!(text.get("pattern").is_some(), node.pattern.is_some(), "{at}: the pattern does not compile");
        for property in &node.properties {
            assert_patterns(&text["properties"][&property.name], &property.node, &format!("{at}.{}", property.name));
        }
        if let Some(items) = &node.items {
            assert_patterns(&text["items"], items, at);
        }
        if let Some(values) = &node.values {
            assert_patterns(&text["additionalProperties"], values, at);
        }
    }

    #[test]
    fn knows_which_version_has_a_kind() {
        assert!(exists("TrafficRoute", Version::V2_14));
        assert!(!exists("TrafficRoute", Version::V3_0));
        assert!(exists("MeshHTTPRoute", Version::V3_0));
        assert!(!exists("MeshGlobalRateLimit", Version::V2_14));
    }

    #[test]
    fn finds_what_the_api_server_prunes() {
        let route = json!({
            "apiVersion": "kuma.io/v1alpha1",
            "kind": "MeshTCPRoute",
            "metadata": {"name": "a", "anything": 1},
            "extra": true,
            "spec": {
                "targetRef": {"kind": "Mesh", "tags": {"a": "b"}, "nmae": "x"},
                "to": [{"targetRef": {"kind": "MeshService", "labels": {"kuma.io/x": "y"}}, "rules": [{"weigth": 1}]}],
            },
        });
        let texts =
            |version| -> Vec<String> { unknown_fields(&route, version).iter().map(ToString::to_string).collect() };
        assert_eq!(texts(Version::V2_14), ["extra", "spec.targetRef.nmae", "spec.to[0].rules[0].weigth"]);
        assert_eq!(
            texts(Version::V3_0),
            ["extra", "spec.targetRef.tags", "spec.targetRef.nmae", "spec.to[0].rules[0].weigth"]
        );
    }
}
