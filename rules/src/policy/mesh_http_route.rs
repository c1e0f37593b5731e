//! `MeshHTTPRoute`.

use super::{BackendRef, TargetRef, nullable};
use serde::Deserialize;
use serde_json::Value;

/// The spec of a `MeshHTTPRoute`, as far as decisions look into it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MeshHttpRoute {
    /// The clients; absent means all of the mesh.
    pub target_ref: Option<TargetRef>,
    /// The destinations.
    #[serde(deserialize_with = "nullable")]
    pub to: Vec<HttpTo>,
}

/// One destination and its rules.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpTo {
    /// The service the clients call.
    #[serde(deserialize_with = "nullable")]
    pub target_ref: TargetRef,
    /// Host names, only behind a `MeshGateway`.
    #[serde(deserialize_with = "nullable")]
    pub hostnames: Vec<String>,
    /// The rules.
    #[serde(deserialize_with = "nullable")]
    pub rules: Vec<HttpRule>,
}

/// One rule: which requests, and where they go.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct HttpRule {
    /// Which requests, as written; any one of these is enough.
    #[serde(deserialize_with = "nullable")]
    pub matches: Vec<Value>,
    /// Where they go.
    #[serde(deserialize_with = "nullable")]
    pub default: HttpConf,
}

/// Where requests go.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpConf {
    /// What happens to a request on its way.
    #[serde(deserialize_with = "nullable")]
    pub filters: Vec<Filter>,
    /// The backends; none means the destination itself.
    #[serde(deserialize_with = "nullable")]
    pub backend_refs: Vec<BackendRef>,
}

/// What happens to a request on its way; only a redirect changes who answers.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Filter {
    /// `RequestRedirect`, `RequestMirror` and so on.
    #[serde(deserialize_with = "nullable")]
    pub r#type: String,
    /// Where a `RequestRedirect` sends the client.
    pub request_redirect: Option<RequestRedirect>,
}

/// Where a redirect sends the client.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RequestRedirect {
    /// Another host; absent means the same.
    pub hostname: Option<String>,
}
