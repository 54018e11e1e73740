//! What `run` and `create` can say about probes.

use crate::probe_target;
use crate::quantity;
use anyhow::bail;
use clap::Args;
use std::time::Duration;
use wharf_bus::spec::{Healthcheck, Probe, Probes};

/// The flags that all kinds of probes have.
macro_rules! kind_flags {
    ($flags:ident, $kind:literal, $help:literal) => {
        #[doc = concat!("`--", $kind, "` and what belongs to it.")]
        #[derive(Debug, Default, Args)]
        #[command(next_help_heading = "Probes")]
        struct $flags {
            #[arg(id = $kind, long = $kind, value_name = "URL", value_parser = probe_target::probe, help = $help)]
            probe: Option<Probe>,
            #[arg(id = concat!($kind, "-period"), long = concat!($kind, "-period"), requires = $kind,
                value_name = "TIME", value_parser = quantity::duration,
                help = "From one probe to the next, at least 100ms [default: 10s]")]
            period: Option<Duration>,
            #[arg(id = concat!($kind, "-timeout"), long = concat!($kind, "-timeout"), requires = $kind,
                value_name = "TIME", value_parser = quantity::duration,
                help = "When it has failed for want of an answer, at least 100ms [default: 1s]")]
            timeout: Option<Duration>,
            #[arg(id = concat!($kind, "-delay"), long = concat!($kind, "-delay"), requires = $kind,
                value_name = "TIME", value_parser = quantity::duration,
                help = "From the start of the run to the first probe [default: 0]")]
            delay: Option<Duration>,
            #[arg(id = concat!($kind, "-failures"), long = concat!($kind, "-failures"), requires = $kind,
                value_name = "NUMBER", value_parser = clap::value_parser!(i64).range(1..=i64::from(i32::MAX)),
                help = "So many failures in a row count [default: 3]")]
            failures: Option<i64>,
        }

        impl $flags {
            fn probe(&self) -> Option<Probe> {
                Some(Probe {
                    initial_delay_seconds: seconds(self.delay),
                    period_seconds: seconds(self.period),
                    timeout_seconds: seconds(self.timeout),
                    failure_threshold: self.failures,
                    ..self.probe.clone()?
                })
            }
        }
    };
}

kind_flags!(
    LivenessFlags,
    "liveness",
    "Restart it when this fails: http://:PORT/PATH, https://…, tcp://:PORT, grpc://:PORT[/SERVICE], asked in its network, or 'exec:PROGRAM ARGUMENT…'"
);
kind_flags!(
    ReadinessFlags,
    "readiness",
    "It is ready as long as this succeeds, and nothing is restarted; same forms [default: ready once started]"
);
kind_flags!(
    StartupFlags,
    "startup",
    "Until this has succeeded no other probe is made; restart it when this fails; same forms"
);

/// How it is asked whether it works.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Probes")]
pub struct ProbeFlags {
    #[command(flatten)]
    liveness: LivenessFlags,
    /// From the stop signal to the kill when liveness has failed [default: --stop-timeout]
    #[arg(long, value_name = "TIME", value_parser = quantity::duration, requires = "liveness")]
    liveness_grace: Option<Duration>,
    #[command(flatten)]
    readiness: ReadinessFlags,
    /// So many successes in a row count [default: 1]
    #[arg(long, value_name = "NUMBER", requires = "readiness",
        value_parser = clap::value_parser!(i64).range(1..=i64::from(i32::MAX)))]
    readiness_successes: Option<i64>,
    #[command(flatten)]
    startup: StartupFlags,
    /// From the stop signal to the kill when startup has failed [default: --stop-timeout]
    #[arg(long, value_name = "TIME", value_parser = quantity::duration, requires = "startup")]
    startup_grace: Option<Duration>,
    /// Check its health with this shell line, or JSON list of a program and its arguments [default: the image's HEALTHCHECK]
    #[arg(long, value_name = "COMMAND")]
    health_cmd: Option<String>,
    /// Before the first check and between two, at least 100ms [default: the image's, or 30s]
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    health_interval: Option<Duration>,
    /// When a check has failed for want of an answer, at least 100ms [default: the image's, or 30s]
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    health_timeout: Option<Duration>,
    /// So many failures in a row make it unhealthy [default: the image's, or 3]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i64).range(0..=i64::from(i32::MAX)))]
    health_retries: Option<i64>,
    /// Failures do not count for so long after the start, unless a check has succeeded [default: the image's, or 0]
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    health_start_period: Option<Duration>,
    /// Instead of --health-interval within that time, at least 100ms [default: the image's, or 5s]
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    health_start_interval: Option<Duration>,
    /// Make no health check, not even the image's
    #[arg(long)]
    no_healthcheck: bool,
    /// Do not restart it when it becomes unhealthy, as docker does not [default: restart it if it has a restart policy]
    #[arg(long)]
    no_health_restart: bool,
}

impl ProbeFlags {
    /// As the spec has them.
    pub fn probes(&self) -> Probes {
        let with_grace = |probe: Option<Probe>, grace| {
            probe.map(|probe| Probe { termination_grace_period_seconds: seconds(grace), ..probe })
        };
        Probes {
            startup: with_grace(self.startup.probe(), self.startup_grace),
            liveness: with_grace(self.liveness.probe(), self.liveness_grace),
            readiness: self
                .readiness
                .probe()
                .map(|probe| Probe { success_threshold: self.readiness_successes, ..probe }),
        }
    }

