//! From YAML values to a [`Config`], collecting every mistake on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use super::yaml::{Node, Place, Value};
use super::{
    Aim, BotIdentity, Business, Change, Config, Errors, Forge, Judge, Kuma, Metrics, Mistake, Objectives, Percent,
    Phase, Rollout, Route, RouteKind, Slow, default_bot, default_branch, default_email, default_guards,
};

const KINDS: [(&str, RouteKind); 3] = [
    ("MeshHTTPRoute", RouteKind::MeshHTTPRoute),
    ("MeshTCPRoute", RouteKind::MeshTCPRoute),
    ("TrafficRoute", RouteKind::TrafficRoute),
];
const CHANGES: [(&str, Change); 3] = [("patch", Change::Patch), ("minor", Change::Minor), ("major", Change::Major)];
const PHASES: [(&str, Phase); 3] =
    [("shadow", Phase::Shadow), ("assisted", Phase::Assisted), ("automatic", Phase::Automatic)];

/// How many rungs below 100 % a rollout has when it names no ladder.
const DEFAULT_RUNGS: usize = 4;

/// Reads a whole configuration, or says everything that is wrong with it.
pub(super) fn config(root: &Node) -> Result<Config, Vec<Mistake>> {
    let mut reader = Reader { mistakes: Vec::new() };
    match reader.config(root) {
        Some(config) if reader.mistakes.is_empty() => Ok(config),
        _ => Err(reader.mistakes),
    }
}

/// Each `read…` reports what is wrong and answers `None` then, so the caller goes on and finds the next mistake.
struct Reader {
    mistakes: Vec<Mistake>,
}

/// A table whose keys are known to be right.
struct Table<'n> {
    at: Place,
    path: String,
    entries: Vec<(&'n str, &'n Node)>,
}

impl Reader {
    fn config(&mut self, root: &Node) -> Option<Config> {
        let keys = ["mesh", "kuma", "metrics", "forge", "guards", "branch", "bot", "rollouts"];
        let table = self.table(root, "", &keys)?;
        let mesh = self.required(&table, "mesh", Self::name);
        let kuma =
            self.optional(&table, "kuma", |r, n, p| r.choice(n, p, &[("2.14", Kuma::V2_14), ("3.0", Kuma::V3_0)]));
        let metrics = self.required(&table, "metrics", Self::metrics);
        let forge = self.required(&table, "forge", Self::forge);
        let guards = self.or(&table, "guards", Self::inside, default_guards);
        let branch = self.or(&table, "branch", Self::branch, default_branch);
        let bot = self.or(&table, "bot", Self::bot, BotIdentity::default);
        let rollouts = self.required(&table, "rollouts", |r, n, p| r.rollouts(n, p, kuma.flatten()));
        Some(Config {
            mesh: mesh?,
            kuma: kuma?,
            metrics: metrics?,
            forge: forge?,
            guards: guards?,
            branch: branch?,
            bot: bot?,
            rollouts: rollouts?,
            folder: PathBuf::new(),
        })
    }

    fn metrics(&mut self, node: &Node, path: &str) -> Option<Metrics> {
        match self.kind(node, path, &[("prometheus", "url"), ("recording", "path")])? {
            ("prometheus", table) => self.required(&table, "url", Self::url).map(|url| Metrics::Prometheus { url }),
            (_, table) => self.required(&table, "path", Self::text).map(|path| Metrics::Recording { path }),
        }
    }

    fn forge(&mut self, node: &Node, path: &str) -> Option<Forge> {
        match self.kind(node, path, &[("github", "repository"), ("local", "path")])? {
            ("github", table) => {
                self.required(&table, "repository", Self::slug).map(|repository| Forge::Github { repository })
            }
            (_, table) => self.required(&table, "path", Self::text).map(|path| Forge::Local { path }),
        }
    }

