//! `TrafficRoute`, which 3.0 removes.

use super::{Weight, nullable, texts};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Tags and their values; `*` stands for any value.
pub type TagSet = BTreeMap<String, String>;

/// What a `TrafficRoute` says, as far as decisions look into it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct TrafficRoute {
    /// The clients.
    #[serde(deserialize_with = "nullable")]
    pub sources: Vec<Selector>,
    /// The services they call.
    #[serde(deserialize_with = "nullable")]
    pub destinations: Vec<Selector>,
    /// Where the traffic goes.
    #[serde(deserialize_with = "nullable")]
    pub conf: TrafficRouteConf,
}

/// Selects proxies or services by tags.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Selector {
    /// The tags.
    #[serde(deserialize_with = "texts")]
    pub r#match: TagSet,
}

/// Where traffic goes: `split` or `destination`, and rules for some HTTP requests.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct TrafficRouteConf {
    /// Several backends.
    #[serde(deserialize_with = "nullable")]
    pub split: Vec<SplitEntry>,
    /// One backend.
    #[serde(deserialize_with = "texts")]
    pub destination: TagSet,
    /// Rules for some requests; the first that fits.
    #[serde(deserialize_with = "nullable")]
    pub http: Vec<TrafficRouteHttp>,
}

/// A rule for some HTTP requests.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct TrafficRouteHttp {
    /// Which requests, as written.
    pub r#match: Option<Value>,
    /// Several backends.
    #[serde(deserialize_with = "nullable")]
    pub split: Vec<SplitEntry>,
    /// One backend.
    #[serde(deserialize_with = "texts")]
    pub destination: TagSet,
}

/// One backend of a split.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SplitEntry {
    /// Its weight; Kuma refuses a split without one.
    pub weight: Option<Weight>,
    /// The backend's tags.
    #[serde(deserialize_with = "texts")]
    pub destination: TagSet,
}
