//! Numbers and times as people read them.

use jiff::Timestamp;

/// A share: `5 %`, `12.5 %`.
pub fn share(percent: f64) -> String {
    format!("{} %", trimmed(format!("{percent:.2}")))
}

/// A rate of bad requests, with two digits that matter: `0.13 %`, `1.4 %`, `12 %`.
pub fn rate(part: f64) -> String {
    let percent = part * 100.0;
    if !percent.is_finite() {
        return "–".to_owned();
    }
    let text = match percent.abs() {
        p if p < 5e-7 => "0".to_owned(),
        p if p < 0.001 => format!("{percent:.5}"),
        p if p < 0.01 => format!("{percent:.4}"),
        p if p < 0.1 => format!("{percent:.3}"),
        p if p < 0.995 => format!("{percent:.2}"),
        p if p < 9.95 => format!("{percent:.1}"),
        _ => format!("{percent:.0}"),
    };
    format!("{} %", trimmed(text))
}

/// A ratio with up to two digits after the point: `3`, `1.25`.
pub fn ratio(number: f64) -> String {
    trimmed(format!("{number:.2}"))
}

/// A number with a comma after each thousand: `12,400`. Above ten it has no fraction.
pub fn count(number: f64) -> String {
    if !number.is_finite() {
        return "–".to_owned();
    }
    let text = if number.abs() < 9.95 { trimmed(format!("{number:.1}")) } else { format!("{number:.0}") };
    let (sign, digits) = text.strip_prefix('-').map_or(("", text.as_str()), |rest| ("-", rest));
    let (whole, fraction) = digits.split_once('.').map_or((digits, None), |(whole, part)| (whole, Some(part)));
    let mut out = String::from(sign);
    for (position, digit) in whole.chars().enumerate() {
        if position > 0 && (whole.len() - position).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    fraction.map_or(out.clone(), |part| format!("{out}.{part}"))
}

/// `ln E` as odds: `1,240 to 1`, `1 to 37`, `even`.
pub fn odds(log: f64) -> String {
    const MILLION: f64 = 13.815_510_557_964_274;
    if log.is_nan() {
        "–".to_owned()
    } else if log >= MILLION {
        "over 1,000,000 to 1".to_owned()
    } else if log <= -MILLION {
        "1 to over 1,000,000".to_owned()
    } else if log.abs() < 0.05 {
        "even".to_owned()
    } else if log > 0.0 {
        format!("{} to 1", count(log.exp()))
    } else {
        format!("1 to {}", count((-log).exp()))
    }
}

/// `ln E` inside a sentence: `1,240 times more likely if it is fine than if it is not`.
pub fn likelier(log: f64, claim: &str, opposite: &str) -> String {
    if log.is_nan() || log.abs() < 0.05 {
        return format!("about as likely if {claim} as if {opposite}");
    }
    let many = if log.abs() >= 13.8155 { "over 1,000,000".to_owned() } else { count(log.abs().exp()) };
    format!("{many} times {} likely if {claim} than if {opposite}", if log > 0.0 { "more" } else { "less" })
}

/// A moment: `2026-11-25 09:14 UTC`.
pub fn moment(t: i64) -> String {
    Timestamp::from_second(t).map_or_else(|_| format!("second {t}"), |t| t.strftime("%Y-%m-%d %H:%M UTC").to_string())
}

/// A length of time, roughly: `40 min`, `2 h 20 min`, `3 days`.
pub fn about(seconds: f64) -> String {
    if !seconds.is_finite() || seconds > 400.0 * 86_400.0 {
        return "more than a year".to_owned();
    }
    let minutes = (seconds / 60.0).ceil().max(1.0) as i64;
    match minutes {
        m if m < 90 => format!("{m} min"),
        m if m < 48 * 60 => {
            let rounded = (m + 2) / 5 * 5;
            match rounded % 60 {
                0 => format!("{} h", rounded / 60),
                rest => format!("{} h {rest} min", rounded / 60),
            }
        }
        m => format!("{} days", (m + 720) / 1440),
    }
}

fn trimmed(text: String) -> String {
    if !text.contains('.') {
        return text;
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_numbers_as_people_read_them() {
        assert_eq!([share(5.0), share(12.5), share(100.0 / 3.0)], ["5 %", "12.5 %", "33.33 %"]);
        assert_eq!(
            [rate(0.001_333), rate(0.014), rate(0.12), rate(0.0), rate(1.0)],
            ["0.13 %", "1.4 %", "12 %", "0 %", "100 %"]
        );
        assert_eq!(
            [count(12_400.0), count(999.0), count(2.25), count(1_000_000.0)],
            ["12,400", "999", "2.2", "1,000,000"]
        );
        assert_eq!(
            [odds(7.123), odds(-3.61), odds(0.0), odds(99.0)],
            ["1,240 to 1", "1 to 37", "even", "over 1,000,000 to 1"]
        );
        assert_eq!(likelier(7.123, "a", "b"), "1,240 times more likely if a than if b");
        assert_eq!(likelier(0.0, "a", "b"), "about as likely if a as if b");
        assert_eq!(moment(1_795_598_040), "2026-11-25 09:14 UTC");
        assert_eq!([about(61.0), about(8400.0), about(300_000.0)], ["2 min", "2 h 20 min", "3 days"]);
    }
}