    /// A table with a `kind`, where each kind has one key of its own.
    fn kind<'n>(
        &mut self,
        node: &'n Node,
        path: &str,
        kinds: &[(&'static str, &'static str)],
    ) -> Option<(&'static str, Table<'n>)> {
        let Value::Table(entries) = &node.value else {
            self.wrong(node, path, "a table with a `kind`");
            return None;
        };
        let choices = kinds.iter().map(|(kind, _)| (*kind, *kind)).collect::<Vec<_>>();
        let Some((_, kind)) = entries.iter().find(|(key, _)| key.text == "kind") else {
            self.say(node.at, format!("`{path}` lacks `kind`: choose {}", either(&choices)));
            return None;
        };
        let kind = self.choice(kind, &join(path, "kind"), &choices)?;
        let own = kinds.iter().find(|(name, _)| *name == kind).map(|(_, own)| *own)?;
        Some((kind, self.table(node, path, &["kind", own])?))
    }

    fn bot(&mut self, node: &Node, path: &str) -> Option<BotIdentity> {
        let table = self.table(node, path, &["id", "name", "email"])?;
        let id = self.or(&table, "id", Self::name, default_bot);
        let name = self.or(&table, "name", Self::person, default_bot);
        let email = self.or(&table, "email", Self::person, default_email);
        Some(BotIdentity { id: id?, name: name?, email: email? })
    }

    fn rollouts(&mut self, node: &Node, path: &str, kuma: Option<Kuma>) -> Option<Vec<Rollout>> {
        let items = self.list(node, path)?;
        let mut rollouts: Vec<Option<Rollout>> = Vec::new();
        let mut names: BTreeMap<&str, usize> = BTreeMap::new();
        for (index, item) in items.iter().enumerate() {
            let path = format!("{path}[{index}]");
            // A name counts even when the rest of its rollout is wrong.
            if let Some(name) = child(item, "name")
                && let Value::Scalar { text, .. } = &name.value
            {
                match names.get(text.as_str()) {
                    Some(line) => {
                        let message = format!("the name {} is taken by the rollout in line {line}", quote(text));
                        self.say(name.at, message);
                    }
                    None => {
                        names.insert(text, item.at.0);
                    }
                }
            }
            let rollout = self.rollout(item, &path, kuma);
            if let Some(new) = &rollout
                && let Some(old) =
                    rollouts.iter().flatten().find(|old| old.route == new.route && old.canary == new.canary)
            {
                let both = format!("`{path}` moves the same canary on the same route as {}", quote(&old.name));
                self.say(item.at, both);
            }
            rollouts.push(rollout);
        }
        rollouts.into_iter().collect()
    }

    fn rollout(&mut self, node: &Node, path: &str, kuma: Option<Kuma>) -> Option<Rollout> {
        let keys = ["name", "route", "stable", "canary", "change", "phase", "objectives", "judge"];
        let table = self.table(node, path, &keys)?;
        let name = self.required(&table, "name", Self::name);
        let route = self.required(&table, "route", |r, n, p| r.route(n, p, kuma));
        let stable = self.required(&table, "stable", Self::name);
        let canary = self.required(&table, "canary", Self::name);
        if let (Some(stable), Some(canary)) = (&stable, &canary)
            && stable == canary
        {
            let at = table.get("canary").map_or(table.at, |node| node.at);
            self.say(at, format!("`{path}.canary` is {} like `stable`: name the backend on trial", quote(canary)));
        }
        let change = self.required(&table, "change", |r, n, p| r.choice(n, p, &CHANGES));
        let phase = self.required(&table, "phase", |r, n, p| r.choice(n, p, &PHASES));
        let objectives = self.required(&table, "objectives", Self::objectives);
        let judge = self.optional(&table, "judge", Self::judge);
        Some(Rollout {
            name: name?,
            route: route?,
            stable: stable?,
            canary: canary?,
            change: change?,
            phase: phase?,
            objectives: objectives?,
            judge: judge?,
        })
    }

    fn route(&mut self, node: &Node, path: &str, kuma: Option<Kuma>) -> Option<Route> {
        let table = self.table(node, path, &["kind", "name", "namespace"])?;
        let kind = self.required(&table, "kind", |r, n, p| {
            let kind = r.choice(n, p, &KINDS)?;
            if kind == RouteKind::TrafficRoute && kuma == Some(Kuma::V3_0) {
                r.say(n.at, "`TrafficRoute` is gone in Kuma 3.0: move the route to `MeshHTTPRoute` or `MeshTCPRoute`");
            }
            Some(kind)
        });
        let name = self.required(&table, "name", Self::name);
        let namespace = self.optional(&table, "namespace", Self::name);
        Some(Route { kind: kind?, name: name?, namespace: namespace? })
    }

    fn objectives(&mut self, node: &Node, path: &str) -> Option<Objectives> {
        let table = self.any_table(node, path)?;
        if table.entries.is_empty() {
            self.say(node.at, format!("`{path}` is empty: without an objective there is nothing to judge by"));
        }
        let errors = self.optional(&table, "errors", |r, n, p| {
            let table = r.table(n, p, &["ceiling"])?;
            Some(Errors { ceiling: r.required(&table, "ceiling", Self::ceiling)? })
        });
        let slow = self.optional(&table, "slow", |r, n, p| {
            let table = r.table(n, p, &["over", "ceiling"])?;
            let over = r.required(&table, "over", Self::duration);
            let ceiling = r.required(&table, "ceiling", Self::ceiling);
            Some(Slow { over: over?, ceiling: ceiling? })
        });
        let mut business = BTreeMap::new();
        let mut right = true;
        for (name, node) in table.entries.iter().filter(|(name, _)| !["errors", "slow"].contains(name)) {
            match self.business(node, &join(path, name), name) {
                Some(objective) => {
                    business.insert((*name).to_owned(), objective);
                }
                None => right = false,
            }
        }
        right.then_some(Objectives { errors: errors?, slow: slow?, business })
    }

    fn business(&mut self, node: &Node, path: &str, name: &str) -> Option<Business> {
        // `error: {ceiling: 1%}` is a slip of the two names that mean something, not a business metric.
        if let Value::Table(entries) = &node.value
            && let Some((key, _)) = entries.iter().find(|(key, _)| ["ceiling", "over"].contains(&key.text.as_str()))
        {
            let meant = if entries.iter().any(|(key, _)| key.text == "over") { "slow" } else { "errors" };
            let message = format!("`{}` belongs to `errors` and `slow`, not to {}", key.text, quote(name));
            self.say(key.at, format!("{message}: did you mean `{meant}`?"));
            return None;
        }
        let table = self.table(node, path, &["query", "scale", "minimumImprovement", "nonInferiority"])?;
        let query = self.optional(&table, "query", Self::text);
        let scale = self.required(&table, "scale", Self::scale);
        let improvement = self.optional(&table, "minimumImprovement", Self::number);
        let inferiority = self.optional(&table, "nonInferiority", Self::number);
        let aim = match (table.get("minimumImprovement"), table.get("nonInferiority")) {
            (Some(_), Some(second)) => {
                let message = format!("`{path}` has both `minimumImprovement` and `nonInferiority`: keep one");
                self.say(second.at, message);
                None
            }
            (None, None) => {
                let message = format!("`{path}` has no aim: write `minimumImprovement` or `nonInferiority`");
                self.say(table.at, message);
                None
            }
            (Some(node), None) => improvement??.in_units_of(scale, node, path, self).map(Aim::MinimumImprovement),
            (None, Some(node)) => inferiority??.in_units_of(scale, node, path, self).map(Aim::NonInferiority),
        };
        Some(Business { query: query?, scale: scale?, aim: aim? })
    }

    fn judge(&mut self, node: &Node, path: &str) -> Option<Judge> {
        let keys = ["ladder", "dwell", "alpha", "beta", "margins", "ceilings", "holdBack", "deadline"];
        let table = self.table(node, path, &keys)?;
        let ladder = self.optional(&table, "ladder", Self::ladder);
        let dwell = self.optional(&table, "dwell", Self::duration);
        let alpha = self.optional(&table, "alpha", Self::chance);
        let beta = self.optional(&table, "beta", Self::chance);
        let margins = self.optional(&table, "margins", Self::margins);
        let ceilings = self.optional(&table, "ceilings", Self::ceilings);
        let hold_back =
            self.optional(&table, "holdBack", |r, n, p| r.choice(n, p, &[("true", true), ("false", false)]));
        let deadline = self.optional(&table, "deadline", Self::duration);
        let rungs = match &ladder {
            Some(Some(ladder)) => Some(ladder.len() - 1),
            Some(None) => Some(DEFAULT_RUNGS),
            None => None,
        };
        let lengths = [
            ("margins", margins.as_ref().and_then(|list| list.as_ref().map(Vec::len))),
            ("ceilings", ceilings.as_ref().and_then(|list| list.as_ref().map(Vec::len))),
        ];
        for (key, length) in lengths {
            if let (Some(rungs), Some(length), Some(node)) = (rungs, length, table.get(key))
                && rungs != length
            {
                let message = format!("`{path}.{key}` is for {length} rungs, but {rungs} of the ladder are below 100%");
                self.say(node.at, format!("{message}: write one for each of those"));
            }
        }
        if let (Some(Some(dwell)), Some(Some(deadline)), Some(node)) = (&dwell, &deadline, table.get("deadline"))
            && deadline <= dwell
        {
            self.say(node.at, format!("`{path}.deadline` is not longer than `dwell`: no rung could be passed"));
        }
        Some(Judge {
            ladder: ladder?,
            dwell: dwell?,
            alpha: alpha?,
            beta: beta?,
            margins: margins?,
            ceilings: ceilings?,
            hold_back: hold_back?,
            deadline: deadline?,
        })
    }

    fn ladder(&mut self, node: &Node, path: &str) -> Option<Vec<Percent>> {
        let items = self.list(node, path)?;
        let rungs = self.each(items, path, Self::percent)?;
        let mut right = true;
        if rungs.first().is_some_and(|first| first.share() <= 0.0) {
            self.say(items[0].at, format!("`{path}` starts at 0%: the first rung has to give the canary traffic"));
            right = false;
        }
        for (index, pair) in rungs.windows(2).enumerate() {
            if pair[1] <= pair[0] {
                let message = format!("`{path}` does not rise: {} comes after {}", pair[1], pair[0]);
                self.say(items[index + 1].at, message);
                right = false;
            }
        }
        if rungs.last().is_none_or(|last| last.share() < 1.0) {
            self.say(items.last().map_or(node.at, |item| item.at), format!("`{path}` has to end at 100%"));
            right = false;
        }
        right.then_some(rungs)
    }

    fn margins(&mut self, node: &Node, path: &str) -> Option<Vec<f64>> {
        let items = self.list(node, path)?;
        let margins = self.each(items, path, Self::number)?;
        let mut right = true;
        for (index, margin) in margins.iter().enumerate() {
            if *margin <= 1.0 {
                let message = format!("a margin of {margin} cannot be shown: it has to be above 1, such as 1.25");
                self.say(items[index].at, message);
                right = false;
            } else if index > 0 && *margin > margins[index - 1] {
                self.say(items[index].at, format!("`{path}` rises: a higher rung cannot ask for less"));
                right = false;
            }
        }
        right.then_some(margins)
    }

    fn ceilings(&mut self, node: &Node, path: &str) -> Option<Vec<Percent>> {
        let items = self.list(node, path)?;
        let ceilings = self.each(items, path, Self::ceiling)?;
        let rises = ceilings.windows(2).position(|pair| pair[1] > pair[0]);
        if let Some(index) = rises {
            self.say(items[index + 1].at, format!("`{path}` rises: a higher rung cannot ask for less"));
        }
        rises.is_none().then_some(ceilings)
    }

    fn scale(&mut self, node: &Node, path: &str) -> Option<[f64; 2]> {
        let items = self.list(node, path)?;
        let ends = self.each(items, path, Self::number)?;
        let [low, high] = ends[..] else {
            self.say(
                node.at,
                format!("`{path}` has to hold two numbers, the lowest and the highest, not {}", ends.len()),
            );
            return None;
        };
        if low >= high {
            self.say(node.at, format!("`{path}` is reversed: {low} is not below {high}"));
            return None;
        }
        Some([low, high])
    }

    fn percent(&mut self, node: &Node, path: &str) -> Option<Percent> {
        let Value::Scalar { text, plain } = &node.value else {
            self.wrong(node, path, "a percentage such as `1%`");
            return None;
        };
        if let Some(hundredths) = text.strip_suffix('%') {
            let share = decimal(hundredths).and_then(|value| Percent::new(value / 100.0));
            if share.is_none() {
                self.say(node.at, format!("`{path}` cannot be {}: write 0% to 100%", quote(text)));
            }
            return share;
        }
        match decimal(text).filter(|_| *plain) {
            // `1` may mean 1 % or 100 %; neither is worth guessing.
            Some(number) if number >= 1.0 => {
                self.say(node.at, format!("`{path}` is the bare number {number}: write `{number}%`"));
                None
            }
            Some(number) => match Percent::new(number) {
                Some(share) => Some(share),
                None => {
                    self.say(node.at, format!("`{path}` cannot be {}: write 0% to 100%", quote(text)));
                    None
                }
            },
            None => {
                self.wrong(node, path, "a percentage such as `1%`");
                None
            }
        }
    }

    fn ceiling(&mut self, node: &Node, path: &str) -> Option<Percent> {
        self.between(node, path, "would allow everything", "leaves no room for a single one: write a small share")
    }

    fn chance(&mut self, node: &Node, path: &str) -> Option<Percent> {
        self.between(node, path, "promises nothing", "cannot be promised: write a small chance such as `1%`")
    }

    fn between(&mut self, node: &Node, path: &str, high: &str, low: &str) -> Option<Percent> {
        let percent = self.percent(node, path)?;
        let fault = match percent.share() {
            share if share >= 1.0 => high,
            share if share <= 0.0 => low,
            _ => return Some(percent),
        };
        self.say(node.at, format!("`{path}` of {percent} {fault}"));
        None
    }

    fn duration(&mut self, node: &Node, path: &str) -> Option<Duration> {
        let Value::Scalar { text, .. } = &node.value else {
            self.wrong(node, path, "a duration such as `15m`");
            return None;
        };
        match duration(text) {
            Ok(duration) if duration.is_zero() => {
                self.say(node.at, format!("`{path}` cannot be zero"));
                None
            }
            Ok(duration) => Some(duration),
            Err(why) => {
                self.say(node.at, format!("`{path}` cannot be {}: {why}", quote(text)));
                None
            }
        }
    }

    fn number(&mut self, node: &Node, path: &str) -> Option<f64> {
        let number = match &node.value {
            Value::Scalar { text, plain: true } => decimal(text),
            _ => None,
        };
        if number.is_none() {
            self.wrong(node, path, "a number");
        }
        number
    }

    /// A word out of a few.
    fn choice<T: Copy>(&mut self, node: &Node, path: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(node, path)?;
        let found = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        if found.is_none() {
            let hint = meant(&text, choices.iter().map(|(name, _)| *name)).replacen(':', ";", 1);
            self.say(node.at, format!("`{path}` cannot be {}: choose {}{hint}", quote(&text), either(choices)));
        }
        found
    }

    /// Text that is there.
    fn text(&mut self, node: &Node, path: &str) -> Option<String> {
        match &node.value {
            Value::Scalar { text, plain } if text.trim().is_empty() || *plain && ["~", "null"].contains(&&**text) => {
                self.say(node.at, format!("`{path}` is empty"));
                None
            }
            Value::Scalar { text, .. } => Some(text.clone()),
            _ => {
                self.wrong(node, path, "text");
                None
            }
        }
    }

    /// A name as Kuma and Kubernetes allow it.
    fn name(&mut self, node: &Node, path: &str) -> Option<String> {
        let text = self.text(node, path)?;
        let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let right = text.len() <= 253
            && text.starts_with(edge)
            && text.ends_with(edge)
            && text.chars().all(|c| edge(c) || ['-', '_', '.'].contains(&c));
        self.checked(right, text, node, path, "use lower-case letters, digits, `-`, `_` and `.`")
    }

    /// A name or an address that a commit can carry.
    fn person(&mut self, node: &Node, path: &str) -> Option<String> {
        let text = self.text(node, path)?;
        let right = text.len() <= 200 && !text.contains(|c: char| c.is_control() || c == '<' || c == '>');
        self.checked(right, text, node, path, "a commit cannot carry `<`, `>` or control characters")
    }

    /// A path that stays inside the repository.
    fn inside(&mut self, node: &Node, path: &str) -> Option<String> {
        let text = self.text(node, path)?;
        let right = !text.starts_with('/') && !text.contains('\\') && !text.split('/').any(|part| part == "..");
        self.checked(right, text, node, path, "write a path from the repository's root")
    }

    fn branch(&mut self, node: &Node, path: &str) -> Option<String> {
        let text = self.text(node, path)?;
        let right = git2::Reference::is_valid_name(&crate::repository::branch_ref(&text));
        self.checked(right, text, node, path, "Git allows no such branch")
    }

    fn slug(&mut self, node: &Node, path: &str) -> Option<String> {
        let text = self.text(node, path)?;
        let word = |part: &str| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || ['-', '_', '.'].contains(&c))
        };
        let right = text.split_once('/').is_some_and(|(owner, name)| word(owner) && word(name));
        self.checked(right, text, node, path, "write `owner/name`")
    }

    fn url(&mut self, node: &Node, path: &str) -> Option<String> {
        let text = self.text(node, path)?;
        let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
        let host = rest.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
        if host.is_some_and(|host| host.contains('@')) {
            // The value itself stays out of the message: it holds a secret.
            self.say(node.at, format!("`{path}` holds credentials: this file is no place for secrets"));
            return None;
        }
        let right = host.is_some_and(|host| !host.is_empty()) && !text.contains(char::is_whitespace);
        self.checked(right, text, node, path, "write `http://…` or `https://…`")
    }

    fn checked(&mut self, right: bool, text: String, node: &Node, path: &str, advice: &str) -> Option<String> {
        if right {
            return Some(text);
        }
        self.say(node.at, format!("`{path}` cannot be {}: {advice}", quote(&text)));
        None
    }

    fn list<'n>(&mut self, node: &'n Node, path: &str) -> Option<&'n [Node]> {
        match &node.value {
            Value::List(items) => Some(items),
            _ => {
                self.wrong(node, path, "a list");
                None
            }
        }
    }

    fn each<T>(
        &mut self,
        items: &[Node],
        path: &str,
        mut read: impl FnMut(&mut Self, &Node, &str) -> Option<T>,
    ) -> Option<Vec<T>> {
        // Collected twice over: the first mistake must not hide the ones behind it.
        let read = items.iter().enumerate().map(|(index, item)| read(self, item, &format!("{path}[{index}]")));
        read.collect::<Vec<_>>().into_iter().collect()
    }

    /// A table with known keys.
    fn table<'n>(&mut self, node: &'n Node, path: &str, keys: &[&str]) -> Option<Table<'n>> {
        let mut table = self.any_table(node, path)?;
        if let Value::Table(entries) = &node.value {
            for (key, _) in entries.iter().filter(|(key, _)| !keys.contains(&&*key.text)) {
                let hint = match meant(&key.text, keys.iter().copied()) {
                    hint if hint.is_empty() => format!(": {} has {}", container(path), listed(keys)),
                    hint => hint,
                };
                self.say(key.at, format!("unknown key {}{hint}", quote(&key.text)));
            }
        }
        table.entries.retain(|(key, _)| keys.contains(key));
        Some(table)
    }

    /// A table whose keys are names.
    fn any_table<'n>(&mut self, node: &'n Node, path: &str) -> Option<Table<'n>> {
        let Value::Table(entries) = &node.value else {
            self.wrong(node, path, "a table");
            return None;
        };
        let mut seen = BTreeSet::new();
        let mut table = Table { at: node.at, path: path.to_owned(), entries: Vec::new() };
        for (key, value) in entries {
            if seen.insert(&key.text) {
                table.entries.push((&key.text, value));
            } else {
                self.say(key.at, format!("{} is there twice: keep one", quote(&key.text)));
            }
        }
        Some(table)
    }

    fn required<T>(
        &mut self,
        table: &Table<'_>,
        key: &str,
        mut read: impl FnMut(&mut Self, &Node, &str) -> Option<T>,
    ) -> Option<T> {
        match table.get(key) {
            Some(node) => read(self, node, &join(&table.path, key)),
            None => {
                self.say(table.at, format!("{} lacks `{key}`", container(&table.path)));
                None
            }
        }
    }

    /// `None`: there is a mistake; `Some(None)`: it is left out.
    fn optional<T>(
        &mut self,
        table: &Table<'_>,
        key: &str,
        mut read: impl FnMut(&mut Self, &Node, &str) -> Option<T>,
    ) -> Option<Option<T>> {
        match table.get(key) {
            Some(node) => read(self, node, &join(&table.path, key)).map(Some),
            None => Some(None),
        }
    }

    fn or<T>(
        &mut self,
        table: &Table<'_>,
        key: &str,
        read: impl FnMut(&mut Self, &Node, &str) -> Option<T>,
        default: impl FnOnce() -> T,
    ) -> Option<T> {
        self.optional(table, key, read).map(|value| value.unwrap_or_else(default))
    }

    fn wrong(&mut self, node: &Node, path: &str, wanted: &str) {
        let found = match &node.value {
            Value::Scalar { text, plain } if text.is_empty() || *plain && text == "~" => "nothing".to_owned(),
            Value::Scalar { text, .. } => quote(text),
            Value::List(_) => "a list".to_owned(),
            Value::Table(_) => "a table".to_owned(),
        };
        self.say(node.at, format!("{} has to be {wanted}, not {found}", container(path)));
    }

    fn say(&mut self, at: Place, message: impl Into<String>) {
        self.mistakes.push(Mistake { place: Some(at), message: message.into() });
    }
}

