//! What the API server is told to ask the webhook about.
//!
//! The configuration is applied by server-side apply under a field manager of its own and never by force: whoever else
//! owns a field keeps it, and the conflict is told.

use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

/// The webhook for what moves traffic and for Sluice's own objects: without an answer, a write fails.
pub const SHIFTS: &str = "shifts.sluice.dev";
/// The webhook for all other policies: without an answer, a write passes.
pub const POLICIES: &str = "policies.sluice.dev";

/// How the webhook is registered.
#[derive(Debug, Clone)]
pub struct Registration {
    /// The name of the ValidatingWebhookConfiguration.
    pub name: String,
    /// How the API server calls the webhook.
    pub target: Target,
    /// The webhook's own namespace, which is left out as kube-system is: it must come up when nothing else does.
    pub namespace: String,
    /// The accounts of Kuma's control plane, such as `system:serviceaccount:kuma-system:kuma-control-plane`.
    pub control_plane: Vec<String>,
    /// The webhook's own account, whose writes of ledgers need no answer of its own.
    pub account: String,
}

/// How the API server calls the webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// By address, such as `https://10.0.0.7:8443/validate`.
    Url(String),
    /// By a Service in this namespace, with this name and port.
    Service(String, String, u16),
}

/// Kubernetes' own controllers, whose writes follow from what was admitted before: a refusal would only keep namespaces
/// and stored objects from being cleaned up.
pub const CONTROLLERS: [&str; 3] = [
    "system:serviceaccount:kube-system:generic-garbage-collector",
    "system:serviceaccount:kube-system:namespace-controller",
    "system:serviceaccount:kube-system:storage-version-migrator-controller",
];

/// What moves traffic.
const ROUTES: [&str; 3] = ["meshhttproutes", "meshtcproutes", "trafficroutes"];
/// Sluice's own objects.
const OWN: [&str; 3] = ["shiftapprovals", "shiftguards", "shiftledgers"];
/// The policies that are examined, of both generations. Never the objects that the control plane writes all the time,
/// such as MeshServices and insights.
const EXAMINED: [&str; 34] = [
    "circuitbreakers",
    "externalservices",
    "faultinjections",
    "healthchecks",
    "hostnamegenerators",
    "meshaccesslogs",
    "meshcircuitbreakers",
    "meshes",
    "meshexternalservices",
    "meshfaultinjections",
    "meshgatewayconfigs",
    "meshgatewayinstances",
    "meshgatewayroutes",
    "meshgateways",
    "meshhealthchecks",
    "meshidentities",
    "meshloadbalancingstrategies",
    "meshmetrics",
    "meshpassthroughs",
    "meshproxypatches",
    "meshratelimits",
    "meshretries",
    "meshtimeouts",
    "meshtlses",
    "meshtraces",
    "meshtrafficpermissions",
    "proxytemplates",
    "ratelimits",
    "retries",
    "timeouts",
    "trafficlogs",
    "trafficpermissions",
    "traffictraces",
    "virtualoutbounds",
];

/// Kinds that rules look at in the background scan and on the command line only: the control plane writes them.
#[cfg(test)]
const UNASKED: [&str; 3] = ["MeshService", "ZoneEgress", "ZoneIngress"];

impl Registration {
    /// The ValidatingWebhookConfiguration, with this PEM bundle of trusted CAs.
    pub fn configuration(&self, bundle: &str) -> Value {
        let rule = |group: &str, resources: &[&str], operations: &[&str]| {
            // Plain names: no subresource, so a status never comes here.
            json!({"apiGroups": [group], "apiVersions": ["*"], "resources": resources, "operations": operations, "scope": "*"})
        };
        let all = ["CREATE", "UPDATE", "DELETE"];
        let shifts = [rule("kuma.io", &ROUTES, &all), rule("sluice.dev", &OWN, &all)];
        // Whoever deletes a policy needs no advice on it.
        let policies = [rule("kuma.io", &EXAMINED, &["CREATE", "UPDATE"])];
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": self.name, "labels": {"app.kubernetes.io/name": "sluice-webhook"}},
            "webhooks": [
                self.webhook(SHIFTS, "Fail", &shifts, bundle),
                self.webhook(POLICIES, "Ignore", &policies, bundle),
            ],
        })
    }

    fn webhook(&self, name: &str, failure: &str, rules: &[Value], bundle: &str) -> Value {
        let mut client = match &self.target {
            Target::Url(url) => json!({"url": url}),
            Target::Service(namespace, name, port) => {
                json!({"service": {"namespace": namespace, "name": name, "port": port, "path": "/validate"}})
            }
        };
        client["caBundle"] = json!(k8s_openapi::ByteString(bundle.as_bytes().to_vec()));
        json!({
            "name": name,
            "clientConfig": client,
            "rules": rules,
            "failurePolicy": failure,
            // Another version of a kind must not be a way round.
            "matchPolicy": "Equivalent",
            "sideEffects": "NoneOnDryRun",
            "timeoutSeconds": 3,
            "admissionReviewVersions": ["v1"],
            "namespaceSelector": {"matchExpressions": [{
                "key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system", self.namespace],
            }]},
            "matchConditions": self.conditions(),
        })
    }

    /// Which requests of the rules' kinds need an answer.
    fn conditions(&self) -> Value {
        let exempt: Vec<_> = CONTROLLERS.into_iter().chain(self.control_plane.iter().map(String::as_str)).collect();
        let exempt = serde_json::to_string(&exempt).unwrap_or_default();
        let own = serde_json::to_string(&self.account).unwrap_or_default();
        json!([
            {
                // Nobody is exempt where guards, approvals and ledgers are written.
                "name": "not-a-controller",
                "expression": format!("request.resource.group == 'sluice.dev' || !(request.userInfo.username in {exempt})"),
            },
            {
                "name": "not-our-own-ledger",
                "expression": format!(
                    "request.resource.resource != 'shiftledgers' || request.userInfo.username != {own}"
                ),
            },
            {
                // A status that is no subresource, a finalizer, an annotation: the traffic stays as it is.
                "name": "spec-changed",
                "expression": "request.operation != 'UPDATE' || object.?spec != oldObject.?spec \
                    || object.?mesh != oldObject.?mesh || object.metadata.?labels != oldObject.metadata.?labels",
            },
        ])
    }

    /// Applies the configuration.
    ///
    /// # Errors
    ///
    /// The API server cannot be reached or refuses, or another field manager owns a field and says otherwise.
    pub async fn apply(&self, client: &Client, bundle: &str) -> Result<(), Error> {
        let api: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
        let patch = Patch::Apply(self.configuration(bundle));
        api.patch(&self.name, &PatchParams::apply("sluice-webhook"), &patch).await.map_err(|e| error(&self.name, e))?;
        Ok(())
    }
}

