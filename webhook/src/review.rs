//! AdmissionReview v1: what the API server asks, read in one pass and borrowed from the body, and what it is answered.
//!
//! Unknown fields are ignored, so that a newer API server is understood. Of the objects only what decisions need is
//! looked at: managed fields and annotations are most of the bytes, and the spec stays text until somebody asks.

mod answer;
mod scan;

pub use answer::{Cause, Details, Response, Status};
pub use scan::uid;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// The only version that is understood.
pub const VERSION: &str = "admission.k8s.io/v1";

/// What the API server asks. `O` is how an object is read: [`Object`], or any JSON where that fails.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "O: Deserialize<'de>"))]
pub struct Review<'a, O> {
    /// `admission.k8s.io/v1`.
    #[serde(borrow, default)]
    pub api_version: Cow<'a, str>,
    /// The question.
    #[serde(borrow)]
    pub request: Option<Request<'a, O>>,
}

/// One write that asks to be admitted.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "O: Deserialize<'de>"))]
pub struct Request<'a, O> {
    /// Names the question; the answer must repeat it. A client that tries again gets another.
    #[serde(borrow, default)]
    pub uid: Cow<'a, str>,
    /// The kind as the objects here are written, whatever version the client used.
    #[serde(borrow, default)]
    pub kind: Kind<'a>,
    /// `status`, `scale`; none for the object itself.
    #[serde(borrow, default)]
    pub sub_resource: Option<Cow<'a, str>>,
    /// The object's name; absent when the server makes it up and when a whole collection is deleted.
    #[serde(borrow, default)]
    pub name: Option<Cow<'a, str>>,
    /// The object's namespace; absent for cluster-scoped kinds.
    #[serde(borrow, default)]
    pub namespace: Option<Cow<'a, str>>,
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    #[serde(borrow, default)]
    pub operation: Cow<'a, str>,
    /// Who asks.
    #[serde(default)]
    pub user_info: UserInfo,
    /// The object as it would be; none for `DELETE`.
    #[serde(default = "nothing")]
    pub object: Option<O>,
    /// The object as it is; none for `CREATE`.
    #[serde(default = "nothing")]
    pub old_object: Option<O>,
    /// Is nothing stored whatever the answer?
    #[serde(default, deserialize_with = "or_default")]
    pub dry_run: bool,
}

fn nothing<O>() -> Option<O> {
    None
}

/// A kind with its group.
#[derive(Debug, Default, Deserialize)]
pub struct Kind<'a> {
    /// `kuma.io`.
    #[serde(borrow, default)]
    pub group: Cow<'a, str>,
    /// `v1alpha1`.
    #[serde(borrow, default)]
    pub version: Cow<'a, str>,
    /// `MeshHTTPRoute`.
    #[serde(borrow, default)]
    pub kind: Cow<'a, str>,
}

/// Who asks.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct UserInfo {
    /// The user name; the impersonated one where somebody impersonates.
    #[serde(default)]
    pub username: String,
    /// The user's groups.
    #[serde(default, deserialize_with = "or_default")]
    pub groups: Vec<String>,
}

/// The parts of an object that decisions need.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Object<'a> {
    /// `kuma.io/v1alpha1`.
    #[serde(borrow, default)]
    pub api_version: Cow<'a, str>,
    /// The mesh of the kinds that do not name it by a label.
    #[serde(borrow, default)]
    pub mesh: Option<Cow<'a, str>>,
    /// What Kubernetes keeps of it.
    #[serde(borrow, default)]
    pub metadata: Metadata<'a>,
    /// What it says, as JSON text.
    #[serde(borrow, default)]
    pub spec: Option<&'a RawValue>,
}

