//! What Kuma and the rules say of a policy: warnings for whoever applies, and a denial where a guard asks for health.

use super::route::Assessed;
use super::{Cause, Outcome, World};
use sluice_rules::guard::{Enforcement, ShiftGuard, glob};
use sluice_rules::health::{Finding, Severity};

/// Findings about objects that nobody applied yet. Admission sees one object at a time and cannot know what follows in
/// the same apply, so these deny only where a guard names their severity.
const OF_OTHER_OBJECTS: [&str; 2] = ["KMH-T01", "KMH-T05"];

/// Tells what Kuma and the rules say.
pub(super) fn report(outcome: &mut Outcome, assessed: &Assessed, world: &World) {
    let violations = &assessed.verdict.violations;
    let findings = &assessed.health.findings;
    if let Some(score) = assessed.health.score {
        outcome.annotate("score", score);
    }
    if !assessed.has_something_to_say() {
        return;
    }
    for violation in violations {
        outcome.warn(format!("Kuma refuses this: {}: {}", violation.field, violation.message));
    }
    for finding in findings {
        let Finding { id, severity, field, message, .. } = finding;
        outcome.warn(format!("{id} {}: {field}: {message}", word(*severity)));
    }
    for guard in world.guards.iter().filter(|guard| is_over(guard, assessed)) {
        let causes = causes(guard, assessed);
        if causes.is_empty() {
            continue;
        }
        let code = if causes.iter().any(|cause| cause.reason == "MinScore") { "minScore" } else { "denySeverity" };
        match guard.spec.enforcement {
            Enforcement::Enforce => {
                outcome.reason(guard.name(), code);
                outcome.refuse(causes);
            }
            Enforcement::Warn => {
                outcome.reason(guard.name(), code);
                for cause in causes {
                    outcome.warn_of_limit(format!("{}: {}", cause.message, cause.field));
                }
            }
            Enforcement::Audit => outcome.annotate("health", format!("guard {}, {code}", guard.name())),
        }
    }
}

/// Why this guard refuses.
fn causes(guard: &ShiftGuard, assessed: &Assessed) -> Vec<Cause> {
    let Some(asked) = &guard.spec.health else { return Vec::new() };
    let name = guard.name();
    let mut causes = Vec::new();
    let denies = |severity: Severity| asked.deny_severity.is_some_and(|from| severity >= from);
    if denies(Severity::Critical) {
        causes.extend(assessed.verdict.violations.iter().map(|violation| Cause {
            reason: "FieldValueInvalid",
            message: format!("guard `{name}`, denySeverity: Kuma refuses this: {}", violation.message),
            field: violation.field.clone(),
        }));
    }
    causes.extend(assessed.health.findings.iter().filter(|finding| denies(finding.severity)).map(|finding| Cause {
        reason: finding.id,
        message: format!(
            "guard `{name}`, denySeverity: {} ({}): {}",
            finding.message,
            word(finding.severity),
            finding.help
        ),
        field: finding.field.to_string(),
    }));
    let ours = assessed.health.findings.iter().any(|finding| !OF_OTHER_OBJECTS.contains(&finding.id));
    if let (Some(least), Some(score)) = (asked.min_score, assessed.health.score)
        && score < least
        && (ours || !assessed.verdict.violations.is_empty())
    {
        let gravest = assessed.health.findings.first();
        let gravest =
            gravest.map_or_else(String::new, |finding| format!(", the gravest is {} {}", finding.id, finding.message));
        causes.push(Cause {
            reason: "MinScore",
            message: format!(
                "guard `{name}`, minScore: the health score is {score}, at least {least} is asked for: mend what \
                 `sluice validate` reports{gravest}"
            ),
            field: "spec".to_owned(),
        });
    }
    causes
}

