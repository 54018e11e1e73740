//! `probes`, `lifecycle` and the health check of a container: when they are due, for the core, and how each is
//! carried out, for [`crate::probe`].
//!
//! An error has the words of Kubernetes' validation and the path of the field.

use crate::probe::{self, Handler, Scheme};
use std::time::Duration;
use wharf_bus::{Error, Spec, spec};
use wharf_supervisor as core;
use wharf_supervisor::ProbeKind;

const YEAR: f64 = 31_536_000.0;
/// The core gives a postStart hook no more.
const LONGEST_POST_START: Duration = Duration::from_secs(120);

/// How each probe and hook of a container is carried out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Handlers {
    /// [`ProbeKind::Startup`].
    pub startup: Option<Handler>,
    /// [`ProbeKind::Liveness`].
    pub liveness: Option<Handler>,
    /// [`ProbeKind::Readiness`].
    pub readiness: Option<Handler>,
    /// [`ProbeKind::Health`].
    pub health: Option<Handler>,
    /// When a run has started.
    pub post_start: Option<Handler>,
    /// Before a run is asked to end.
    pub pre_stop: Option<Handler>,
}

impl Handlers {
    /// Is any of them a program that is run in the container?
    pub fn run_programs(&self) -> bool {
        let Self { startup, liveness, readiness, health, post_start, pre_stop } = self;
        [startup, liveness, readiness, health, post_start, pre_stop]
            .into_iter()
            .any(|handler| matches!(handler, Some(Handler::Exec { .. })))
    }

    /// That of a probe.
    pub fn of(&self, kind: ProbeKind) -> Option<&Handler> {
        match kind {
            ProbeKind::Startup => self.startup.as_ref(),
            ProbeKind::Liveness => self.liveness.as_ref(),
            ProbeKind::Readiness => self.readiness.as_ref(),
            ProbeKind::Health => self.health.as_ref(),
        }
    }
}

/// What a document says about probes and hooks. `healthcheck` is what [`super::healthcheck::settle`] made of it and
/// of the image; `grace` is the container's own.
pub fn probes(
    spec: &Spec,
    healthcheck: Option<&spec::Healthcheck>,
    grace: Duration,
) -> Result<(core::Probes, Handlers), Error> {
    let env: Vec<_> = spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let read = |kind, probe: &Option<spec::Probe>| {
        let reader = Reader { path: format!("probes.{}", ProbeKind::name(kind)), env: &env };
        probe.as_ref().map(|probe| reader.probe(kind, probe)).transpose()
    };
    let (startup, ask_startup) = read(ProbeKind::Startup, &spec.probes.startup)?.unzip();
    let (liveness, ask_liveness) = read(ProbeKind::Liveness, &spec.probes.liveness)?.unzip();
    let (readiness, ask_readiness) = read(ProbeKind::Readiness, &spec.probes.readiness)?.unzip();
    let (health, ask_health) = healthcheck.map(super::healthcheck::probe).transpose()?.unzip();
    let hook = |name, hook: &Option<spec::Hook>, longest| {
        let reader = Reader { path: format!("lifecycle.{name}"), env: &env };
        hook.as_ref().map(|hook| reader.hook(hook, longest)).transpose()
    };
    let handlers = Handlers {
        startup: ask_startup,
        liveness: ask_liveness,
        readiness: ask_readiness,
        health: ask_health,
        post_start: hook("postStart", &spec.lifecycle.post_start, LONGEST_POST_START)?,
        pre_stop: hook("preStop", &spec.lifecycle.pre_stop, grace)?,
    };
    let restarts = match spec.restart.policy {
        spec::RestartPolicy::No => false,
        spec::RestartPolicy::OnFailure | spec::RestartPolicy::Always | spec::RestartPolicy::UnlessStopped => {
            true
        }
    };
    let wanted = healthcheck.and_then(|check| check.restart).unwrap_or(true);
    let probes = core::Probes { startup, liveness, readiness, health, health_restarts: restarts && wanted };
    Ok((probes, handlers))
}