impl<'n> Table<'n> {
    fn get(&self, key: &str) -> Option<&'n Node> {
        self.entries.iter().find(|(known, _)| *known == key).map(|(_, node)| *node)
    }
}

/// A difference that makes sense on a scale.
trait InUnitsOf {
    fn in_units_of(self, scale: Option<[f64; 2]>, node: &Node, path: &str, reader: &mut Reader) -> Option<f64>;
}

impl InUnitsOf for f64 {
    fn in_units_of(self, scale: Option<[f64; 2]>, node: &Node, path: &str, reader: &mut Reader) -> Option<f64> {
        if self <= 0.0 {
            reader.say(node.at, format!("the aim of `{path}` has to be above zero, not {self}"));
            return None;
        }
        if let Some([low, high]) = scale
            && self >= high - low
        {
            reader.say(
                node.at,
                format!("the aim of `{path}` is {self}, as wide as its whole scale from {low} to {high}"),
            );
            return None;
        }
        Some(self)
    }
}

fn child<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
    match &node.value {
        Value::Table(entries) => entries.iter().find(|(known, _)| known.text == key).map(|(_, node)| node),
        _ => None,
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { shortened(key) } else { format!("{path}.{}", shortened(key)) }
}

fn container(path: &str) -> String {
    if path.is_empty() { "the file".to_owned() } else { format!("`{path}`") }
}