/// Puts a bundle of trusted CAs into a configuration that somebody else applied, such as the chart: our webhooks' bundle
/// and nothing else.
///
/// # Errors
///
/// The same as of [`Registration::apply`]; also, the configuration is not there or has none of our webhooks.
pub async fn trust(client: &Client, name: &str, bundle: &str) -> Result<(), Error> {
    let api: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
    let present = api.get(name).await.map_err(|e| error(name, e))?;
    let hooks = present.webhooks.iter().flatten().map(|hook| hook.name.as_str());
    let hooks: Vec<_> = hooks.filter(|hook| [SHIFTS, POLICIES].contains(hook)).collect();
    if hooks.is_empty() {
        return Err(Error::NoWebhook(present.name_any()));
    }
    let bundle = k8s_openapi::ByteString(bundle.as_bytes().to_vec());
    let hooks: Vec<_> =
        hooks.into_iter().map(|hook| json!({"name": hook, "clientConfig": {"caBundle": bundle}})).collect();
    let patch = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": hooks,
    });
    let parameters = PatchParams::apply("sluice-webhook-ca");
    api.patch(name, &parameters, &Patch::Apply(patch)).await.map_err(|e| error(name, e))?;
    Ok(())
}

/// Why a configuration cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else writes the same fields.
    #[error("another writer owns fields of the ValidatingWebhookConfiguration `{0}`: let it leave them out ({1})")]
    Conflict(String, String),
    /// It has none of our webhooks.
    #[error("the ValidatingWebhookConfiguration `{0}` has neither `{SHIFTS}` nor `{POLICIES}`: install the chart's")]
    NoWebhook(String),
    /// Anything else.
    #[error("cannot apply the ValidatingWebhookConfiguration `{0}`: {1}")]
    Refused(String, #[source] kube::Error),
}

fn error(name: &str, error: kube::Error) -> Error {
    match error {
        kube::Error::Api(status) if status.code == 409 => Error::Conflict(name.to_owned(), status.message.clone()),
        error => Error::Refused(name.to_owned(), error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    /// Kinds by plural, of both generations of Kuma.
    fn kinds() -> BTreeMap<String, String> {
        let mut kinds = BTreeMap::new();
        for version in ["2.14", "3.0"] {
            let folder = format!("{}/../rules/crds/{version}", env!("CARGO_MANIFEST_DIR"));
            for file in std::fs::read_dir(folder).unwrap() {
                let path = file.unwrap().path();
                if path.extension().is_some_and(|extension| extension == "yaml") {
                    let crd: Value = serde_yaml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
                    let names = &crd["spec"]["names"];
                    let text = |field: &str| names[field].as_str().unwrap().to_owned();
                    kinds.insert(text("plural"), text("kind"));
                }
            }
        }
        kinds
    }

    #[test]
    fn every_kind_that_a_rule_looks_at_is_asked_about_unless_the_control_plane_writes_it() {
        let kinds = kinds();
        let asked: BTreeSet<_> = ROUTES.iter().chain(&EXAMINED).map(|plural| kinds[*plural].as_str()).collect();
        let examined: BTreeSet<_> =
            sluice_rules::health::RULES.iter().flat_map(|rule| rule.kinds.iter().copied()).collect();
        let unasked: Vec<_> = examined.difference(&asked).copied().collect();
        assert_eq!(unasked, UNASKED, "neither in EXAMINED nor in UNASKED");
        assert_eq!(asked.difference(&examined).collect::<Vec<_>>(), [&""; 0], "asked about for nothing");
    }
}
