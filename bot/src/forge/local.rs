//! Pull requests kept in a bare repository, one reference each.
//!
//! `refs/sluice/pulls/<number>` points at a commit whose tree holds `pull.json`, `body.md`, `evidence.json` and
//! `comments.json`; the commits behind it are the pull request's own history. Each change is one commit and one
//! compare-and-swap of that reference, after the branch it speaks of: a process killed anywhere leaves the state
//! before or the state after, and the reference travels with `git clone --mirror`.

use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Bot, By, Comment, Content, Error, Filter, NewPull, Oid, Pull, State};
use crate::repository::Repository;

const PULLS: &str = "refs/sluice/pulls/";

/// A bare repository that is its own forge.
pub struct Local {
    repository: Repository,
    bot: Bot,
}

impl Local {
    /// Opens the forge in a repository that exists.
    pub fn open(path: &Path, bot: Bot) -> Result<Self, Error> {
        Ok(Self { repository: Repository::open(path)?, bot })
    }

    pub(super) fn list(&self, filter: &Filter) -> Result<Vec<Pull>, Error> {
        let mut pulls = Vec::new();
        for (name, at) in self.repository.references(&format!("{PULLS}*"))? {
            let pull = self.read(&name, at)?;
            if filter.accepts(&pull) {
                pulls.push(pull);
            }
        }
        pulls.sort_by_key(|pull| pull.number);
        Ok(pulls)
    }

    pub(super) fn pull(&self, number: u64) -> Result<Option<Pull>, Error> {
        let name = reference(number);
        self.repository.target(&name)?.map(|at| self.read(&name, at)).transpose()
    }

    pub(super) fn open_pull(&self, new: NewPull, now: Timestamp) -> Result<Pull, Error> {
        let mut known = self.list(&Filter::default())?;
        loop {
            if let Some(open) = known.iter().find(|pull| pull.is_open() && pull.key == new.key) {
                return Ok(open.clone());
            }
            let number = known.last().map_or(1, |pull| pull.number + 1);
            let pull = Pull {
                number,
                key: new.key.clone(),
                author: new.author.clone(),
                branch: new.branch.clone(),
                base: new.base.clone(),
                content: new.content.clone(),
                state: State::Open,
                created: now,
                updated: now,
                merged_at: None,
                closed_at: None,
                comments: Vec::new(),
            };
            match self.write(&pull, None, "open", now) {
                // Somebody else took the number: look again, it may even be this very pull request.
                Err(Error::Moved { .. }) => known = self.list(&Filter::default())?,
                written => return written.map(|()| pull),
            }
        }
    }

    pub(super) fn update(&self, number: u64, content: Content, now: Timestamp) -> Result<Pull, Error> {
        self.change(number, "update", now, |pull| {
            let labels = std::mem::take(&mut pull.content.labels);
            pull.content = Content { labels, ..content };
        })
    }

    pub(super) fn merge(&self, number: u64, expected_head: Oid, now: Timestamp) -> Result<Pull, Error> {
        let (pull, _) = self.existing(number)?;
        if pull.state == State::Merged {
            return Ok(pull);
        }
        if !pull.is_open() {
            return Err(Error::stalled(format!("cannot merge #{number}: it is closed")));
        }
        let base = self.repository.head(&pull.base)?;
        let merged = match base {
            Some(base) => self.repository.contains(base, expected_head)?,
            None => false,
        };
        if !merged {
            let found = self.repository.head(&pull.branch)?;
            if found != Some(expected_head) {
                let name = crate::repository::branch_ref(&pull.branch);
                return Err(Error::Moved { name, expected: Some(expected_head), found });
            }
            let message = format!("Merge #{number}: {}\n", pull.content.title);
            self.repository.merge(&pull.base, expected_head, &message, &self.bot.signature(now))?;
        }
        self.change(number, "merge", now, |pull| {
            pull.state = State::Merged;
            pull.merged_at = Some(now);
        })
    }

    pub(super) fn close(&self, number: u64, reason: &str, by: By, now: Timestamp) -> Result<Pull, Error> {
        self.change(number, "close", now, |pull| {
            if pull.is_open() {
                pull.state = State::Closed { reason: reason.to_owned(), by };
                pull.closed_at = Some(now);
            }
        })
    }

    pub(super) fn comment(&self, number: u64, key: Option<&str>, text: &str, now: Timestamp) -> Result<Pull, Error> {
        self.change(number, "comment", now, |pull| {
            let comment = Comment { key: key.map(str::to_owned), text: text.to_owned(), at: now };
            let sticky = pull.comments.iter_mut().find(|old| key.is_some() && old.key.as_deref() == key);
            match sticky {
                Some(old) if old.text == text => {}
                Some(old) => *old = comment,
                None => pull.comments.push(comment),
            }
        })
    }

    /// Writes what `edit` makes of a pull request; nothing when that is the same.
    fn change(&self, number: u64, what: &str, now: Timestamp, edit: impl FnOnce(&mut Pull)) -> Result<Pull, Error> {
        let (before, at) = self.existing(number)?;
        let mut pull = before.clone();
        edit(&mut pull);
        if pull != before {
            pull.updated = now;
            self.write(&pull, Some(at), what, now)?;
        }
        Ok(pull)
    }

