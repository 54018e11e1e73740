//! Docker's HEALTHCHECK: what the document and the image say together.
//!
//! It is settled once, when the container is created, as its command is: later the image may be gone.

use super::probe::{count, invalid, seconds};
use crate::probe::Handler;
use serde::Deserialize;
use std::time::Duration;
use wharf_bus::{Error, spec};
use wharf_supervisor as core;
use wharf_supervisor::ProbeKind;

/// The shortest interval and timeout; an image that wants less gets this.
const SHORTEST: f64 = 0.1;

/// What an image says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OfImage {
    /// Its HEALTHCHECK.
    healthcheck: Option<spec::Healthcheck>,
    /// Its SHELL, for `CMD-SHELL`.
    shell: Option<Vec<String>>,
    /// Why its HEALTHCHECK is of no use.
    pub warning: Option<String>,
}

/// As Docker writes it into an image's configuration. Times are nanoseconds, and zero is the default.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Docker {
    test: Option<Vec<String>>,
    interval: i64,
    timeout: i64,
    start_period: i64,
    start_interval: i64,
    retries: i64,
}

impl OfImage {
    /// From an image's configuration as it stands.
    pub fn read(raw_config: &serde_json::Value) -> Self {
        let config = &raw_config["config"];
        let shell = Vec::<String>::deserialize(&config["Shell"]).ok().filter(|shell| !shell.is_empty());
        let found = Option::<Docker>::deserialize(&config["Healthcheck"]).map_err(|error| error.to_string());
        match found.and_then(|found| found.map(read_docker).transpose()) {
            Ok(healthcheck) => Self { healthcheck: healthcheck.flatten(), shell, warning: None },
            Err(problem) => Self {
                healthcheck: None,
                shell,
                warning: Some(format!("the image's HEALTHCHECK is ignored: {problem}")),
            },
        }
    }
}

/// `None` where it says nothing: an image without a test inherited none.
fn read_docker(docker: Docker) -> Result<Option<spec::Healthcheck>, String> {
    let Some(test) = docker.test.filter(|test| !test.is_empty()) else { return Ok(None) };
    let time = |nanoseconds: i64| {
        (nanoseconds > 0).then(|| Duration::from_nanos(nanoseconds.cast_unsigned()).as_secs_f64())
    };
    let at_least = |nanoseconds| time(nanoseconds).map(|seconds| seconds.max(SHORTEST));
    let healthcheck = spec::Healthcheck {
        test,
        interval: at_least(docker.interval),
        timeout: at_least(docker.timeout),
        retries: (docker.retries > 0).then_some(docker.retries),
        start_period: time(docker.start_period),
        start_interval: at_least(docker.start_interval),
        disable: false,
        restart: None,
    };
    // What would be refused in a document is no reason to refuse the image.
    settle(Some(&healthcheck), &OfImage::default())
        .and_then(|settled| settled.as_ref().map(probe).transpose())
        .map_err(|error| {
            if let Error::InvalidSpec(text) = error {
                text.replacen("healthcheck.", "", 1)
            } else {
                error.to_string()
            }
        })?;
    Ok(Some(healthcheck))
}

/// What is checked, if anything: the document's, completed by the image's. Its test is then always `CMD`.
pub fn settle(own: Option<&spec::Healthcheck>, image: &OfImage) -> Result<Option<spec::Healthcheck>, Error> {
    let nothing = spec::Healthcheck::default();
    let own = own.unwrap_or(&nothing);
    let says_no_more =
        || *own == spec::Healthcheck { disable: own.disable, restart: own.restart, ..Default::default() };
    if own.disable {
        return if says_no_more() {
            Ok(None)
        } else {
            Err(bad("disable", "does not go with the other fields; leave them out"))
        };
    }
    let base = image.healthcheck.as_ref();
    let test = if own.test.is_empty() { base.map(|base| &base.test) } else { Some(&own.test) };
    let Some(test) = test else {
        return if says_no_more() {
            Ok(None)
        } else {
            Err(bad("test", "required; the image has no HEALTHCHECK"))
        };
    };
    let Some(command) = command(test, image.shell.as_deref())? else { return Ok(None) };
    let mut test = vec!["CMD".to_owned()];
    test.extend(command);
    Ok(Some(spec::Healthcheck {
        test,
        interval: own.interval.or(base.and_then(|base| base.interval)),
        timeout: own.timeout.or(base.and_then(|base| base.timeout)),
        retries: own.retries.or(base.and_then(|base| base.retries)),
        start_period: own.start_period.or(base.and_then(|base| base.start_period)),
        start_interval: own.start_interval.or(base.and_then(|base| base.start_interval)),
        disable: false,
        restart: own.restart,
    }))
}

