//! `restart` of the document.

use std::time::Duration;
use wharf_bus::{Error, spec};
use wharf_supervisor as core;

/// The longest that the core allows.
const LONGEST_DELAY: f64 = 86_400.0;
const YEAR: f64 = 31_536_000.0;
const LARGEST_FACTOR: f64 = 1000.0;

/// What it says, its preset's values filled in. The error names the field.
pub fn restart(restart: &spec::Restart) -> Result<core::Restart, Error> {
    let preset = match restart.preset.unwrap_or_default() {
        spec::RestartPreset::Default => core::Preset::Default,
        spec::RestartPreset::Kubernetes => core::Preset::Kubernetes,
        spec::RestartPreset::Docker => core::Preset::Docker,
        spec::RestartPreset::Systemd => core::Preset::Systemd,
    };
    let start_limit = match &restart.start_limit {
        Some(limit) => Some(core::StartLimit {
            burst: count("restart.startLimit.burst", limit.burst)?,
            interval: positive("restart.startLimit.interval", limit.interval, YEAR)?,
        }),
        None => preset.start_limit(),
    };
    let restart = core::Restart {
        policy: policy(restart)?,
        rules: restart.rules.iter().map(rule).collect(),
        back_off: back_off(restart, preset.back_off())?,
        attempts: attempts(restart)?,
        start_limit,
    };
    restart.validate().map_err(|error| Error::InvalidSpec(error.to_string()))?;
    Ok(restart)
}

fn policy(restart: &spec::Restart) -> Result<core::Policy, Error> {
    let max = restart.max_retries.map(|max| count("restart.maxRetries", max)).transpose()?;
    let policy = match restart.policy {
        spec::RestartPolicy::No => core::Policy::No,
        spec::RestartPolicy::OnFailure => return Ok(core::Policy::OnFailure { max }),
        spec::RestartPolicy::Always => core::Policy::Always,
        spec::RestartPolicy::UnlessStopped => core::Policy::UnlessStopped,
    };
    if max.is_some() {
        return Err(invalid(
            "restart.maxRetries: only with policy \"on-failure\"; with another one, limit restarts by maxAttempts",
        ));
    }
    Ok(policy)
}

fn rule(rule: &spec::ExitRule) -> core::ExitRule {
    // What is no exit code does not become one by a narrower type; the core refuses it.
    let code = |code: &i64| i32::try_from(*code).unwrap_or(if *code < 0 { i32::MIN } else { i32::MAX });
    let values = rule.exit_codes.values.iter().map(code).collect();
    core::ExitRule {
        action: match rule.action {
            spec::RuleAction::Restart => core::RuleAction::Restart,
            spec::RuleAction::Stay => core::RuleAction::Stay,
        },
        codes: match rule.exit_codes.operator {
            spec::Operator::In => core::Codes::In(values),
            spec::Operator::NotIn => core::Codes::NotIn(values),
        },
    }
}

fn back_off(restart: &spec::Restart, preset: core::BackOff) -> Result<core::BackOff, Error> {
    let delay =
        |field, given: Option<f64>| given.map(|value| seconds(field, value, LONGEST_DELAY)).transpose();
    let (initial, max) =
        match (delay("restart.initial", restart.initial)?, delay("restart.max", restart.max)?) {
            (Some(initial), Some(max)) => (initial, max),
            // The one that is not given gives way: neither a longer first delay nor a shorter last one is an error.
            (Some(initial), None) => (initial, preset.max.max(initial)),
            (None, Some(max)) => (preset.initial.min(max), max),
            (None, None) => (preset.initial, preset.max),
        };
    let growth = match (restart.factor, restart.steps) {
        (None, None) => preset.growth,
        (Some(factor), None) => core::Growth::Factor { thousandths: thousandths(factor)? },
        (None, Some(steps)) => core::Growth::Steps(count("restart.steps", steps)?),
        (Some(_), Some(_)) => {
            return Err(invalid(
                "restart.steps: give either steps or factor; with steps, the factor follows",
            ));
        }
    };
    let grows = growth != preset.growth && growth != core::Growth::Factor { thousandths: 1000 };
    if grows && restart.max.is_none() && preset.initial == preset.max {
        return Err(invalid("restart.max: give it as well; the delay of the systemd preset does not grow"));
    }
    let reset = match (restart.reset_after, preset.reset) {
        (None, reset) => reset,
        (Some(after), reset) => {
            let after = positive("restart.resetAfter", after, YEAR)?;
            match reset {
                core::Reset::Ready(_) | core::Reset::Never => core::Reset::Ready(after),
                core::Reset::Running(_) => core::Reset::Running(after),
                core::Reset::Quiet(_) => core::Reset::Quiet(after),
            }
        }
    };
    // Who says no more than a delay means it for the first restart too.
    let only_delay = restart.initial.is_some() && restart.preset.is_none();
    Ok(core::BackOff {
        first_at_once: restart.first_at_once.unwrap_or(preset.first_at_once && !only_delay),
        initial,
        growth,
        max,
        jitter_percent: restart.jitter.map_or(Ok(preset.jitter_percent), percent)?,
        reset,
    })
}

