//! The background scan: what is already in the cluster, scored, as reports beside it.
//!
//! Each object has a report of its own, owned by it: it goes when the object goes, and no report grows with the cluster.
//! Reports are written where their CRD is installed, openreports.io before wgpolicyk8s.io, and only when they say
//! something new: a cluster at rest sees reads only.

use crate::world::{Shared, World};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResource;
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind, Request};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sluice_rules::health::{self, Finding, Health, Severity};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What a scan did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scan {
    /// The objects that have a score.
    pub scored: usize,
    /// The reports that were written because they say something new.
    pub written: usize,
    /// The reports that were removed because their object has no score any more.
    pub removed: usize,
}

/// Scans now and then, while `leads` says that this replica does it for all, until the future is dropped.
pub async fn run(client: Client, world: Shared, every: Duration, leads: impl Fn() -> bool) {
    let mut silent = false;
    loop {
        // What is known must be complete: before, half of all references would lead to nothing.
        let present = World::clone(&world.load());
        if leads() && present.known.complete {
            match scan(&client, &present).await {
                Ok(Some(scan)) => {
                    silent = false;
                    if scan.written + scan.removed > 0 {
                        let Scan { scored, written, removed } = scan;
                        tracing::info!(scored, written, removed, "reports are up to date");
                    }
                }
                Ok(None) if !silent => {
                    silent = true;
                    tracing::info!("no reports: neither openreports.io nor wgpolicyk8s.io is installed");
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "the background scan failed; it is tried again"),
            }
        }
        tokio::time::sleep(every).await;
    }
}

/// Scans once; none when no kind of report is installed.
///
/// # Errors
///
/// The API server cannot be reached or refuses to list policies or to write reports.
pub async fn scan(client: &Client, world: &World) -> kube::Result<Option<Scan>> {
    let Some(dialect) = Dialect::find(client).await? else { return Ok(None) };
    let mut written = dialect.written(client).await?;
    let mut scan = Scan::default();
    let examined: BTreeSet<&str> = health::RULES.iter().flat_map(|rule| rule.kinds.iter().copied()).collect();
    for resource in resources(client, KUMA).await? {
        if !examined.contains(resource.kind.as_str()) {
            continue;
        }
        let path = format!("/apis/{KUMA}/{}", resource.name);
        let mut parameters = ListParams::default().limit(100);
        loop {
            let request = Request::new(&path).list(&parameters).map_err(kube::Error::BuildRequest)?;
            let page: Page = client.request(request).await?;
            for mut object in page.items.into_iter().flatten() {
                // Items of a list may leave out what all of them share.
                object["apiVersion"] = json!(KUMA);
                object["kind"] = json!(resource.kind);
                let Some(report) = dialect.report(&object, world) else { continue };
                scan.scored += 1;
                if written.remove(&report.key()).is_none_or(|digest| digest != report.digest) {
                    report.write(client, &dialect).await?;
                    scan.written += 1;
                }
            }
            if page.metadata.r#continue.is_empty() {
                break;
            }
            parameters.continue_token = Some(page.metadata.r#continue);
        }
    }
    for (namespace, name) in written.into_keys() {
        dialect.remove(client, namespace.as_deref(), &name).await?;
        scan.removed += 1;
    }
    Ok(Some(scan))
}

const KUMA: &str = "kuma.io/v1alpha1";
/// Who wrote a report; also the label by which ours are found again.
const SOURCE: &str = "sluice";
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
const DIGEST: &str = "sluice.dev/digest";
const SCORE: &str = "sluice.dev/score";
/// Findings in one report, the gravest first; the summary counts all.
const MOST_RESULTS: usize = 100;

#[derive(Deserialize)]
struct Page {
    metadata: PageMetadata,
    items: Option<Vec<Value>>,
}

#[derive(Deserialize)]
struct PageMetadata {
    #[serde(default)]
    r#continue: String,
}

/// Which kind of report is installed. Both have the same fields as far as they are used here.
#[derive(Debug)]
struct Dialect {
    namespaced: ApiResource,
    cluster: ApiResource,
}

type Key = (Option<String>, String);

impl Dialect {
    async fn find(client: &Client) -> kube::Result<Option<Self>> {
        for (group, version, namespaced, cluster) in [
            ("openreports.io", "v1alpha1", "Report", "ClusterReport"),
            ("wgpolicyk8s.io", "v1alpha2", "PolicyReport", "ClusterPolicyReport"),
        ] {
            let served = resources(client, &format!("{group}/{version}")).await?;
            let serves = |kind: &str| served.iter().any(|resource| resource.kind == kind);
            if serves(namespaced) && serves(cluster) {
                let resource = |kind| ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
                return Ok(Some(Self { namespaced: resource(namespaced), cluster: resource(cluster) }));
            }
        }
        Ok(None)
    }

