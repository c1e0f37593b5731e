//! One line of OpenMetrics text: a series, its value, its time.

use super::file_error::{Wrong, excerpt};
use std::borrow::Cow;

const REPAIR: &str = "dump it again with `promtool tsdb dump-openmetrics`";
const NO_TIME: &str = "a scrape alone has no history; dump one with `promtool tsdb dump-openmetrics`";

/// A line that says something.
#[derive(Debug, PartialEq)]
pub(super) enum Line<'a> {
    /// `# EOF`: the text is complete.
    End,
    /// A value of a series.
    Sample(Sample<'a>),
}

#[derive(Debug, PartialEq)]
pub(super) struct Sample<'a> {
    /// The name without `_total`, which some exporters add and others leave out.
    pub(super) name: &'a str,
    /// Name and labels as written.
    pub(super) series: &'a str,
    /// What follows them.
    rest: &'a str,
}

/// Splits a line; `None` is one that says nothing (comments, types, blank lines).
pub(super) fn split(line: &str) -> Result<Option<Line<'_>>, Wrong> {
    let line = line.trim_end_matches(['\n', '\r']);
    if line == "# EOF" {
        return Ok(Some(Line::End));
    }
    // `{"a quoted name", …}` is how names beyond the classic alphabet are written; none of ours is.
    if line.is_empty() || line.starts_with(['#', '{']) {
        return Ok(None);
    }
    let name_end = line.find(['{', ' ']).ok_or_else(|| cannot(line, "there is no value"))?;
    let name = &line[..name_end];
    let valid = name.bytes().enumerate().all(|(at, byte)| {
        byte.is_ascii_alphabetic() || byte == b'_' || byte == b':' || (at > 0 && byte.is_ascii_digit())
    });
    if !valid || name.is_empty() {
        return Err(cannot(line, "the name of the metric is wrong"));
    }
    let labels = &line[name_end..];
    let end = if labels.starts_with('{') {
        closing_brace(labels).ok_or_else(|| cannot(line, "the labels do not end"))?
    } else {
        0
    };
    let (series, rest) = line.split_at(name_end + end);
    Ok(Some(Line::Sample(Sample { name: name.strip_suffix("_total").unwrap_or(name), series, rest })))
}

impl Sample<'_> {
    /// The value and the time in milliseconds since 1970.
    pub(super) fn measurement(&self) -> Result<(f64, i64), Wrong> {
        let mut words = self.rest.split(' ').filter(|word| !word.is_empty()).take_while(|word| !word.starts_with('#'));
        let value = words.next().ok_or_else(|| cannot(self.series, "there is no value"))?;
        let number: f64 = value.parse().map_err(|_| cannot(value, "the value is not a number"))?;
        let time = words.next().ok_or_else(|| Wrong::new("the line has no timestamp", NO_TIME))?;
        let seconds: f64 = time.parse().map_err(|_| cannot(time, "the timestamp is not a number"))?;
        if words.next().is_some() {
            return Err(cannot(self.rest, "there is something after the timestamp"));
        }
        const YEAR_5000: f64 = 95_617_584_000.0;
        if !(0.0..YEAR_5000).contains(&seconds) {
            let remedy = "timestamps are seconds since 1970, with a fraction";
            return Err(Wrong::new(format!("the timestamp `{}` is not a time in seconds", excerpt(time)), remedy));
        }
        Ok((number, (seconds * 1000.0).round() as i64))
    }
}

/// The labels of a series, sorted by name.
pub(super) fn labels(series: &str) -> Result<Vec<(&str, Cow<'_, str>)>, Wrong> {
    let Some(start) = series.find('{') else { return Ok(Vec::new()) };
    let wrong = |why| cannot(series, why);
    let mut rest = series[start + 1..].strip_suffix('}').ok_or_else(|| wrong("the labels do not end"))?;
    let mut labels = Vec::new();
    while !rest.trim_start_matches(' ').is_empty() {
        let (name, after) = rest.split_once("=\"").ok_or_else(|| wrong("a label has no value"))?;
        let name = name.trim_matches(' ');
        if name.is_empty() || name.contains(['"', ',', ' ']) {
            return Err(wrong("the name of a label is wrong"));
        }
        let end = closing_quote(after).ok_or_else(|| wrong("the value of a label does not end"))?;
        labels.push((name, unescape(&after[..end]).ok_or_else(|| wrong("a label holds an unknown escape"))?));
        rest = after[end + 1..].trim_start_matches(' ');
        rest = match rest.strip_prefix(',') {
            Some(rest) => rest,
            None if rest.is_empty() => rest,
            None => return Err(wrong("there is no comma between two labels")),
        };
    }
    labels.sort();
    if labels.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return Err(wrong("a label is there twice"));
    }
    Ok(labels)
}

