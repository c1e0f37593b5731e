//! What raising the weight will do to the load on each replica, and to errors with it.
//!
//! "Fine at 5 %" says little about 50 %: latency and errors follow the load per replica. On all ticks seen so far
//! `logit(bad rate) = a + d · [canary] + b · load` is fitted with `b ≥ 0`, and `d` shrunk to 0 (the stable arm, which
//! carries more load, shows how the service bends under it). Beyond 1.5 times the highest load seen nothing is claimed.

use super::tick::{Counts, Replicas};
use std::collections::{BTreeMap, VecDeque};

/// How far beyond what was seen a projection may reach.
const REACH: f64 = 1.5;
/// Load classes are 25 % wide.
const CLASS: f64 = 1.25;
/// Totals kept to know the usual peak.
const KEPT: usize = 60;
/// One-sided 95 %.
const Z: f64 = 1.645;

/// Load seen and what came of it, for one signal.
#[derive(Debug, Clone, Default)]
pub(super) struct Load {
    /// Class of load to load, canary, stable.
    seen: BTreeMap<i32, [Counts; 2]>,
    highest: f64,
    totals: VecDeque<f64>,
}

/// What a projection says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Projection {
    /// Inside what was seen, and the 95 % bound of the rate of bad requests is this.
    Bounded(f64),
    /// Too far beyond what was seen: this many canary replicas would bring it within reach.
    Beyond(f64),
}

const NOTHING: Counts = Counts { n: 0.0, x: 0.0 };

impl Load {
    pub(super) fn learn(&mut self, arms: [Counts; 2], replicas: Replicas) {
        for (arm, (counts, replicas)) in arms.into_iter().zip([replicas.canary, replicas.stable]).enumerate() {
            if counts.n <= 0.0 || replicas <= 0.0 {
                continue;
            }
            let load = counts.n / replicas;
            self.highest = self.highest.max(load);
            let class = (load.ln() / CLASS.ln()).floor() as i32;
            let seen = &mut self.seen.entry(class).or_insert([NOTHING; 2])[arm];
            *seen = Counts { n: seen.n + counts.n, x: seen.x + counts.x };
        }
        if self.totals.len() == KEPT {
            self.totals.pop_front();
        }
        self.totals.push_back(arms[0].n + arms[1].n);
    }

    /// The canary at `share` percent of the usual peak over its `replicas`.
    pub(super) fn project(&self, share: f64, replicas: f64) -> Projection {
        let mut totals: Vec<f64> = self.totals.iter().copied().collect();
        totals.sort_by(f64::total_cmp);
        let peak = totals.get((totals.len() * 95 / 100).min(totals.len().saturating_sub(1))).copied().unwrap_or(0.0);
        let demand = peak * share / 100.0;
        let load = demand / replicas;
        if load > REACH * self.highest {
            return Projection::Beyond((demand / (REACH * self.highest)).ceil());
        }
        Projection::Bounded(self.bound(load))
    }

    /// Upper 95 % bound of the canary's rate at `load`, by penalised logistic regression (Newton's method).
    fn bound(&self, load: f64) -> f64 {
        // Load is measured in units of the highest seen, so that one ridge fits all.
        let rows: Vec<([f64; 3], Counts)> = self
            .seen
            .iter()
            .flat_map(|(class, arms)| {
                let x = CLASS.powf(f64::from(*class) + 0.5) / self.highest;
                [([1.0, 1.0, x], arms[0]), ([1.0, 0.0, x], arms[1])]
            })
            .filter(|(_, counts)| counts.n > 0.0)
            .collect();
        let fit = |slope: bool| -> ([f64; 3], [[f64; 3]; 3]) {
            // Ridge: none to speak of on the base, 1 on the arm, and the slope pinned to 0 when it may not be used.
            let ridge = [1e-3, 1.0, if slope { 1e-2 } else { 1e9 }];
            let total = rows.iter().fold(NOTHING, |sum, (_, c)| Counts { n: sum.n + c.n, x: sum.x + c.x });
            let start = (total.x + 0.5) / (total.n + 1.0);
            let mut beta = [(start / (1.0 - start)).ln(), 0.0, 0.0];
            let mut hessian = [[0.0; 3]; 3];
            for _ in 0..12 {
                let mut gradient = [0.0; 3];
                hessian = [[0.0; 3]; 3];
                for i in 0..3 {
                    gradient[i] = if i == 0 { 0.0 } else { -ridge[i] * beta[i] };
                    hessian[i][i] = ridge[i];
                }
                for (row, counts) in &rows {
                    let eta: f64 = row.iter().zip(&beta).map(|(x, b)| x * b).sum();
                    let p = 1.0 / (1.0 + (-eta).exp());
                    for i in 0..3 {
                        gradient[i] += row[i] * (counts.x - counts.n * p);
                        for j in 0..3 {
                            hessian[i][j] += row[i] * row[j] * counts.n * p * (1.0 - p);
                        }
                    }
                }
                let step = solve(hessian, gradient);
                for (b, s) in beta.iter_mut().zip(step) {
                    *b += s.clamp(-2.0, 2.0);
                }
            }
            (beta, hessian)
        };
        let (mut beta, mut hessian) = fit(true);
        if beta[2] < 0.0 {
            (beta, hessian) = fit(false); // errors do not fall with load
        }
        let at = [1.0, 1.0, load / self.highest];
        let eta: f64 = at.iter().zip(&beta).map(|(x, b)| x * b).sum();
        let variance: f64 = solve(hessian, at).iter().zip(&at).map(|(s, x)| s * x).sum();
        1.0 / (1.0 + (-(eta + Z * variance.max(0.0).sqrt())).exp())
    }
}

