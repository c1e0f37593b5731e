//! What a canary must show before it moves: the ladder, its margins, and the error rates promised.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// The rules of one rollout. Every field has a default; `judge --stream` takes any of them on the first line of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    /// Shares of the canary in percent, rising, the last one 100.
    pub ladder: Vec<f64>,
    /// Least time on a rung.
    pub dwell: Seconds,
    /// Chance of ever rolling back a canary that is no worse than `harmRatio`, over its whole life and all signals.
    pub alpha: f64,
    /// Chance, per rung and signal, of calling a canary safe that is as bad as the rung's margin.
    pub beta: f64,
    /// Ratios of bad requests, canary over stable, up to which nobody is harmed.
    #[serde(alias = "harm_ratio")]
    pub harm_ratio: f64,
    /// Ratio to exclude before leaving each rung but the last.
    pub margins: Vec<f64>,
    /// Rate of bad requests that counts as comfortable on each rung but the last: enough instead of the ratio where the
    /// ratio does not speak against it.
    pub ceilings: Vec<f64>,
    /// Rate of bad requests up to which the canary is never rolled back, however much worse than stable it is.
    pub floor: f64,
    /// Keep the old version at a little traffic for a while before 100 %.
    #[serde(alias = "hold_back", alias = "hold-back", alias = "holdback", deserialize_with = "hold_back")]
    pub hold_back: Option<HoldBack>,
    /// After this long without an end a person is asked.
    pub deadline: Seconds,
    /// Latency (the signal `slow`) seen this soon after a weight change is not judged: caches are cold.
    pub warmup: Seconds,
    /// Ticks in a row without both arms after which the canary is called blind.
    #[serde(alias = "blind_after")]
    pub blind_after: u32,
    /// Tick-to-tick variance of a rate, relative to its square, assumed before any was measured.
    pub dispersion: f64,
    /// What is known of each signal; a signal not named here is a count with the defaults above.
    pub signals: BTreeMap<String, SignalPolicy>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            ladder: vec![5.0, 10.0, 25.0, 50.0, 100.0],
            dwell: Seconds(15 * 60),
            alpha: 0.01,
            beta: 0.05,
            harm_ratio: 1.1,
            margins: Vec::new(),
            ceilings: Vec::new(),
            floor: 1e-4,
            hold_back: None,
            deadline: Seconds(7 * 24 * 3600),
            warmup: Seconds(120),
            blind_after: 5,
            dispersion: 0.05,
            signals: BTreeMap::new(),
        }
    }
}

/// A share at which the old version lingers, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HoldBack {
    /// The canary's share meanwhile, in percent.
    pub share: f64,
    /// How long it is watched there.
    pub watch: Seconds,
}

impl Default for HoldBack {
    fn default() -> Self {
        Self { share: 98.0, watch: Seconds(24 * 3600) }
    }
}

fn hold_back<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<HoldBack>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Wire {
        Switch(bool),
        Given(HoldBack),
    }
    Ok(match Option::<Wire>::deserialize(deserializer)? {
        None | Some(Wire::Switch(false)) => None,
        Some(Wire::Switch(true)) => Some(HoldBack::default()),
        Some(Wire::Given(given)) => Some(given),
    })
}

/// What one signal measures.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct SignalPolicy {
    /// The rate of bad requests that its objective allows; rungs below the last allow more.
    pub ceiling: Option<f64>,
    /// A business metric in `[0, 1]` that may fall by this much: makes the signal a score.
    #[serde(alias = "non_inferiority")]
    pub non_inferiority: Option<f64>,
    /// A business metric in `[0, 1]` that must rise by this much: makes the signal a score.
    #[serde(alias = "minimum_improvement")]
    pub minimum_improvement: Option<f64>,
}

impl SignalPolicy {
    /// For a score: what the canary's mean must exceed the stable one's by.
    pub fn score_margin(&self) -> Option<f64> {
        self.minimum_improvement.or(self.non_inferiority.map(|fall| -fall))
    }
}

/// Whole seconds; on the wire a number of seconds or a text such as `15m`, `24h`, `1h30m`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(pub i64);

