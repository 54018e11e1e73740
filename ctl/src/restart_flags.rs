//! What `run` and `create` can say about restarts.

// The comments at the flags are their help texts, where brackets mean what they mean on a command line.
#![allow(rustdoc::broken_intra_doc_links)]

use crate::quantity;
use anyhow::bail;
use clap::{Args, ValueEnum};
use std::time::Duration;
use wharf_bus::spec::{
    ExitCodes, ExitRule, Operator, Restart, RestartPolicy, RestartPreset, RuleAction, StartLimit,
};

/// When a container is started again by itself.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Restart")]
pub struct RestartFlags {
    /// When to start it again: no, on-failure, always, or unless-stopped (always, but not at boot after a stop); MAX restarts at most [default: no]
    #[arg(long, value_name = "POLICY[:MAX]", value_parser = policy)]
    restart: Option<(RestartPolicy, Option<i64>)>,
    /// Delays as of: default (at once, then 100ms doubled up to 1m), kubernetes (at once, then 10s up to 5m), docker (100ms up to 1m) or systemd (100ms, 5 starts in 10s) [default: default]
    #[arg(long, value_name = "NAME", value_enum)]
    restart_preset: Option<Preset>,
    /// First delay, such as 500ms, 10s or 2m; without --restart-preset, before the first restart too [default: the preset's]
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    restart_delay: Option<Duration>,
    /// How many times the one before each delay is, 1 (constant) to 1000 [default: the preset's]
    #[arg(long, value_name = "NUMBER", value_parser = number, conflicts_with = "restart_steps")]
    restart_factor: Option<f64>,
    /// Instead of a factor: steps from the first delay to the longest
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i64).range(1..=i64::from(u32::MAX)))]
    restart_steps: Option<i64>,
    /// Longest delay, at most 1d [default: the preset's]
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    restart_max_delay: Option<Duration>,
    /// Lengthen each delay by chance, up to 10% or 0.1 of it [default: the preset's]
    #[arg(long, value_name = "PART", value_parser = part)]
    restart_jitter: Option<f64>,
    /// Begin with the first delay again after it was ready for so long (docker: ran; kubernetes: since the last restart) [default: the preset's]
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    restart_reset_after: Option<Duration>,
    /// Give up after so many restarts since it was last started by hand [default: never]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i64).range(1..=i64::from(u32::MAX)))]
    restart_max_attempts: Option<i64>,
    /// Count only restarts in this time before its end [default: all]
    #[arg(long, value_name = "TIME", value_parser = quantity::duration, requires = "restart_max_attempts")]
    restart_window: Option<Duration>,
    /// Give up after more starts than this in a while, by hand or not, such as 5/10s [default: the preset's]
    #[arg(long, value_name = "BURST/INTERVAL", value_parser = start_limit)]
    start_limit: Option<StartLimit>,
    /// Before the policy, the first that fits decides: restart:42,43 for these exit codes, stay:!0 for all others
    #[arg(long, value_name = "ACTION:[!]CODES", value_parser = rule)]
    restart_rule: Vec<ExitRule>,
}

/// `--restart-preset`.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Preset {
    // Ours.
    Default,
    // As the kubelet does it.
    Kubernetes,
    // As the Docker engine does it.
    Docker,
    // As systemd does it.
    Systemd,
}

impl RestartFlags {
    /// As the spec has it.
    pub fn restart(self) -> anyhow::Result<Restart> {
        if let Some(flag) = self.pointless() {
            bail!("{flag} says nothing without --restart on-failure, always or unless-stopped; add it");
        }
        let seconds = |span: Option<Duration>| span.map(|span| span.as_secs_f64());
        let (policy, max_retries) = self.restart.unwrap_or_default();
        Ok(Restart {
            policy,
            max_retries,
            preset: self.restart_preset.map(|preset| match preset {
                Preset::Default => RestartPreset::Default,
                Preset::Kubernetes => RestartPreset::Kubernetes,
                Preset::Docker => RestartPreset::Docker,
                Preset::Systemd => RestartPreset::Systemd,
            }),
            initial: seconds(self.restart_delay),
            first_at_once: None,
            factor: self.restart_factor,
            steps: self.restart_steps,
            max: seconds(self.restart_max_delay),
            jitter: self.restart_jitter,
            reset_after: seconds(self.restart_reset_after),
            max_attempts: self.restart_max_attempts,
            window: seconds(self.restart_window),
            start_limit: self.start_limit,
            rules: self.restart_rule,
        })
    }