/// Program and arguments, or nothing for `NONE`.
fn command(test: &[String], shell: Option<&[String]>) -> Result<Option<Vec<String>>, Error> {
    let known = "must be [\"CMD\", PROGRAM, ARGUMENT…], [\"CMD-SHELL\", LINE] or [\"NONE\"]";
    let (form, words) = test.split_first().ok_or_else(|| bad("test", known))?;
    if test.iter().any(|word| word.contains('\0')) {
        return Err(bad("test", "must not contain a NUL character"));
    }
    match (form.as_str(), words) {
        ("NONE", []) => Ok(None),
        ("CMD", [program, ..]) if !program.is_empty() => Ok(Some(words.to_vec())),
        ("CMD-SHELL", [line]) if !line.is_empty() => {
            let mut command = match shell {
                Some(shell) => shell.to_vec(),
                None => vec!["/bin/sh".to_owned(), "-c".to_owned()],
            };
            command.push(line.clone());
            Ok(Some(command))
        }
        _ => Err(bad("test", known)),
    }
}

/// What was settled, for the core and for who carries it out.
pub fn probe(check: &spec::Healthcheck) -> Result<(core::Probe, Handler), Error> {
    let default = core::Probe::health();
    let time = |name: &str, given: Option<f64>, default| {
        given.map_or(Ok(default), |given| seconds(&format!("healthcheck.{name}"), given))
    };
    let timing = core::Probe {
        period: time("interval", check.interval, default.period)?,
        timeout: time("timeout", check.timeout, default.timeout)?,
        start_period: time("startPeriod", check.start_period, default.start_period)?,
        start_interval: time("startInterval", check.start_interval, default.start_interval)?,
        failure_threshold: check
            .retries
            .map_or(Ok(default.failure_threshold), |retries| count("healthcheck.retries", retries))?,
        ..default
    };
    timing.validate(ProbeKind::Health).map_err(|error| bad(error.field, &error.reason))?;
    let command = command(&check.test, None)?.ok_or_else(|| bad("test", "must be a command"))?;
    Ok((timing, Handler::Exec { command }))
}

