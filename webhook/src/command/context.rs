//! What no review tells: Kuma's generation and zone, and the accounts with a role of their own.

use crate::admission::Settings;
use sluice_rules::validate::{Kuma, Version};

/// Options of whatever answers reviews.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct Args {
    /// Kuma's generation: 2.14 or 3.0 [default: that of the cluster's CRDs; without a cluster 2.14]
    #[arg(long, value_name = "VERSION", value_parser = version)]
    pub(super) kuma: Option<Version>,
    /// Kuma's zone
    #[arg(long, value_name = "NAME", default_value_t = Kuma::default().zone)]
    zone: String,
    /// Namespace of Kuma's control plane
    #[arg(long, value_name = "NAME", default_value_t = Kuma::default().system_namespace)]
    system_namespace: String,
    /// More accounts whose writes pass unjudged and are counted, such as another controller that the cluster depends on
    #[arg(long, value_name = "USER", value_delimiter = ',')]
    exempt: Vec<String>,
    /// The account of the bot, which writes a ShiftApproval for whoever approved its pull request
    #[arg(long, value_name = "USER", default_value_t = Settings::default().bot)]
    bot_account: String,
}

impl Args {
    /// Kuma, as far as it is told.
    pub(super) fn kuma(&self) -> Kuma {
        Kuma {
            version: self.kuma.unwrap_or(Kuma::default().version),
            zone: self.zone.clone(),
            system_namespace: self.system_namespace.clone(),
        }
    }

    /// Adds the accounts.
    pub(super) fn name_accounts(&self, settings: &mut Settings) {
        settings.exempt.extend_from_slice(&self.exempt);
        settings.bot.clone_from(&self.bot_account);
    }
}

fn version(text: &str) -> Result<Version, String> {
    match text {
        "2.14" => Ok(Version::V2_14),
        "3.0" => Ok(Version::V3_0),
        _ => Err("known are 2.14 and 3.0".to_owned()),
    }
}
