//! `sluice validate`: would Kuma take these documents, and what do the health rules say?

use super::{Format, say};
use anyhow::Context;
use clap::Args;
use serde::Serialize;
use serde_json::Value;
use sluice_rules::document::{Document, File, MAX_SIZE, Problem};
use sluice_rules::health::{self, Finding, Health, Known, Severity};
use sluice_rules::proposal::body::escape::visible;
use sluice_rules::render::{Message, Style, render};
use sluice_rules::validate::{Kuma, Stage, Verdict, Version, Violation, verdict};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Say what Kuma would refuse in policies, and what the health rules find in them
#[derive(Debug, Args)]
#[command(after_long_help = "\
Both object forms are read, Kubernetes (apiVersion, kind, metadata) and Universal (type, name).
In a folder every *.yaml, *.yml and *.json is read, in its folders too, but not in hidden ones.
Documents that are not Kuma's are skipped and counted. All documents that are given know each
other: a port that a service beside the route does not have is found; a service that is nowhere
among them may well exist.

Exit codes: 0 nothing is refused, 1 something is, 2 cannot run (a path that is not there).
What is refused is what Kuma itself would refuse, and text that cannot be read as YAML. Findings
of health rules, however grave, do not change the exit code; --format json has them and the score.

JSON, one object per document; `document` counts from 0 in its file, `stage` is the step that
refuses (schema, decode, validator, meta, mutating, webhook, create) or empty, `score` is null
when no rule applies:
  [{\"file\":…,\"document\":0,\"kind\":…,\"name\":…,\"valid\":true,\"stage\":\"\",
    \"violations\":[{\"field\":…,\"message\":…}],
    \"findings\":[{\"id\":…,\"severity\":…,\"field\":…,\"message\":…}],\"score\":100}]

Examples:
  sluice validate policies/
  sluice validate --kuma 3.0 route.yaml services.yaml
  kubectl get meshhttproute chat -n demo -o yaml | sluice validate -
  sluice validate --format json policies/ | jq '.[] | select(.score != null and .score < 70)'
  sluice explain KMH-T05")]
pub struct ValidateArgs {
    /// Files and folders; - is standard input
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The generation of Kuma that is asked
    #[arg(long, value_enum, default_value_t = Generation::V2_14)]
    kuma: Generation,
    /// The zone whose control plane is asked
    #[arg(long, value_name = "NAME", default_value = "zone-1")]
    zone: String,
    /// For whom the answer is
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// A generation of Kuma, as people write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Generation {
    #[value(name = "2.14")]
    V2_14,
    #[value(name = "3.0")]
    V3_0,
}

/// Cannot run: nothing was checked.
const CANNOT_RUN: u8 = 2;

/// Runs the command.
pub fn run(arguments: &ValidateArgs) -> anyhow::Result<ExitCode> {
    let version = match arguments.kuma {
        Generation::V2_14 => Version::V2_14,
        Generation::V3_0 => Version::V3_0,
    };
    let kuma = Kuma { version, zone: arguments.zone.clone(), ..Kuma::default() };
    let texts = match read(&arguments.paths) {
        Ok(texts) => texts,
        Err(problems) => {
            problems.iter().for_each(|problem| say(&format!("error: {problem}")));
            return Ok(ExitCode::from(CANNOT_RUN));
        }
    };
    let answers = examine(&texts, &kuma);
    let written = match arguments.format {
        Format::Json => write_json(&answers),
        Format::Text => write_text(&answers, &kuma),
    };
    match written {
        // Whoever closed the pipe has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        written => written.context("cannot write the answer")?,
    }
    let refused = answers.documents.iter().any(|document| !document.is_valid());
    Ok(if refused { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// A file as it was read, by the name it was given.
struct Text {
    path: String,
    bytes: Vec<u8>,
}

/// Reads everything before anything is answered, so that a missing file does not leave half an answer.
fn read(paths: &[PathBuf]) -> Result<Vec<Text>, Vec<String>> {
    let (mut texts, mut problems) = (Vec::new(), Vec::new());
    for path in paths {
        let found = if path.as_os_str() == "-" {
            bounded(io::stdin().lock()).map(|bytes| texts.push(Text { path: "-".to_owned(), bytes }))
        } else if path.is_dir() {
            let mut files = Vec::new();
            in_folder(path, &mut files).map(|()| {
                files.sort();
                for file in files {
                    match fs::File::open(&file).and_then(bounded) {
                        Ok(bytes) => texts.push(Text { path: file.display().to_string(), bytes }),
                        Err(error) => problems.push(format!("cannot read `{}`: {error}", file.display())),
                    }
                }
            })
        } else {
            fs::File::open(path)
                .and_then(bounded)
                .map(|bytes| texts.push(Text { path: path.display().to_string(), bytes }))
        };
        if let Err(error) = found {
            problems.push(format!("cannot read `{}`: {error}", path.display()));
        }
    }
    if problems.is_empty() { Ok(texts) } else { Err(problems) }
}

/// One byte more than a file may have is enough to say that it is too large.
fn bounded(reader: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(MAX_SIZE as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The files of a folder and its folders. Links to folders are not followed, they may lead in a circle.
fn in_folder(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if entry.file_type()?.is_dir() {
            in_folder(&path, files)?;
        } else if path.is_file()
            && path.extension().is_some_and(|end| ["yaml", "yml", "json"].iter().any(|e| end == *e))
        {
            files.push(path);
        }
    }
    Ok(())
}

/// What there is to say.
struct Answers {
    files: Vec<File>,
    documents: Vec<Answer>,
    /// Documents that are not Kuma's.
    skipped: usize,
    /// Lists, by file: what is in them is not looked at.
    lists: Vec<String>,
}

/// What there is to say about one document, or about a text that holds none.
enum Answer {
    Examined { file: usize, index: usize, kind: String, name: String, verdict: Verdict, health: Health },
    Unreadable(String, Vec<Problem>),
}

impl Answer {
    fn is_valid(&self) -> bool {
        matches!(self, Self::Examined { verdict, .. } if verdict.stage.is_none())
    }
}

fn examine(texts: &[Text], kuma: &Kuma) -> Answers {
    let mut answers = Answers { files: Vec::new(), documents: Vec::new(), skipped: 0, lists: Vec::new() };
    let mut known = Known::default();
    let mut read = Vec::new();
    for text in texts {
        match File::parse(&text.path, &text.bytes) {
            Ok(file) => {
                file.documents().iter().for_each(|document| known.insert(document.value()));
                read.push(Ok(answers.files.len()));
                answers.files.push(file);
            }
            Err(problems) => read.push(Err((text.path.clone(), problems))),
        }
    }
    for file in read {
        let file = match file {
            Ok(file) => file,
            Err((path, problems)) => {
                answers.documents.push(Answer::Unreadable(path, problems));
                continue;
            }
        };
        for document in answers.files[file].documents() {
            let value = document.value();
            if !is_kumas(value) {
                answers.skipped += 1;
                if value.get("kind").is_some_and(|kind| kind == "List") {
                    answers.lists.push(answers.files[file].path().to_owned());
                }
                continue;
            }
            answers.documents.push(one(file, document, &known, kuma));
        }
    }
    answers
}

fn one(file: usize, document: &Document, known: &Known, kuma: &Kuma) -> Answer {
    let value = document.value();
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let kubernetes = value.get("apiVersion").is_some() || value.get("metadata").is_some();
    let (kind, name) = match kubernetes {
        true => (value.get("kind"), value.get("metadata").and_then(|metadata| metadata.get("name"))),
        false => (value.get("type").or(value.get("kind")), value.get("name")),
    };
    Answer::Examined {
        file,
        index: document.index(),
        kind: text(kind),
        name: text(name),
        verdict: verdict(value, kuma),
        health: health::examine(value, known, kuma).health(None),
    }
}

/// Is it an object of Kuma? In Universal form kinds begin with a capital: `type: module` is something else.
fn is_kumas(value: &Value) -> bool {
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
    match (text("apiVersion"), text("type"), text("kind")) {
        ("", "", kind) => health::RULES.iter().any(|rule| rule.kinds.contains(&kind)),
        ("", kind, _) => kind.starts_with(|c: char| c.is_ascii_uppercase()),
        (api, ..) => api.starts_with("kuma.io/"),
    }
}

fn stage_word(stage: Option<Stage>) -> &'static str {
    match stage {
        None => "",
        Some(Stage::Schema) => "schema",
        Some(Stage::Decode) => "decode",
        Some(Stage::Validator) => "validator",
        Some(Stage::Meta) => "meta",
        Some(Stage::Mutating) => "mutating",
        Some(Stage::Webhook) => "webhook",
        Some(Stage::Create) => "create",
    }
}

#[derive(Serialize)]
struct Row<'a> {
    file: &'a str,
    document: usize,
    kind: &'a str,
    name: &'a str,
    valid: bool,
    stage: &'static str,
    violations: Vec<Violation>,
    findings: Vec<Brief<'a>>,
    score: Option<u8>,
}

#[derive(Serialize)]
struct Brief<'a> {
    id: &'a str,
    severity: Severity,
    field: String,
    message: &'a str,
}

fn write_json(answers: &Answers) -> io::Result<()> {
    let rows: Vec<_> = answers
        .documents
        .iter()
        .map(|answer| match answer {
            Answer::Examined { file, index, kind, name, verdict, health } => Row {
                file: answers.files[*file].path(),
                document: *index,
                kind,
                name,
                valid: answer.is_valid(),
                stage: stage_word(verdict.stage),
                violations: verdict.violations.clone(),
                findings: health.findings.iter().map(brief).collect(),
                score: health.score,
            },
            // A text that is no YAML has no documents: it stands as one that cannot be decoded.
            Answer::Unreadable(path, problems) => Row {
                file: path,
                document: 0,
                kind: "",
                name: "",
                valid: false,
                stage: stage_word(Some(Stage::Decode)),
                violations: problems.iter().map(as_violation).collect(),
                findings: Vec::new(),
                score: None,
            },
        })
        .collect();
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, &rows)?;
    writeln!(out)
}

fn brief(finding: &Finding) -> Brief<'_> {
    Brief { id: finding.id, severity: finding.severity, field: finding.field.to_string(), message: &finding.message }
}

fn as_violation(problem: &Problem) -> Violation {
    let help = problem.help.as_ref().map_or_else(String::new, |help| format!("; {help}"));
    let message = format!("{}:{}: {}{help}", problem.line, problem.column, problem.message);
    Violation { field: String::new(), message }
}

fn write_text(answers: &Answers, kuma: &Kuma) -> io::Result<()> {
    let style = if io::stdout().is_terminal() { Style::Terminal } else { Style::Plain };
    let mut out = io::stdout().lock();
    let mut found: BTreeMap<Severity, usize> = BTreeMap::new();
    for answer in &answers.documents {
        match answer {
            Answer::Unreadable(_, problems) => {
                for problem in problems {
                    write_problem(&mut out, "error", problem)?;
                }
            }
            Answer::Examined { file, index, verdict, health, .. } => {
                let file = &answers.files[*file];
                for problem in file.documents().get(*index).into_iter().flat_map(Document::warnings) {
                    write_problem(&mut out, "warning", problem)?;
                }
                for violation in &verdict.violations {
                    let message = Message::of_violation(stage_word(verdict.stage), violation);
                    write!(out, "{}", render(file, *index, &message, style))?;
                }
                for finding in &health.findings {
                    *found.entry(finding.severity).or_default() += 1;
                    write!(out, "{}", render(file, *index, &Message::of_finding(finding), style))?;
                }
            }
        }
    }
    for list in &answers.lists {
        writeln!(out, "note: {} holds a List, which is skipped: write its items as documents", visible(list))?;
    }
    writeln!(out, "{}", summary(answers, kuma, &found))
}

/// A mistake in the text of a file, in the form of the other messages.
fn write_problem(out: &mut impl Write, level: &str, problem: &Problem) -> io::Result<()> {
    let title = if level == "error" { "this cannot be read" } else { "readers of YAML disagree about this" };
    writeln!(out, "{level}[yaml]: {title}")?;
    writeln!(out, " --> {}:{}:{}", visible(&problem.path), problem.line, problem.column)?;
    writeln!(out, "  = {}", visible(&problem.message))?;
    problem.help.iter().try_for_each(|help| writeln!(out, "  = help: {}", visible(help)))
}

fn summary(answers: &Answers, kuma: &Kuma, found: &BTreeMap<Severity, usize>) -> String {
    let version = match kuma.version {
        Version::V2_14 => "2.14",
        Version::V3_0 => "3.0",
    };
    let count = |count: usize, one: &str| if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") };
    let unreadable = answers.documents.iter().filter(|answer| matches!(answer, Answer::Unreadable(..))).count();
    let examined = answers.documents.len() - unreadable;
    let refused = answers.documents.iter().filter(|answer| !answer.is_valid()).count() - unreadable;
    let mut parts = vec![format!("{}: {refused} refused by Kuma {version}", count(examined, "document"))];
    if unreadable > 0 {
        parts.push(format!("{} unreadable", count(unreadable, "file")));
    }
    let grades: Vec<_> = found.iter().rev().map(|(severity, count)| format!("{count} {}", severity.as_str())).collect();
    let findings = count(found.values().sum(), "finding");
    parts.push(if grades.is_empty() { findings } else { format!("{findings} ({})", grades.join(", ")) });
    let scores = answers.documents.iter().filter_map(|answer| match answer {
        Answer::Examined { health, .. } => health.score,
        Answer::Unreadable(..) => None,
    });
    parts.extend(scores.min().map(|score| format!("lowest score {score}")));
    if answers.skipped > 0 {
        parts.push(format!("{} skipped: not Kuma's", count(answers.skipped, "document")));
    }
    parts.join(", ")
}
