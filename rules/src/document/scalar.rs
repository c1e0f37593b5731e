//! What a scalar means: YAML 1.2's reading, and where YAML 1.1 differs.

use serde_json::{Number, Value};

/// How a scalar is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Quoted,
    Block,
}

/// Null, boolean or number by YAML 1.2's core schema; `Ok(None)` for text.
///
/// # Errors
///
/// A number that JSON cannot carry.
pub(super) fn resolve(text: &str) -> Result<Option<Value>, &'static str> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Some(Value::Null)),
        "true" | "True" | "TRUE" => return Ok(Some(Value::Bool(true))),
        "false" | "False" | "FALSE" => return Ok(Some(Value::Bool(false))),
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return Ok(None);
    }
    // The numbers of `serde_yaml`, so that there is one definition of them.
    let Ok(number) = text.parse::<serde_yaml::Number>() else {
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let (digits, radix) = match unsigned.get(..2) {
            Some("0x") => (&unsigned[2..], 16),
            Some("0o") => (&unsigned[2..], 8),
            Some("0b") => (&unsigned[2..], 2),
            _ => (unsigned, 10),
        };
        let is_integer = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
        // A leading zero makes it text; anything else is an integer that `serde_yaml` had no type for.
        let is_text = !is_integer || (radix == 10 && unsigned.starts_with('0'));
        return if is_text { Ok(None) } else { Err("the number needs more than 64 bits") };
    };
    let number = if let Some(number) = number.as_u64() {
        Number::from(number)
    } else if let Some(number) = number.as_i64() {
        Number::from(number)
    } else {
        let float = number.as_f64().and_then(Number::from_f64);
        float.ok_or("infinity and not-a-number have no place in a policy")?
    };
    Ok(Some(Value::Number(number)))
}

/// How YAML 1.1 reads a plain scalar, how YAML 1.2 reads it, and what to write instead.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ambiguity {
    pub(super) older: &'static str,
    pub(super) newer: &'static str,
    pub(super) remedy: &'static str,
}

/// Says whether YAML 1.1 and YAML 1.2 read a plain scalar differently.
pub(super) fn ambiguity(text: &str) -> Option<Ambiguity> {
    const BOOLEAN: &str = "quote it if it is text, else write `true` or `false`";
    const NUMBER: &str = "quote it if it is text, else write the number in decimal digits";
    let found = |older, newer, remedy| Some(Ambiguity { older, newer, remedy });
    match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => return found("true", "text", BOOLEAN),
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => return found("false", "text", BOOLEAN),
        "=" => return found("a default value", "text", "quote it"),
        _ => {}
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let signed = unsigned.len() < text.len();
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let without: String = unsigned.chars().filter(|c| *c != '_').collect();
    let underscores = without.len() < unsigned.len();
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());

    if let Some(rest) = without.strip_prefix("0x") {
        let hexadecimal = !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_hexdigit());
        return if hexadecimal && underscores { found("a number", "text", NUMBER) } else { None };
    }
    if let Some(rest) = without.strip_prefix("0b") {
        let binary = !rest.is_empty() && rest.bytes().all(|b| matches!(b, b'0' | b'1'));
        // YAML 1.2 has no binary numbers, yet many of its readers do.
        return if binary { found("a binary number", "text or a number", NUMBER) } else { None };
    }
    if let Some(rest) = without.strip_prefix("0o") {
        let octal = !rest.is_empty() && rest.bytes().all(|b| matches!(b, b'0'..=b'7'));
        return if octal { found("text", "an octal number", NUMBER) } else { None };
    }
    if digits(&without) && without.len() > 1 && without.starts_with('0') {
        let octal = without.bytes().all(|b| matches!(b, b'0'..=b'7'));
        return found(if octal { "an octal number" } else { "text" }, "a decimal number or text", NUMBER);
    }
    if is_sexagesimal(&without) {
        return found("a number to the base 60", "text", NUMBER);
    }
    if !signed && is_date(text) {
        return found("a point in time", "text", "quote it");
    }
    let decimal = without.strip_suffix(|c: char| c.is_ascii_digit()).is_some() || without.ends_with('.');
    if !decimal || without.parse::<f64>().is_err() {
        return None;
    }
    if underscores {
        return found("a number", "text", NUMBER);
    }
    let exponent = without.find(['e', 'E'])?;
    let older = without[..exponent].contains('.') && without[exponent + 1..].starts_with(['+', '-']);
    if older { None } else { found("text", "a number", NUMBER) }
}

/// `1:20`, `20:30.15`.
fn is_sexagesimal(unsigned: &str) -> bool {
    let mut parts = unsigned.split(':');
    let Some(first) = parts.next() else { return false };
    let mut rest = parts.peekable();
    if first.is_empty() || first.bytes().any(|b| !b.is_ascii_digit()) || rest.peek().is_none() {
        return false;
    }
    while let Some(part) = rest.next() {
        let whole = match part.split_once('.') {
            Some((whole, fraction)) if rest.peek().is_none() && fraction.bytes().all(|b| b.is_ascii_digit()) => whole,
            _ => part,
        };
        let in_range = whole.len() <= 2 && whole.parse::<u8>().is_ok_and(|number| number < 60);
        if !in_range || whole.starts_with('+') {
            return false;
        }
    }
    true
}

/// `2026-11-25`, alone or with a time behind it.
fn is_date(text: &str) -> bool {
    let date = text.split(['T', 't', ' ', '\t']).next().unwrap_or(text);
    let parts: Vec<&str> = date.split('-').collect();
    let [year, month, day] = parts[..] else { return false };
    let number = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    year.len() == 4 && [month, day].iter().all(|part| matches!(part.len(), 1 | 2)) && parts.iter().all(|p| number(p))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_yaml_1_1_reads_differently() {
        for text in [
            "on",
            "Off",
            "yes",
            "NO",
            "y",
            "N",
            "0777",
            "-017",
            "08",
            "1_000",
            "0x_ff",
            "0b101",
            "0o17",
            "1:20",
            "190:20:30",
            "20:30.15",
            "1_0.5",
            "1e3",
            "1.5e3",
            "2026-11-25",
            "2026-11-25T10:00:00Z",
            "2026-1-5",
            "=",
        ] {
            assert!(ambiguity(text).is_some(), "{text}");
        }
    }

    #[test]
    fn stays_quiet_about_what_both_read_alike() {
        for text in [
            "",
            "~",
            "true",
            "False",
            "null",
            "0",
            "20",
            "-5",
            "+7",
            "1.5",
            ".5",
            "5.",
            "1.5e+3",
            "0x1F",
            "10s",
            "1h30m",
            "backend",
            "v1",
            "1.2.3",
            "10.0.0.1",
            "::1",
            "kuma.io/service",
            "1:99",
            "12:",
            ":20",
            "a_b",
            "_",
            "1__a",
            "2026-11",
            "2026-111-1",
            "none",
            "only",
            "-",
            ".",
            "..",
            "+",
            "1/2",
            "5%",
            "08:00-09:00",
        ] {
            assert_eq!(ambiguity(text), None, "{text}");
        }
    }
}
