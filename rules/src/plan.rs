//! From a verdict to writes: which share comes next, and which follow.
//!
//! A weight change between two backends that both keep weight costs no request; taking a backend's last weight costs
//! what was still going there for 50 to 100 ms. So the way to 100 % goes through 99, and only a rollback cuts off more.

/// The share next to the end, in percent.
const LAST_STOP: f64 = 99.0;

/// The canary's share after each write on the way from `from` to `to`, in percent; the last one is `to`.
///
/// No write moves more than `max_step` percentage points (the guards' cap, where there is one). A way down is one write:
/// the share it cuts off is the broken one, and guards never slow it.
pub fn writes(from: f64, to: f64, max_step: Option<f64>) -> Vec<f64> {
    if to <= from {
        return vec![to];
    }
    let mut stops = Vec::new();
    let mut at = from;
    if to >= 100.0 && from < LAST_STOP {
        climb(&mut at, LAST_STOP, max_step, &mut stops);
    }
    climb(&mut at, to, max_step, &mut stops);
    stops
}

/// Equal whole steps where they fit, so that weights stay readable. A share that is no whole number, such as the third
/// that 2:1 gives, is left behind with the first stop: weights cannot say it in percent.
fn climb(at: &mut f64, to: f64, max_step: Option<f64>, stops: &mut Vec<f64>) {
    let step = max_step.filter(|step| *step > 0.0).unwrap_or(100.0);
    // Shares are millionths of a percent at the finest.
    let (whole, grain) = if step >= 1.0 { (step.floor(), 1.0) } else { (step, 1e-6) };
    while to - *at > step + 1e-9 {
        *at = ((*at + whole) / grain + 1e-6).floor() * grain;
        stops.push(*at);
    }
    *at = to;
    stops.push(to);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn goes_to_100_through_99() {
        assert_eq!(writes(50.0, 100.0, None), [99.0, 100.0]);
        assert_eq!(writes(99.0, 100.0, None), [100.0]);
        assert_eq!(writes(98.0, 100.0, Some(10.0)), [99.0, 100.0]);
    }

    #[test]
    fn climbs_a_large_rung_in_several_writes() {
        assert_eq!(writes(25.0, 50.0, Some(10.0)), [35.0, 45.0, 50.0]);
        assert_eq!(writes(50.0, 100.0, Some(20.0)), [70.0, 90.0, 99.0, 100.0]);
        assert_eq!(writes(5.0, 10.0, Some(2.5)), [7.0, 9.0, 10.0]);
    }

    #[test]
    fn stops_at_whole_percentages_wherever_it_begins() {
        assert_eq!(writes(100.0 / 3.0, 50.0, Some(10.0)), [43.0, 50.0]);
        assert_eq!(writes(100.0 / 3.0, 35.0, Some(1.0)), [34.0, 35.0]);
    }

    #[test]
    fn rolls_back_in_one_write() {
        assert_eq!(writes(50.0, 0.0, Some(1.0)), [0.0]);
    }

    proptest! {
        #[test]
        fn never_steps_further_than_allowed_and_always_arrives(
            from in 0.0_f64..99.0, up in 0.1_f64..100.0, max in 0.5_f64..60.0,
        ) {
            let to = (from + up).min(100.0);
            let stops = writes(from, to, Some(max));
            let mut at = from;
            for stop in &stops {
                prop_assert!(*stop > at && stop - at <= max + 1e-6, "{:?}", stops);
                at = *stop;
            }
            prop_assert_eq!(at, to);
            prop_assert!(to < 100.0 || stops.len() < 2 || stops[stops.len() - 2] >= 99.0);
        }
    }
}
