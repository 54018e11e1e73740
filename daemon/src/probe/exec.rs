//! Run a program in the container and look how it ends.
//!
//! Everything that it starts is in a cgroup of the exec's own. When its time is over, or nobody waits for it any more,
//! the forge kills that cgroup; the end of the program itself does the same to whatever it has left behind.

use super::means::{Means, unanswered};
use super::{Trouble, Verdict, plain};
use crate::clock;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::unix::pipe;
use tokio::time::Instant;
use wharf_oci::bundle::Bundle;
use wharf_oci::forge::{Executing, Forge};
use wharf_oci::seccomp::{self, Filter};
use wharf_oci::{Exec, ExecFd, readiness};

/// How much of standard output and error together is kept, in bytes; the program may print more.
const OUTPUT_MAX: usize = 10 << 10;
/// Killing takes milliseconds, unless the kernel itself holds a process.
const KILLING: Duration = Duration::from_secs(5);

/// As whom and with which rights programs are run in one run of a container.
#[derive(Debug)]
pub struct Confinement {
    forge: Forge,
    container: Arc<OwnedFd>,
    /// All but name, program and descriptors.
    request: Exec,
    filter: Option<Filter>,
    number: AtomicU64,
}

impl Confinement {
    /// As the container's own program, but in `/`, as the kubelet has it. `container` is the first process of the run
    /// in `cgroup`.
    pub fn new(forge: Forge, container: Arc<OwnedFd>, bundle: &Bundle, cgroup: String) -> Self {
        let process = bundle.process.clone();
        let request = Exec {
            version: wharf_oci::PROTOCOL_VERSION,
            cgroup,
            name: String::new(),
            args: Vec::new(),
            env: process.env,
            cwd: "/".to_owned(),
            user: process.user,
            groups: process.groups,
            capabilities: process.capabilities,
            no_new_privileges: process.no_new_privileges,
            id_map: bundle.id_map,
            terminal: None,
            rlimits: process.rlimits,
            kill_on_disconnect: true,
            fds: Vec::new(),
        };
        // Another wharfd may have left some that are still ending.
        let number = AtomicU64::new(clock::now().0 / 1000);
        Self { forge, container, request, filter: bundle.filter.clone(), number }
    }

    /// In this directory instead, as Docker has it for a HEALTHCHECK.
    pub fn in_directory(mut self, cwd: String) -> Self {
        self.request.cwd = cwd;
        self
    }

    /// Where the processes of a new exec are, and how to start it.
    fn exec(&self, command: &[String]) -> Exec {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        Exec { name: format!("probe-{number}"), args: command.to_vec(), ..self.request.clone() }
    }
}

/// `$(NAME)` in a command, from the container's environment, as in a Kubernetes manifest: `$$` is a dollar sign, and a
/// name that nobody has set stays as it is. Not for commands that come from elsewhere: in a shell script the same
/// signs mean other things.
pub fn expand(command: &[String], env: &[String]) -> Vec<String> {
    let value = |name: &str| {
        env.iter()
            .find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name))
            .map(|(_, value)| value)
    };
    let expand = |text: &String| {
        let mut expanded = String::with_capacity(text.len());
        let mut rest = text.as_str();
        while let Some((before, after)) = rest.split_once('$') {
            expanded.push_str(before);
            let reference = after.strip_prefix('(').and_then(|after| after.split_once(')'));
            rest = match (after.strip_prefix('$'), reference) {
                (Some(after), _) => {
                    expanded.push('$');
                    after
                }
                (None, Some((name, after))) => {
                    match value(name) {
                        Some(value) => expanded.push_str(value),
                        None => expanded.extend(["$(", name, ")"]),
                    }
                    after
                }
                (None, None) => {
                    expanded.push('$');
                    after
                }
            };
        }
        expanded.push_str(rest);
        expanded
    };
    command.iter().map(expand).collect()
}

