//! placeholder until merge
use super::Proposal;
/// t
pub fn title(_: &Proposal) -> String { String::new() }
/// t
pub fn body(_: &Proposal) -> String { String::new() }
/// t
pub fn commit_message(_: &Proposal) -> String { String::new() }
/// t
pub fn digest(_: &Proposal) -> String { String::new() }