impl FromStr for Seconds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("`{text}` is no duration: write it like 90s, 15m, 24h, 7d");
        let mut total = 0_i64;
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(wrong());
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
            let number: i64 = rest[..digits].parse().map_err(|_| wrong())?;
            let unit = match rest.as_bytes()[digits] {
                b's' => 1,
                b'm' => 60,
                b'h' => 3600,
                b'd' => 86_400,
                _ => return Err(wrong()),
            };
            total = number.checked_mul(unit).and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
            rest = &rest[digits + 1..];
        }
        Ok(Self(total))
    }
}

impl fmt::Display for Seconds {
    /// The two largest units: `1h 30m`, `45s`, `2d`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.max(0);
        let mut written = 0;
        for (unit, length) in [("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)] {
            if rest >= length && written < 2 {
                let space = if written > 0 { " " } else { "" };
                write!(f, "{space}{}{unit}", rest / length)?;
                rest %= length;
                written += 1;
            }
        }
        if written == 0 { f.write_str("0s") } else { Ok(()) }
    }
}

impl Serialize for Seconds {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(self.0)
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Wire {
            Number(f64),
            Text(String),
        }
        match Wire::deserialize(deserializer)? {
            Wire::Number(seconds) if seconds.is_finite() && (0.0..1e12).contains(&seconds) => {
                Ok(Self(seconds.round() as i64))
            }
            Wire::Number(seconds) => Err(serde::de::Error::custom(format!("{seconds} is no number of seconds"))),
            Wire::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

/// One thing wrong with a [`Policy`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}`: {problem}")]
pub struct PolicyError {
    /// The field, as written on the wire.
    pub field: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl Policy {
    /// Every contradiction in the policy, at once.
    pub fn problems(&self) -> Vec<PolicyError> {
        let mut found = Vec::new();
        let mut check = |right: bool, field: &str, problem: &str| {
            if !right {
                found.push(PolicyError { field: field.to_owned(), problem: problem.to_owned() });
            }
        };
        let rising = self.ladder.windows(2).all(|pair| pair[0] < pair[1]);
        let ends = self.ladder.last().is_some_and(|last| (*last - 100.0).abs() < 1e-9);
        check(rising && ends && self.ladder[0] > 0.0, "ladder", "must rise from above 0 to 100");
        let steps = self.ladder.len().saturating_sub(1);
        check(
            self.margins.is_empty() || self.margins.len() == steps,
            "margins",
            "needs one for each rung but the last",
        );
        check(
            self.ceilings.is_empty() || self.ceilings.len() == steps,
            "ceilings",
            "needs one for each rung but the last",
        );
        check(self.margins.iter().all(|m| *m > 1.0 && m.is_finite()), "margins", "must be ratios above 1");
        check(self.ceilings.iter().all(|c| *c > 0.0 && *c < 1.0), "ceilings", "must be rates between 0 and 1");
        check(self.alpha > 0.0 && self.alpha < 1.0, "alpha", "must be between 0 and 1");
        check(self.beta > 0.0 && self.beta < 1.0, "beta", "must be between 0 and 1");
        check(self.harm_ratio >= 1.0 && self.harm_ratio.is_finite(), "harmRatio", "must be at least 1");
        check((0.0..1.0).contains(&self.floor), "floor", "must be a rate from 0 to below 1");
        check(self.deadline.0 > 0, "deadline", "must be above 0");
        check(self.blind_after > 0, "blindAfter", "must be at least 1");
        check(self.dispersion >= 0.0 && self.dispersion.is_finite(), "dispersion", "must not be negative");
        if let Some(held) = self.hold_back {
            check(held.share > 50.0 && held.share < 100.0, "holdBack.share", "must be between 50 and 100");
        }
        for (name, signal) in &self.signals {
            let field = format!("signals.{name}");
            check(signal.ceiling.is_none_or(|c| c > 0.0 && c < 1.0), &field, "ceiling must be between 0 and 1");
            let both = signal.non_inferiority.is_some() && signal.minimum_improvement.is_some();
            check(!both, &field, "takes nonInferiority or minimumImprovement, not both");
            let margin = signal.score_margin().unwrap_or(0.0);
            check(margin.abs() < 1.0, &field, "a margin must be between 0 and 1");
        }
        found
    }

    /// The rungs to climb, with the hold-back share where there is one.
    pub fn rungs(&self) -> Vec<f64> {
        let mut rungs = self.ladder.clone();
        if let Some(held) = self.hold_back {
            rungs.pop();
            rungs.retain(|rung| *rung < held.share);
            rungs.extend([held.share, 100.0]);
        }
        rungs
    }

    /// The rung above `share`; 100 at the top.
    pub fn next_rung(&self, share: f64) -> f64 {
        self.rungs().into_iter().find(|rung| *rung > share + 1e-9).unwrap_or(100.0)
    }

    /// Least time at `share`.
    pub fn dwell_at(&self, share: f64) -> Seconds {
        match self.hold_back {
            Some(held) if share >= held.share - 1e-9 => held.watch.max(self.dwell),
            _ => self.dwell,
        }
    }

    /// The ratio to exclude before leaving `share`.
    pub fn margin_at(&self, share: f64) -> f64 {
        at_rung(&self.margins, &self.ladder, share).unwrap_or_else(|| by_share(share, [3.0, 2.0, 1.5, 1.25]))
    }

    /// The comfortable rate of bad requests at `share`, for a signal whose objective allows `objective`; ceilings that
    /// were given for each rung say it instead.
    pub fn ceiling_at(&self, share: f64, objective: Option<f64>) -> f64 {
        let given = at_rung(&self.ceilings, &self.ladder, share);
        let ceiling = given.unwrap_or_else(|| match objective {
            Some(objective) => objective * by_share(share, [5.0, 3.0, 2.0, 1.0]),
            None => by_share(share, [0.05, 0.03, 0.02, 0.01]),
        });
        ceiling.min(0.5)
    }
}

/// The entry of the highest rung that `share` has reached, or of the first.
fn at_rung(entries: &[f64], ladder: &[f64], share: f64) -> Option<f64> {
    let reached = ladder.iter().rposition(|rung| *rung <= share + 1e-9).unwrap_or(0);
    entries.get(reached.min(entries.len().checked_sub(1)?)).copied()
}

/// Small shares need only exclude disaster; precision is bought where both arms have data.
fn by_share(share: f64, [at_5, at_10, at_25, above]: [f64; 4]) -> f64 {
    match share {
        s if s < 10.0 => at_5,
        s if s < 25.0 => at_10,
        s if s < 50.0 => at_25,
        _ => above,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_durations_in_seconds_and_in_words() {
        assert_eq!(serde_json::from_str::<Seconds>("900").unwrap(), Seconds(900));
        assert_eq!(serde_json::from_str::<Seconds>("\"1h30m\"").unwrap(), Seconds(5400));
        assert!("15".parse::<Seconds>().is_err());
        assert!("".parse::<Seconds>().is_err());
        assert_eq!(Seconds(5400).to_string(), "1h 30m");
    }

    #[test]
    fn the_default_policy_has_no_problem_and_climbs_the_documented_ladder() {
        let policy = Policy::default();
        assert_eq!(policy.problems(), []);
        assert_eq!(policy.next_rung(0.0), 5.0);
        assert_eq!(policy.next_rung(50.0), 100.0);
        assert_eq!([5.0, 10.0, 25.0, 50.0].map(|share| policy.margin_at(share)), [3.0, 2.0, 1.5, 1.25]);
    }

    #[test]
    fn holds_back_at_98_percent_for_a_day_when_asked() {
        let policy: Policy = serde_json::from_str(r#"{"holdBack": true}"#).unwrap();
        assert_eq!(policy.next_rung(50.0), 98.0);
        assert_eq!(policy.dwell_at(98.0), Seconds(86_400));
        assert_eq!(policy.next_rung(98.0), 100.0);
    }

    #[test]
    fn ceilings_that_were_given_count_before_those_that_follow_from_an_objective() {
        let policy: Policy = serde_json::from_str(r#"{"ceilings":[0.2,0.1,0.05,0.02]}"#).unwrap();
        assert_eq!([5.0, 10.0, 25.0, 50.0].map(|share| policy.ceiling_at(share, Some(0.01))), [0.2, 0.1, 0.05, 0.02]);
        assert_eq!(Policy::default().ceiling_at(10.0, Some(0.01)), 0.03);
    }

    #[test]
    fn names_every_problem_at_once() {
        let policy: Policy = serde_json::from_str(r#"{"ladder":[10,5],"alpha":2,"margins":[1]}"#).unwrap();
        let fields: Vec<_> = policy.problems().into_iter().map(|problem| problem.field).collect();
        assert_eq!(fields, ["ladder", "margins", "alpha"]);
    }
}