/// Reads one probe or hook.
struct Reader<'a> {
    /// Where it stands in the document.
    path: String,
    /// For `$(NAME)` in commands.
    env: &'a [String],
}

impl Reader<'_> {
    fn probe(&self, kind: ProbeKind, probe: &spec::Probe) -> Result<(core::Probe, Handler), Error> {
        let handlers = [
            probe.exec.as_ref().map(|exec| self.exec(exec)),
            probe.http_get.as_ref().map(|request| self.http(request)),
            probe.tcp_socket.as_ref().map(|socket| self.tcp(socket)),
            probe.grpc.as_ref().map(|check| self.grpc(check)),
        ];
        let handler = self.only(handlers, "exec, httpGet, tcpSocket or grpc")?;
        let default = core::Probe::default();
        let seconds = |name, given: Option<f64>, default| {
            given.map_or(Ok(default), |given| seconds(&self.field(name), given))
        };
        let count = |name, given: Option<i64>, default| {
            given.map_or(Ok(default), |given| count(&self.field(name), given))
        };
        let timing = core::Probe {
            initial_delay: seconds(
                "initialDelaySeconds",
                probe.initial_delay_seconds,
                default.initial_delay,
            )?,
            period: seconds("periodSeconds", probe.period_seconds, default.period)?,
            timeout: seconds("timeoutSeconds", probe.timeout_seconds, default.timeout)?,
            success_threshold: count("successThreshold", probe.success_threshold, default.success_threshold)?,
            failure_threshold: count("failureThreshold", probe.failure_threshold, default.failure_threshold)?,
            grace: probe
                .termination_grace_period_seconds
                .map(|given| self::seconds(&self.field("terminationGracePeriodSeconds"), given))
                .transpose()?,
            ..default
        };
        timing.validate(kind).map_err(|error| invalid(&self.field(error.field), &error.reason))?;
        Ok((timing, handler))
    }

    fn hook(&self, hook: &spec::Hook, longest_sleep: Duration) -> Result<Handler, Error> {
        let handlers = [
            hook.exec.as_ref().map(|exec| self.exec(exec)),
            hook.http_get.as_ref().map(|request| self.http(request)),
            hook.sleep.as_ref().map(|sleep| self.sleep(sleep, longest_sleep)),
        ];
        self.only(handlers, "exec, httpGet or sleep")
    }

    fn only<const N: usize>(
        &self,
        handlers: [Option<Result<Handler, Error>>; N],
        known: &str,
    ) -> Result<Handler, Error> {
        let mut given = handlers.into_iter().flatten();
        match (given.next(), given.next()) {
            (Some(handler), None) => handler,
            (Some(_), Some(_)) => {
                Err(self.bad(&format!("may not specify more than 1 handler type; give one of {known}")))
            }
            (None, _) => Err(self.bad(&format!("must specify a handler type: {known}"))),
        }
    }

    fn exec(&self, exec: &spec::Exec) -> Result<Handler, Error> {
        let field = self.field("exec.command");
        if exec.command.first().is_none_or(String::is_empty) {
            return Err(invalid(&field, "required; give a program and its arguments"));
        }
        let command = probe::expand(&exec.command, self.env);
        if command.iter().any(|word| word.contains('\0')) {
            return Err(invalid(&field, "must not contain a NUL character"));
        }
        Ok(Handler::Exec { command })
    }

    fn http(&self, request: &spec::HttpGet) -> Result<Handler, Error> {
        let path = request.path.clone().filter(|path| !path.is_empty()).unwrap_or_else(|| "/".to_owned());
        if path.contains(char::is_control) {
            return Err(invalid(&self.field("httpGet.path"), "must not contain control characters"));
        }
        let header = |(index, header): (usize, &spec::HttpHeader)| {
            let field = |name| self.field(&format!("httpGet.httpHeaders[{index}].{name}"));
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
            if header.name.is_empty() || !header.name.chars().all(is_name) {
                return Err(invalid(
                    &field("name"),
                    "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name')",
                ));
            }
            if header.value.contains(char::is_control) {
                return Err(invalid(&field("value"), "must not contain control characters"));
            }
            Ok((header.name.clone(), header.value.clone()))
        };
        Ok(Handler::Http {
            scheme: match request.scheme.unwrap_or_default() {
                spec::Scheme::Http => Scheme::Http,
                spec::Scheme::Https => Scheme::Https,
            },
            host: self.host("httpGet.host", request.host.as_deref())?,
            port: self.port("httpGet.port", request.port)?,
            path,
            headers: request.http_headers.iter().enumerate().map(header).collect::<Result<_, _>>()?,
        })
    }

    fn tcp(&self, socket: &spec::TcpSocket) -> Result<Handler, Error> {
        Ok(Handler::Tcp {
            host: self.host("tcpSocket.host", socket.host.as_deref())?,
            port: self.port("tcpSocket.port", socket.port)?,
        })
    }

    fn grpc(&self, check: &spec::Grpc) -> Result<Handler, Error> {
        let service = check.service.clone().unwrap_or_default();
        Ok(Handler::Grpc { port: self.port("grpc.port", check.port)?, service })
    }

    fn sleep(&self, sleep: &spec::Sleep, longest: Duration) -> Result<Handler, Error> {
        let field = self.field("sleep.seconds");
        let duration = seconds(&field, sleep.seconds)?;
        if duration > longest {
            return Err(invalid(
                &field,
                &format!(
                    "must be less than or equal to {} (the time that this hook has)",
                    longest.as_secs_f64()
                ),
            ));
        }
        Ok(Handler::Sleep { duration })
    }

    fn port(&self, name: &str, port: i64) -> Result<u16, Error> {
        match u16::try_from(port) {
            Ok(port) if port > 0 => Ok(port),
            Ok(_) | Err(_) => Err(invalid(&self.field(name), "must be between 1 and 65535, inclusive")),
        }
    }

    /// An absent and an empty one are the container itself.
    fn host(&self, name: &str, host: Option<&str>) -> Result<Option<String>, Error> {
        let Some(host) = host.filter(|host| !host.is_empty()) else { return Ok(None) };
        let fits = |c: char| c.is_ascii_alphanumeric() || "-._:[]%".contains(c);
        if !host.chars().all(fits) {
            return Err(invalid(&self.field(name), "must be a host name or an IP address"));
        }
        Ok(Some(host.to_owned()))
    }

    fn field(&self, name: &str) -> String {
        format!("{}.{name}", self.path)
    }

    fn bad(&self, problem: &str) -> Error {
        invalid(&self.path, problem)
    }
}