    fn existing(&self, number: u64) -> Result<(Pull, Oid), Error> {
        let name = reference(number);
        match self.repository.target(&name)? {
            Some(at) => Ok((self.read(&name, at)?, at)),
            None => Err(Error::stalled(format!("there is no pull request #{number}"))),
        }
    }

    fn write(&self, pull: &Pull, expected: Option<Oid>, what: &str, now: Timestamp) -> Result<(), Error> {
        let json = |bytes: serde_json::Result<Vec<u8>>| {
            bytes.map_err(|error| Error::stalled(format!("cannot write #{}: {error}", pull.number)))
        };
        let comments = pull.comments.iter().map(CommentRecord::from).collect::<Vec<_>>();
        let files = [
            ("pull.json".to_owned(), json(serde_json::to_vec_pretty(&Record::from(pull)))?),
            ("body.md".to_owned(), pull.content.body.clone().into_bytes()),
            ("evidence.json".to_owned(), pull.content.evidence.clone()),
            ("comments.json".to_owned(), json(serde_json::to_vec_pretty(&comments))?),
        ];
        // The head is a parent too: what a pull request speaks of is never collected as garbage.
        let mut parents: Vec<Oid> = expected.into_iter().collect();
        parents.push(pull.content.head);
        let message = format!("{what} #{}: {}\n", pull.number, pull.content.title);
        let commit = self.repository.commit(&parents, None, &files, &message, &self.bot.signature(now))?;
        self.repository.update_ref(&reference(pull.number), commit, expected)
    }

    fn read(&self, name: &str, at: Oid) -> Result<Pull, Error> {
        let file = |path: &str| {
            let bytes = self.repository.file(at, path)?;
            bytes.ok_or_else(|| Error::stalled(format!("`{name}` is no pull request: it has no `{path}`")))
        };
        let odd = |what: &dyn std::fmt::Display| Error::stalled(format!("`{name}` is no pull request: {what}"));
        let record: Record = serde_json::from_slice(&file("pull.json")?).map_err(|error| odd(&error))?;
        let comments: Vec<CommentRecord> =
            serde_json::from_slice(&file("comments.json")?).map_err(|error| odd(&error))?;
        let body = String::from_utf8(file("body.md")?).map_err(|error| odd(&error))?;
        let pull = record.into_pull(body, file("evidence.json")?, comments).map_err(|error| odd(&error))?;
        if reference(pull.number) != name {
            return Err(odd(&format!("it calls itself #{}", pull.number)));
        }
        Ok(pull)
    }
}

fn reference(number: u64) -> String {
    format!("{PULLS}{number}")
}

/// `pull.json`. Fields may be added; what is here keeps its meaning.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    number: u64,
    key: String,
    author: String,
    branch: String,
    base: String,
    base_at: String,
    head: String,
    digest: String,
    title: String,
    labels: Vec<String>,
    state: State,
    created: String,
    updated: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    merged_at: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    closed_at: Option<String>,
}

/// One entry of `comments.json`.
#[derive(Serialize, Deserialize)]
struct CommentRecord {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    at: String,
    text: String,
}

impl From<&Pull> for Record {
    fn from(pull: &Pull) -> Self {
        Self {
            number: pull.number,
            key: pull.key.clone(),
            author: pull.author.clone(),
            branch: pull.branch.clone(),
            base: pull.base.clone(),
            base_at: pull.content.base_at.to_string(),
            head: pull.content.head.to_string(),
            digest: pull.content.digest.clone(),
            title: pull.content.title.clone(),
            labels: pull.content.labels.clone(),
            state: pull.state.clone(),
            created: pull.created.to_string(),
            updated: pull.updated.to_string(),
            merged_at: pull.merged_at.as_ref().map(Timestamp::to_string),
            closed_at: pull.closed_at.as_ref().map(Timestamp::to_string),
        }
    }
}

impl Record {
    fn into_pull(self, body: String, evidence: Vec<u8>, comments: Vec<CommentRecord>) -> anyhow::Result<Pull> {
        let comment =
            |record: CommentRecord| anyhow::Ok(Comment { key: record.key, text: record.text, at: record.at.parse()? });
        Ok(Pull {
            number: self.number,
            key: self.key,
            author: self.author,
            branch: self.branch,
            base: self.base,
            content: Content {
                head: self.head.parse()?,
                base_at: self.base_at.parse()?,
                title: self.title,
                body,
                digest: self.digest,
                labels: self.labels,
                evidence,
            },
            state: self.state,
            created: self.created.parse()?,
            updated: self.updated.parse()?,
            merged_at: self.merged_at.map(|at| at.parse()).transpose()?,
            closed_at: self.closed_at.map(|at| at.parse()).transpose()?,
            comments: comments.into_iter().map(comment).collect::<Result<_, _>>()?,
        })
    }
}

impl From<&Comment> for CommentRecord {
    fn from(comment: &Comment) -> Self {
        Self { key: comment.key.clone(), at: comment.at.to_string(), text: comment.text.clone() }
    }
}
