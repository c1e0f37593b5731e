#![doc = include_str!("../../../testdata/rules/passthrough-wildcard-without-port/README.md")]

use super::Severity;
use super::object::{inside, items, text};
use super::rule::{Answer, Check, Look, Rule, quoted};

pub(super) const RULE: Rule = Rule {
    id: "KMH-S14",
    name: "passthrough-wildcard-without-port",
    severity: Severity::Medium,
    kinds: &["MeshPassthrough"],
    summary: "a wildcard lets out more than it says",
    explanation: include_str!("../../../testdata/rules/passthrough-wildcard-without-port/README.md"),
    check: Check::Object(check),
};

fn check(look: &Look<'_>, answer: &mut Answer) {
    let default = inside(look.object.spec, &["default"]);
    // Only the mode `Matched`, which is the default, reads the list.
    if look.object.is_shadow() || !matches!(text(default, "passthroughMode"), "" | "Matched") {
        return answer.not_applicable();
    }
    for (m, one) in items(default, "appendMatch").iter().enumerate() {
        let host = text(one, "value");
        if text(one, "type") != "Domain" || !host.starts_with('*') {
            continue;
        }
        let protocol = text(one, "protocol");
        let what = match (one.get("port").and_then(|port| port.as_u64()), protocol) {
            (None, _) => "any port",
            (Some(_), "" | "tcp") => "plain TCP, where no name is checked",
            _ => continue,
        };
        let message = format!("{} on {what}", quoted(host));
        let finding = RULE.at(look.field(format_args!("default.appendMatch[{m}]")), message);
        answer.found(finding.help("name a port and a protocol that carries the name: tls, http, http2 or grpc"));
    }
}
