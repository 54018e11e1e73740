//! What `run` and `create` can say about the edges of a run: hooks, what it needs, what it tells of itself.

use crate::probe_target;
use crate::quantity;
use clap::{Args, ValueEnum};
use std::time::Duration;
use wharf_bus::spec::{Condition, Hook, Lifecycle, Notify, Requirement};

/// The edges of a run.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Lifecycle")]
pub struct LifecycleFlags {
    /// Start it once that container is started (running), healthy, ready or completed (exit code 0), and stop it before; restart-with: restart it with that one [default: started]
    #[arg(long, value_name = "NAME[:CONDITION][:restart-with]", value_parser = requirement)]
    requires: Vec<Requirement>,
    /// Do this when it has started, and end it if that fails: 'exec:PROGRAM ARGUMENT…', http://:PORT/PATH, https://… or sleep:TIME
    #[arg(long, value_name = "ACTION", value_parser = probe_target::hook)]
    post_start: Option<Hook>,
    /// Do this before the stop signal, within --stop-timeout; same forms
    #[arg(long, value_name = "ACTION", value_parser = probe_target::hook)]
    pre_stop: Option<Hook>,
    /// Offer it a socket for sd_notify(3) as NOTIFY_SOCKET; with =ready it is not ready before it has said so
    #[arg(long, value_name = "WHAT", value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "socket")]
    sdnotify: Option<NotifyMode>,
    /// Restart it when it has not sent WATCHDOG=1 through that socket for so long, at least 100ms [default: never]
    #[arg(long, value_name = "TIME", value_parser = quantity::duration)]
    watchdog: Option<Duration>,
}

/// `--sdnotify`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum NotifyMode {
    // It may use it or not.
    Socket,
    // It has to say READY=1.
    Ready,
}

impl LifecycleFlags {
    /// As the spec has them.
    pub fn requires(&self) -> Vec<Requirement> {
        self.requires.clone()
    }

    /// As the spec has them.
    pub fn lifecycle(&self) -> Lifecycle {
        Lifecycle { post_start: self.post_start.clone(), pre_stop: self.pre_stop.clone() }
    }

    /// As the spec has it.
    pub fn notify(&self) -> Option<Notify> {
        (self.sdnotify.is_some() || self.watchdog.is_some()).then(|| Notify {
            ready: self.sdnotify == Some(NotifyMode::Ready),
            watchdog_seconds: self.watchdog.map(|span| span.as_secs_f64()),
        })
    }
}

fn requirement(text: &str) -> Result<Requirement, String> {
    let mut words = text.split(':');
    let name = words.next().filter(|name| !name.is_empty());
    let name = name.ok_or("there is no name; it must be such as db:healthy")?;
    let mut found = Requirement { name: name.to_owned(), ..Requirement::default() };
    let mut condition = None;
    for word in words {
        let given = match word {
            "started" => Condition::Started,
            "healthy" => Condition::Healthy,
            "ready" => Condition::Ready,
            "completed" => Condition::Completed,
            "restart-with" => {
                found.restart_with = true;
                continue;
            }
            _ => {
                return Err(format!(
                    "after the name there may be started, healthy, ready or completed, and restart-with; got '{word}'"
                ));
            }
        };
        if condition.replace(given).is_some() {
            return Err(format!(
                "there is more than one condition in '{text}'; give the one that comes last"
            ));
        }
    }
    found.condition = condition.unwrap_or_default();
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        flags: LifecycleFlags,
    }

    fn flags(words: &[&str]) -> LifecycleFlags {
        Line::try_parse_from(std::iter::once(&"run").chain(words)).unwrap().flags
    }

    #[test]
    fn requirements_have_a_condition_or_started() {
        let needs = |name: &str, condition, restart_with| Requirement {
            name: name.to_owned(),
            condition,
            restart_with,
        };
        assert_eq!(requirement("db").unwrap(), needs("db", Condition::Started, false));
        assert_eq!(requirement("db:healthy").unwrap(), needs("db", Condition::Healthy, false));
        assert_eq!(requirement("db:ready:restart-with").unwrap(), needs("db", Condition::Ready, true));
        assert_eq!(requirement("db:restart-with").unwrap(), needs("db", Condition::Started, true));
        for text in ["", ":ready", "db:up", "db:ready:healthy", "db:"] {
            assert!(requirement(text).is_err(), "{text}");
        }
        assert_eq!(flags(&["--requires", "a", "--requires", "b:completed"]).requires().len(), 2);
    }

    #[test]
    fn hooks_are_read() {
        let found = flags(&["--post-start", "exec:/hello you", "--pre-stop", "sleep:5s"]).lifecycle();
        assert_eq!(found.post_start.unwrap().exec.unwrap().command, ["/hello", "you"]);
        assert_eq!(found.pre_stop.unwrap().sleep.unwrap().seconds, 5.0);
        assert_eq!(flags(&[]).lifecycle(), Lifecycle::default());
    }

    #[test]
    fn socket_is_offered_when_asked_for() {
        assert_eq!(flags(&[]).notify(), None);
        assert_eq!(flags(&["--sdnotify"]).notify(), Some(Notify::default()));
        assert_eq!(
            flags(&["--sdnotify=ready"]).notify(),
            Some(Notify { ready: true, watchdog_seconds: None })
        );
        assert_eq!(
            flags(&["--watchdog", "10s"]).notify(),
            Some(Notify { ready: false, watchdog_seconds: Some(10.0) })
        );
    }
}
