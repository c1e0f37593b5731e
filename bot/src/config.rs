//! `sluice.yaml`: what is on trial, and how far automation may go.
//!
//! The file is walked by hand, so that every mistake in it is reported at once, each with its place. What comes out
//! has no impossible states left: percentages are fractions, ladders rise, an objective has one aim.

mod read;
mod yaml;

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

use crate::forge::Bot;

/// A configuration is never larger than this.
pub const SIZE_LIMIT: usize = 1 << 20;

/// How many mistakes are shown; the rest is counted.
const SHOWN: usize = 100;

/// The configuration of Sluice, `sluice.yaml` in the policy repository.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// The mesh whose traffic is moved.
    pub mesh: String,
    /// The Kuma generation to write policies for; left out: detected from the cluster's CRDs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kuma: Option<Kuma>,
    /// Where measurements come from.
    pub metrics: Metrics,
    /// Where pull requests live.
    pub forge: Forge,
    /// The folder or file with ShiftGuard documents, from the repository's root.
    #[schemars(default = "default_guards")]
    pub guards: String,
    /// The branch that GitOps applies.
    #[schemars(default = "default_branch")]
    pub branch: String,
    /// Who signs commits.
    #[schemars(default)]
    pub bot: BotIdentity,
    /// What is on trial.
    pub rollouts: Vec<Rollout>,
    /// The folder of the file this was read from; relative paths start there.
    #[serde(skip)]
    folder: PathBuf,
}

/// A generation of Kuma.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub enum Kuma {
    /// The last one with legacy policies.
    #[serde(rename = "2.14")]
    V2_14,
    /// Legacy policies and `from` are gone.
    #[serde(rename = "3.0")]
    V3_0,
}

/// Where measurements come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Metrics {
    /// A server that speaks Prometheus' API.
    Prometheus {
        /// Its base URL.
        url: String,
    },
    /// Recorded counts.
    Recording {
        /// The recording, from the configuration's folder.
        path: String,
    },
}

/// Where pull requests live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Forge {
    /// GitHub.
    Github {
        /// `owner/name`.
        repository: String,
    },
    /// A bare repository that keeps its pull requests itself.
    Local {
        /// The repository, from the configuration's folder.
        path: String,
    },
}

/// Who signs commits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BotIdentity {
    /// Tells bots apart that work in one repository.
    #[schemars(default = "default_bot")]
    pub id: String,
    /// The name commits carry.
    #[schemars(default = "default_bot")]
    pub name: String,
    /// The address beside it.
    #[schemars(default = "default_email")]
    pub email: String,
}

/// A canary on trial.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rollout {
    /// What people call it; unique in the file.
    pub name: String,
    /// The route whose weights move.
    pub route: Route,
    /// The backend that served before.
    pub stable: String,
    /// The backend on trial.
    pub canary: String,
    /// How large the change is; a major one asks a person for each promotion.
    pub change: Change,
    /// How far automation goes.
    pub phase: Phase,
    /// What the canary is judged by.
    pub objectives: Objectives,
    /// How strictly it is judged, where that differs from the defaults.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub judge: Option<Judge>,
}

/// A route, found in the repository by identity.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Route {
    /// Its kind.
    pub kind: RouteKind,
    /// Its name.
    pub name: String,
    /// Its namespace, for the Kubernetes form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// The kinds that split traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub enum RouteKind {
    /// HTTP, HTTP/2 and gRPC traffic.
    MeshHTTPRoute,
    /// Any TCP traffic.
    MeshTCPRoute,
    /// The legacy kind; gone in Kuma 3.0.
    TrafficRoute,
}

/// How large a change is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// A repair.
    Patch,
    /// An addition.
    Minor,
    /// Every promotion asks a person.
    Major,
}

/// How far automation goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Record only, and compare with what happened.
    Shadow,
    /// Open pull requests; a person merges.
    Assisted,
    /// Merge what is inside the guards.
    Automatic,
}

