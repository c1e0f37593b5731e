//! How Sluice behaves among people: one proposal, one branch, one pull request, refreshed in place.
//!
//! [`Conduct::reconcile`] compares what is wanted with what is there and makes up the difference, so it may be killed
//! anywhere and simply run again. Invariants: equal digests write nothing; a commit that is not ours is never
//! overwritten nor left behind; what a person closed is not offered again until its content changes and time passed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

use super::{Bot, By, Content, Error, Filter, Forge, NewPull, Oid, Pull, State};
use crate::repository::{self, Repository, branch_ref};

/// What a person declined may be offered again, with new content, after this long.
pub const COOL_DOWN: SignedDuration = SignedDuration::from_hours(30 * 24);

/// The sticky comment on a pull request whose branch holds other people's commits.
const FOREIGN: &str = "foreign-commits";

/// How the bot treats its pull requests.
pub struct Conduct {
    /// Who we are.
    pub bot: Bot,
    /// How long a declined proposal rests even when its content changes; see [`COOL_DOWN`].
    pub cool_down: SignedDuration,
    /// What to do with open pull requests that are not desired, by key; one not named here is closed as moot.
    pub absent: BTreeMap<String, Absent>,
}

/// What becomes of an open pull request nobody desires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Absent {
    /// It stays: nothing is known about it in this pass. Missing data is not a reason to withdraw.
    Keep,
    /// It is closed, for this reason.
    Close(String),
}

/// A pull request as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DesiredPull {
    /// What kind of proposal: `shift`, `rollback`, …
    pub kind: String,
    /// The mesh it is for.
    pub mesh: String,
    /// What in the mesh it is for, such as a rollout's name. With bot, kind and mesh this is its identity.
    pub scope: String,
    /// The branch that is to receive it.
    pub base: String,
    /// The commit of that branch the changes were computed from.
    pub base_at: Oid,
    /// Files and their new bytes.
    pub changes: Vec<(String, Vec<u8>)>,
    /// One line.
    pub title: String,
    /// Markdown.
    pub body: String,
    /// The commit's message.
    pub message: String,
    /// Given when the pull request is opened.
    pub labels: Vec<String>,
    /// Equal digests mean equal content.
    pub digest: String,
    /// What led to it, in the bytes that were judged.
    pub evidence: Vec<u8>,
    /// May the bot merge it?
    pub auto_merge: bool,
    /// Does it move traffic back? Then it does not wait for a cool-down.
    pub rollback: bool,
}

/// What became of one pull request in one pass.
#[derive(Debug)]
pub struct Outcome {
    /// The pull request's key.
    pub key: String,
    /// Its number, when it has one.
    pub number: Option<u64>,
    /// What was done.
    pub action: Action,
}

/// What was done about a pull request, or why nothing was.
#[derive(Debug)]
pub enum Action {
    /// It is new.
    Opened,
    /// It has new content.
    Updated,
    /// It stands on a newer base now, for the base changed the same files.
    Rebuilt,
    /// It is as it should be.
    Unchanged,
    /// It was merged, by us or by somebody else.
    Merged,
    /// It was closed, for this reason.
    Closed(String),
    /// The base branch has this content already.
    InBase,
    /// A person declined it; this says who and until when.
    Declined(String),
    /// People work on its branch; ours is in a comment.
    LeftToPeople,
    /// It stays although nobody desires it; see [`Absent::Keep`].
    Kept,
    /// It could not be done; the others were.
    Failed(Error),
}

/// What a branch holds beyond its base.
enum Branch {
    Absent,
    /// Only commits of ours; with the digest the newest one carries, if there is one.
    Ours(Oid, Option<String>),
    /// Somebody else's commits too.
    Foreign,
}

impl DesiredPull {
    /// The identity of a proposal: stays the same while weights, titles and evidence change.
    pub fn key(&self, bot: &Bot) -> String {
        let mut hash = Sha256::new();
        for part in ["sluice-key", &bot.id, &self.kind, &self.mesh, &self.scope] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hex::encode(hash.finalize())
    }

    /// The same with an identity of its own: where a rollback goes when people work on the branch it should have.
    pub fn beside(&self) -> Self {
        Self { kind: format!("{}-rollback", self.kind), ..self.clone() }
    }

    /// The branch of a proposal: `sluice/<kind>/<scope>-<8 hex digits of the key>`.
    pub fn branch(&self, bot: &Bot) -> String {
        format!("sluice/{}/{}-{}", slug(&self.kind), slug(&self.scope), &self.key(bot)[..8])
    }

