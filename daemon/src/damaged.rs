//! Containers of which the record cannot be used, because it was damaged or is of a later wharfd: they are shown, and
//! left alone with all that they have, until somebody removes them. All others are looked after as ever.

use crate::definition::Definition;
use crate::paths::Paths;
use crate::store::Record;
use crate::view::View;
use std::sync::Arc;
use wharf_bus::{Error, Spec};
use wharf_supervisor::{Command, Id};

/// The state that is shown of it; the supervisor knows nothing of it.
pub const STATE: &str = "damaged";

/// Such a container.
#[derive(Debug)]
pub struct Damaged {
    id: Id,
    /// It keeps it: as it is written down, but for what no terminal and no D-Bus would take.
    name: String,
    record: Record,
    reason: String,
}

impl Damaged {
    /// `error` says what is wrong with the record.
    pub fn new(id: Id, record: Record, error: &anyhow::Error) -> Self {
        let name = record.name.replace(char::is_control, "\u{fffd}");
        Self { id, name, record, reason: format!("{error:#}") }
    }

    /// It keeps its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is to be done about it.
    fn advice(&self) -> String {
        format!(
            "what was saved of it cannot be used ({}); it is left alone, `ctl rm -f` removes it with its processes and \
             files",
            self.reason
        )
    }

    /// The first of the ids that it keeps.
    pub fn first_id(&self) -> Option<u32> {
        self.record.first_id
    }

    /// Nothing can be done with it but to remove it, whether it runs or not.
    pub fn check(&self, command: &Command) -> Result<(), Error> {
        match command {
            Command::Remove { force: true, .. } => Ok(()),
            Command::Create { .. }
            | Command::Run { .. }
            | Command::Start { .. }
            | Command::Stop { .. }
            | Command::StopAll { .. }
            | Command::ResetFailed { .. }
            | Command::Kill { .. }
            | Command::Restart { .. }
            | Command::Pause { .. }
            | Command::Unpause { .. }
            | Command::Update { .. }
            | Command::Remove { force: false, .. } => {
                Err(Error::WrongState(format!("container {}: {}", self.name(), self.advice())))
            }
        }
    }

    /// As far as something is known of it.
    pub fn view(&self, paths: &Paths) -> View {
        let definition = Definition::parse(&self.record.definition).ok();
        let spec = definition.as_ref().map(|definition| definition.spec.clone()).unwrap_or_default();
        let spec = Spec { name: Some(self.name.clone()), ..spec };
        View {
            id: self.id.to_string(),
            name: self.name.clone(),
            image: spec.image.clone().unwrap_or_default(),
            image_id: definition.as_ref().and_then(|known| known.image_id.clone()).unwrap_or_default(),
            command: definition.as_ref().map(|known| known.command.clone()).unwrap_or_default(),
            spec: Arc::new(spec),
            state: STATE,
            goal: "down",
            run: 0,
            settled: true,
            ready: false,
            health: "none",
            probes: "[]".to_owned(),
            status: String::new(),
            restarts: 0,
            next_start: 0,
            reason: self.advice(),
            restarting: false,
            held: false,
            pid: 0,
            exit_code: None,
            oom_killed: false,
            failure: None,
            stop_signal: 0,
            healthcheck: None,
            warnings: Vec::new(),
            created_at: definition.as_ref().map_or(0, |known| known.created_at),
            started_at: 0,
            finished_at: 0,
            id_map: (0, 0),
            cgroup: String::new(),
            log_directory: paths.log(self.id).display().to_string(),
        }
    }
}
