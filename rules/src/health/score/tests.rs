use super::*;
use proptest::prelude::*;

fn outcome(rule: u8, severity: Severity, target: u8, state: State, exposure: f64) -> Outcome {
    Outcome { rule: format!("R{rule}"), severity, target: format!("t{target}"), state, exposure }
}

const SEVERITIES: [Severity; 5] = [Severity::Info, Severity::Low, Severity::Medium, Severity::High, Severity::Critical];

/// A rule has one severity, and its findings are no graver.
fn any_outcomes() -> impl Strategy<Value = Vec<Outcome>> {
    let one =
        (0..8_u8, 0..6_u8, 0..4_u8, 0..5_usize, 0.0..1.2_f64).prop_map(|(rule, target, state, worst, exposure)| {
            let severity = SEVERITIES[usize::from(rule) % 5];
            let state = match state {
                0 => State::Unknown,
                1 => State::Fail(SEVERITIES[worst].min(severity)),
                2 => State::NotApplicable,
                _ => State::Pass,
            };
            // One target is exposed as it is, whoever looks at it.
            outcome(rule, severity, target, state, if target == 0 { exposure } else { f64::from(target) / 5.0 })
        });
    proptest::collection::vec(one, 0..40)
}

fn points(outcomes: &[Outcome]) -> Option<u8> {
    score(outcomes).map(|score| score.points)
}

#[test]
fn nothing_has_no_score() {
    assert_eq!(score(&[]), None);
    assert_eq!(score(&[outcome(1, Severity::High, 1, State::NotApplicable, 1.0)]), None);
    assert_eq!(points(&[outcome(1, Severity::High, 1, State::Unknown, 1.0)]), None);
}

#[test]
fn an_open_critical_finding_caps_the_score_whatever_passes() {
    let mut outcomes = vec![outcome(0, Severity::Critical, 0, State::Fail(Severity::Critical), 0.1)];
    outcomes.extend((1..200).map(|target| outcome(0, Severity::Critical, target, State::Pass, 1.0)));
    assert_eq!(points(&outcomes), Some(49));
}

#[test]
fn a_high_finding_caps_it_where_the_traffic_is() {
    let with = |exposure| {
        let mut outcomes = vec![outcome(0, Severity::High, 0, State::Fail(Severity::High), exposure)];
        outcomes.extend((1..200).map(|target| outcome(0, Severity::High, target, State::Pass, 1.0)));
        points(&outcomes).unwrap()
    };
    assert_eq!((with(1.0), with(0.1)), (79, 99));
}

#[test]
fn weighs_by_severity_and_exposure() {
    // 8 of 11 points of weight, a quarter of its exposure fails: 100 · (1 - 8·0.25/11) = 81.8.
    let outcomes = [
        outcome(0, Severity::High, 0, State::Fail(Severity::High), 0.25),
        outcome(0, Severity::High, 1, State::Pass, 0.75),
        outcome(1, Severity::Medium, 0, State::Pass, 0.25),
    ];
    let score = score(&outcomes).unwrap();
    assert_eq!((score.points, score.losses, score.coverage), (81, vec![("R0".to_owned(), 19)], 100));
}

#[test]
fn to_mend_the_graver_of_two_findings_does_not_lower_the_score() {
    let score_of = |first| {
        points(&[
            outcome(2, Severity::Medium, 0, State::Fail(first), 0.1),
            outcome(2, Severity::Medium, 0, State::Fail(Severity::Low), 0.9),
            outcome(2, Severity::Medium, 2, State::Pass, 0.4),
        ])
    };
    assert!(score_of(Severity::Low) >= score_of(Severity::Medium));
}

#[test]
fn info_costs_nothing() {
    let outcomes = [outcome(0, Severity::Medium, 0, State::Fail(Severity::Info), 1.0)];
    assert_eq!(points(&outcomes), Some(100));
}