fn attempts(restart: &spec::Restart) -> Result<Option<core::Attempts>, Error> {
    let window = restart.window.map(|window| positive("restart.window", window, YEAR)).transpose()?;
    match restart.max_attempts {
        Some(max) => Ok(Some(core::Attempts { max: count("restart.maxAttempts", max)?, window })),
        None if window.is_some() => {
            Err(invalid("restart.window: only with maxAttempts; give it, or leave window out"))
        }
        None => Ok(None),
    }
}

fn invalid(text: impl Into<String>) -> Error {
    Error::InvalidSpec(text.into())
}

fn count(field: &str, value: i64) -> Result<u32, Error> {
    let problem = match u32::try_from(value) {
        Ok(count) if count > 0 => return Ok(count),
        Ok(_) => "below 1",
        Err(_) if value < 0 => "below 1",
        Err(_) => "too large",
    };
    Err(invalid(format!("{field}: {value} is {problem}; 1 to {} are possible", u32::MAX)))
}

fn seconds(field: &str, value: f64, most: f64) -> Result<Duration, Error> {
    if !(0.0..=most).contains(&value) {
        return Err(invalid(format!("{field}: {value} is not possible; give seconds from 0 to {most}")));
    }
    Ok(Duration::from_secs_f64(value))
}

fn positive(field: &str, value: f64, most: f64) -> Result<Duration, Error> {
    match seconds(field, value, most) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        Ok(_) | Err(_) => {
            Err(invalid(format!("{field}: {value} is not possible; give seconds above 0, at most {most}")))
        }
    }
}

fn thousandths(factor: f64) -> Result<u32, Error> {
    if !(1.0..=LARGEST_FACTOR).contains(&factor) {
        let problem = if factor < 1.0 { "below 1" } else { "too large" };
        return Err(invalid(format!(
            "restart.factor: {factor} is {problem}; 1 (a constant delay) to {LARGEST_FACTOR} are possible"
        )));
    }
    Ok((factor * 1000.0).round() as u32)
}

