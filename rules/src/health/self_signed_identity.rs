#![doc = include_str!("../../../testdata/rules/self-signed-identity/README.md")]

use super::Severity;
use super::object::inside;
use super::rule::{Answer, Check, Look, Rule};

pub(super) const RULE: Rule = Rule {
    id: "KMH-S17",
    name: "self-signed-identity",
    severity: Severity::Medium,
    kinds: &["MeshIdentity"],
    summary: "identities come from a self-signed authority",
    explanation: include_str!("../../../testdata/rules/self-signed-identity/README.md"),
    check: Check::Object(check),
};

fn check(look: &Look<'_>, answer: &mut Answer) {
    let bundled = inside(look.object.spec, &["provider", "bundled"]);
    if look.object.is_shadow() || bundled.get("insecureAllowSelfSigned").and_then(|flag| flag.as_bool()) != Some(true) {
        return;
    }
    if matches!(look.object.note("sluice.dev/environment"), "dev" | "development" | "test" | "testing" | "sandbox") {
        return;
    }
    let field = look.field(format_args!("provider.bundled.insecureAllowSelfSigned"));
    let message =
        "the control plane signs with a root of its own making: nobody outside can revoke it or tell it apart";
    let help = "give the bundled provider an intermediate of your own authority (`ca`), or label it sluice.dev/environment: dev";
    answer.found(RULE.at(field, message).help(help));
}