/// Solves a symmetric positive 3×3 system by elimination.
fn solve(mut m: [[f64; 3]; 3], mut v: [f64; 3]) -> [f64; 3] {
    for i in 0..3 {
        for k in i + 1..3 {
            let (row, factor) = (m[i], m[k][i] / m[i][i]);
            for (below, above) in m[k].iter_mut().zip(row).skip(i) {
                *below -= factor * above;
            }
            v[k] -= factor * v[i];
        }
    }
    for i in (0..3).rev() {
        for j in i + 1..3 {
            v[i] -= m[i][j] * v[j];
        }
        v[i] /= m[i][i];
    }
    v
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(pairs: &[(f64, f64, f64)]) -> Load {
        let mut load = Load::default();
        for (stable_load, stable_rate, canary_rate) in pairs {
            let stable = Counts { n: stable_load * 10.0, x: stable_load * 10.0 * stable_rate };
            let canary = Counts { n: stable_load * 0.5, x: stable_load * 0.5 * canary_rate };
            load.learn([canary, stable], Replicas { canary: 1.0, stable: 10.0 });
        }
        load
    }

    #[test]
    fn claims_nothing_beyond_half_again_the_highest_load() {
        let load = seen(&[(300.0, 0.005, 0.005); 20]);
        // 3150 a tick, half of it on one replica: 1575 against 300 seen.
        assert_eq!(load.project(50.0, 1.0), Projection::Beyond(4.0));
        assert!(matches!(load.project(50.0, 4.0), Projection::Bounded(_)));
    }

    #[test]
    fn expects_more_errors_where_load_brought_more_errors() {
        let rising: Vec<_> =
            (1..40).map(|i| (f64::from(i) * 50.0, 0.001 * f64::from(i), 0.001 * f64::from(i))).collect();
        let load = seen(&rising);
        let at = |share| match load.project(share, 10.0) {
            Projection::Bounded(rate) => rate,
            Projection::Beyond(_) => panic!("within reach"),
        };
        assert!(at(90.0) > 2.0 * at(20.0), "{} {}", at(90.0), at(20.0));
        assert!(at(90.0) > 0.03, "{}", at(90.0));
    }

    #[test]
    fn a_canary_without_a_healthy_replica_carries_nothing() {
        let load = seen(&[(300.0, 0.005, 0.005); 20]);
        assert_eq!(load.project(50.0, 0.0), Projection::Beyond(4.0));
    }

    #[test]
    fn one_peak_among_an_hour_of_looks_is_not_the_usual_one() {
        let mut load = seen(&[(300.0, 0.005, 0.005); 59]);
        let peak = [Counts { n: 500.0, x: 2.0 }, Counts { n: 9500.0, x: 47.0 }];
        load.learn(peak, Replicas { canary: 1.0, stable: 10.0 });
        // 50 % of 3150 over 2 replicas: within reach of the 950 that the peak put on a stable replica.
        assert!(matches!(load.project(50.0, 2.0), Projection::Bounded(_)));
        for _ in 0..3 {
            load.learn(peak, Replicas { canary: 1.0, stable: 10.0 });
        }
        assert_eq!(load.project(50.0, 2.0), Projection::Beyond(4.0));
    }

    #[test]
    fn knows_nothing_of_load_where_replicas_are_unknown() {
        let mut load = Load::default();
        for _ in 0..20 {
            let arm = |n: f64| Counts { n, x: 0.005 * n };
            load.learn([arm(150.0), arm(2850.0)], Replicas { canary: 0.0, stable: 10.0 });
        }
        // Only the stable arm taught; the bound is wide, and there is one.
        assert!(matches!(load.project(5.0, 1.0), Projection::Bounded(rate) if rate > 0.005 && rate < 0.5));
    }

    #[test]
    fn does_not_expect_load_to_heal() {
        let falling: Vec<_> = (1..40).map(|i| (f64::from(i) * 50.0, 0.04 - 0.001 * f64::from(i), 0.01)).collect();
        let load = seen(&falling);
        assert!((load.bound(2000.0) - load.bound(50.0)).abs() < 1e-6);
    }
}