/// What a canary is judged by: at least one of them.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(extend("minProperties" = 1))]
pub struct Objectives {
    /// Failed requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors: Option<Errors>,
    /// Slow requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow: Option<Slow>,
    /// Business metrics, by name.
    #[serde(flatten)]
    pub business: BTreeMap<String, Business>,
}

/// The objective for failed requests.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Errors {
    /// The largest share of requests that may fail.
    pub ceiling: Percent,
}

/// The objective for slow requests.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Slow {
    /// A request that takes longer is slow.
    #[serde(serialize_with = "in_words")]
    #[schemars(with = "DurationText")]
    pub over: Duration,
    /// The largest share of requests that may be slow.
    pub ceiling: Percent,
}

/// The objective for a business metric, such as a quality score.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("unevaluatedProperties" = false))]
pub struct Business {
    /// The query that measures it; a recording needs none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// Its lowest and its highest value.
    pub scale: [f64; 2],
    /// What is asked of the canary.
    #[serde(flatten)]
    pub aim: Aim,
}

/// What is asked of a canary's business metric, in units of its scale.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Aim {
    /// At least this much better than stable.
    MinimumImprovement(f64),
    /// At most this much worse than stable.
    NonInferiority(f64),
}

/// How strictly a canary is judged; what is left out keeps its default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(default)]
pub struct Judge {
    /// The canary's shares, rising; the last is 100 %.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ladder: Option<Vec<Percent>>,
    /// The shortest stay on a rung.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "perhaps_in_words")]
    #[schemars(with = "Option<DurationText>")]
    pub dwell: Option<Duration>,
    /// The chance of a false rollback in a canary's life.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha: Option<Percent>,
    /// The chance of a false promotion per rung.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beta: Option<Percent>,
    /// How many times worse than stable each rung must rule out; one for each rung below 100 %, not rising.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub margins: Option<Vec<f64>>,
    /// The share of bad requests that is fine in any case; one for each rung below 100 %, not rising.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ceilings: Option<Vec<Percent>>,
    /// Watch 98 % for a day before 100 %?
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold_back: Option<bool>,
    /// Undecided for longer than this asks a person.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "perhaps_in_words")]
    #[schemars(with = "Option<DurationText>")]
    pub deadline: Option<Duration>,
}

/// A share between 0 and 1, written `1%` or `0.01`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Percent(f64);

/// Every mistake in a configuration, by place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    /// What the file is called.
    pub file: String,
    /// At least one.
    pub mistakes: Vec<Mistake>,
}

/// One mistake in a configuration.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// Line and column, from 1; `None` when the file as a whole is wrong.
    pub place: Option<(usize, usize)>,
    /// What is wrong, and what to write instead.
    pub message: String,
}

/// Something a configuration may say that this version cannot do yet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}: {{kind: {kind}}}` is not in this version yet: use `{field}: {{kind: {instead}, path: …}}`")]
pub struct NotYet {
    /// The field that asks for it.
    pub field: &'static str,
    /// What it asks for.
    pub kind: &'static str,
    /// What there is.
    pub instead: &'static str,
}