    fn content(&self, head: Oid) -> Content {
        Content {
            head,
            base_at: self.base_at,
            title: self.title.clone(),
            body: self.body.clone(),
            digest: self.digest.clone(),
            labels: self.labels.clone(),
            evidence: self.evidence.clone(),
        }
    }
}

impl Conduct {
    /// How a bot behaves by default.
    pub fn new(bot: Bot) -> Self {
        Self { bot, cool_down: COOL_DOWN, absent: BTreeMap::new() }
    }

    /// Makes the bot's pull requests what they should be; one that fails does not stop the others.
    ///
    /// Fails only when the pull requests cannot be listed.
    pub fn reconcile(
        &self,
        forge: &Forge,
        repository: &Repository,
        desired: &[DesiredPull],
        now: Timestamp,
    ) -> Result<Vec<Outcome>, Error> {
        let pass = Pass { conduct: self, forge, repository, now };
        let mut outcomes = Vec::new();
        for pull in pass.pulls()?.iter().filter(|pull| pull.is_open()) {
            pass.note(&mut outcomes, pull, pass.catch_up(pull));
        }
        let pulls = pass.pulls()?;
        let mut wanted = BTreeSet::new();
        for desired in desired {
            let key = desired.key(&self.bot);
            if !wanted.insert(key.clone()) {
                let twice =
                    Error::stalled(format!("two proposals are both `{}` for `{}`", desired.kind, desired.scope));
                outcomes.push(Outcome { key, number: None, action: Action::Failed(twice) });
                continue;
            }
            let (number, action) = pass.settled(desired, &key, &pulls);
            let left = desired.rollback && matches!(action, Action::LeftToPeople);
            outcomes.push(Outcome { key, number, action });
            if left {
                outcomes.push(pass.beside(desired, &pulls, &mut wanted));
            }
        }
        for pull in pulls.iter().filter(|pull| pull.is_open() && !wanted.contains(&pull.key)) {
            pass.note(&mut outcomes, pull, pass.withdraw(pull).map(Some));
        }
        if let Err(error) = pass.tidy() {
            outcomes.push(Outcome { key: String::new(), number: None, action: Action::Failed(error) });
        }
        Ok(outcomes)
    }
}

struct Pass<'a> {
    conduct: &'a Conduct,
    forge: &'a Forge,
    repository: &'a Repository,
    now: Timestamp,
}

