//! `sluice-webhook cel`: the belt for the time when the webhook is away.

use crate::admission::Settings;
use crate::cel::{self, Lease, Options};
use crate::guards;
use jiff::{SignedDuration, Timestamp};
use std::path::PathBuf;
use std::process::ExitCode;

/// Write ValidatingAdmissionPolicies for what CEL can hold of the guards: step, share and freezes of the days to come
///
/// The API server enforces them itself, so they hold while the webhook is away. They bind automation only and know
/// neither history nor approvals; what they leave out stands in their first lines.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// ShiftGuard documents: a file or a folder
    #[arg(long, value_name = "PATH")]
    pub guards: PathBuf,
    /// How many days of freezes to write down
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=366))]
    pub days: u16,
    /// The first moment of those days, such as 2026-11-25T12:00:00Z; left out: now
    #[arg(long, value_name = "TIME")]
    pub now: Option<Timestamp>,
    /// A Lease that the webhook renews: the policies hold only while nobody has renewed it for a minute
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub lease: Option<Lease>,
    /// More users who are never bound, such as the control plane's account in a namespace of its own
    #[arg(long, value_name = "USER")]
    pub exempt: Vec<String>,
}

/// Runs the command.
///
/// # Errors
///
/// What stops it.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let rules = guards::load(&args.guards).map_err(|problems| anyhow::anyhow!("{}", problems.join("\n")))?;
    let mut settings = Settings::default();
    settings.exempt.extend(args.exempt.iter().cloned());
    let options = Options {
        now: args.now.unwrap_or_else(Timestamp::now),
        horizon: SignedDuration::from_hours(24 * i64::from(args.days)),
        lease: args.lease.clone(),
    };
    print!("{}", cel::render(&rules.guards, &settings, &options)?);
    Ok(ExitCode::SUCCESS)
}