impl Config {
    /// Reads a configuration file.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let label = path.display().to_string();
        let whole =
            |message: String| ConfigErrors { file: label.clone(), mistakes: vec![Mistake { place: None, message }] };
        let mut bytes = Vec::new();
        // Read with a limit rather than measured first: not everything that can be opened has a size.
        File::open(path)
            .and_then(|file| file.take(SIZE_LIMIT as u64 + 1).read_to_end(&mut bytes))
            .map_err(|error| whole(format!("cannot read it: {error}")))?;
        if bytes.len() > SIZE_LIMIT {
            return Err(whole(too_large()));
        }
        let text = String::from_utf8(bytes).map_err(|error| whole(format!("it is not UTF-8: {error}")))?;
        Ok(Self::parse(&label, &text)?.in_folder(path.parent().unwrap_or(Path::new(""))))
    }

    /// Reads a configuration from text; `label` is what errors call the file.
    pub fn parse(label: &str, text: &str) -> Result<Self, ConfigErrors> {
        let result = if text.len() > SIZE_LIMIT {
            Err(vec![Mistake { place: None, message: too_large() }])
        } else {
            yaml::parse(text).map_err(|mistake| vec![mistake]).and_then(|root| read::config(&root))
        };
        result.map_err(|mut mistakes| {
            mistakes.sort();
            mistakes.dedup();
            ConfigErrors { file: label.to_owned(), mistakes }
        })
    }

    /// The JSON Schema of the file, for editors.
    pub fn schema() -> Schema {
        schemars::schema_for!(Config)
    }

    /// The same, with its relative paths starting at `folder`; for a configuration that was not read from a file.
    pub fn in_folder(mut self, folder: &Path) -> Self {
        self.folder = folder.to_owned();
        self
    }

    /// A path of the configuration as the process can open it: relative ones start at the file's folder.
    pub fn resolve(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    /// Who the bot is.
    pub fn bot(&self) -> Bot {
        Bot { id: self.bot.id.clone(), name: self.bot.name.clone(), email: self.bot.email.clone() }
    }

    /// The recording measurements come from; an error for sources that are not in this version.
    pub fn recording(&self) -> Result<PathBuf, NotYet> {
        match &self.metrics {
            Metrics::Recording { path } => Ok(self.resolve(path)),
            Metrics::Prometheus { .. } => Err(NotYet { field: "metrics", kind: "prometheus", instead: "recording" }),
        }
    }

    /// The repository pull requests live in; an error for forges that are not in this version.
    pub fn local_forge(&self) -> Result<PathBuf, NotYet> {
        match &self.forge {
            Forge::Local { path } => Ok(self.resolve(path)),
            Forge::Github { .. } => Err(NotYet { field: "forge", kind: "github", instead: "local" }),
        }
    }
}

impl Percent {
    /// A share; `None` outside of 0 to 1.
    pub fn new(share: f64) -> Option<Self> {
        (0.0..=1.0).contains(&share).then_some(Self(share))
    }

    /// The share, between 0 and 1.
    pub fn share(self) -> f64 {
        self.0
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Rounding hides what binary fractions add: 7 % is 0.07, and 0.07 times 100 is 7.000000000000001.
        write!(f, "{}%", (self.0 * 1e8).round() / 1e6)
    }
}

impl Default for BotIdentity {
    fn default() -> Self {
        Self { id: default_bot(), name: default_bot(), email: default_email() }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.mistakes.iter().take(SHOWN).enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{}:", self.file)?;
            if let Some((line, column)) = mistake.place {
                write!(f, "{line}:{column}:")?;
            }
            write!(f, " {}", mistake.message)?;
        }
        match self.mistakes.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "\n{}: {more} more mistakes", self.file),
        }
    }
}

impl std::error::Error for ConfigErrors {}

impl JsonSchema for Percent {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Percent".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A share, written `1%` or `0.01`.",
            "anyOf": [
                { "type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?%$" },
                { "type": "number", "minimum": 0, "exclusiveMaximum": 1 }
            ]
        })
    }
}

/// How a duration is written; stands in for it in the schema.
struct DurationText;

impl JsonSchema for DurationText {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A duration: `500ms`, `2s`, `15m`, `1h30m`, `7d`.",
            "type": "string",
            "pattern": r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+$"
        })
    }
}

fn in_words<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&words(*duration))
}

fn perhaps_in_words<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => in_words(duration, serializer),
        None => serializer.serialize_none(),
    }
}

/// A duration in the largest unit that divides it.
fn words(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    match units.iter().find(|(size, _)| millis > 0 && millis.is_multiple_of(*size)) {
        Some((size, unit)) => format!("{}{unit}", millis / size),
        None => format!("{millis}ms"),
    }
}

fn too_large() -> String {
    format!("it has more than {SIZE_LIMIT} bytes: move what is not configuration elsewhere")
}

fn default_guards() -> String {
    "guards/".to_owned()
}

fn default_branch() -> String {
    "main".to_owned()
}

fn default_bot() -> String {
    "sluice".to_owned()
}

fn default_email() -> String {
    "sluice@localhost".to_owned()
}
