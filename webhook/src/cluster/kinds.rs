//! Which kinds are watched.

/// A kind of object.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Kind {
    /// The CRD's name: plural and group.
    pub name: &'static str,
    /// The kind.
    pub kind: &'static str,
    /// The path of the collection over all namespaces.
    pub path: &'static str,
    /// What it is watched for.
    pub role: Role,
}

/// What a kind is watched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// CRDs: they say which kinds exist. Only their metadata is fetched, for their schemas are large.
    Definition,
    /// Guards: without them nothing may be answered.
    Guard,
    /// Approvals.
    Approval,
    /// Ledgers.
    Ledger,
    /// Routes move traffic.
    Route,
    /// What policies refer to.
    Known,
}

impl Role {
    /// Without the CRDs that `charts/sluice/crds` installs, the webhook is not ready.
    pub(super) fn is_required(self) -> bool {
        matches!(self, Self::Guard | Self::Approval | Self::Ledger)
    }
}

pub(super) const DEFINITIONS: Kind = Kind {
    name: "customresourcedefinitions.apiextensions.k8s.io",
    kind: "CustomResourceDefinition",
    path: "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    role: Role::Definition,
};

/// The CRD that Kuma 3.0 has no more.
pub(super) const LEGACY: &str = "trafficroutes.kuma.io";

macro_rules! kinds {
    ($($role:ident $group:literal $plural:literal $kind:literal)*) => {
        [$(Kind {
            name: concat!($plural, ".", $group),
            kind: $kind,
            path: concat!("/apis/", $group, "/v1alpha1/", $plural),
            role: Role::$role,
        }),*]
    };
}

// What `Known` keeps of. Dataplanes and ExternalServices stand for the `kuma.io/service` tags that 2.14 routes by.
pub(super) const KINDS: [Kind; 13] = kinds! {
    Guard "sluice.dev" "shiftguards" "ShiftGuard"
    Approval "sluice.dev" "shiftapprovals" "ShiftApproval"
    Ledger "sluice.dev" "shiftledgers" "ShiftLedger"
    Route "kuma.io" "trafficroutes" "TrafficRoute"
    Route "kuma.io" "meshhttproutes" "MeshHTTPRoute"
    Route "kuma.io" "meshtcproutes" "MeshTCPRoute"
    Known "kuma.io" "meshservices" "MeshService"
    Known "kuma.io" "meshexternalservices" "MeshExternalService"
    Known "kuma.io" "meshmultizoneservices" "MeshMultiZoneService"
    Known "kuma.io" "hostnamegenerators" "HostnameGenerator"
    Known "kuma.io" "meshtimeouts" "MeshTimeout"
    Known "kuma.io" "externalservices" "ExternalService"
    Known "kuma.io" "dataplanes" "Dataplane"
};
