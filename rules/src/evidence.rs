//! The evidence that travels with a proposal: counts, rules and claims, recomputable offline.

use crate::canary::{Call, Cause, Counts, Judge, Policy, PolicyError, SignalVerdict, Tick, TickError};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt;

/// The version of this format that [`Evidence::new`] writes and [`Evidence::verify`] reads.
pub const FORMAT: u32 = 1;
/// The engine that judged: a verdict of another one may rightly differ.
pub const ENGINE: &str = concat!("sluice-rules ", env!("CARGO_PKG_VERSION"));

/// What is on trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Subject {
    /// The rollout's name in `sluice.yaml`.
    pub rollout: String,
    /// The mesh.
    pub mesh: String,
    /// The route, as `MeshHTTPRoute demo/summarize`.
    pub route: String,
    /// The arm that served before.
    pub stable: String,
    /// The arm on trial.
    pub canary: String,
}

/// Counts per tick, the policy that judged them, and what came out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Evidence {
    /// [`FORMAT`].
    pub format: u32,
    /// [`ENGINE`].
    pub engine: String,
    /// What is on trial.
    pub subject: Subject,
    /// The rules in force.
    pub policy: Policy,
    /// What was seen, in order of time.
    pub ticks: Vec<Tick>,
    /// Eight hexadecimal digits per tick, each over the tick and the digits before it: they tell which tick was changed.
    pub chain: Vec<String>,
    /// What was concluded.
    pub claim: Claim,
    /// SHA-256 over all of the above, in hexadecimal.
    pub digest: String,
}

/// What the judge concluded after the last tick.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Claim {
    /// The verdict.
    pub call: Call,
    /// The share the canary should have next, in percent.
    pub share: f64,
    /// What kind of reason led to it.
    pub cause: Cause,
    /// Why, in words.
    pub reason: String,
    /// Each signal's standing.
    pub signals: BTreeMap<String, SignalClaim>,
}

/// How one signal stood.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SignalClaim {
    /// `ln E` for harm.
    pub harm: f64,
    /// The bound harm must pass.
    pub harm_bound: f64,
    /// `ln E` for safety on the last rung.
    pub safe: f64,
    /// What both say.
    pub verdict: SignalVerdict,
    /// Whether it is a business metric.
    pub score: bool,
    /// The canary's counts on the last rung, `[n, x]`.
    pub canary: Counts,
    /// The stable arm's counts on the last rung, `[n, x]`.
    pub stable: Counts,
    /// Measured tick-to-tick variance of the stable rate, relative to its square.
    pub burstiness: f64,
}

/// The state after one tick, to draw.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Point {
    /// End of the tick, seconds since 1970 UTC.
    pub t: i64,
    /// The canary's share in force, in percent.
    pub share: f64,
    /// What was called.
    pub claim: Claim,
}

/// Why evidence cannot be judged at all.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EvidenceError {
    /// There is nothing to judge.
    #[error("no ticks: nothing was seen")]
    Empty,
    /// The policy contradicts itself.
    #[error("policy {0}")]
    Policy(PolicyError),
    /// A tick cannot be.
    #[error("tick {index}: {error}")]
    Tick {
        /// Position in `ticks`, from 0.
        index: usize,
        /// What is wrong.
        error: TickError,
    },
}

/// One way in which evidence and recomputation differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Where: `ticks[37]`, `claim.signals.errors.harm`, `digest`.
    pub field: String,
    /// What the evidence says.
    pub claimed: String,
    /// What comes out.
    pub recomputed: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: claimed {}, recomputed {}", self.field, self.claimed, self.recomputed)
    }
}

impl Evidence {
    /// Judges the ticks and binds counts, policy and verdict together.
    pub fn new(subject: Subject, policy: Policy, ticks: Vec<Tick>) -> Result<Self, EvidenceError> {
        let claim = replay(&policy, &ticks)?.pop().ok_or(EvidenceError::Empty)?.claim;
        let chain = chain(&ticks);
        let mut evidence = Self {
            format: FORMAT,
            engine: ENGINE.to_owned(),
            subject,
            policy,
            ticks,
            chain,
            claim,
            digest: String::new(),
        };
        evidence.digest = evidence.compute_digest();
        Ok(evidence)
    }

    /// Every state on the way, one per tick.
    pub fn points(&self) -> Result<Vec<Point>, EvidenceError> {
        replay(&self.policy, &self.ticks)
    }

    /// Recomputes everything and names what differs; an empty answer means equal.
    pub fn verify(&self) -> Result<Vec<Difference>, EvidenceError> {
        let mut found = Vec::new();
        let mut compare = |field: String, claimed: String, recomputed: String| {
            if claimed != recomputed {
                found.push(Difference { field, claimed, recomputed });
            }
        };
        compare("format".into(), self.format.to_string(), FORMAT.to_string());
        compare("engine".into(), self.engine.clone(), ENGINE.to_owned());
        let chain = chain(&self.ticks);
        compare("chain.length".into(), self.chain.len().to_string(), chain.len().to_string());
        if let Some(index) = self.chain.iter().zip(&chain).position(|(claimed, computed)| claimed != computed) {
            let at = self.ticks[index].t;
            compare(format!("ticks[{index}] (t {at})"), self.chain[index].clone(), chain[index].clone());
        }
        let claim = replay(&self.policy, &self.ticks)?.pop().ok_or(EvidenceError::Empty)?.claim;
        for ((field, claimed), (_, computed)) in self.claim.fields().into_iter().zip(claim.fields()) {
            compare(format!("claim.{field}"), claimed, computed);
        }
        let names = |claim: &Claim| claim.signals.keys().cloned().collect::<Vec<_>>().join(", ");
        compare("claim.signals".into(), names(&self.claim), names(&claim));
        compare("digest".into(), self.digest.clone(), self.compute_digest());
        Ok(found)
    }