/// What Kubernetes keeps of an object.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata<'a> {
    /// Its name; absent when the server is to make one up.
    #[serde(borrow, default)]
    pub name: Option<Cow<'a, str>>,
    /// Its namespace; absent for cluster-scoped kinds.
    #[serde(borrow, default)]
    pub namespace: Option<Cow<'a, str>>,
    /// Its labels, as JSON text.
    #[serde(borrow, default)]
    pub labels: Option<&'a RawValue>,
    /// Its uid.
    #[serde(borrow, default)]
    pub uid: Option<Cow<'a, str>>,
    /// Its version in the store.
    #[serde(borrow, default)]
    pub resource_version: Option<Cow<'a, str>>,
    /// When it was created, as text.
    #[serde(borrow, default)]
    pub creation_timestamp: Option<Cow<'a, str>>,
    /// When it was marked for deletion, as text.
    #[serde(borrow, default)]
    pub deletion_timestamp: Option<Cow<'a, str>>,
}

impl Object<'_> {
    /// The spec's JSON; empty when there is none.
    pub fn spec(&self) -> &str {
        self.spec.map_or("", RawValue::get)
    }

    /// The labels' JSON; empty when there are none.
    pub fn raw_labels(&self) -> &str {
        self.metadata.labels.map_or("", RawValue::get)
    }

    /// The labels. To Go `null` is an empty text; what is no text at all says nothing.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let labels: Option<BTreeMap<String, Option<String>>> = serde_json::from_str(self.raw_labels()).unwrap_or(None);
        let labels = labels.unwrap_or_default().into_iter();
        labels.map(|(key, value)| (key, value.unwrap_or_default())).collect()
    }
}

/// `null` is what Go writes for what is empty.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// A review, whose objects are [`Object`]s unless they have a shape that no Kubernetes object has.
///
/// # Errors
///
/// What is wrong with the JSON, with the place in the body.
pub fn read(body: &[u8]) -> Result<Review<'_, Object<'_>>, Unreadable<'_>> {
    // What is known to be text as a whole need not be looked at again string by string.
    let review = match std::str::from_utf8(body) {
        Ok(text) => serde_json::from_str(text),
        Err(_) => serde_json::from_slice(body),
    };
    review.map_err(|error| match serde_json::from_slice::<Review<&RawValue>>(body) {
        Ok(Review { api_version, request: Some(request) }) => Unreadable::Object(api_version, Box::new(request), error),
        _ => Unreadable::Review(error),
    })
}

/// Why a review could not be read.
#[derive(Debug)]
pub enum Unreadable<'a> {
    /// It is no JSON, or no review.
    Review(serde_json::Error),
    /// It is a review, and its object or old object has a field of a wrong type or twice: the version, the rest of the
    /// request and the mistake.
    Object(Cow<'a, str>, Box<Request<'a, &'a RawValue>>, serde_json::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borrows_from_the_body_and_ignores_what_it_does_not_know() {
        let body = br#"{"apiVersion":"admission.k8s.io/v1","future":[{}],"request":{"uid":"u","operation":"UPDATE",
            "kind":{"group":"kuma.io","version":"v1alpha1","kind":"MeshHTTPRoute"},"extra":{"a":1},"dryRun":null,
            "object":{"metadata":{"name":"a","managedFields":[{"a":[]}],"labels":null},"spec":{"to":[]}},"oldObject":null}}"#;
        let review = read(body).unwrap();
        let request = review.request.unwrap();
        assert!(matches!(request.kind.kind, Cow::Borrowed("MeshHTTPRoute")));
        let object = request.object.unwrap();
        assert_eq!((object.spec(), object.labels().len()), (r#"{"to":[]}"#, 0));
        assert!(request.old_object.is_none() && !request.dry_run);
    }

    #[test]
    fn an_object_without_the_shape_of_one_does_not_hide_the_review() {
        let body = br#"{"apiVersion":"admission.k8s.io/v1","request":{"uid":"u","object":{"metadata":{"name":7}}}}"#;
        let Err(Unreadable::Object(version, request, error)) = read(body) else { panic!("a name is a text") };
        assert_eq!((&*version, &*request.uid), (VERSION, "u"));
        assert!(error.to_string().contains("expected"), "{error}");
    }

    #[test]
    fn a_field_that_is_there_twice_is_refused() {
        let body = br#"{"request":{"uid":"u","operation":"DELETE","operation":"CONNECT"}}"#;
        let Err(Unreadable::Review(error)) = read(body) else { panic!("two operations") };
        assert!(error.to_string().starts_with("duplicate field `operation`"), "{error}");
    }
}
