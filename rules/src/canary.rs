//! Evidence, verdict, next rung: the decision engine of a canary.
//!
//! Every signal becomes counts per tick in two arms ([`tick`]). Two e-processes per signal weigh them: *harm* over the
//! canary's whole life, *safety* on each rung ([`judge`]). Looking often costs nothing, missing data is no failure, and
//! what is undecided never moves a weight.

mod betting;
mod dispersion;
mod e_process;
pub mod judge;
mod likelihood;
pub mod policy;
mod projection;
mod sample_ratio;
mod signal;
pub mod tick;

pub use judge::{Call, Cause, Judge, Reason, Standing, TickError, Verdict};
pub use policy::{HoldBack, Policy, PolicyError, Seconds, SignalPolicy};
pub use signal::SignalVerdict;
pub use tick::{Arms, Counts, Replicas, Sample, Tick};