impl Pass<'_> {
    fn pulls(&self) -> Result<Vec<Pull>, Error> {
        self.forge.list(&Filter { author: Some(self.conduct.bot.id.clone()), ..Filter::default() })
    }

    fn note(&self, outcomes: &mut Vec<Outcome>, pull: &Pull, done: Result<Option<Action>, Error>) {
        let action = match done {
            Ok(None) => return,
            Ok(Some(action)) => action,
            Err(error) => Action::Failed(error),
        };
        outcomes.push(Outcome { key: pull.key.clone(), number: Some(pull.number), action });
    }

    /// Notices what happened to an open pull request outside of the forge's own calls, or in a pass that was killed.
    fn catch_up(&self, pull: &Pull) -> Result<Option<Action>, Error> {
        let head = pull.content.head;
        if let Some(base) = self.repository.head(&pull.base)?
            && self.repository.contains(base, head)?
        {
            self.forge.merge(pull.number, head, self.now)?;
            return Ok(Some(Action::Merged));
        }
        if self.repository.head(&pull.branch)?.is_none() {
            // We close before we remove a branch, so this was somebody else: as good as closing it.
            let reason = "its branch was removed".to_owned();
            self.forge.close(pull.number, &reason, By::Person("somebody".to_owned()), self.now)?;
            return Ok(Some(Action::Closed(reason)));
        }
        Ok(None)
    }

    /// A rollback whose own branch is other people's now: their work stays, and the rollback goes beside it.
    fn beside(&self, desired: &DesiredPull, pulls: &[Pull], wanted: &mut BTreeSet<String>) -> Outcome {
        let beside = desired.beside();
        let key = beside.key(&self.conduct.bot);
        wanted.insert(key.clone());
        let (number, action) = self.settled(&beside, &key, pulls);
        Outcome { key, number, action }
    }

    fn settled(&self, desired: &DesiredPull, key: &str, pulls: &[Pull]) -> (Option<u64>, Action) {
        let mine = pulls.iter().filter(|pull| pull.key == *key).collect::<Vec<_>>();
        match self.settle(desired, key, &mine) {
            Ok(settled) => settled,
            Err(error) => (mine.iter().find(|pull| pull.is_open()).map(|pull| pull.number), Action::Failed(error)),
        }
    }

    fn settle(&self, desired: &DesiredPull, key: &str, mine: &[&Pull]) -> Result<(Option<u64>, Action), Error> {
        if desired.digest.is_empty() || desired.digest.contains(|c: char| c.is_control() || c.is_whitespace()) {
            return Err(Error::stalled("a proposal's digest has to be one word"));
        }
        let base = match self.repository.head(&desired.base)? {
            Some(base) if self.repository.contains(base, desired.base_at)? => base,
            Some(_) => return Err(Error::waiting(format!("`{}` moved; the next pass reads it again", desired.base))),
            None => return Err(Error::stalled(format!("there is no branch `{}`: create it", desired.base))),
        };
        let mut open = mine.iter().filter(|pull| pull.is_open());
        let (open, twins) = (open.next(), open);
        for twin in twins {
            self.close(twin, "an older pull request is about the same")?;
        }
        if self.holds(desired.base_at, desired)? || self.holds(base, desired)? {
            return match open {
                Some(pull) => Ok((Some(pull.number), self.close(pull, "the base branch has this content already")?)),
                None => Ok((None, Action::InBase)),
            };
        }
        let (pull, action) = match open {
            Some(pull) => self.refresh(desired, key, pull)?,
            None => match self.declined(desired, mine) {
                Some(reason) => return Ok((None, Action::Declined(reason))),
                None => self.create(desired, key)?,
            },
        };
        // Content that was merged once and is gone again was taken back by somebody: then a person decides.
        let merged_before = mine.iter().any(|old| old.state == State::Merged && old.content.digest == desired.digest);
        let number = Some(pull.number);
        if !desired.auto_merge || merged_before || matches!(action, Action::LeftToPeople) {
            return Ok((number, action));
        }
        match self.forge.merge(pull.number, pull.content.head, self.now) {
            Ok(_) => Ok((number, Action::Merged)),
            Err(Error::Conflict { base, .. }) => {
                let message =
                    format!("cannot merge #{} yet: `{base}` moved; it is rebuilt in the next pass", pull.number);
                Err(Error::waiting(message))
            }
            Err(error) => Err(error),
        }
    }

    fn refresh(&self, desired: &DesiredPull, key: &str, pull: &Pull) -> Result<(Pull, Action), Error> {
        let same = pull.content.digest == desired.digest;
        let (tip, told) = match self.branch(&pull.branch, key, &[desired.base_at, pull.content.base_at])? {
            Branch::Ours(tip, told) => (tip, told),
            Branch::Foreign if same => return Ok((pull.clone(), Action::LeftToPeople)),
            Branch::Foreign => return Ok((self.suggest(desired, pull)?, Action::LeftToPeople)),
            Branch::Absent => return Err(Error::waiting(format!("the branch of #{} went away", pull.number))),
        };
        let standing = !self.outdated(tip, desired)?;
        if same && standing && tip == pull.content.head {
            return Ok((pull.clone(), Action::Unchanged));
        }
        // The newest commit may be one a killed pass wrote for this very content.
        let ready = standing && told.as_deref() == Some(&desired.digest) && self.holds(tip, desired)?;
        let head = if ready { tip } else { self.extend(&pull.branch, Some(tip), desired, key)? };
        let pull = self.forge.update(pull.number, desired.content(head), self.now)?;
        Ok((pull, if same { Action::Rebuilt } else { Action::Updated }))
    }

    fn create(&self, desired: &DesiredPull, key: &str) -> Result<(Pull, Action), Error> {
        let first = desired.branch(&self.conduct.bot);
        let names = std::iter::once(first.clone()).chain((2..10).map(|n| format!("{first}-{n}")));
        for branch in names {
            let head = match self.branch(&branch, key, &[desired.base_at])? {
                Branch::Absent => self.extend(&branch, None, desired, key)?,
                Branch::Ours(tip, told) => {
                    let ready = told.as_deref() == Some(&desired.digest)
                        && self.holds(tip, desired)?
                        && !self.outdated(tip, desired)?;
                    if ready { tip } else { self.extend(&branch, Some(tip), desired, key)? }
                }
                // Somebody's work lives under our name: leave it and take the next one.
                Branch::Foreign => continue,
            };
            let new = NewPull {
                key: key.to_owned(),
                author: self.conduct.bot.id.clone(),
                branch,
                base: desired.base.clone(),
                content: desired.content(head),
            };
            return Ok((self.forge.open(new, self.now)?, Action::Opened));
        }
        Err(Error::stalled(format!(
            "other people's commits are on `{first}` and its successors: remove those branches"
        )))
    }

    /// Puts one commit of ours on a branch: the base with the changes, so that the branch says nothing else.
    fn extend(&self, branch: &str, tip: Option<Oid>, desired: &DesiredPull, key: &str) -> Result<Oid, Error> {
        let base = desired.base_at;
        let mut parents = Vec::new();
        if let Some(tip) = tip
            && !self.repository.contains(base, tip)?
        {
            parents.push(tip);
        }
        let joined = match parents.first() {
            Some(tip) => self.repository.contains(*tip, base)?,
            None => false,
        };
        if !joined {
            parents.push(base);
        }
        let tree = self.repository.edited(Some(base), &desired.changes)?;
        let bot = &self.conduct.bot;
        let seal = seal(&bot.id, key, &desired.digest, tree, &parents);
        let message = format!(
            "{}\n\nSluice-Key: {key}\nSluice-Digest: {}\nSluice-Seal: {seal}\n",
            desired.message.trim_end(),
            desired.digest
        );
        let commit = self.repository.commit_of(&parents, tree, &message, &bot.signature(self.now))?;
        self.repository.update_ref(&branch_ref(branch), commit, tip)?;
        Ok(commit)
    }

    /// Whose is a branch? `bases` are the commits it may have started from.
    ///
    /// The newest commit answers for all: we put ours on a base or on another one of ours, never on anybody else's,
    /// and the seal vouches for the parents. So this holds even after the base was rewritten.
    fn branch(&self, name: &str, key: &str, bases: &[Oid]) -> Result<Branch, Error> {
        let Some(tip) = self.repository.head(name)? else { return Ok(Branch::Absent) };
        match self.own(tip)? {
            Some((found, digest)) if found == key => return Ok(Branch::Ours(tip, Some(digest))),
            _ => {}
        }
        for base in bases {
            if self.repository.contains(*base, tip)? {
                return Ok(Branch::Ours(tip, None));
            }
        }
        Ok(Branch::Foreign)
    }

    /// The key and digest of a commit we wrote; `None` for everybody else's.
    ///
    /// Name and address are not enough: whoever amends our commit keeps them. The seal speaks of tree and parents.
    fn own(&self, commit: Oid) -> Result<Option<(String, String)>, Error> {
        let commit = self.repository.describe(commit)?;
        let bot = &self.conduct.bot;
        let us = (bot.name.clone(), bot.email.clone());
        if commit.author != us || commit.committer != us {
            return Ok(None);
        }
        let mut lines = commit.message.trim_end().rsplitn(4, '\n');
        let mut trailer = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(": ").map(str::to_owned);
        let found = (trailer("Sluice-Seal"), trailer("Sluice-Digest"), trailer("Sluice-Key"));
        let (Some(sealed), Some(digest), Some(key)) = found else { return Ok(None) };
        let ours = sealed == seal(&bot.id, &key, &digest, commit.tree, &commit.parents);
        Ok(ours.then_some((key, digest)))
    }

    /// Does a commit hold every file as desired?
    fn holds(&self, commit: Oid, desired: &DesiredPull) -> Result<bool, Error> {
        for (path, bytes) in &desired.changes {
            if self.repository.file(commit, path)?.as_ref() != Some(bytes) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Did the base change one of the files since the branch left it?
    fn outdated(&self, tip: Oid, desired: &DesiredPull) -> Result<bool, Error> {
        let Some(fork) = self.repository.fork(tip, desired.base_at)? else { return Ok(true) };
        let moved = self.repository.changed_paths(fork, desired.base_at)?;
        Ok(desired.changes.iter().any(|(path, _)| moved.contains(path)))
    }

    /// Why a proposal that a person closed is not offered again; `None`: it may be.
    ///
    /// A rollback does not wait for the cool-down, but the very one a person closed stays closed too: a pull request
    /// that returns each minute could not be declined at all.
    fn declined(&self, desired: &DesiredPull, mine: &[&Pull]) -> Option<String> {
        for pull in mine.iter().rev() {
            let State::Closed { by: By::Person(person), .. } = &pull.state else { continue };
            if pull.content.digest == desired.digest {
                return Some(format!("{person} closed it as #{}", pull.number));
            }
            let until = pull.closed_at.and_then(|at| at.checked_add(self.conduct.cool_down).ok());
            if let Some(until) = until.filter(|until| !desired.rollback && self.now < *until) {
                return Some(format!("{person} closed #{}; it may return after {until}", pull.number));
            }
        }
        None
    }

    /// Says what we would have written to a branch that is other people's now; once per digest.
    fn suggest(&self, desired: &DesiredPull, pull: &Pull) -> Result<Pull, Error> {
        let mark = format!("<!-- sluice:{} -->", desired.digest.replace("--", "- -"));
        let told = pull.comments.iter().any(|old| old.key.as_deref() == Some(FOREIGN) && old.text.contains(&mark));
        if told {
            return Ok(pull.clone());
        }
        let mut diff = String::new();
        for (path, bytes) in &desired.changes {
            let old = self.repository.file(desired.base_at, path)?.unwrap_or_default();
            diff.push_str(&repository::patch(path, &old, bytes)?);
        }
        let fence = fence(&diff);
        let mut text = format!("{mark}\nThis branch holds commits that are not mine, so I leave it alone. ");
        let _ = write!(text, "What I would have written now, over `{}`:\n\n{fence}diff\n{diff}{fence}\n", desired.base);
        self.forge.comment(pull.number, Some(FOREIGN), &text, self.now)
    }

    fn withdraw(&self, pull: &Pull) -> Result<Action, Error> {
        match self.conduct.absent.get(&pull.key) {
            Some(Absent::Keep) => Ok(Action::Kept),
            Some(Absent::Close(reason)) => self.close(pull, reason),
            None => self.close(pull, "what it proposed is no longer needed"),
        }
    }

    /// Closes a pull request that is moot, unless people put work into it; then it tells them.
    fn close(&self, pull: &Pull, reason: &str) -> Result<Action, Error> {
        if let Branch::Foreign = self.branch(&pull.branch, &pull.key, &self.bases(pull)?)? {
            let text =
                format!("I would close this now: {reason}. It holds commits that are not mine, so it stays open.");
            self.forge.comment(pull.number, Some("moot"), &text, self.now)?;
            return Ok(Action::LeftToPeople);
        }
        self.forge.close(pull.number, reason, By::Bot, self.now)?;
        Ok(Action::Closed(reason.to_owned()))
    }

    /// Removes branches of ours that nothing needs: of merged and withdrawn pull requests, and of passes killed
    /// between branch and pull request whose proposal is gone. A branch a person closed stays; reopening needs it.
    fn tidy(&self) -> Result<(), Error> {
        let all = self.forge.list(&Filter::default())?;
        for (name, tip) in self.repository.references("refs/heads/sluice/*")? {
            let branch = name.strip_prefix("refs/heads/").unwrap_or(&name);
            let users = all.iter().filter(|pull| pull.branch == branch).collect::<Vec<_>>();
            let needed = |pull: &&Pull| {
                pull.author != self.conduct.bot.id
                    || matches!(pull.state, State::Open | State::Closed { by: By::Person(_), .. })
            };
            if users.iter().any(needed) {
                continue;
            }
            let (key, bases) = match (users.last(), self.own(tip)?) {
                (Some(pull), _) => (pull.key.clone(), self.bases(pull)?),
                (None, Some((key, _))) => (key, Vec::new()),
                (None, None) => continue,
            };
            if let Branch::Ours(..) = self.branch(branch, &key, &bases)? {
                self.repository.delete_ref(&name, tip)?;
            }
        }
        Ok(())
    }

    /// Where a pull request's branch may have come from.
    fn bases(&self, pull: &Pull) -> Result<Vec<Oid>, Error> {
        let mut bases = vec![pull.content.base_at];
        bases.extend(self.repository.head(&pull.base)?);
        Ok(bases)
    }
}

fn seal(bot: &str, key: &str, digest: &str, tree: Oid, parents: &[Oid]) -> String {
    let mut hash = Sha256::new();
    for part in ["sluice-seal", bot, key, digest, &tree.to_string()] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    for parent in parents {
        hash.update(parent.as_bytes());
    }
    hex::encode(hash.finalize())
}

/// A fence no line of the text can close.
fn fence(text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    "`".repeat(longest.max(2) + 1)
}

/// A name as a branch may carry it: lower-case letters, digits and single hyphens, at most 40.
fn slug(name: &str) -> String {
    let mut slug = String::new();
    for c in name.chars().map(|c| c.to_ascii_lowercase()) {
        if slug.len() == 40 {
            break;
        }
        match c {
            'a'..='z' | '0'..='9' => slug.push(c),
            _ if slug.is_empty() || slug.ends_with('-') => {}
            _ => slug.push('-'),
        }
    }
    let slug = slug.trim_end_matches('-');
    if slug.is_empty() { "x".to_owned() } else { slug.to_owned() }
}

#[cfg(test)]
mod tests;
