//! `sluice judge --stream`: the bare decision engine, NDJSON in, NDJSON out.

use crate::metrics::recording::{Unique, excerpt_of};
use anyhow::{Context, bail};
use clap::Args;
use serde::Deserialize;
use sluice_rules::canary::{Arms, Judge, Policy, Replicas, SignalVerdict, Tick, Verdict};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::collections::HashMap;
use std::io::{self, BufRead, Read, Write};
use std::process::ExitCode;

/// Judge counts from standard input: one JSON line a tick in, one verdict a line out
#[derive(Debug, Args)]
#[command(after_long_help = "\
A line in:
  {\"run\":\"a\",\"t\":1732270000,\"share\":5,\"signals\":{\"errors\":{\"canary\":[150,1],\"stable\":[2850,14]}}}
A line out:
  {\"run\":\"a\",\"t\":1732270000,\"verdict\":\"hold\",\"share\":5.0,\"signals\":{\"errors\":{\"harm\":-0.1,\"safe\":0.7,\"verdict\":\"undecided\"}},\"reason\":\"dwell: 15m left on this rung\"}

  share     in: the canary's percentage in force; out: the one it should have next
  [n, x]    requests of the tick and bad ones among them; a missing arm is a gap, not a failure
  harm,safe natural logarithms of e-values
  policy    on the first line of a run, any of: ladder, dwell, alpha, beta, harmRatio, margins, ceilings, floor,
            holdBack, deadline, warmup, blindAfter, dispersion, signals; durations are seconds or \"15m\"
  replicas  optional: {\"canary\":2,\"stable\":8}, for the load projection before each raise

Runs may be interleaved. A line that cannot be judged gets {\"error\":…,\"line\":N} and changes nothing.
Output is flushed whenever input pauses. Exit codes: 0 input ended, 1 input or output failed.

Examples:
  sluice judge --stream < ticks.ndjson > verdicts.ndjson
  echo '{\"run\":\"a\",\"t\":0,\"share\":5,\"signals\":{},\"policy\":{\"dwell\":\"5m\"}}' | sluice judge --stream")]
pub struct JudgeArgs {
    /// Read ticks from standard input until it ends
    #[arg(long, required = true)]
    stream: bool,
}

/// Runs the command.
pub fn run(arguments: &JudgeArgs) -> anyhow::Result<ExitCode> {
    if !arguments.stream {
        bail!("only `judge --stream` is known");
    }
    stream(io::stdin().lock(), io::stdout().lock())?;
    Ok(ExitCode::SUCCESS)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow)]
    run: Cow<'a, str>,
    t: f64,
    share: f64,
    #[serde(default, deserialize_with = "unique")]
    signals: BTreeMap<String, Arms>,
    #[serde(default)]
    replicas: Option<Replicas>,
    #[serde(default)]
    policy: Option<Policy>,
}

/// A signal that is there twice leaves open which counts are meant.
fn unique<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Arms>, D::Error> {
    Ok(Unique::deserialize(deserializer)?.0)
}

/// Longer lines are refused, so that a broken producer cannot take all memory.
const LONGEST_LINE: u64 = 1 << 20;

/// Judges every line of `input` until it ends.
pub fn stream(input: impl Read, output: impl Write) -> anyhow::Result<()> {
    let mut input = io::BufReader::with_capacity(1 << 16, input);
    let mut output = io::BufWriter::with_capacity(1 << 16, output);
    let mut judges: HashMap<String, Judge> = HashMap::new();
    let mut line = Vec::new();
    for number in 1_u64.. {
        if !input.buffer().contains(&b'\n') {
            output.flush().context("cannot write verdicts")?; // input pauses here
        }
        line.clear();
        let read = input.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line).context("cannot read ticks")?;
        if read == 0 {
            break;
        }
        let judged = if read as u64 == LONGEST_LINE && !line.ends_with(b"\n") {
            input.skip_until(b'\n').context("cannot read ticks")?;
            Err(format!("the line is longer than {LONGEST_LINE} bytes"))
        } else if line.trim_ascii().is_empty() {
            continue;
        } else {
            judge_line(&mut judges, &line, &mut output)
        };
        if let Err(error) = judged {
            let error = serde_json::json!({ "error": error, "line": number });
            writeln!(output, "{error}").context("cannot write verdicts")?;
        }
    }
    output.flush().context("cannot write verdicts")
}

fn judge_line(judges: &mut HashMap<String, Judge>, line: &[u8], output: &mut impl Write) -> Result<(), String> {
    let line: Line<'_> = serde_json::from_slice(line.trim_ascii()).map_err(|error| excerpt_of(&error))?;
    if !line.t.is_finite() || line.t.abs() > 1e15 {
        return Err(format!("t: {:?} is no time in seconds", line.t));
    }
    let tick = Tick { t: line.t.floor() as i64, share: line.share, signals: line.signals, replicas: line.replicas };
    let verdict = match judges.get_mut(&*line.run) {
        Some(judge) => {
            if line.policy.is_some_and(|policy| policy != *judge.policy()) {
                return Err(format!("run {:?}: a policy can only be given on the first line of a run", line.run));
            }
            judge.observe(&tick)
        }
        None => {
            let mut judge = Judge::new(line.policy.unwrap_or_default()).map_err(|problems| {
                problems.iter().map(|problem| format!("policy {problem}")).collect::<Vec<_>>().join("; ")
            })?;
            let verdict = judge.observe(&tick);
            if verdict.is_ok() {
                judges.insert(line.run.to_string(), judge);
            }
            verdict
        }
    };
    let verdict = verdict.map_err(|error| format!("run {:?}: {error}", line.run))?;
    let judge = &judges[&*line.run];
    write_verdict(output, &line.run, line.t, judge, &verdict).map_err(|error| error.to_string())
}

fn write_verdict(
    output: &mut impl Write,
    run: &str,
    t: f64,
    judge: &Judge,
    verdict: &Verdict,
) -> Result<(), serde_json::Error> {
    /// Writes the part of a JSON text that needs no value.
    macro_rules! plain {
        ($($text:tt)*) => { write!(output, $($text)*).map_err(serde_json::Error::io)? };
    }
    plain!("{{\"run\":");
    serde_json::to_writer(&mut *output, run)?;
    if t.fract() == 0.0 {
        plain!(",\"t\":{}", t as i64);
    } else {
        plain!(",\"t\":{t}");
    }
    plain!(",\"verdict\":");
    serde_json::to_writer(&mut *output, &verdict.call)?;
    plain!(",\"share\":");
    serde_json::to_writer(&mut *output, &verdict.share)?;
    plain!(",\"signals\":{{");
    for (position, signal) in judge.standings().enumerate() {
        if position > 0 {
            plain!(",");
        }
        serde_json::to_writer(&mut *output, signal.name)?;
        let word = match signal.verdict {
            SignalVerdict::Harm => "harm",
            SignalVerdict::Safe => "safe",
            SignalVerdict::Undecided => "undecided",
        };
        plain!(":{{\"harm\":");
        serde_json::to_writer(&mut *output, &signal.harm)?;
        plain!(",\"safe\":");
        serde_json::to_writer(&mut *output, &signal.safe)?;
        plain!(",\"verdict\":\"{word}\"}}");
    }
    plain!("}},\"reason\":");
    serde_json::to_writer(&mut *output, &verdict.reason.to_string())?;
    plain!("}}\n");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn judge(input: &str) -> Vec<Value> {
        let mut output = Vec::new();
        stream(input.as_bytes(), &mut output).unwrap();
        output.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap()).collect()
    }

    fn line(run: &str, t: i64, share: f64, canary: [u32; 2], stable: [u32; 2]) -> String {
        format!(
            r#"{{"run":"{run}","t":{t},"share":{share},"signals":{{"errors":{{"canary":{canary:?},"stable":{stable:?}}}}}}}"#
        ) + "\n"
    }

    #[test]
    fn answers_each_line_and_goes_on_after_a_bad_one() {
        let input = line("a", 60, 5.0, [150, 1], [2850, 14])
            + "not json\n"
            + &line("a", 60, 5.0, [150, 1], [2850, 14])
            + &line("a", 120, 5.0, [1, 2], [3, 1])
            + &line("b", 120, 5.0, [150, 1], [2850, 14])
            + r#"{"run":"c","t":0,"share":5,"signals":{},"policy":{"alpha":7}}"#;
        let out = judge(&input);
        assert_eq!(out.len(), 6);
        assert_eq!(out[0]["verdict"], "hold");
        assert_eq!(out[0]["signals"]["errors"]["verdict"], "undecided");
        for (index, (number, word)) in
            [(2, "expected"), (3, "backwards"), (4, "more bad"), (6, "alpha")].iter().enumerate()
        {
            let error = &out[if index == 3 { 5 } else { index + 1 }];
            assert_eq!(error["line"], *number);
            assert!(error["error"].as_str().unwrap().contains(word), "{error}");
        }
        assert_eq!(out[4]["run"], "b");
    }

    #[test]
    fn climbs_the_ladder_and_repeats_the_end() {
        let (mut share, mut seen, mut input) = (5.0_f64, vec![5.0], String::new());
        for minute in 1..200_i64 {
            let canary = 30.0 * share;
            let events = |n: f64| (n * 0.005).round() as u32;
            input += &line(
                "a",
                minute * 60,
                share,
                [canary as u32, events(canary)],
                [3000 - canary as u32, events(3000.0 - canary)],
            );
            let last = judge(&input).pop().unwrap();
            let next = last["share"].as_f64().unwrap();
            if next > share {
                seen.push(next);
                share = next;
            }
            if share >= 100.0 {
                assert_eq!(last["verdict"], "promote");
                break;
            }
        }
        assert_eq!(seen, [5.0, 10.0, 25.0, 50.0, 100.0]);
        input += &line("a", 100_000, 100.0, [3000, 3000], [0, 0]);
        let last = judge(&input).pop().unwrap();
        assert_eq!((last["verdict"].as_str(), last["share"].as_f64()), (Some("promote"), Some(100.0)));
    }

    #[test]
    fn a_rollback_is_final() {
        let mut input: String = (1..30).map(|m| line("a", m * 60, 5.0, [150, 15], [2850, 14])).collect();
        input += &line("a", 100_000, 0.0, [0, 0], [3000, 15]);
        let out = judge(&input);
        let last = out.last().unwrap();
        assert_eq!((last["verdict"].as_str(), last["share"].as_f64()), (Some("rollback"), Some(0.0)));
    }
}