    /// A flag about restarts where none was asked for. Beside `--restart no` it may stand, as in scripts.
    fn pointless(&self) -> Option<&'static str> {
        if self.restart.is_some() || !self.restart_rule.is_empty() {
            return None;
        }
        [
            // Alone, systemd's would still limit starts by hand; who wants that has --start-limit.
            (self.restart_preset.is_some(), "--restart-preset"),
            (self.restart_delay.is_some(), "--restart-delay"),
            (self.restart_factor.is_some(), "--restart-factor"),
            (self.restart_steps.is_some(), "--restart-steps"),
            (self.restart_max_delay.is_some(), "--restart-max-delay"),
            (self.restart_jitter.is_some(), "--restart-jitter"),
            (self.restart_reset_after.is_some(), "--restart-reset-after"),
            (self.restart_max_attempts.is_some(), "--restart-max-attempts"),
        ]
        .into_iter()
        .find_map(|(given, flag)| given.then_some(flag))
    }
}

fn policy(text: &str) -> Result<(RestartPolicy, Option<i64>), String> {
    let (name, max) = text.split_once(':').map_or((text, None), |(name, max)| (name, Some(max)));
    let policy = match name {
        "no" | "none" => RestartPolicy::No,
        "on-failure" => RestartPolicy::OnFailure,
        "always" => RestartPolicy::Always,
        "unless-stopped" => RestartPolicy::UnlessStopped,
        _ => return Err("it is no, on-failure, on-failure:MAX, always or unless-stopped".into()),
    };
    let Some(max) = max else { return Ok((policy, None)) };
    if policy != RestartPolicy::OnFailure {
        return Err(format!("only on-failure has a maximum; for {name}, use --restart-max-attempts {max}"));
    }
    match max.parse::<u32>() {
        // As docker has it.
        Ok(0) => Ok((policy, None)),
        Ok(max) => Ok((policy, Some(max.into()))),
        Err(_) => Err(format!("a maximum is a number, such as on-failure:3; got '{max}'")),
    }
}

fn number(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        Ok(_) | Err(_) => Err("it is a number, such as 1.5 or 2".into()),
    }
}

fn part(text: &str) -> Result<f64, String> {
    let value = match text.strip_suffix('%') {
        Some(percent) => percent.parse::<f64>().map(|percent| percent / 100.0),
        None => text.parse(),
    };
    match value {
        Ok(value) if (0.0..=1.0).contains(&value) => Ok(value),
        Ok(_) | Err(_) => Err("it is 0% to 100%, or 0 to 1".into()),
    }
}

fn start_limit(text: &str) -> Result<StartLimit, String> {
    let wrong = || "it is a number of starts and a time, such as 5/10s".to_owned();
    let (burst, interval) = text.split_once('/').ok_or_else(wrong)?;
    let burst = burst.parse::<u32>().ok().filter(|burst| *burst > 0).ok_or_else(wrong)?;
    let interval = quantity::duration(interval).map_err(|error| format!("{}: {error}", wrong()))?;
    if interval.is_zero() {
        return Err(wrong());
    }
    Ok(StartLimit { burst: burst.into(), interval: interval.as_secs_f64() })
}