fn percent(jitter: f64) -> Result<u8, Error> {
    if !(0.0..=1.0).contains(&jitter) {
        return Err(invalid(format!(
            "restart.jitter: {jitter} is not possible; give 0 to 1, 0.1 being 10 %"
        )));
    }
    Ok((jitter * 100.0).round() as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wharf_supervisor::{Attempts, BackOff, Codes, Growth, Policy, Reset, RuleAction, StartLimit};

    fn read(json: &str) -> Result<core::Restart, String> {
        let spec = spec::Spec::parse(&format!(r#"{{"restart":{json}}}"#)).expect("the shape is right");
        restart(&spec.restart).map_err(|error| {
            let Error::InvalidSpec(text) = error else { panic!("{error}") };
            text
        })
    }

    fn delays(json: &str, count: u32) -> Vec<f64> {
        let back_off = read(json).expect("accepted").back_off;
        (0..count).map(|earlier| back_off.delay(earlier).as_secs_f64()).collect()
    }

    #[test]
    fn nothing_said_is_no_restart_with_our_delays() {
        assert_eq!(read("{}"), Ok(core::Restart::default()));
    }

    #[test]
    fn every_field_arrives() {
        let restart = read(
            r#"{"policy":"on-failure","maxRetries":3,"preset":"kubernetes","initial":0.1,"factor":1.5,"max":60,
                "jitter":0.1,"resetAfter":10,"maxAttempts":5,"window":120,"startLimit":{"burst":5,"interval":10},
                "rules":[{"action":"stay","exitCodes":{"operator":"NotIn","values":[0,42]}}]}"#,
        )
        .expect("accepted");
        assert_eq!(restart.policy, Policy::OnFailure { max: Some(3) });
        assert_eq!(
            restart.back_off,
            BackOff {
                first_at_once: true,
                initial: Duration::from_millis(100),
                growth: Growth::Factor { thousandths: 1500 },
                max: Duration::from_secs(60),
                jitter_percent: 10,
                reset: Reset::Quiet(Duration::from_secs(10)),
            }
        );
        assert_eq!(restart.attempts, Some(Attempts { max: 5, window: Some(Duration::from_secs(120)) }));
        assert_eq!(restart.start_limit, Some(StartLimit { burst: 5, interval: Duration::from_secs(10) }));
        assert_eq!(restart.rules.len(), 1);
        assert_eq!(restart.rules[0].action, RuleAction::Stay);
        assert_eq!(restart.rules[0].codes, Codes::NotIn(vec![0, 42]));
    }

    #[test]
    fn preset_comes_with_all_it_has() {
        for (name, preset) in core::Preset::ALL.map(|preset| (preset.name(), preset)) {
            let found = read(&format!(r#"{{"policy":"always","preset":"{name}"}}"#));
            assert_eq!(found, Ok(preset.restart(Policy::Always)));
        }
    }

    #[test]
    fn given_delay_holds_for_the_first_restart_unless_a_preset_is_named() {
        assert_eq!(delays(r#"{"initial":5}"#, 5), [5.0, 10.0, 20.0, 40.0, 60.0]);
        assert_eq!(delays(r#"{"initial":5,"firstAtOnce":true}"#, 3), [0.0, 5.0, 10.0]);
        assert_eq!(delays(r#"{"preset":"kubernetes","initial":1,"max":4}"#, 5), [0.0, 1.0, 2.0, 4.0, 4.0]);
        assert_eq!(delays(r#"{"preset":"systemd","initial":1}"#, 3), [1.0, 1.0, 1.0]);
        assert_eq!(delays(r#"{"preset":"kubernetes","max":3}"#, 3), [0.0, 3.0, 3.0]);
        assert_eq!(delays(r#"{"initial":0}"#, 3), [0.0, 0.0, 0.0]);
    }

    #[test]
    fn steps_replace_the_factor() {
        assert_eq!(
            delays(r#"{"preset":"systemd","initial":1,"max":16,"steps":4}"#, 6),
            [1., 2., 4., 8., 16., 16.]
        );
    }

    #[test]
    fn delays_begin_anew_by_the_presets_rule() {
        let reset = |json| read(json).expect("accepted").back_off.reset;
        let after = Duration::from_secs(7);
        assert_eq!(reset(r#"{"resetAfter":7}"#), Reset::Ready(after));
        assert_eq!(reset(r#"{"preset":"docker","resetAfter":7}"#), Reset::Running(after));
        assert_eq!(reset(r#"{"preset":"systemd","resetAfter":7}"#), Reset::Ready(after));
    }

    #[test]
    fn what_cannot_be_is_refused_by_field_and_range() {
        for (json, expected) in [
            (r#"{"policy":"always","maxRetries":3}"#, "restart.maxRetries: only with policy \"on-failure\""),
            (r#"{"policy":"on-failure","maxRetries":0}"#, "restart.maxRetries: 0 is below 1"),
            (r#"{"policy":"on-failure","maxRetries":-1}"#, "restart.maxRetries: -1 is below 1"),
            (
                r#"{"policy":"on-failure","maxRetries":5000000000}"#,
                "restart.maxRetries: 5000000000 is too large",
            ),
            (r#"{"maxAttempts":3}"#, "restart.maxAttempts: there is nothing to limit with policy \"no\""),
            (r#"{"policy":"always","maxAttempts":0}"#, "restart.maxAttempts: 0 is below 1"),
            (
                r#"{"policy":"always","maxAttempts":2000,"window":9}"#,
                "restart.maxAttempts: 2000 is above 1000",
            ),
            (r#"{"policy":"always","window":9}"#, "restart.window: only with maxAttempts"),
            (r#"{"policy":"always","maxAttempts":3,"window":0}"#, "restart.window: 0 is not possible"),
            (r#"{"initial":-1}"#, "restart.initial: -1 is not possible; give seconds from 0 to 86400"),
            (r#"{"initial":1e300}"#, "restart.initial: 1"),
            (r#"{"initial":2,"max":1}"#, "restart.max: 1s is below restart.initial (2s)"),
            (r#"{"max":86401}"#, "restart.max: 86401 is not possible"),
            (
                r#"{"factor":0.5}"#,
                "restart.factor: 0.5 is below 1; 1 (a constant delay) to 1000 are possible",
            ),
            (r#"{"factor":1001}"#, "restart.factor: 1001 is too large"),
            (r#"{"factor":2,"steps":3}"#, "restart.steps: give either steps or factor"),
            (r#"{"steps":0}"#, "restart.steps: 0 is below 1"),
            (r#"{"steps":3,"initial":0}"#, "restart.initial: 0 s cannot grow in steps"),
            (r#"{"preset":"systemd","factor":2}"#, "restart.max: give it as well"),
            (r#"{"jitter":10}"#, "restart.jitter: 10 is not possible; give 0 to 1"),
            (r#"{"resetAfter":0}"#, "restart.resetAfter: 0 is not possible"),
            (r#"{"startLimit":{"burst":0,"interval":1}}"#, "restart.startLimit.burst: 0 is below 1"),
            (r#"{"startLimit":{"burst":1,"interval":0}}"#, "restart.startLimit.interval: 0 is not possible"),
            (
                r#"{"rules":[{"action":"restart","exitCodes":{"operator":"In","values":[]}}]}"#,
                "restart.rules[0].exitCodes.values: 0 codes; 1 to 255 are possible",
            ),
            (
                r#"{"rules":[{"action":"restart","exitCodes":{"operator":"In","values":[-9]}}]}"#,
                "restart.rules[0].exitCodes.values: -9 is no exit code; 0 to 255 are possible",
            ),
        ] {
            let error = read(json).expect_err(json);
            assert!(error.starts_with(expected), "{json}: {error}");
        }
    }
}
