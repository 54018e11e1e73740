//! `requires` and `notify` of the document: what can be said of them without looking at other containers.

use super::probe::{invalid, seconds};
use std::time::Duration;
use wharf_bus::{Error, Spec, spec};
use wharf_supervisor::{Condition, Name, Notify, Requirement};

/// As for probes.
const SHORTEST_WATCHDOG: Duration = Duration::from_millis(100);

/// Whom it requires. Each name can be one, occurs once, and is not `own`.
pub fn requires(spec: &Spec, own: &Name) -> Result<Vec<Requirement>, Error> {
    let mut seen = Vec::new();
    let mut requires = Vec::new();
    for (index, requirement) in spec.requires.iter().enumerate() {
        let bad = |problem: &str| -> Result<Vec<Requirement>, Error> {
            Err(invalid(&format!("requires[{index}].name"), problem))
        };
        let name = match requirement.name.parse::<Name>() {
            Ok(name) => name,
            Err(error) => return bad(&error.to_string()),
        };
        if name == *own {
            return bad("a container cannot require itself; leave it out");
        }
        if seen.contains(&name) {
            return bad(&format!("{:?} is there twice; give it once", requirement.name));
        }
        seen.push(name.clone());
        requires.push(Requirement {
            name,
            condition: match requirement.condition {
                spec::Condition::Started => Condition::Started,
                spec::Condition::Healthy => Condition::Healthy,
                spec::Condition::Ready => Condition::Ready,
                spec::Condition::Completed => Condition::Completed,
            },
            restart_with: requirement.restart_with,
        });
    }
    Ok(requires)
}

/// What the document says, if it is to have a socket at all.
pub fn notify(spec: &Spec) -> Result<Option<Notify>, Error> {
    let Some(notify) = &spec.notify else { return Ok(None) };
    let field = "notify.watchdogSeconds";
    let watchdog = notify.watchdog_seconds.map(|value| seconds(field, value)).transpose()?;
    if watchdog.is_some_and(|span| span < SHORTEST_WATCHDOG) {
        return Err(invalid(field, "must be greater than or equal to 0.1 (seconds)"));
    }
    Ok(Some(Notify { ready: notify.ready, watchdog }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text<T>(result: Result<T, Error>) -> Result<T, String> {
        result.map_err(|error| {
            let Error::InvalidSpec(text) = error else { panic!("{error}") };
            text
        })
    }

    #[test]
    fn names_are_names_of_others_each_once() {
        let own = "web".parse().expect("a name");
        let check = |json: &str| {
            let spec = Spec::parse(&format!(r#"{{"requires": {json}}}"#)).expect("the shape is right");
            text(requires(&spec, &own).map(drop))
        };
        assert_eq!(check(r#"[{"name": "db"}, {"name": "log", "condition": "ready"}]"#), Ok(()));
        for (json, error) in [
            (r#"[{"name": "a/b"}]"#, "requires[0].name: "),
            (r#"[{"name": "db"}, {"name": ""}]"#, "requires[1].name: "),
            (r#"[{"name": "web"}]"#, "requires[0].name: a container cannot require itself; leave it out"),
            (
                r#"[{"name": "db"}, {"name": "db", "condition": "ready"}]"#,
                "requires[1].name: \"db\" is there twice",
            ),
        ] {
            let found = check(json).expect_err(json);
            assert!(found.starts_with(error), "{json}: {found}");
        }
    }

    #[test]
    fn watchdog_has_its_shortest() {
        let read = |json: &str| text(notify(&Spec::parse(json).expect("the shape is right")));
        assert_eq!(read("{}"), Ok(None));
        assert_eq!(read(r#"{"notify": {}}"#), Ok(Some(Notify { ready: false, watchdog: None })));
        let watchdog = Some(Duration::from_secs(10));
        assert_eq!(
            read(r#"{"notify": {"ready": true, "watchdogSeconds": 10}}"#),
            Ok(Some(Notify { ready: true, watchdog }))
        );
        assert_eq!(
            read(r#"{"notify": {"watchdogSeconds": 0.05}}"#),
            Err("notify.watchdogSeconds: must be greater than or equal to 0.1 (seconds)".to_owned())
        );
    }
}
