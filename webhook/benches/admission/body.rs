//! The reviews that are sent: a template, and places in it that differ from request to request.

use std::fmt::Write as _;

/// Places that are filled in, each as wide as what comes in.
const UID: &str = "00000000-0000-0000-0000-000000000000";
const NAME: &str = "route-0000";
const STABLE: &str = "@1";
const CANARY: &str = "@2";
/// The split before the change.
const BEFORE: (u64, u64) = (60, 40);

/// Part of a header's value in every rule.
const TIER: &str = "gold-00000000";

/// How a review differs from those before it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Differs {
    /// In its uid: GitOps applies the same again, and a dry run comes before the write.
    Uid,
    /// In its weights too: a step of one of many canaries, each with rules of its own.
    Step,
    /// In all its rules, before and afterwards: nothing of either spec was ever there before.
    Spec,
}

/// A review with places to fill in.
#[derive(Clone)]
pub(crate) struct Template {
    bytes: Vec<u8>,
    uids: Vec<usize>,
    names: Vec<usize>,
    stable: Vec<usize>,
    canary: Vec<usize>,
    tiers: Vec<usize>,
    /// How many routes there are.
    routes: u64,
}

impl Template {
    /// The next review.
    pub(crate) fn fill(&mut self, at: u64, differs: Differs) -> &[u8] {
        put(&mut self.bytes, &self.uids, &format!("{at:08x}-0000-4000-8000-{at:012x}"));
        let (route, step) = if differs == Differs::Uid { (0, 0) } else { (at % self.routes, at % 19) };
        let tier = if differs == Differs::Spec { self.routes + at } else { route };
        put(&mut self.bytes, &self.tiers, &format!("gold-{tier:08x}"));
        put(&mut self.bytes, &self.names, &format!("route-{route:04}"));
        put(&mut self.bytes, &self.stable, &(BEFORE.0 + 9 - step).to_string());
        put(&mut self.bytes, &self.canary, &(BEFORE.1 - 9 + step).to_string());
        &self.bytes
    }

    /// Its length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }
}

fn put(bytes: &mut [u8], places: &[usize], text: &str) {
    for place in places {
        bytes[*place..*place + text.len()].copy_from_slice(text.as_bytes());
    }
}

/// An update of one of 1,000 `MeshHTTPRoute`s with two rules by a GitOps controller, as an API server sends it.
pub(crate) fn standard(is_dry_run: bool) -> Template {
    update(1000, 2, 0, is_dry_run)
}

/// The same of one of ten routes with 200 rules.
pub(crate) fn wide(is_dry_run: bool) -> Template {
    update(10, 200, 0, is_dry_run)
}

/// The same of one of ten routes with two rules, and an annotation in either object that makes 2.8 MB of the whole.
pub(crate) fn fat(is_dry_run: bool) -> Template {
    update(10, 2, 1_397_000, is_dry_run)
}

fn update(routes: u64, rules: usize, annotation: usize, is_dry_run: bool) -> Template {
    let (stable, canary) = (BEFORE.0.to_string(), BEFORE.1.to_string());
    let new = object(rules, annotation, 8, (STABLE, CANARY));
    let old = object(rules, annotation, 7, (&stable, &canary));
    let kind = r#"{"group":"kuma.io","version":"v1alpha1","kind":"MeshHTTPRoute"}"#;
    let resource = r#"{"group":"kuma.io","version":"v1alpha1","resource":"meshhttproutes"}"#;
    let text = format!(
        r#"{{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{{"uid":"{UID}","kind":{kind},"resource":{resource},"requestKind":{kind},"requestResource":{resource},"name":"{NAME}","namespace":"kuma-demo","operation":"UPDATE","userInfo":{{"username":"system:serviceaccount:flux-system:kustomize-controller","uid":"5b9f3b2e-1d6c-4f0e-9a47-0f6f5a3c2b11","groups":["system:serviceaccounts","system:serviceaccounts:flux-system","system:authenticated"],"extra":{{"authentication.kubernetes.io/pod-name":["kustomize-controller-7f9c5d6b8-x2x7k"]}}}},"object":{new},"oldObject":{old},"dryRun":{is_dry_run},"options":{{"kind":"PatchOptions","apiVersion":"meta.k8s.io/v1","force":true,"fieldManager":"kustomize-controller"}}}}}}"#
    );
    let places = |token: &str| text.match_indices(token).map(|(at, _)| at).collect();
    let [uids, names, stable, canary, tiers] = [UID, NAME, STABLE, CANARY, TIER].map(places);
    Template { bytes: text.into_bytes(), uids, names, stable, canary, tiers, routes }
}