fn rule(text: &str) -> Result<ExitRule, String> {
    let wrong = || "it is restart:CODES or stay:CODES, such as restart:42,43 or stay:!0".to_owned();
    let (action, codes) = text.split_once(':').ok_or_else(wrong)?;
    let action = match action {
        "restart" => RuleAction::Restart,
        "stay" => RuleAction::Stay,
        _ => return Err(wrong()),
    };
    let (operator, codes) = match codes.strip_prefix('!') {
        Some(codes) => (Operator::NotIn, codes),
        None => (Operator::In, codes),
    };
    let code = |text: &str| match text.parse::<u8>() {
        Ok(code) => Ok(i64::from(code)),
        Err(_) => Err(format!("{}; an exit code is 0 to 255, got '{text}'", wrong())),
    };
    let values = codes.split(',').map(code).collect::<Result<_, _>>()?;
    Ok(ExitRule { action, exit_codes: ExitCodes { operator, values } })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        flags: RestartFlags,
    }

    fn restart(words: &[&str]) -> anyhow::Result<Restart> {
        Line::try_parse_from(std::iter::once(&"run").chain(words))?.flags.restart()
    }

    #[test]
    fn nothing_said_is_the_default() {
        assert_eq!(restart(&[]).unwrap(), Restart::default());
    }

    #[test]
    fn policies_are_written_as_docker_users_write_them() {
        for (text, policy, max_retries) in [
            ("no", RestartPolicy::No, None),
            ("on-failure", RestartPolicy::OnFailure, None),
            ("on-failure:0", RestartPolicy::OnFailure, None),
            ("on-failure:3", RestartPolicy::OnFailure, Some(3)),
            ("always", RestartPolicy::Always, None),
            ("unless-stopped", RestartPolicy::UnlessStopped, None),
        ] {
            let expected = Restart { policy, max_retries, ..Restart::default() };
            assert_eq!(restart(&["--restart", text]).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn every_flag_arrives() {
        let found = restart(&[
            "--restart=on-failure",
            "--restart-preset=kubernetes",
            "--restart-delay=500ms",
            "--restart-factor=1.5",
            "--restart-max-delay=2m",
            "--restart-jitter=25%",
            "--restart-reset-after=1h",
            "--restart-max-attempts=5",
            "--restart-window=2m",
            "--start-limit=5/10s",
            "--restart-rule=restart:42,43",
            "--restart-rule=stay:!0",
        ])
        .unwrap();
        let rule = |action, operator, values: &[i64]| ExitRule {
            action,
            exit_codes: ExitCodes { operator, values: values.to_vec() },
        };
        let expected = Restart {
            policy: RestartPolicy::OnFailure,
            max_retries: None,
            preset: Some(RestartPreset::Kubernetes),
            initial: Some(0.5),
            first_at_once: None,
            factor: Some(1.5),
            steps: None,
            max: Some(120.0),
            jitter: Some(0.25),
            reset_after: Some(3600.0),
            max_attempts: Some(5),
            window: Some(120.0),
            start_limit: Some(StartLimit { burst: 5, interval: 10.0 }),
            rules: vec![
                rule(RuleAction::Restart, Operator::In, &[42, 43]),
                rule(RuleAction::Stay, Operator::NotIn, &[0]),
            ],
        };
        assert_eq!(found, expected);
        assert_eq!(restart(&["--restart=always", "--restart-steps=5"]).unwrap().steps, Some(5));
        assert_eq!(restart(&["--restart=always", "--restart-jitter=0.1"]).unwrap().jitter, Some(0.1));
    }

    #[test]
    fn preset_may_stand_beside_no_restart_and_beside_rules() {
        for words in [
            &["--restart", "no", "--restart-preset", "kubernetes"][..],
            &["--restart-rule", "restart:42", "--restart-preset", "kubernetes"],
        ] {
            assert_eq!(restart(words).unwrap().preset, Some(RestartPreset::Kubernetes), "{words:?}");
        }
    }

    #[test]
    fn errors_name_the_flag_and_the_fix() {
        for (words, flag, fix) in [
            (&["--restart", "sometimes"][..], "--restart", "unless-stopped"),
            (&["--restart", "always:3"], "--restart", "--restart-max-attempts 3"),
            (&["--restart", "on-failure:many"], "--restart", "on-failure:3"),
            (&["--restart-preset", "k8s"], "--restart-preset", "kubernetes"),
            (&["--restart", "always", "--restart-delay", "10x"], "--restart-delay", "1m30s"),
            (&["--restart", "always", "--restart-factor", "x"], "--restart-factor", "1.5"),
            (&["--restart", "always", "--restart-jitter", "110%"], "--restart-jitter", "100%"),
            (
                &["--restart", "always", "--restart-max-attempts", "0"],
                "--restart-max-attempts",
                "1..=4294967295",
            ),
            (&["--restart", "always", "--restart-steps", "4294967296"], "--restart-steps", "1..=4294967295"),
            (
                &["--restart", "always", "--restart-window", "1m"],
                "--restart-window",
                "--restart-max-attempts",
            ),
            (&["--start-limit", "5"], "--start-limit", "5/10s"),
            (&["--start-limit", "0/1s"], "--start-limit", "5/10s"),
            (&["--restart-rule", "restart:"], "--restart-rule", "0 to 255"),
            (&["--restart-rule", "stay:!256"], "--restart-rule", "0 to 255"),
            (&["--restart-rule", "42"], "--restart-rule", "restart:42"),
            (&["--restart-delay", "5s"], "--restart-delay", "--restart on-failure"),
            (&["--restart-preset", "kubernetes"], "--restart-preset", "--restart on-failure"),
            (&["--restart-preset", "systemd", "--restart-delay", "5s"], "--restart-preset", "add it"),
        ] {
            let error = format!("{:#}", restart(words).unwrap_err());
            assert!(error.contains(flag) && error.contains(fix), "{words:?}: {error}");
        }
    }
}