pub(super) fn seconds(field: &str, value: f64) -> Result<Duration, Error> {
    let problem = match value {
        value if (0.0..=YEAR).contains(&value) => return Ok(Duration::from_secs_f64(value)),
        value if value < 0.0 => "must be greater than or equal to 0".to_owned(),
        _ => format!("must be less than or equal to {YEAR} (a year)"),
    };
    Err(invalid(field, &problem))
}

pub(super) fn count(field: &str, value: i64) -> Result<u32, Error> {
    let problem = match i32::try_from(value).map(i32::cast_unsigned) {
        Ok(count) if value > 0 => return Ok(count),
        Ok(_) => "must be greater than or equal to 1".to_owned(),
        Err(_) if value < 0 => "must be greater than or equal to 1".to_owned(),
        Err(_) => format!("must be less than or equal to {}", i32::MAX),
    };
    Err(invalid(field, &problem))
}

pub(super) fn invalid(field: &str, problem: &str) -> Error {
    Error::InvalidSpec(format!("{field}: {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<(core::Probes, Handlers), String> {
        let spec = Spec::parse(json).expect("the shape is right");
        probes(&spec, None, Duration::from_secs(10)).map_err(|error| {
            let Error::InvalidSpec(text) = error else { panic!("{error}") };
            text
        })
    }

    fn liveness(probe: &str) -> Result<(core::Probe, Handler), String> {
        let (probes, handlers) = read(&format!(r#"{{"probes": {{"liveness": {{{probe}}}}}}}"#))?;
        Ok((probes.liveness.expect("given"), handlers.liveness.expect("given")))
    }

    #[test]
    fn nothing_said_is_nothing_probed() {
        assert_eq!(read("{}"), Ok((core::Probes::default(), Handlers::default())));
    }

    #[test]
    fn absent_fields_are_the_kubelets() {
        let (timing, handler) = liveness(r#""httpGet": {"port": 8080}"#).expect("accepted");
        assert_eq!(timing, core::Probe::default());
        let (scheme, host, path, headers) = (Scheme::Http, None, "/".to_owned(), Vec::new());
        assert_eq!(handler, Handler::Http { scheme, host, port: 8080, path, headers });
    }

    #[test]
    fn every_field_arrives() {
        let (timing, handler) = liveness(
            r#""httpGet": {"path": "/a?b", "port": 1, "host": "db", "scheme": "HTTPS",
                "httpHeaders": [{"name": "A", "value": "1"}, {"name": "A", "value": ""}]},
               "initialDelaySeconds": 1, "periodSeconds": 0.1, "timeoutSeconds": 2.5, "successThreshold": 1,
               "failureThreshold": 30, "terminationGracePeriodSeconds": 5"#,
        )
        .expect("accepted");
        assert_eq!(
            timing,
            core::Probe {
                initial_delay: Duration::from_secs(1),
                period: Duration::from_millis(100),
                timeout: Duration::from_millis(2500),
                failure_threshold: 30,
                grace: Some(Duration::from_secs(5)),
                ..core::Probe::default()
            }
        );
        assert_eq!(
            handler,
            Handler::Http {
                scheme: Scheme::Https,
                host: Some("db".to_owned()),
                port: 1,
                path: "/a?b".to_owned(),
                headers: vec![("A".to_owned(), "1".to_owned()), ("A".to_owned(), String::new())],
            }
        );
    }

    #[test]
    fn each_way_of_asking_arrives() {
        let handler = |probe: &str| liveness(probe).map(|(_, handler)| handler);
        let command = vec!["cat".to_owned(), "/ok".to_owned()];
        assert_eq!(handler(r#""exec": {"command": ["cat", "/ok"]}"#), Ok(Handler::Exec { command }));
        assert_eq!(handler(r#""tcpSocket": {"port": 5432}"#), Ok(Handler::Tcp { host: None, port: 5432 }));
        assert_eq!(
            handler(r#""grpc": {"port": 9000}"#),
            Ok(Handler::Grpc { port: 9000, service: String::new() })
        );
    }

    #[test]
    fn hooks_arrive() {
        let json = r#"{"lifecycle": {"postStart": {"sleep": {"seconds": 100}},
                                     "preStop": {"exec": {"command": ["/bye"]}}}}"#;
        let (_, handlers) = read(json).expect("accepted");
        assert_eq!(handlers.post_start, Some(Handler::Sleep { duration: Duration::from_secs(100) }));
        assert_eq!(handlers.pre_stop, Some(Handler::Exec { command: vec!["/bye".to_owned()] }));
    }

    #[test]
    fn errors_name_the_field_and_what_it_must_be() {
        for (probe, error) in [
            (r#""periodSeconds": 1"#, "probes.liveness: must specify a handler type: exec, "),
            (
                r#""grpc": {"port": 1}, "tcpSocket": {"port": 1}"#,
                "probes.liveness: may not specify more than 1 handler type; ",
            ),
            (
                r#""grpc": {"port": 1}, "successThreshold": 2"#,
                "probes.liveness.successThreshold: must be 1 for liveness",
            ),
            (
                r#""grpc": {"port": 1}, "failureThreshold": 0"#,
                "probes.liveness.failureThreshold: must be greater than or equal to 1",
            ),
            (
                r#""grpc": {"port": 1}, "failureThreshold": 5000000000"#,
                "probes.liveness.failureThreshold: must be less than or equal to 2147483647",
            ),
            (
                r#""grpc": {"port": 1}, "periodSeconds": 0"#,
                "probes.liveness.periodSeconds: must be greater than or equal to 0.1",
            ),
            (
                r#""grpc": {"port": 1}, "timeoutSeconds": -1"#,
                "probes.liveness.timeoutSeconds: must be greater than or equal to 0",
            ),
            (
                r#""grpc": {"port": 1}, "initialDelaySeconds": 1e300"#,
                "probes.liveness.initialDelaySeconds: must be less than or equal to 31536000",
            ),
            (
                r#""grpc": {"port": 1}, "terminationGracePeriodSeconds": 0"#,
                "probes.liveness.terminationGracePeriodSeconds: must be greater than 0",
            ),
            (r#""grpc": {"port": 0}"#, "probes.liveness.grpc.port: must be between 1 and 65535, inclusive"),
            (r#""tcpSocket": {"port": 65536}"#, "probes.liveness.tcpSocket.port: must be between 1"),
            (r#""tcpSocket": {"port": 1, "host": "a b"}"#, "probes.liveness.tcpSocket.host: must be a host"),
            (r#""exec": {"command": []}"#, "probes.liveness.exec.command: required"),
            (r#""exec": {"command": ["a\u0000"]}"#, "probes.liveness.exec.command: must not contain a NUL"),
            (
                r#""httpGet": {"port": 1, "httpHeaders": [{"name": "A B", "value": ""}]}"#,
                "probes.liveness.httpGet.httpHeaders[0].name: a valid HTTP header must consist of",
            ),
            (
                r#""httpGet": {"port": 1, "httpHeaders": [{"name": "A", "value": "\r\nB: c"}]}"#,
                "probes.liveness.httpGet.httpHeaders[0].value: must not",
            ),
            (r#""httpGet": {"port": 1, "path": "/\n"}"#, "probes.liveness.httpGet.path: must not"),
        ] {
            let found = liveness(probe).expect_err(probe);
            assert!(found.starts_with(error), "{probe}: {found}");
        }
        let readiness =
            r#"{"probes": {"readiness": {"grpc": {"port": 1}, "terminationGracePeriodSeconds": 1}}}"#;
        assert_eq!(
            read(readiness).expect_err("refused"),
            "probes.readiness.terminationGracePeriodSeconds: must not be set for readinessProbes"
        );
        let hook = |hook: &str| read(&format!(r#"{{"lifecycle": {{"preStop": {hook}}}}}"#)).expect_err(hook);
        assert_eq!(
            hook(r#"{"sleep": {"seconds": 11}}"#),
            "lifecycle.preStop.sleep.seconds: must be less than or equal to 10 (the time that this hook has)"
        );
        assert_eq!(
            hook(r#"{"sleep": {"seconds": -1}}"#),
            "lifecycle.preStop.sleep.seconds: must be greater than or equal to 0"
        );
        assert!(
            hook("{}").starts_with("lifecycle.preStop: must specify a handler type: exec, httpGet or sleep")
        );
    }

    #[test]
    fn health_check_restarts_only_what_has_a_restart_policy() {
        let restarts = |json: &str, restart| {
            let check = spec::Healthcheck {
                test: vec!["CMD".to_owned(), "/ok".to_owned()],
                restart,
                ..spec::Healthcheck::default()
            };
            let spec = Spec::parse(json).expect("the shape is right");
            let (probes, handlers) = probes(&spec, Some(&check), Duration::ZERO).expect("accepted");
            assert_eq!(handlers.health, Some(Handler::Exec { command: vec!["/ok".to_owned()] }));
            probes.health_restarts
        };
        assert!(restarts(r#"{"restart": {"policy": "always"}}"#, None));
        assert!(!restarts(r#"{"restart": {"policy": "always"}}"#, Some(false)));
        assert!(!restarts("{}", None));
        assert!(!restarts("{}", Some(true)));
    }

    #[test]
    fn commands_may_name_the_containers_environment() {
        let json =
            r#"{"env": {"PORT": "80"}, "probes": {"liveness": {"exec": {"command": ["nc", "$(PORT)"]}}}}"#;
        let (_, handlers) = read(json).expect("accepted");
        let command = vec!["nc".to_owned(), "80".to_owned()];
        assert_eq!(handlers.liveness, Some(Handler::Exec { command }));
    }
}
