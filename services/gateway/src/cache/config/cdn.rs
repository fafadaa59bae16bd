//! `[cache.cdn]`: whom purges are told beyond Troupe.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use troupe_node::config::text;
use troupe_node::units::Duration;

/// A content delivery network in front, whose copies a purge takes out as well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CdnConfig {
    /// Whose API is called behind each purge: "none", "cloudflare", or "custom" as url, headers and bodies say.
    pub preset: CdnPreset,
    /// What {zone} stands for in the templates: the site's id at the network.
    pub zone: String,
    /// File with what {token} stands for: the API's key. Read for each call, so that it can be replaced.
    #[schemars(schema_with = "text::path")]
    pub token_file: PathBuf,
    /// Where calls go; {zone}, {token}, {url}, {prefix}, {host} and {group} are filled in, encoded as URLs want it. Empty:
    /// the preset's.
    pub url: String,
    /// The calls' method. Empty: the preset's, or POST.
    pub method: String,
    /// Header fields of the calls; {zone} and {token} are filled in. They stand beside those of the preset.
    pub headers: BTreeMap<String, String>,
    /// Bodies of the calls, by what is purged; the same words are filled in, escaped as JSON wants it. What has no body here or
    /// in the preset is not told.
    pub bodies: CdnBodies,
    /// How long a call may take.
    pub timeout: Duration,
}

/// Whose API is called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CdnPreset {
    /// Nobody's.
    #[default]
    None,
    /// Cloudflare's purge_cache of a zone.
    Cloudflare,
    /// As configured.
    Custom,
}

/// Bodies by what is purged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CdnBodies {
    /// One URL: {url}.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// All that begins with {prefix}: host and path without the scheme.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// All of {host}.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// All of {group}.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all: Option<String>,
}

impl Default for CdnConfig {
    fn default() -> Self {
        Self {
            preset: CdnPreset::None,
            zone: String::new(),
            token_file: PathBuf::new(),
            url: String::new(),
            method: String::new(),
            headers: BTreeMap::new(),
            bodies: CdnBodies::default(),
            timeout: Duration::from_secs(10),
        }
    }
}