/// Does the guard guard this policy?
fn is_over(guard: &ShiftGuard, assessed: &Assessed) -> bool {
    let any = |patterns: &[String], text: &str| patterns.iter().any(|pattern| glob(pattern, text));
    let r#match = &guard.spec.r#match;
    let services = r#match.services.iter().any(|pattern| pattern == "*")
        || assessed.services.iter().any(|service| any(&r#match.services, service));
    services
        && any(&r#match.meshes, &assessed.identity.mesh)
        && any(&r#match.namespaces, assessed.identity.namespace.as_deref().unwrap_or_default())
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Low => "low",
        Severity::Medium => "medium",
        Severity::High => "high",
        Severity::Critical => "critical",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_rules::health::Health;
    use sluice_rules::policy::Identity;
    use sluice_rules::split;
    use sluice_rules::validate::{Stage, Verdict, Violation};

    fn assessed(findings: &[(&'static str, Severity)], score: u8) -> Assessed {
        let finding = |(id, severity): &(&'static str, Severity)| Finding {
            id,
            severity: *severity,
            field: "spec.to[0]".parse().unwrap(),
            message: "it is odd".to_owned(),
            help: "mend it".to_owned(),
        };
        Assessed {
            identity: Identity {
                kind: "MeshHTTPRoute".to_owned(),
                mesh: "default".to_owned(),
                namespace: Some("demo".to_owned()),
                name: "a".to_owned(),
            },
            before: std::sync::Arc::default(),
            after: std::sync::Arc::default(),
            change: split::change(&[], &[]).into(),
            verdict: Verdict::default(),
            health: Health {
                findings: findings.iter().map(finding).collect(),
                score: Some(score),
                ..Health::default()
            },
            services: ["llm".to_owned()].into(),
        }
    }

    fn refused_by_kuma() -> Assessed {
        let violation = Violation { field: "spec.to".to_owned(), message: "must not be empty".to_owned() };
        let verdict = Verdict { stage: Some(Stage::Validator), violations: vec![violation] };
        Assessed { verdict, ..assessed(&[], 100) }
    }

    /// The outcome under a guard with this spec.
    fn under(spec: &str, assessed: &Assessed) -> Outcome {
        let guard =
            format!("{{apiVersion: sluice.dev/v1alpha1, kind: ShiftGuard, metadata: {{name: g}}, spec: {spec}}}");
        let guard = ShiftGuard::read(&serde_yaml::from_str(&guard).unwrap()).unwrap();
        let mut outcome = Outcome::passed();
        report(&mut outcome, assessed, &World { guards: vec![guard], ..World::default() });
        outcome
    }

    const CRITICAL: &str = "{health: {denySeverity: critical}}";

    #[test]
    fn denies_from_the_severity_on_that_a_guard_names() {
        let found = assessed(&[("KMH-X01", Severity::Critical), ("KMH-X02", Severity::High)], 40);
        let outcome = under(CRITICAL, &found);
        let causes: Vec<_> = outcome.causes().iter().map(|cause| cause.reason).collect();
        assert_eq!(causes, ["KMH-X01"]);
        assert_eq!(outcome.causes()[0].message, "guard `g`, denySeverity: it is odd (critical): mend it");
        assert!(!under("{health: {denySeverity: critical}, enforcement: Audit}", &found).is_denied());
        assert!(!under("{health: {denySeverity: critical}, enforcement: Warn}", &found).is_denied());
    }

    #[test]
    fn denies_below_the_score_that_a_guard_asks_for() {
        let found = assessed(&[("KMH-X01", Severity::High)], 69);
        assert!(under("{health: {minScore: 70}}", &found).is_denied());
        assert!(!under("{health: {minScore: 69}}", &found).is_denied());
    }

    #[test]
    fn what_kuma_refuses_is_critical() {
        assert!(under(CRITICAL, &refused_by_kuma()).is_denied());
        assert!(!under("{health: {minScore: 10}}", &refused_by_kuma()).is_denied());
    }

    #[test]
    fn what_may_be_applied_next_only_warns_unless_a_guard_names_it() {
        let found = assessed(&[("KMH-T05", Severity::High)], 10);
        assert!(!under("{health: {minScore: 100}}", &found).is_denied());
        assert!(under("{health: {denySeverity: high}}", &found).is_denied());
    }

    #[test]
    fn a_guard_asks_only_for_the_health_of_what_it_guards() {
        let found = assessed(&[("KMH-X01", Severity::Critical)], 10);
        for spec in [
            "{match: {services: [other]}, health: {denySeverity: info}}",
            "{match: {namespaces: [prod]}, health: {denySeverity: info}}",
            "{match: {meshes: [other]}, health: {denySeverity: info}}",
            "{caps: {maxStep: 1}}",
        ] {
            assert!(!under(spec, &found).is_denied(), "{spec}");
        }
        assert!(under("{match: {services: [l*]}, health: {denySeverity: info}}", &found).is_denied());
    }
}
