//! C
/// x
pub(super) const LEASE: jiff::SignedDuration = jiff::SignedDuration::from_secs(60);