    /// As the spec has it.
    pub fn healthcheck(&self) -> anyhow::Result<Option<Healthcheck>> {
        let asked = Healthcheck {
            test: self.health_cmd.as_deref().map(health_test).transpose()?.unwrap_or_default(),
            // docker's zero is «as the image has it».
            interval: seconds(self.health_interval.filter(|span| !span.is_zero())),
            timeout: seconds(self.health_timeout.filter(|span| !span.is_zero())),
            retries: self.health_retries.filter(|retries| *retries > 0),
            start_period: seconds(self.health_start_period.filter(|span| !span.is_zero())),
            start_interval: seconds(self.health_start_interval.filter(|span| !span.is_zero())),
            disable: false,
            restart: self.no_health_restart.then_some(false),
        };
        if !self.no_healthcheck {
            return Ok((asked != Healthcheck::default()).then_some(asked));
        }
        let none = Healthcheck { disable: true, ..Healthcheck::default() };
        if (Healthcheck { disable: true, restart: None, ..asked }) != none {
            bail!("--no-healthcheck does not go with --health-* flags; give one or the other");
        }
        Ok(Some(none))
    }
}

/// docker's is a shell line, podman's may also be a JSON list; both know `none`.
fn health_test(text: &str) -> anyhow::Result<Vec<String>> {
    let form = |form: &str| form.to_owned();
    match text.trim() {
        "" => bail!("--health-cmd is empty; give a command, or --no-healthcheck"),
        "none" => Ok(vec![form("NONE")]),
        list if list.starts_with('[') => match probe_target::words(list) {
            Ok(mut words) => {
                if !matches!(words[0].as_str(), "CMD" | "CMD-SHELL" | "NONE") {
                    words.insert(0, form("CMD"));
                }
                Ok(words)
            }
            Err(problem) => bail!("--health-cmd: {problem}"),
        },
        line => Ok(vec![form("CMD-SHELL"), line.to_owned()]),
    }
}

fn seconds(span: Option<Duration>) -> Option<f64> {
    span.map(|span| span.as_secs_f64())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::Parser;
    use wharf_bus::spec::{Exec, HttpGet};

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        flags: ProbeFlags,
    }

    fn flags(words: &[&str]) -> anyhow::Result<ProbeFlags> {
        Ok(Line::try_parse_from(std::iter::once(&"run").chain(words))?.flags)
    }

    #[test]
    fn nothing_said_is_nothing_in_the_spec() {
        let flags = flags(&[]).unwrap();
        assert_eq!(flags.probes(), Probes::default());
        assert_eq!(flags.healthcheck().unwrap(), None);
    }

    #[test]
    fn each_kind_has_its_own_flags() {
        let found = flags(&[
            "--liveness",
            "http://:8080/healthz",
            "--liveness-period",
            "500ms",
            "--liveness-grace=5s",
            "--readiness",
            "exec:test -e /ready",
            "--readiness-successes=2",
            "--readiness-timeout",
            "2",
            "--startup",
            "http://:8080/",
            "--startup-failures",
            "30",
            "--startup-delay",
            "1m",
        ])
        .unwrap()
        .probes();
        let request = HttpGet { path: Some("/healthz".into()), port: 8080, ..HttpGet::default() };
        assert_eq!(
            found.liveness,
            Some(Probe {
                http_get: Some(request),
                period_seconds: Some(0.5),
                termination_grace_period_seconds: Some(5.0),
                ..Probe::default()
            })
        );
        let command = ["test", "-e", "/ready"].map(str::to_owned).to_vec();
        assert_eq!(
            found.readiness,
            Some(Probe {
                exec: Some(Exec { command }),
                success_threshold: Some(2),
                timeout_seconds: Some(2.0),
                ..Probe::default()
            })
        );
        let startup = found.startup.unwrap();
        assert_eq!((startup.failure_threshold, startup.initial_delay_seconds), (Some(30), Some(60.0)));
    }

    #[test]
    fn what_belongs_to_a_probe_needs_it() {
        for words in [
            &["--liveness-period", "5s"][..],
            &["--readiness-successes", "2"],
            &["--startup-grace", "2s", "--liveness", "tcp://:80"],
        ] {
            assert!(flags(words).unwrap_err().to_string().contains("<URL>"), "{words:?}");
        }
        assert!(flags(&["--liveness", "tcp://:80", "--liveness-failures", "0"]).is_err());
        let error = flags(&["--liveness", ":80"]).unwrap_err().to_string();
        assert!(error.contains("--liveness") && error.contains("http://:8080"), "{error}");
    }

    #[test]
    fn health_checks_of_docker_users_are_understood() {
        let health = |words: &[&str]| flags(words).unwrap().healthcheck();
        assert_eq!(
            health(&[
                "--health-cmd",
                "curl -f localhost || exit 1",
                "--health-interval=5s",
                "--health-retries=0"
            ])
            .unwrap(),
            Some(Healthcheck {
                test: vec!["CMD-SHELL".into(), "curl -f localhost || exit 1".into()],
                interval: Some(5.0),
                ..Healthcheck::default()
            })
        );
        let test = |words: &[&str]| health(words).unwrap().unwrap().test;
        assert_eq!(test(&["--health-cmd", r#"["/check", "-q"]"#]), ["CMD", "/check", "-q"]);
        assert_eq!(test(&["--health-cmd", "none"]), ["NONE"]);
        assert!(health(&["--no-healthcheck"]).unwrap().unwrap().disable);
        assert_eq!(health(&["--no-health-restart"]).unwrap().unwrap().restart, Some(false));
        assert!(health(&["--no-healthcheck", "--health-retries=2"]).is_err());
        assert!(health(&["--health-cmd="]).is_err());
    }
}