    fn compute_digest(&self) -> String {
        let bare = Self { digest: String::new(), ..self.clone() };
        // Serialising plain data into memory cannot fail.
        hex::encode(Sha256::digest(serde_json::to_vec(&bare).unwrap_or_default()))
    }
}

impl Claim {
    /// Name and text of each part that a verification compares. Logarithms are compared to six digits: the last bits of
    /// `ln` and `exp` differ between platforms.
    fn fields(&self) -> Vec<(String, String)> {
        let mut fields = vec![
            ("call".to_owned(), format!("{:?}", self.call).to_lowercase()),
            ("share".to_owned(), self.share.to_string()),
            ("cause".to_owned(), format!("{:?}", self.cause).to_lowercase()),
            ("reason".to_owned(), self.reason.clone()),
        ];
        for (name, signal) in &self.signals {
            let mut add = |part: &str, value: String| fields.push((format!("signals.{name}.{part}"), value));
            add("harm", format!("{:.6}", signal.harm));
            add("harmBound", format!("{:.6}", signal.harm_bound));
            add("safe", format!("{:.6}", signal.safe));
            add("verdict", format!("{:?}", signal.verdict).to_lowercase());
            add("canary", format!("[{}, {}]", signal.canary.n, signal.canary.x));
            add("stable", format!("[{}, {}]", signal.stable.n, signal.stable.x));
        }
        fields
    }
}

/// Runs a fresh judge over the ticks.
pub fn replay(policy: &Policy, ticks: &[Tick]) -> Result<Vec<Point>, EvidenceError> {
    let mut judge = Judge::new(policy.clone()).map_err(|mut problems| EvidenceError::Policy(problems.remove(0)))?;
    let mut points = Vec::with_capacity(ticks.len());
    for (index, tick) in ticks.iter().enumerate() {
        let verdict = judge.observe(tick).map_err(|error| EvidenceError::Tick { index, error })?;
        let signals = judge.standings().map(|standing| {
            let claim = SignalClaim {
                harm: standing.harm,
                harm_bound: standing.harm_bound,
                safe: standing.safe,
                verdict: standing.verdict,
                score: standing.score,
                canary: standing.rung[0],
                stable: standing.rung[1],
                burstiness: standing.burstiness,
            };
            (standing.name.to_owned(), claim)
        });
        let claim = Claim {
            call: verdict.call,
            share: verdict.share,
            cause: verdict.reason.cause(),
            reason: verdict.reason.to_string(),
            signals: signals.collect(),
        };
        points.push(Point { t: tick.t, share: tick.share, claim });
    }
    Ok(points)
}

fn chain(ticks: &[Tick]) -> Vec<String> {
    let mut link = String::new();
    ticks
        .iter()
        .map(|tick| {
            let mut hasher = Sha256::new_with_prefix(link.as_bytes());
            hasher.update(serde_json::to_vec(tick).unwrap_or_default());
            link = hex::encode(&hasher.finalize()[..4]);
            link.clone()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canary::Arms;

    fn evidence() -> Evidence {
        let subject = Subject {
            rollout: "summarize".into(),
            mesh: "default".into(),
            route: "MeshHTTPRoute demo/summarize".into(),
            stable: "summarize-v1".into(),
            canary: "summarize-v2".into(),
        };
        let ticks = (1..40).map(|minute| Tick {
            t: minute * 60,
            share: 5.0,
            signals: BTreeMap::from([(
                "errors".to_owned(),
                Arms {
                    canary: Some(Counts { n: 150.0, x: 1.0 }),
                    stable: Some(Counts { n: 2850.0, x: 14.0 + (minute % 3) as f64 }),
                },
            )]),
            replicas: None,
        });
        Evidence::new(subject, Policy::default(), ticks.collect()).unwrap()
    }

    #[test]
    fn verifies_after_a_round_trip_through_json() {
        let evidence = evidence();
        let text = serde_json::to_string(&evidence).unwrap();
        let back: Evidence = serde_json::from_str(&text).unwrap();
        assert_eq!(back, evidence);
        assert_eq!(back.verify().unwrap(), []);
        assert_eq!(serde_json::to_string(&back).unwrap(), text);
    }

    #[test]
    fn names_the_tick_whose_count_was_changed() {
        let mut evidence = evidence();
        let arms = evidence.ticks[17].signals.get_mut("errors").unwrap();
        arms.canary = Some(Counts { n: 150.0, x: 4.0 });
        let found = evidence.verify().unwrap();
        assert_eq!(found[0].field, "ticks[17] (t 1080)");
        assert!(found.iter().any(|difference| difference.field == "claim.signals.errors.harm"), "{found:?}");
        assert!(found.iter().any(|difference| difference.field == "digest"));
    }

    #[test]
    fn names_a_changed_claim_and_a_changed_policy() {
        let mut forged = evidence();
        forged.claim.call = Call::Rollback;
        assert_eq!(forged.verify().unwrap()[0].field, "claim.call");
        let mut forged = evidence();
        forged.policy.harm_ratio = 1.0;
        let fields: Vec<_> = forged.verify().unwrap().into_iter().map(|difference| difference.field).collect();
        assert!(fields.contains(&"digest".to_owned()), "{fields:?}");
    }

    #[test]
    fn counts_that_cannot_be_are_an_error_with_their_tick() {
        let mut broken = evidence();
        broken.ticks[3].signals.get_mut("errors").unwrap().canary = Some(Counts { n: 1.0, x: 2.0 });
        assert!(matches!(broken.verify(), Err(EvidenceError::Tick { index: 3, .. })));
    }
}