/// Run `command`: good if it ends with 0 in time.
pub async fn probe(means: &Means, command: &[String], timeout: Duration) -> Verdict {
    let deadline = Instant::now() + timeout;
    let unknown = |what: &str, error: io::Error| Trouble::Unknown(format!("{what}: {}", plain(&error)));
    let confinement = means
        .exec()
        .ok_or_else(|| Trouble::Unknown("nothing is known of how to run a program in it".to_owned()))?;
    let request = confinement.exec(command);
    let cgroup = format!("{}/{}", request.cgroup, request.name);
    let (reader, writer) = io::pipe().map_err(|error| unknown("making a pipe", error))?;
    let mut reader =
        pipe::Receiver::from_owned_fd(reader.into()).map_err(|error| unknown("making a pipe", error))?;

    let (forge, container) = (confinement.forge.clone(), confinement.container.clone());
    let filter = confinement.filter.clone();
    let mut start =
        tokio::task::spawn_blocking(move || start(&forge, request, &container, filter, writer.into()));
    let executing = match tokio::time::timeout_at(deadline, &mut start).await {
        Ok(started) => {
            started.map_err(|error| Trouble::Unknown(format!("starting the program: {error}")))??
        }
        // If it is started nevertheless, nobody takes the connection, and what it started is killed.
        Err(_) => {
            start.abort();
            return Err(Trouble::Bad(format!("timeout: it could not be started within {timeout:?}")));
        }
    };
    let ended = executing
        .as_fd()
        .try_clone_to_owned()
        .and_then(|connection| readiness::watch(connection, Interest::READABLE))
        .map_err(|error| unknown("waiting for the program", error))?;

    let mut output = Output::default();
    let mut buffer = [0; 4096];
    let in_time = loop {
        tokio::select! {
            read = reader.read(&mut buffer), if !output.at_end => output.take(&buffer, read),
            _ = ended.readable() => break true,
            () = tokio::time::sleep_until(deadline) => break false,
        }
    };
    if !in_time {
        end(confinement, &executing, &cgroup, async { ended.readable().await.is_ok() }).await;
        let text = output.after("timeout: it did not end within ", &format!("{timeout:?} and was killed"));
        return Err(Trouble::Bad(text));
    }
    // All who could still write have been killed.
    while !output.at_end && output.kept.len() < OUTPUT_MAX {
        match reader.try_read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            read => output.take(&buffer, read),
        }
    }
    match executing.wait().map(wharf_oci::exit_code) {
        Ok(0) => Ok(None),
        Ok(code) => Err(Trouble::Bad(output.after("exit code ", &code.to_string()))),
        Err(error) => {
            // The forge's child has died; nobody else would look after what it had started.
            end(confinement, &executing, &cgroup, async { false }).await;
            Err(unanswered("waiting for the program", error))
        }
    }
}

fn start(
    forge: &Forge,
    mut request: Exec,
    container: &OwnedFd,
    filter: Option<Filter>,
    output: OwnedFd,
) -> Result<Executing, Trouble> {
    let filter = filter.map(|filter| seccomp::as_memfd(&filter)).transpose();
    let filter = filter.map_err(|error| Trouble::Unknown(format!("the system call filter: {error}")))?;
    request.fds = vec![ExecFd::Stdout, ExecFd::Stderr];
    let mut fds = vec![output.as_fd(), output.as_fd()];
    if let Some(filter) = &filter {
        request.fds.push(ExecFd::Seccomp);
        fds.push(filter.as_fd());
    }
    forge.exec(request, container.as_fd(), &fds).map_err(|error| unanswered("starting the program", error))
}

/// Have it killed with all that it has started, and see that it is done: the next probe shall not meet it.
async fn end(
    confinement: &Confinement,
    executing: &Executing,
    cgroup: &str,
    done: impl Future<Output = bool>,
) {
    executing.cancel();
    if tokio::time::timeout(KILLING, done).await.unwrap_or(false) {
        return;
    }
    let (forge, path) = (confinement.forge.clone(), cgroup.to_owned());
    let removed = tokio::task::spawn_blocking(move || forge.remove_cgroup(&path)).await;
    match removed.map_err(anyhow::Error::from).and_then(|removed| Ok(removed?)) {
        Ok(()) => tracing::debug!(%cgroup, "killed what a probe had started in the forge's place"),
        Err(error) => {
            tracing::warn!(%cgroup, error = %format!("{error:#}"), "killing what a probe had started")
        }
    }
}

/// What a program has printed.
#[derive(Default)]
struct Output {
    kept: Vec<u8>,
    at_end: bool,
}

impl Output {
    fn take(&mut self, buffer: &[u8], read: io::Result<usize>) {
        let Ok(length @ 1..) = read else {
            self.at_end = true;
            return;
        };
        let room = OUTPUT_MAX - self.kept.len();
        self.kept.extend_from_slice(&buffer[..length.min(room)]);
    }

    /// «WHAT HOW: what was printed».
    fn after(&self, what: &str, how: &str) -> String {
        match String::from_utf8_lossy(&self.kept).trim_end() {
            "" => format!("{what}{how}"),
            output => format!("{what}{how}: {output}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings<const N: usize>(texts: [&str; N]) -> Vec<String> {
        texts.map(str::to_owned).to_vec()
    }

    #[test]
    fn references_are_expanded_as_in_a_manifest() {
        let env = strings(["A=1", "B=$(A)", "EMPTY="]);
        let given = ["$(A)x", "$(B)", "[$(EMPTY)]", "$(NONE)", "$$(A)", "$A", "$", "a$(A", "$$$(A)"];
        let wanted = ["1x", "$(A)", "[]", "$(NONE)", "$(A)", "$A", "$", "a$(A", "$1"];
        assert_eq!(expand(&strings(given), &env), strings(wanted));
    }

    #[test]
    fn output_is_kept_up_to_its_limit() {
        let mut output = Output::default();
        for _ in 0..11 {
            output.take(&[b'x'; 1024], Ok(1024));
        }
        assert_eq!(output.kept.len(), OUTPUT_MAX);
        assert!(!output.at_end);
        output.take(&[], Ok(0));
        assert!(output.at_end);
        assert_eq!(Output::default().after("exit code ", "1"), "exit code 1");
    }
}