fn bad(field: &str, problem: &str) -> Error {
    invalid(&format!("healthcheck.{field}"), problem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn image(healthcheck: serde_json::Value) -> OfImage {
        OfImage::read(&json!({"config": {"Healthcheck": healthcheck}}))
    }

    fn own(json: serde_json::Value) -> spec::Healthcheck {
        serde_json::from_value(json).expect("the shape is right")
    }

    fn settled(
        document: Option<serde_json::Value>,
        image: &OfImage,
    ) -> Result<Option<spec::Healthcheck>, String> {
        settle(document.map(own).as_ref(), image)
            .and_then(|settled| settled.as_ref().map(probe).transpose().map(|_| settled))
            .map_err(|error| {
                let Error::InvalidSpec(text) = error else { panic!("{error}") };
                text
            })
    }

    #[test]
    fn image_of_docker_is_understood() {
        let image = image(json!({"Test": ["CMD-SHELL", "curl -f localhost"], "Interval": 5_000_000_000_i64,
            "Timeout": 1_000_000, "Retries": 2, "StartPeriod": 500_000_000}));
        let check = settled(None, &image).expect("accepted").expect("there is one");
        assert_eq!(check.test, ["CMD", "/bin/sh", "-c", "curl -f localhost"]);
        let (timing, handler) = probe(&check).expect("accepted");
        assert_eq!(
            timing,
            core::Probe {
                period: Duration::from_secs(5),
                timeout: Duration::from_millis(100),
                failure_threshold: 2,
                start_period: Duration::from_millis(500),
                ..core::Probe::health()
            }
        );
        let command = ["/bin/sh", "-c", "curl -f localhost"].map(str::to_owned).to_vec();
        assert_eq!(handler, Handler::Exec { command });
    }

    #[test]
    fn image_without_one_has_none() {
        for config in [json!({}), json!({"config": null}), json!({"config": {"Healthcheck": null}})] {
            assert_eq!(OfImage::read(&config), OfImage::default(), "{config}");
        }
        assert_eq!(image(json!({"Interval": 5})), OfImage::default());
        assert_eq!(settled(None, &OfImage::default()), Ok(None));
        assert_eq!(settled(None, &image(json!({"Test": ["NONE"]}))), Ok(None));
    }

    #[test]
    fn healthcheck_that_is_none_is_ignored_with_a_warning() {
        for wrong in
            [json!({"Test": ["RUN", "x"]}), json!({"Test": "x"}), json!([1]), json!({"Test": ["CMD"]})]
        {
            let image = image(wrong.clone());
            assert_eq!(settled(None, &image), Ok(None), "{wrong}");
            let warning = image.warning.expect("there is one");
            assert!(warning.starts_with("the image's HEALTHCHECK is ignored: "), "{warning}");
        }
    }

    #[test]
    fn document_wins_over_the_image() {
        let image = image(json!({"Test": ["CMD", "/old"], "Retries": 5, "Interval": 1_000_000_000}));
        let check = settled(Some(json!({"interval": 2})), &image).expect("accepted").expect("there is one");
        assert_eq!((check.interval, check.retries), (Some(2.0), Some(5)));
        assert_eq!(check.test, ["CMD", "/old"]);
        let check = settled(Some(json!({"test": ["CMD", "/new"]})), &image).expect("accepted");
        assert_eq!(check.expect("there is one").test, ["CMD", "/new"]);
        assert_eq!(settled(Some(json!({"disable": true})), &image), Ok(None));
        assert_eq!(settled(Some(json!({"test": ["NONE"]})), &image), Ok(None));
    }

    #[test]
    fn shell_is_the_images() {
        let image = OfImage::read(&json!({"config": {"Shell": ["/bin/bash", "-euc"]}}));
        let check = settled(Some(json!({"test": ["CMD-SHELL", "true"]})), &image).expect("accepted");
        assert_eq!(check.expect("there is one").test, ["CMD", "/bin/bash", "-euc", "true"]);
    }

    #[test]
    fn errors_name_the_field_and_what_it_must_be() {
        for (document, error) in [
            (json!({"test": ["true"]}), "healthcheck.test: must be [\"CMD\", "),
            (json!({"test": ["CMD-SHELL", "a", "b"]}), "healthcheck.test: must be [\"CMD\", "),
            (json!({"interval": 5}), "healthcheck.test: required; the image has no HEALTHCHECK"),
            (json!({"disable": true, "retries": 2}), "healthcheck.disable: does not go"),
            (
                json!({"test": ["CMD", "a"], "interval": 0}),
                "healthcheck.interval: must be greater than or equal",
            ),
            (
                json!({"test": ["CMD", "a"], "timeout": -1}),
                "healthcheck.timeout: must be greater than or equal",
            ),
            (
                json!({"test": ["CMD", "a"], "retries": 0}),
                "healthcheck.retries: must be greater than or equal",
            ),
            (
                json!({"test": ["CMD", "a"], "startPeriod": 5, "startInterval": 0}),
                "healthcheck.startInterval: must be greater than or equal",
            ),
        ] {
            let found = settled(Some(document.clone()), &OfImage::default()).expect_err("refused");
            assert!(found.starts_with(error), "{document}: {found}");
        }
        assert_eq!(
            settled(Some(json!({"restart": false})), &OfImage::default()),
            Ok(None),
            "no wish that is not met"
        );
    }
}