/// Text from the file as a message may carry it.
fn quote(text: &str) -> String {
    format!("`{}`", shortened(text))
}

fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(60).flat_map(char::escape_debug).collect();
    if text.chars().nth(60).is_some() {
        short.push('…');
    }
    short
}

fn meant<'a>(text: &str, known: impl Iterator<Item = &'a str>) -> String {
    // Long text is no slip of a short word, and comparing it costs time.
    let text = if text.len() > 60 { "" } else { text };
    let known = known.collect::<Vec<_>>();
    if let Some(name) = known.iter().find(|name| text.len() >= 3 && name.starts_with(text)) {
        return format!(": did you mean `{name}`?");
    }
    let near =
        known.into_iter().map(|name| (strsim::damerau_levenshtein(&text.to_lowercase(), &name.to_lowercase()), name));
    match near.min() {
        Some((distance, name)) if distance <= 1 + name.len() / 4 && distance < name.len() => {
            format!(": did you mean `{name}`?")
        }
        _ => String::new(),
    }
}

fn either<T>(choices: &[(&str, T)]) -> String {
    let names = choices.iter().map(|(name, _)| *name).collect::<Vec<_>>();
    words(&names, "or")
}

fn listed(keys: &[&str]) -> String {
    words(keys, "and")
}

fn words(names: &[impl Display], last: &str) -> String {
    let names = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>();
    match names.split_last() {
        Some((end, [])) => end.clone(),
        Some((end, rest)) => format!("{} {last} {end}", rest.join(", ")),
        None => String::new(),
    }
}

