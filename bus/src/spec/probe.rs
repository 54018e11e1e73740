//! How a container is asked whether it works, and what else is done at the edges of a run.
//!
//! Probes and hooks have the names and shapes of Kubernetes, so that they can be copied from a manifest; a health
//! check has those of a compose file.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Probes as in Kubernetes. They are made from outside: nothing of the image is needed but for `exec`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Probes {
    /// Has it come up? Until this has succeeded no other probe is made; if it fails, the container is restarted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub startup: Option<Probe>,
    /// Does it still work? If it fails, the container is restarted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub liveness: Option<Probe>,
    /// Can it do its work right now? Until this succeeds the container is not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readiness: Option<Probe>,
}

/// A probe. Exactly one of `exec`, `httpGet`, `tcpSocket` and `grpc` says how it is made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Probe {
    /// Succeeds with exit code 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec: Option<Exec>,
    /// Succeeds with a status from 200 to 399.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_get: Option<HttpGet>,
    /// Succeeds when somebody accepts the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_socket: Option<TcpSocket>,
    /// Succeeds when `grpc.health.v1.Health/Check` answers `SERVING`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<Grpc>,
    /// Seconds from the start of the run to the first probe; 0 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_delay_seconds: Option<f64>,
    /// Seconds from one probe to the next, at least 0.1; 10 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period_seconds: Option<f64>,
    /// Seconds after which it has failed, at least 0.1; 1 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<f64>,
    /// So many successes in a row count, at least 1; must be 1 for `startup` and `liveness`. 1 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub success_threshold: Option<i64>,
    /// So many failures in a row count, at least 1; 3 if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_threshold: Option<i64>,
    /// Seconds from the stop signal to the kill when this probe has failed, above 0, not for `readiness`;
    /// `stopTimeout` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub termination_grace_period_seconds: Option<f64>,
}

/// A command in the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Exec {
    /// Program and arguments; no shell.
    pub command: Vec<String>,
}

/// An HTTP request in the container's network. Certificates are not checked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct HttpGet {
    /// With a query, if there is one; `/` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// 1 to 65535.
    pub port: i64,
    /// The container itself if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// `HTTP` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    /// Added to the request; a name may occur more than once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub http_headers: Vec<HttpHeader>,
}

/// Of an HTTP request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Scheme {
    /// In the clear.
    #[default]
    Http,
    /// With TLS.
    Https,
}

/// Of an HTTP request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct HttpHeader {
    /// Letters, digits and `-`.
    pub name: String,
    /// An empty `Accept` removes the one that is sent otherwise.
    pub value: String,
}

/// A TCP connection in the container's network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TcpSocket {
    /// 1 to 65535.
    pub port: i64,
    /// The container itself if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// A gRPC health check in the container's network, without TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Grpc {
    /// 1 to 65535.
    pub port: i64,
    /// Whom to ask for; the whole server if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

/// A health check as in Docker. What is absent is taken from the image's HEALTHCHECK, then from Docker's defaults.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Healthcheck {
    /// `["CMD", PROGRAM, ARGUMENT…]`, `["CMD-SHELL", LINE]`, or `["NONE"]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Seconds before the first check and from the end of one to the start of the next, at least 0.1; 30.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<f64>,
    /// Seconds after which it has failed, at least 0.1; 30.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<f64>,
    /// So many failures in a row make it unhealthy, at least 1; 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<i64>,
    /// Seconds from the start in which failures do not count unless a check has succeeded; 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_period: Option<f64>,
    /// Seconds instead of `interval` within `startPeriod` until a check has succeeded, at least 0.1; 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_interval: Option<f64>,
    /// Make no check, not even the image's.
    #[serde(skip_serializing_if = "super::is_false")]
    pub disable: bool,
    /// Restart the container when it becomes unhealthy, if it has a restart policy; true if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<bool>,
}

/// Hooks as in Kubernetes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Lifecycle {
    /// Carried out when the run has started, in at most 120 seconds; if it fails, the run is ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post_start: Option<Hook>,
    /// Carried out before the stop signal; its time is part of the grace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pre_stop: Option<Hook>,
}

/// A hook: exactly one of these.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Hook {
    /// A command in the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec: Option<Exec>,
    /// An HTTP request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_get: Option<HttpGet>,
    /// A pause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sleep: Option<Sleep>,
}

/// A pause.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Sleep {
    /// At least 0; after the start at most 120, before a stop at most `stopTimeout`.
    pub seconds: f64,
}

/// A container that this one needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Requirement {
    /// Its name.
    pub name: String,
    /// What it must be before this one starts.
    #[serde(default)]
    pub condition: Condition,
    /// Restart this one when that one has been restarted.
    #[serde(default, skip_serializing_if = "super::is_false")]
    pub restart_with: bool,
}

/// What a container must be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Condition {
    /// Running.
    #[default]
    Started,
    /// Found healthy by all its probes.
    Healthy,
    /// Ready.
    Ready,
    /// Ended with exit code 0.
    Completed,
}

/// What a container may say of itself through sd_notify(3).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct Notify {
    /// It is not ready before it has sent `READY=1`.
    #[serde(skip_serializing_if = "super::is_false")]
    pub ready: bool,
    /// It is restarted when it has not sent `WATCHDOG=1` for so many seconds, at least 0.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watchdog_seconds: Option<f64>,
}

impl Probes {
    /// Nothing is said.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Lifecycle {
    /// Nothing is said.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Spec;

    #[test]
    fn probes_of_a_manifest_are_read_as_they_stand() {
        let spec = Spec::parse(
            r#"{"image": "web", "probes": {
                "liveness": {"httpGet": {"path": "/healthz", "port": 8080, "scheme": "HTTPS",
                    "httpHeaders": [{"name": "X-Who", "value": "me"}]},
                    "initialDelaySeconds": 3, "periodSeconds": 0.5, "terminationGracePeriodSeconds": 60},
                "readiness": {"grpc": {"port": 9000, "service": "shop"}, "successThreshold": 2},
                "startup": {"exec": {"command": ["cat", "/tmp/ready"]}, "failureThreshold": 30}},
               "lifecycle": {"preStop": {"sleep": {"seconds": 5}}, "postStart": {"exec": {"command": ["/hello"]}}},
               "healthcheck": {"test": ["CMD-SHELL", "true"], "startPeriod": 10},
               "requires": [{"name": "db", "condition": "healthy", "restartWith": true}, {"name": "log"}],
               "notify": {"ready": true, "watchdogSeconds": 10}}"#,
        )
        .expect("a document");
        let liveness = spec.probes.liveness.clone().expect("given");
        assert_eq!(liveness.period_seconds, Some(0.5));
        assert_eq!(liveness.http_get.expect("given").scheme, Some(Scheme::Https));
        assert_eq!(spec.requires[0].condition, Condition::Healthy);
        assert_eq!(spec.requires[1], Requirement { name: "log".to_owned(), ..Requirement::default() });
        let text = serde_json::to_string(&spec).expect("serialised");
        assert_eq!(Spec::parse(&text).expect("its own output"), spec);
    }
}