    /// Our reports with the digest of what they say.
    async fn written(&self, client: &Client) -> kube::Result<BTreeMap<Key, String>> {
        let mut written = BTreeMap::new();
        for resource in [&self.namespaced, &self.cluster] {
            let api: Api<kube::core::PartialObjectMeta<DynamicObject>> = Api::all_with(client.clone(), resource);
            let mut parameters = ListParams::default().labels(&format!("{MANAGED_BY}={SOURCE}")).limit(500);
            loop {
                let page = api.list_metadata(&parameters).await?;
                for report in page.items {
                    let digest = report.metadata.annotations.unwrap_or_default().remove(DIGEST).unwrap_or_default();
                    written.insert((report.metadata.namespace, report.metadata.name.unwrap_or_default()), digest);
                }
                match page.metadata.continue_.filter(|token| !token.is_empty()) {
                    Some(token) => parameters.continue_token = Some(token),
                    None => break,
                }
            }
        }
        Ok(written)
    }

    /// What there is to say about an object; none when no rule can tell.
    fn report(&self, object: &Value, world: &World) -> Option<Report> {
        let health = health::examine(object, &world.known, &world.kuma).health(None);
        let score = health.score?;
        let text = |field: &str| object["metadata"][field].as_str().map(str::to_owned);
        let (namespace, name, uid) = (text("namespace"), text("name")?, text("uid")?);
        let kind = object["kind"].as_str()?;
        let resource = if namespace.is_some() { &self.namespaced } else { &self.cluster };
        // The uid keeps apart what one namespace calls alike, and is short enough for any name.
        let report_name = format!("sluice-{uid}");
        let mut body = json!({
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {
                "name": report_name,
                "labels": {MANAGED_BY: SOURCE},
                "annotations": {SCORE: score.to_string()},
                "ownerReferences": [{"apiVersion": KUMA, "kind": kind, "name": name, "uid": uid}],
            },
            "scope": {"apiVersion": KUMA, "kind": kind, "name": name, "namespace": namespace, "uid": uid},
            "summary": summary(&health),
            "results": results(&health, score),
        });
        if namespace.is_none() {
            body["scope"].as_object_mut()?.remove("namespace");
        }
        let digest = hex::encode(&Sha256::digest(body.to_string())[..16]);
        body["metadata"]["annotations"][DIGEST] = json!(digest);
        Some(Report { namespace, name: report_name, digest, body })
    }

    fn api(&self, client: &Client, namespace: Option<&str>) -> Api<DynamicObject> {
        match namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &self.namespaced),
            None => Api::all_with(client.clone(), &self.cluster),
        }
    }

    async fn remove(&self, client: &Client, namespace: Option<&str>, name: &str) -> kube::Result<()> {
        match self.api(client, namespace).delete(name, &DeleteParams::default()).await {
            // The garbage collector was faster.
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            result => result.map(|_| ()),
        }
    }
}

struct Report {
    namespace: Option<String>,
    name: String,
    digest: String,
    body: Value,
}

impl Report {
    fn key(&self) -> Key {
        (self.namespace.clone(), self.name.clone())
    }

    async fn write(&self, client: &Client, dialect: &Dialect) -> kube::Result<()> {
        let api = dialect.api(client, self.namespace.as_deref());
        api.patch(&self.name, &PatchParams::apply("sluice-webhook").force(), &Patch::Apply(&self.body)).await?;
        Ok(())
    }
}

fn summary(health: &Health) -> Value {
    let count = |wanted: &str| health.findings.iter().filter(|finding| result(finding) == wanted).count();
    let (fail, warn) = (count("fail"), count("warn"));
    json!({"pass": usize::from(fail + warn == 0), "fail": fail, "warn": warn, "error": 0, "skip": 0})
}

fn results(health: &Health, score: u8) -> Value {
    if health.findings.is_empty() {
        let message = format!("score {score} of 100");
        return json!([{"source": SOURCE, "policy": "health", "result": "pass", "message": message}]);
    }
    let result = |finding: &Finding| {
        let name = health::RULES.iter().find(|rule| rule.id == finding.id).map_or("", |rule| rule.name);
        json!({
            "source": SOURCE,
            "category": "health",
            "policy": finding.id,
            "rule": name,
            "severity": finding.severity,
            "result": result(finding),
            "message": finding.message,
            "properties": {"field": finding.field.to_string(), "help": finding.help},
        })
    };
    health.findings.iter().take(MOST_RESULTS).map(result).collect()
}

/// Grave findings fail; the others warn, also what is only good to know, so that nothing found looks like a pass.
fn result(finding: &Finding) -> &'static str {
    if finding.severity >= Severity::High { "fail" } else { "warn" }
}

/// The kinds that a group and version serve, without subresources; none when it is not installed.
async fn resources(client: &Client, group_version: &str) -> kube::Result<Vec<APIResource>> {
    match client.list_api_group_resources(group_version).await {
        Ok(list) => Ok(list.resources.into_iter().filter(|resource| !resource.name.contains('/')).collect()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
