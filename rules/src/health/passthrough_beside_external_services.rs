#![doc = include_str!("../../../testdata/rules/passthrough-beside-external-services/README.md")]

use super::Severity;
use super::object::{inside, text};
use super::rule::{Answer, Check, Look, Rule, quoted};

pub(super) const RULE: Rule = Rule {
    id: "KMH-S13",
    name: "passthrough-beside-external-services",
    severity: Severity::High,
    kinds: &["MeshPassthrough"],
    summary: "proxies let everything out although external services are declared",
    explanation: include_str!("../../../testdata/rules/passthrough-beside-external-services/README.md"),
    check: Check::Object(check),
};

fn check(look: &Look<'_>, answer: &mut Answer) {
    if look.object.is_shadow() || text(inside(look.object.spec, &["default"]), "passthroughMode") != "All" {
        return;
    }
    if look.known.has_any("MeshExternalService", look.object.mesh) {
        let message = format!(
            "mode `All` lets clients go around the MeshExternalServices of mesh {} and their policies",
            quoted(look.object.mesh)
        );
        let finding = RULE.at(look.field(format_args!("default.passthroughMode")), message);
        answer.found(finding.help("use `Matched` with the hosts that have no MeshExternalService, or `None`"));
    } else if !look.known.complete {
        answer.cannot_tell();
    }
}
