//! What the bot would have done, beside what happened: the way to learn to trust it, or not to.

use crate::canary::{Call, Cause};
use crate::evidence::Point;
use crate::words::{about, moment, share};

/// One sentence for each move that the bot would have made, and for each that people made without it.
///
/// `points` are the judge's states of one run in order of time, with the weights that people really set.
pub fn compare(points: &[Point]) -> Vec<String> {
    let mut told = Vec::new();
    let mut rest = points;
    while let Some(first) = rest.first() {
        let end = rest.iter().position(|point| !same(point.share, first.share)).unwrap_or(rest.len());
        let (stay, later) = rest.split_at(end);
        told.extend(one_stay(stay, later.first()));
        rest = later;
    }
    told
}

/// One stay at a share, and the change that ended it.
fn one_stay(stay: &[Point], next: Option<&Point>) -> Vec<String> {
    let mut told = Vec::new();
    let share_then = stay[0].share;
    let back = stay.iter().find(|point| point.claim.cause == Cause::Harm);
    let up = stay.iter().find(|point| point.claim.call == Call::Promote && point.claim.cause != Cause::Finished);
    if let Some(point) = back {
        let did = match next {
            Some(next) if next.share < share_then => {
                format!("people took it to {} {} later", share(next.share), about((next.t - point.t) as f64))
            }
            Some(next) => {
                format!("people raised it to {} {} later", share(next.share), about((next.t - point.t) as f64))
            }
            None => format!("it still has {}", share(share_then)),
        };
        told.push(format!("{}: would have rolled back from {}; {did}", moment(point.t), share(share_then)));
        return told;
    }
    if let Some(point) = up {
        let did = match next {
            Some(next) => format!("people set {} {} later", share(next.share), about((next.t - point.t) as f64)),
            None => format!("it still has {}", share(share_then)),
        };
        let to = share(point.claim.share);
        told.push(format!("{}: would have gone from {} to {to}; {did}", moment(point.t), share(share_then)));
    } else if let Some(next) = next {
        let reason = stay.last().map_or("", |point| point.claim.reason.as_str());
        let (from, to) = (share(share_then), share(next.share));
        told.push(format!("{}: people went from {from} to {to}; would have stayed ({reason})", moment(next.t)));
    }
    told
}

fn same(one: f64, other: f64) -> bool {
    (one - other).abs() < 1e-9
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canary::{Arms, Counts, Policy, Tick};
    use std::collections::BTreeMap;

    /// Minutes at a share with this many bad requests of the canary in a thousand; the stable arm has 5.
    fn compared(stays: &[(i64, f64, f64)]) -> Vec<String> {
        let mut ticks = Vec::new();
        for (minutes, share, bad) in stays {
            for _ in 0..*minutes {
                let t = 60 * (ticks.len() as i64 + 1);
                let arm = |n: f64, bad: f64| Some(Counts { n, x: (n * bad / 1000.0).round() });
                let arms = Arms { canary: arm(30.0 * share, *bad), stable: arm(3000.0 - 30.0 * share, 5.0) };
                let signals = BTreeMap::from([("errors".to_owned(), arms)]);
                ticks.push(Tick { t, share: *share, signals, replicas: None });
            }
        }
        compare(&crate::evidence::replay(&Policy::default(), &ticks).unwrap())
    }

    #[test]
    fn tells_who_was_first() {
        let told = compared(&[(30, 10.0, 5.0), (5, 25.0, 5.0), (10, 50.0, 5.0)]);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains("would have gone from 10 % to 25 %; people set 25 % 15 min later"), "{told:?}");
        assert!(told[1].contains("people went from 25 % to 50 %; would have stayed (dwell"), "{told:?}");
    }

    #[test]
    fn tells_a_harm_that_people_left_and_one_that_they_found_later() {
        let left = compared(&[(30, 10.0, 40.0)]);
        assert!(left[0].contains("would have rolled back from 10 %; it still has 10 %"), "{left:?}");
        let found = compared(&[(30, 10.0, 40.0), (5, 0.0, 0.0)]);
        assert!(found[0].contains("people took it to 0 %"), "{found:?}");
    }
}
