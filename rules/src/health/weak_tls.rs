#![doc = include_str!("../../../testdata/rules/weak-tls/README.md")]

use super::Severity;
use super::object::{inside, items, text};
use super::rule::{Answer, Check, Look, Rule, quoted};
use serde_json::Value;

pub(super) const RULE: Rule = Rule {
    id: "KMH-S15",
    name: "weak-tls",
    severity: Severity::High,
    kinds: &["MeshTLS", "MeshExternalService"],
    summary: "TLS may fall back to what is broken",
    explanation: include_str!("../../../testdata/rules/weak-tls/README.md"),
    check: Check::Object(check),
};

fn check(look: &Look<'_>, answer: &mut Answer) {
    if look.object.kind == "MeshExternalService" {
        return check_one(look, answer, "tls.version", inside(look.object.spec, &["tls", "version"]));
    }
    for list in ["from", "rules"] {
        for (i, item) in items(look.object.spec, list).iter().enumerate() {
            let conf = inside(item, &["default"]);
            check_one(look, answer, &format!("{list}[{i}].default.tlsVersion"), inside(conf, &["tlsVersion"]));
            for (c, cipher) in items(conf, "tlsCiphers").iter().enumerate() {
                let name = cipher.as_str().unwrap_or_default();
                if is_weak(name) {
                    let field = look.field(format_args!("{list}[{i}].default.tlsCiphers[{c}]"));
                    let message = format!("{} lacks forward secrecy or authenticated encryption", quoted(name));
                    answer.found(RULE.at(field, message).help("use ECDHE suites with GCM or CHACHA20-POLY1305"));
                }
            }
        }
    }
}

fn check_one(look: &Look<'_>, answer: &mut Answer, at: &str, version: &Value) {
    for bound in ["min", "max"] {
        let written = text(version, bound);
        if matches!(written, "TLS10" | "TLS11") {
            let message = format!("{} was withdrawn in 2021 (RFC 8996)", quoted(written));
            let finding = RULE.at(look.field(format_args!("{at}.{bound}")), message);
            answer.found(finding.help("use TLS12 or TLS13, or leave it out: Envoy's own default is TLS12"));
        }
    }
}

fn is_weak(cipher: &str) -> bool {
    let upper = cipher.to_ascii_uppercase();
    // The suites of TLS 1.3 do not name a key exchange; all of them are sound.
    let modern = upper.starts_with("TLS_AES_") || upper.starts_with("TLS_CHACHA20_");
    let sound = upper.contains("ECDHE") && (upper.contains("GCM") || upper.contains("CHACHA20"));
    !cipher.is_empty() && !modern && !sound
}