fn object(rules: usize, annotation: usize, generation: u32, (stable, canary): (&str, &str)) -> String {
    let mut spec = String::new();
    for rule in 0..rules {
        let comma = if rule > 0 { "," } else { "" };
        let path = match rule {
            0 => "/".to_owned(),
            _ => format!("/api/v1/tenants/{rule:04}/completions"),
        };
        let _ = write!(
            spec,
            r#"{comma}{{"matches":[{{"method":"POST","path":{{"type":"PathPrefix","value":"{path}"}},"headers":[{{"name":"x-tenant-tier","type":"Exact","value":"{TIER}"}}]}}],"default":{{"filters":[{{"type":"RequestHeaderModifier","requestHeaderModifier":{{"set":[{{"name":"x-sluice-rule","value":"{rule:04}"}}]}}}}],"backendRefs":[{{"kind":"MeshService","name":"llm-v1","port":8080,"weight":{stable}}},{{"kind":"MeshService","name":"llm-v2","port":8080,"weight":{canary}}}]}}}}"#
        );
    }
    let fields = |manager: &str, operation: &str| {
        format!(
            r#"{{"manager":"{manager}","operation":"{operation}","apiVersion":"kuma.io/v1alpha1","time":"2026-11-20T09:30:00Z","fieldsType":"FieldsV1","fieldsV1":{{"f:metadata":{{"f:annotations":{{".":{{}},"f:kustomize.toolkit.fluxcd.io/checksum":{{}}}},"f:labels":{{".":{{}},"f:kuma.io/mesh":{{}},"f:kustomize.toolkit.fluxcd.io/name":{{}},"f:kustomize.toolkit.fluxcd.io/namespace":{{}}}}}},"f:spec":{{".":{{}},"f:targetRef":{{".":{{}},"f:kind":{{}},"f:labels":{{}}}},"f:to":{{}}}}}}}}"#
        )
    };
    let managers = [("kustomize-controller", "Apply"), ("kubectl-client-side-apply", "Update"), ("sluice", "Update")];
    let managers = managers.map(|(manager, operation)| fields(manager, operation)).join(",");
    let note = "x".repeat(annotation);
    format!(
        r#"{{"apiVersion":"kuma.io/v1alpha1","kind":"MeshHTTPRoute","metadata":{{"annotations":{{"kustomize.toolkit.fluxcd.io/checksum":"9f2d0c1a7b3e4f5a6b7c8d9e0f1a2b3c4d5e6f70","note":"{note}"}},"creationTimestamp":"2026-11-20T09:00:00Z","generation":{generation},"labels":{{"kuma.io/mesh":"default","kuma.io/origin":"zone","kuma.io/zone":"zone-1","kustomize.toolkit.fluxcd.io/name":"policies","kustomize.toolkit.fluxcd.io/namespace":"flux-system"}},"managedFields":[{managers}],"name":"{NAME}","namespace":"kuma-demo","resourceVersion":"48151{generation}","uid":"0451cbfa-471a-4971-b11c-4f7dec3e50a5"}},"spec":{{"targetRef":{{"kind":"Dataplane","labels":{{"app":"gateway"}}}},"to":[{{"targetRef":{{"kind":"MeshService","name":"{NAME}"}},"rules":[{spec}]}}]}}}}"#
    )
}
