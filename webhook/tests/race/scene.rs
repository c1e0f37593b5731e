//! What is raced for: four destinations, each under its own limits, and ten routes that split them.

use jiff::SignedDuration;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A destination under a guard.
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    /// Percentage points that may move within the window.
    pub(crate) cap: u32,
    /// Seconds.
    pub(crate) window: i64,
    /// Seconds between two shifts.
    pub(crate) quiet: Option<i64>,
}

/// A policy that splits one destination or two.
pub(crate) struct Route {
    pub(crate) kind: &'static str,
    pub(crate) name: &'static str,
    pub(crate) to: &'static [&'static str],
    /// Is it there before the race?
    pub(crate) begins: bool,
}

const fn route(kind: &'static str, name: &'static str, to: &'static [&'static str], begins: bool) -> Route {
    Route { kind, name, to, begins }
}

/// The last one's window slides within a race.
pub(crate) const SUBJECTS: [Subject; 4] = [
    Subject { name: "summarize", cap: 30, window: 3600, quiet: None },
    Subject { name: "translate", cap: 30, window: 3600, quiet: Some(3) },
    Subject { name: "embed", cap: 40, window: 3600, quiet: None },
    Subject { name: "rank", cap: 12, window: 5, quiet: None },
];

pub(crate) const ROUTES: [Route; 10] = [
    route("MeshHTTPRoute", "summarize-all", &["summarize"], true),
    route("MeshHTTPRoute", "summarize-chat", &["summarize"], true),
    route("MeshTCPRoute", "summarize-raw", &["summarize"], false),
    route("MeshHTTPRoute", "translate-all", &["translate"], true),
    route("MeshTCPRoute", "translate-raw", &["translate"], false),
    route("MeshHTTPRoute", "embed-all", &["embed"], false),
    route("MeshHTTPRoute", "embed-and-summarize", &["summarize", "embed"], true),
    route("MeshTCPRoute", "embed-and-rank", &["rank", "embed"], true),
    route("MeshHTTPRoute", "rank-all", &["rank"], true),
    route("MeshHTTPRoute", "rank-batch", &["rank"], false),
];

/// What the canaries of routes that are there before the race get, in percent.
pub(crate) const BEGIN: u32 = 10;

/// The canaries' shares in percent, by destination.
pub(crate) type Canaries = BTreeMap<String, u32>;

impl Subject {
    pub(crate) fn window(&self) -> SignedDuration {
        SignedDuration::from_secs(self.window)
    }

    pub(crate) fn guard(&self, namespace: &str) -> Value {
        let Self { name, cap, window, quiet } = self;
        let mut caps = json!({"perWindow": {"shift": cap, "window": format!("{window}s")}});
        if let Some(quiet) = quiet {
            caps["minInterval"] = format!("{quiet}s").into();
        }
        json!({
            "apiVersion": "sluice.dev/v1alpha1", "kind": "ShiftGuard",
            "metadata": {"name": format!("{namespace}-{name}")},
            "spec": {"match": {"services": [name], "namespaces": [namespace]}, "caps": caps},
        })
    }
}

impl Route {
    pub(crate) fn plural(&self) -> String {
        format!("{}s", self.kind.to_ascii_lowercase())
    }

    pub(crate) fn begin(&self) -> Canaries {
        self.to.iter().map(|name| ((*name).to_owned(), BEGIN)).collect()
    }

    /// The whole object. The stable backend is the destination itself, so that to create or delete a route is a shift by
    /// what the canary gets.
    pub(crate) fn object(&self, namespace: &str, canaries: &Canaries) -> Value {
        let to = canaries.iter().map(|(name, canary)| {
            let backend =
                |name: &str, weight| json!({"kind": "MeshService", "name": name, "port": 80, "weight": weight});
            let backends = [backend(name, 100 - canary), backend(&canary_of(name), *canary)];
            let mut rule = json!({"default": {"backendRefs": backends}});
            if self.kind == "MeshHTTPRoute" {
                rule["matches"] = json!([{"path": {"type": "PathPrefix", "value": "/"}}]);
            }
            json!({"targetRef": {"kind": "MeshService", "name": name}, "rules": [rule]})
        });
        json!({
            "apiVersion": "kuma.io/v1alpha1", "kind": self.kind,
            "metadata": {"name": self.name, "namespace": namespace, "labels": {"kuma.io/mesh": "default"}},
            "spec": {"to": to.collect::<Vec<_>>()},
        })
    }
}

/// The shares that a route's object gives to canaries.
pub(crate) fn canaries(object: &Value) -> Canaries {
    let shares = object["spec"]["to"].as_array().into_iter().flatten().map(|to| {
        let name = to["targetRef"]["name"].as_str().unwrap_or_default().to_owned();
        let backends = to["rules"][0]["default"]["backendRefs"].as_array().into_iter().flatten();
        let mut ours = backends.filter(|backend| backend["name"] == canary_of(&name).as_str());
        let weight = ours.next().and_then(|backend| backend["weight"].as_u64()).unwrap_or_default();
        (name, u32::try_from(weight).unwrap_or(u32::MAX))
    });
    shares.collect()
}

pub(crate) fn canary_of(destination: &str) -> String {
    format!("{destination}-v2")
}