/// A decimal number as everybody reads it: no hexadecimal, no underscores, no infinity.
fn decimal(text: &str) -> Option<f64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.ends_with(|c: char| c.is_ascii_digit())
        && digits.chars().all(|c| c.is_ascii_digit() || c == '.');
    // YAML 1.1 reads `010` as eight.
    let octal = digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0.");
    (plain && !octal).then(|| text.parse().ok()).flatten().filter(|number: &f64| number.is_finite())
}

/// `500ms`, `2s`, `15m`, `24h`, `30d`, and several of them in falling order: `1h30m`.
fn duration(text: &str) -> Result<Duration, &'static str> {
    const UNITS: [(&str, f64); 5] = [("d", 86_400.0), ("h", 3_600.0), ("m", 60.0), ("s", 1.0), ("ms", 0.001)];
    const WRITE: &str = "write a duration such as `500ms`, `2s`, `15m` or `24h`";
    let mut rest = text;
    let mut total = Duration::ZERO;
    let mut units = &UNITS[..];
    if rest.is_empty() {
        return Err(WRITE);
    }
    while !rest.is_empty() {
        let end =
            rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or("the unit is missing, such as `s` or `m`")?;
        let number = decimal(&rest[..end]).ok_or(WRITE)?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let index = units.iter().position(|(name, _)| *name == &rest[..end]).ok_or(WRITE)?;
        let part = Duration::try_from_secs_f64(number * units[index].1).map_err(|_| "that is too long")?;
        total = total.checked_add(part).ok_or("that is too long")?;
        units = &units[index + 1..];
        rest = &rest[end..];
    }
    if total > Duration::from_secs(366 * 86_400) {
        return Err("that is longer than a year");
    }
    Ok(total)
}