#[test]
fn a_document_scores_as_a_set_of_one() {
    for fails in 0..16_u8 {
        let mut tally = Tally::default();
        let mut outcomes = Vec::new();
        for (rule, severity) in SEVERITIES.into_iter().take(4).enumerate() {
            let state = if fails & (1 << rule) > 0 { State::Fail(severity) } else { State::Pass };
            tally.add(severity, state);
            outcomes.push(outcome(rule as u8, severity, 0, state, 1.0));
        }
        assert_eq!(tally.points().1, points(&outcomes));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn fixing_never_lowers(outcomes in any_outcomes(), which in any::<proptest::sample::Index>(), lesser in 0..5_usize) {
        prop_assume!(!outcomes.is_empty());
        let place = which.index(outcomes.len());
        let (rule, target) = (outcomes[place].rule.clone(), outcomes[place].target.clone());
        let State::Fail(found) = outcomes[place].state else { return Ok(()) };
        for better in [State::Pass, State::Fail(SEVERITIES[lesser].min(found))] {
            let mut fixed = outcomes.clone();
            for outcome in fixed.iter_mut().filter(|outcome| outcome.rule == rule && outcome.target == target) {
                if outcome.state > better {
                    outcome.state = better;
                }
            }
            prop_assert!(points(&fixed) >= points(&outcomes), "{:?} {:?}", score(&fixed), score(&outcomes));
        }
    }

    #[test]
    fn adding_what_passes_raises_no_more_than_its_exposure(
        outcomes in any_outcomes(),
        rule in 0..8_u8,
        many in 1..20_u8,
        exposure in 0.1..1.0_f64,
    ) {
        let severity = SEVERITIES[usize::from(rule) % 5];
        let mut more = outcomes.clone();
        more.extend((0..many).map(|i| outcome(rule, severity, 100 + i, State::Pass, exposure)));
        let (Some(before), Some(after)) = (score(&outcomes), score(&more)) else { return Ok(()) };
        prop_assert!(after.points >= before.points);
        // What fails still fails: its share of the exposure is all that passing targets can dilute.
        let worst = |set: &[Outcome]| set.iter().filter_map(|o| match o.state {
            State::Fail(severity) => Some((severity, exposure_of(o))),
            _ => None,
        }).collect::<Vec<_>>();
        let open = worst(&more);
        if open.iter().any(|(severity, _)| *severity == Severity::Critical) {
            prop_assert!(after.points <= 49);
        }
        let mine: f64 = sum(&outcomes, rule, |state| matches!(state, State::Fail(_)));
        let all: f64 = sum(&more, rule, |state| matches!(state, State::Fail(_) | State::Pass));
        let total: f64 = (0..8).filter(|r| sum(&more, *r, |s| matches!(s, State::Fail(_) | State::Pass)) > 0.0)
            .map(|r| weight(SEVERITIES[usize::from(r) % 5])).sum();
        let graves = outcomes.iter().filter(|o| o.rule == format!("R{rule}")).all(|o| match o.state {
            State::Fail(found) => found == severity,
            _ => true,
        });
        if graves && total > 0.0 {
            let bound = 100.0 * (1.0 - weight(severity) * (mine / all) / total);
            prop_assert!(f64::from(after.points) <= bound + 1e-6, "{} > {bound}", after.points);
        }
    }

    #[test]
    fn neither_order_nor_repetition_matters(outcomes in any_outcomes(), seed in any::<u64>()) {
        let mut shuffled: Vec<_> = outcomes.iter().chain(&outcomes).cloned().collect();
        let mut state = seed | 1;
        for i in (1..shuffled.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            shuffled.swap(i, (state >> 33) as usize % (i + 1));
        }
        prop_assert_eq!(score(&shuffled), score(&outcomes));
    }

    #[test]
    fn losses_add_up_and_the_interval_holds_the_score(outcomes in any_outcomes()) {
        let Some(score) = score(&outcomes) else { return Ok(()) };
        let lost: u32 = score.losses.iter().map(|(_, points)| u32::from(*points)).sum();
        prop_assert_eq!(lost, 100 - u32::from(score.points), "{:?}", score);
        prop_assert!(score.least <= score.points && score.points <= score.most, "{:?}", score);
        prop_assert!(score.coverage <= 100);
    }
}

fn exposure_of(outcome: &Outcome) -> f64 {
    super::exposure(outcome)
}

/// The exposure of a rule's targets in certain states, each once, at its worst.
fn sum(outcomes: &[Outcome], rule: u8, of: impl Fn(State) -> bool) -> f64 {
    let name = format!("R{rule}");
    let mut worst: BTreeMap<&str, (State, f64)> = BTreeMap::new();
    for outcome in outcomes.iter().filter(|outcome| outcome.rule == name) {
        let new = (outcome.state, exposure_of(outcome));
        let held = worst.entry(&outcome.target).or_insert(new);
        if new.0 > held.0 || new.0 == held.0 && new.1 > held.1 {
            *held = new;
        }
    }
    worst.values().filter(|(state, _)| of(*state)).map(|(_, exposure)| exposure).sum()
}
