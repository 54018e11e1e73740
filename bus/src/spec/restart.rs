//! When a container is started again by itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// When a container is started again by itself. A preset gives the delays; each field of its own overrides it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Restart {
    /// Whether, if no rule says so.
    pub policy: RestartPolicy,
    /// With `on-failure`: how many restarts at most since the last start by hand, at least 1; unlimited if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_retries: Option<i64>,
    /// Where the delays come from that are not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preset: Option<RestartPreset>,
    /// Seconds; the first delay, 0 to 86,400. Without a preset it is also waited before the first restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial: Option<f64>,
    /// The first restart in a row does not wait, and the second waits for `initial`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_at_once: Option<bool>,
    /// How many times the one before each delay is, 1 (constant) to 1,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub factor: Option<f64>,
    /// Instead of a factor: from `initial` to `max` in so many steps, each of the same factor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<i64>,
    /// Seconds; the longest delay, `initial` to 86,400.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// The part of itself by which chance may lengthen a delay, 0 to 1, in hundredths.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter: Option<f64>,
    /// Seconds after which delays begin anew, above 0. Since when depends on the preset: ready (`default` and
    /// `systemd`), running (`docker`) or from the last restart to the end of the run (`kubernetes`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reset_after: Option<f64>,
    /// How many restarts at most, at least 1; unlimited if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<i64>,
    /// Seconds before the end of a run, above 0, in which restarts count for `maxAttempts`, then at most 1,000; all
    /// since the last start by hand if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<f64>,
    /// How many starts in a while, those by hand included; the preset's if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_limit: Option<StartLimit>,
    /// Decide before the policy, the first that fits the exit code; at most 20.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<ExitRule>,
}

/// Whether a container is started again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// After a run that failed: an exit code other than 0, a signal, no start, an unhealthy run.
    OnFailure,
    /// After every run that was not stopped, and at boot.
    Always,
    /// As `always`, but at boot only if it was not stopped before.
    UnlessStopped,
}

/// The delays of a system.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPreset {
    /// At once, then 0.1 s doubled up to 60 s, jitter 0.1; anew after 10 s ready.
    #[default]
    Default,
    /// At once, then 10 s doubled up to 300 s; anew when more than 600 s lie between a restart and the run's end.
    Kubernetes,
    /// 0.1 s doubled up to 60 s; anew after a run of 10 s.
    Docker,
    /// Always 0.1 s, but no more than 5 starts in 10 s.
    Systemd,
}

/// A limit on starts of any kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct StartLimit {
    /// How many, at least 1.
    pub burst: i64,
    /// Seconds, above 0, from the first start after the last interval.
    pub interval: f64,
}

/// What to do about some exit codes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ExitRule {
    /// What follows.
    pub action: RuleAction,
    /// Of which.
    pub exit_codes: ExitCodes,
}

/// What follows a fitting exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum RuleAction {
    /// A restart, with back-off and within the limits.
    #[serde(alias = "Restart")]
    Restart,
    /// None.
    Stay,
}

/// Some exit codes. A run that was ended by a signal has 128 + its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ExitCodes {
    /// These or all others?
    pub operator: Operator,
    /// Exit codes, 0 to 255; 1 to 255 of them.
    pub values: Vec<i64>,
}

/// These or all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Operator {
    /// These.
    In,
    /// All others.
    NotIn,
}

impl Restart {
    /// Nothing is said.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
