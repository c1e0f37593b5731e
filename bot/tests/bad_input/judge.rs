//! `sluice judge --stream`: a bad line gets an answer and changes nothing.

use crate::world::{SLUICE, cases, told};
use assert_cmd::Command;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

fn judge(input: &[u8]) -> Vec<Value> {
    let done = Command::new(SLUICE).args(["judge", "--stream"]).write_stdin(input).output().unwrap();
    assert_eq!((done.status.code(), String::from_utf8_lossy(&done.stderr).as_ref()), (Some(0), ""));
    let text = String::from_utf8(done.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn line(run: &str, t: i64) -> String {
    format!(r#"{{"run":"{run}","t":{t},"share":5,"signals":{{"errors":{{"canary":[150,1],"stable":[2850,14]}}}}}}"#)
        + "\n"
}

#[test]
fn a_bad_line_gets_an_error_with_its_number() {
    for (name, path) in cases("judge", "ndjson") {
        let out = judge(&fs::read(path).unwrap());
        let text: String = out.iter().map(|answer| format!("{answer}\n")).collect();
        told!("judge", name, text);
    }
}

#[test]
fn a_bad_line_changes_nothing_for_the_lines_after_it() {
    let good: Vec<String> = (1..40).map(|minute| line("a", minute * 60)).collect();
    let bad = fs::read_to_string(crate::world::testdata("judge/counts.ndjson")).unwrap();
    // Valid lines of that fixture would be ticks of their own.
    let bad: Vec<&str> =
        bad.lines().filter(|line| judge(format!("{line}\n").as_bytes())[0].get("error").is_some()).collect();
    let mixed: String = good
        .iter()
        .enumerate()
        .map(|(index, line)| {
            format!("{}\n{line}", bad[index % bad.len()].replace("\"t\":120", &format!("\"t\":{}", index * 60 + 30)))
        })
        .collect();
    let answers: Vec<Value> =
        judge(mixed.as_bytes()).into_iter().filter(|answer| answer.get("error").is_none()).collect();
    assert_eq!(answers, judge(good.concat().as_bytes()));
}

#[test]
fn no_length_and_no_bytes_take_it_down() {
    let long = format!(r#"{{"run":"{}","t":60}}"#, "x".repeat(2 << 20));
    let deep = "[".repeat(500_000);
    let mut input = Vec::new();
    for bad in [
        long.as_bytes(),
        deep.as_bytes(),
        b"\xff\xfe{}",
        b"{\"run\":\"\xc3\x28\",\"t\":1,\"share\":5}",
        b"\0\0\0",
        b"\"\\ud800\"",
    ] {
        input.extend_from_slice(bad);
        input.push(b'\n');
    }
    input.extend_from_slice(line("a", 60).as_bytes());
    // The last line lacks its end, and is cut short.
    input.extend_from_slice(br#"{"run":"a","t":120,"sha"#);
    let out = judge(&input);
    assert_eq!(out.len(), 8);
    assert_eq!(out[0]["error"], "the line is longer than 1048576 bytes");
    for (index, answer) in out.iter().enumerate() {
        if index == 6 {
            assert_eq!(answer["verdict"], "hold");
        } else {
            assert_eq!(answer["line"], index + 1, "{answer}");
            assert!(answer["error"].is_string(), "{answer}");
        }
    }
}

#[test]
fn every_answer_is_a_finite_number_whatever_the_counts() {
    let numbers =
        ["0", "-0.0", "5e-324", "1e-300", "0.5", "1", "1e9", "9007199254740993", "1e16", "1e100", "1e300", "1.7e308"];
    let mut input = String::new();
    let mut run = 0;
    for n in numbers {
        for x in numbers {
            run += 1;
            for t in 1..4 {
                input += &format!(
                    r#"{{"run":"{run}","t":{},"share":5,"signals":{{"errors":{{"canary":[{n},{x}],"stable":[{n},0]}},"slow":{{"canary":[{n},0],"stable":[1,1]}}}}}}"#,
                    t * 600
                );
                input.push('\n');
            }
        }
    }
    for answer in judge(input.as_bytes()) {
        if answer.get("error").is_some() {
            continue;
        }
        for (name, signal) in answer["signals"].as_object().unwrap() {
            assert!(signal["harm"].is_number() && signal["safe"].is_number(), "{name}: {answer}");
        }
    }
}

#[test]
fn a_reader_that_goes_away_ends_it_without_a_panic() {
    let mut child = std::process::Command::new(SLUICE)
        .args(["judge", "--stream"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    input.write_all(line("a", 60).as_bytes()).unwrap();
    let mut reader = BufReader::new(output);
    let mut first = String::new();
    // The answer comes while the input is still open.
    reader.read_line(&mut first).unwrap();
    assert!(first.contains("\"verdict\":\"hold\""), "{first}");
    drop(reader);
    for minute in 2..100_000 {
        if input.write_all(line("a", minute * 60).as_bytes()).is_err() {
            break;
        }
    }
    drop(input);
    let status = child.wait().unwrap();
    let mut told = String::new();
    child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert_eq!(status.code(), Some(1), "{told}");
    assert!(told.starts_with("error: cannot write verdicts: Broken pipe") && !told.contains("panicked"), "{told}");
}
