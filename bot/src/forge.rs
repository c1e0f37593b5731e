//! The forge: where pull requests live. `local` keeps them in the repository itself; others join as variants.

pub mod conduct;
mod local;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use crate::repository::{Error, Oid};
pub use conduct::{Absent, Action, Conduct, DesiredPull, Outcome};
pub use local::Local;

/// Where pull requests are kept.
///
/// No call reads a clock: the time of a change is an argument, so that equal input leads to equal bytes everywhere.
pub enum Forge {
    /// In a bare repository.
    Local(Local),
}

/// Who Sluice is to other people: the author of its commits, and the owner of its pull requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bot {
    /// Tells this bot from others that work in the same repository; part of each pull request's key.
    pub id: String,
    /// The name commits carry.
    pub name: String,
    /// The address beside it.
    pub email: String,
}

/// A pull request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pull {
    /// Its number, from 1.
    pub number: u64,
    /// What it is about; stays the same while content changes. See [`DesiredPull::key`].
    pub key: String,
    /// The [`Bot::id`] it belongs to.
    pub author: String,
    /// The branch that holds the change.
    pub branch: String,
    /// The branch that is to receive it.
    pub base: String,
    /// What it proposes.
    pub content: Content,
    /// Open, merged or closed.
    pub state: State,
    /// When it was opened.
    pub created: Timestamp,
    /// When anything about it last changed.
    pub updated: Timestamp,
    /// When it was merged.
    pub merged_at: Option<Timestamp>,
    /// When it was closed without merging.
    pub closed_at: Option<Timestamp>,
    /// What was said, oldest first.
    pub comments: Vec<Comment>,
}

/// What a pull request proposes: the part that is refreshed in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// The newest commit of ours on the branch.
    pub head: Oid,
    /// The commit of the base branch it was built on.
    pub base_at: Oid,
    /// One line.
    pub title: String,
    /// Markdown.
    pub body: String,
    /// Equal digests mean equal content: nothing is written then.
    pub digest: String,
    /// Given when the pull request is opened; later they are people's to change.
    pub labels: Vec<String>,
    /// What led to the proposal, in the bytes that were judged.
    pub evidence: Vec<u8>,
}

/// What becomes of a pull request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// Somebody may still merge it.
    Open,
    /// The base branch holds it.
    Merged,
    /// Closed without merging.
    Closed {
        /// Why.
        reason: String,
        /// By whom.
        by: By,
    },
}

/// Who did something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum By {
    /// Sluice itself.
    Bot,
    /// A person, by name; what a person closes is declined.
    Person(String),
}

/// A comment on a pull request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comment {
    /// A sticky comment has a key and is rewritten in place.
    pub key: Option<String>,
    /// Markdown.
    pub text: String,
    /// When it was last written.
    pub at: Timestamp,
}

/// A pull request to be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPull {
    /// See [`Pull::key`].
    pub key: String,
    /// See [`Pull::author`].
    pub author: String,
    /// A branch that exists.
    pub branch: String,
    /// The branch that is to receive it.
    pub base: String,
    /// What it proposes.
    pub content: Content,
}

/// Which pull requests to list; the default lists all.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only those with this key.
    pub key: Option<String>,
    /// Only those of this [`Bot::id`].
    pub author: Option<String>,
    /// Only those that are still open.
    pub open: bool,
}

impl Forge {
    /// The pull requests a filter accepts, by rising number.
    pub fn list(&self, filter: &Filter) -> Result<Vec<Pull>, Error> {
        match self {
            Self::Local(local) => local.list(filter),
        }
    }

    /// One pull request; `None` when there is none with that number.
    pub fn pull(&self, number: u64) -> Result<Option<Pull>, Error> {
        match self {
            Self::Local(local) => local.pull(number),
        }
    }

    /// Opens a pull request. When one with the same key is open already, that one is the answer, untouched.
    pub fn open(&self, pull: NewPull, now: Timestamp) -> Result<Pull, Error> {
        match self {
            Self::Local(local) => local.open_pull(pull, now),
        }
    }

    /// Replaces what a pull request proposes, save its labels; equal content writes nothing.
    pub fn update(&self, number: u64, content: Content, now: Timestamp) -> Result<Pull, Error> {
        match self {
            Self::Local(local) => local.update(number, content, now),
        }
    }

    /// Merges a pull request if its branch is at `expected_head`; one the base holds already is only marked as merged.
    pub fn merge(&self, number: u64, expected_head: Oid, now: Timestamp) -> Result<Pull, Error> {
        match self {
            Self::Local(local) => local.merge(number, expected_head, now),
        }
    }

    /// Closes a pull request without merging; one that is not open stays as it is.
    pub fn close(&self, number: u64, reason: &str, by: By, now: Timestamp) -> Result<Pull, Error> {
        match self {
            Self::Local(local) => local.close(number, reason, by, now),
        }
    }

    /// Adds a comment, or rewrites the one with the same key; an equal text writes nothing.
    pub fn comment(&self, number: u64, key: Option<&str>, text: &str, now: Timestamp) -> Result<Pull, Error> {
        match self {
            Self::Local(local) => local.comment(number, key, text, now),
        }
    }
}

impl Pull {
    /// Does it still wait for somebody?
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }
}

impl Bot {
    /// The bot's signature at a time.
    pub fn signature(&self, time: Timestamp) -> crate::repository::Signature {
        crate::repository::Signature { name: self.name.clone(), email: self.email.clone(), time }
    }
}

impl Filter {
    fn accepts(&self, pull: &Pull) -> bool {
        self.key.as_ref().is_none_or(|key| *key == pull.key)
            && self.author.as_ref().is_none_or(|author| *author == pull.author)
            && (!self.open || pull.is_open())
    }
}