fn cannot(text: &str, why: &str) -> Wrong {
    Wrong::new(format!("{why}: `{}`", excerpt(text)), REPAIR)
}

/// The length of `{…}`, whose quoted parts may hold braces.
fn closing_brace(labels: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in labels.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'}' if !quoted => return Some(at + 1),
            _ => {}
        }
    }
    None
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
}

fn unescape(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('\\') {
        return Some(Cow::Borrowed(text));
    }
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        plain.push(match character {
            '\\' => match characters.next()? {
                'n' => '\n',
                escaped @ ('\\' | '"') => escaped,
                _ => return None,
            },
            other => other,
        });
    }
    Some(Cow::Owned(plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(line: &str) -> Sample<'_> {
        match split(line).unwrap() {
            Some(Line::Sample(sample)) => sample,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn takes_a_line_apart() {
        let line = "a_total{z=\"}\",b=\"a\\\"\\\\\\n,\" , } 12.5 1795560680.317 # {trace=\"x\"} 1 2\n";
        let sample = sample(line);
        assert_eq!((sample.name, sample.measurement().unwrap()), ("a", (12.5, 1_795_560_680_317)));
        assert_eq!(labels(sample.series).unwrap(), [("b", "a\"\\\n,".into()), ("z", "}".into())]);
        assert!(labels("up").unwrap().is_empty());
        assert!(labels("up{}").unwrap().is_empty());
    }

    #[test]
    fn skips_what_says_nothing() {
        for line in ["", "\n", "# TYPE a counter\n", "# HELP a b\n", "{\"a.b\",c=\"d\"} 1 2\n"] {
            assert_eq!(split(line).unwrap(), None);
        }
        assert_eq!(split("# EOF\n").unwrap(), Some(Line::End));
    }

    #[test]
    fn names_what_is_wrong() {
        let wrong = |line: &str| match split(line) {
            Err(wrong) => wrong.what,
            Ok(Some(Line::Sample(sample))) => match labels(sample.series) {
                Err(wrong) => wrong.what,
                Ok(_) => sample.measurement().unwrap_err().what,
            },
            Ok(other) => panic!("{other:?}"),
        };
        assert_eq!(wrong("a"), "there is no value: `a`");
        assert_eq!(wrong("é 1 2"), "the name of the metric is wrong: `é 1 2`");
        assert_eq!(wrong("a{b=\"c} 1 2"), "the labels do not end: `a{b=\\\"c} 1 2`");
        assert_eq!(wrong("a{b} 1 2"), "a label has no value: `a{b}`");
        assert_eq!(
            wrong("a{b=\"1\" c=\"2\"} 1 2"),
            "there is no comma between two labels: `a{b=\\\"1\\\" c=\\\"2\\\"}`"
        );
        assert_eq!(wrong("a{b=\"1\",b=\"2\"} 1 2"), "a label is there twice: `a{b=\\\"1\\\",b=\\\"2\\\"}`");
        assert_eq!(wrong("a{b=\"\\x\"} 1 2"), "a label holds an unknown escape: `a{b=\\\"\\\\x\\\"}`");
        assert_eq!(wrong("a one 2"), "the value is not a number: `one`");
        assert_eq!(wrong("a 1"), "the line has no timestamp");
        assert_eq!(wrong("a 1 2 3"), "there is something after the timestamp: ` 1 2 3`");
        assert_eq!(wrong("a 1 1795560680317"), "the timestamp `1795560680317` is not a time in seconds");
        assert_eq!(wrong("a 1 -2"), "the timestamp `-2` is not a time in seconds");
        assert_eq!(wrong("a 1 NaN"), "the timestamp `NaN` is not a time in seconds");
    }

    proptest::proptest! {
        #[test]
        fn survives_any_line(line in "\\PC*") {
            if let Ok(Some(Line::Sample(sample))) = split(&line) {
                let _ = labels(sample.series);
                let _ = sample.measurement();
            }
        }

        #[test]
        fn survives_almost_lines(line in "[a{}=\",\\\\ 1.#n-]*") {
            if let Ok(Some(Line::Sample(sample))) = split(&line) {
                let _ = labels(sample.series);
                let _ = sample.measurement();
            }
        }
    }
}
