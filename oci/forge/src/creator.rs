//! Makes one container. The only user of the container library.
//!
//! ```text
//! guard ──cgroup, limits, clone into it──► creator
//!   │                                        │  stage (rootfs, volumes) ─► user, spec ─► library: create ─► start
//!   │                                        │  ─► inspection
//!   │◄── the container, or what went wrong ──┤
//!   │                                        └ exits; init, which waits for the word, becomes the guard's child
//!   ├─► go ─► reply ─execve─► keeper
//!   └─► or kills and removes the cgroup
//! ```
//! The library changes the process that calls it, and leaves descriptors and children behind when it fails; all that
//! ends with the creator, whose children are born into the container's cgroup, so that the guard finds them even
//! when the creator was killed in their midst. The guard is never in that cgroup: leaving one takes the kernel's
//! global cgroup lock, which is some ten milliseconds. And the container has its cgroup for itself when its
//! program starts, so that its limit of processes is its own.

use crate::capabilities::{self, Sets};
use crate::cgroup::Cgroup;
use crate::console::{self, ConsoleSocket};
use crate::inspection::{self, Expected};
use crate::journal::{self, Journal};
use crate::keeper::{self, Descriptors, Handover};
use crate::program::{Explanation, Filter, Launch, Program, read_filter};
use crate::stage::{self, Stage};
use crate::sys::{self, Forked};
use crate::{idmap, limits, network, users};
use anyhow::{Context, Result, bail};
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::oci_spec::runtime::{
    Capabilities, LinuxDeviceCgroup, LinuxIdMappingBuilder, LinuxNamespace, LinuxNamespaceType, PosixRlimit,
    PosixRlimitBuilder, Spec,
};
use libcontainer::syscall::syscall::SyscallType;
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use rustix::fs::{FileType, Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use wharf_protocol::exit::WaitStatus;
use wharf_protocol::{
    Create, CreateFd, Failure, FailureKind, IdMap, Limits, Reply, Stdin, VERSION, failpoint, frame,
};

const CONSOLE_SOCKET: &str = "/console.sock";
/// Its steps have limits of their own; one that hangs nevertheless, in a file system that does not answer, is not
/// waited for for ever.
const CREATING: Duration = Duration::from_secs(3600);
/// For a message of a kilobyte to a process that waits for it.
const WRITING: Duration = Duration::from_secs(5);

/// Carry out [`wharf_protocol::Request::Create`]: as its guard, who becomes the keeper. Returns only if there is none.
/// The failure, if there is one to tell, is of something that has been undone.
pub fn create(
    connection: &UnixStream,
    request: &Create,
    fds: Vec<OwnedFd>,
    keeper: &OwnedFd,
) -> Result<(), Failure> {
    let cgroup = Cgroup::at(&request.cgroup).map_err(|error| crate::failure(&error))?;
    // If it is there it is somebody else's, and not ours to remove.
    cgroup.make().map_err(|error| crate::failure(&error))?;
    failpoint::reach("guard.cgroup-made");
    let undo = || {
        // What the library has started is in there, whether it told us or not.
        if let Err(error) = cgroup.kill().and_then(|()| cgroup.remove()) {
            sys::say(format_args!("{error:#}"));
        }
        for (name, flags) in
            [(keeper::SOCKET, rustix::fs::AtFlags::empty()), (stage::POINT, rustix::fs::AtFlags::REMOVEDIR)]
        {
            let _ = rustix::fs::unlinkat(rustix::fs::CWD, request.run_dir.join(name), flags);
        }
    };
    match guard(connection, request, fds, keeper, &cgroup) {
        Ok(Outcome::Abandoned(failure)) => {
            // The asker has been told of a container that now has no keeper. It ends, and its cgroup with it.
            sys::say(format_args!("no keeper for container {}: {failure}", request.id));
            undo();
            Ok(())
        }
        Ok(Outcome::Failed(failure)) => {
            undo();
            Err(failure)
        }
        Err(error) => {
            undo();
            Err(crate::failure(&error))
        }
    }
}

enum Outcome {
    Failed(Failure),
    /// After the reply.
    Abandoned(Failure),
}

/// What the creator says to its guard.
#[derive(Serialize, Deserialize)]
enum Word {
    /// The container waits to be released. Descriptors: those named by [`Made::parts`].
    Made(Made),
    /// There is none, for this reason.
    Failed(Failure),
}

/// A container that waits to be released.
#[derive(Serialize, Deserialize)]
struct Made {
    pid: i32,
    warnings: Vec<String>,
    explanation: Explanation,
    parts: Vec<Part>,
}

/// What the keeper needs of a container, and the guard to release it.
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Part {
    Init,
    Launch,
    Stdout,
    Stderr,
    Stdin,
    AttachStdout,
    AttachStderr,
    /// For wharfd.
    Rootfs,
}

/// Returns only if there is no keeper.
fn guard(
    connection: &UnixStream,
    request: &Create,
    fds: Vec<OwnedFd>,
    keeper: &OwnedFd,
    cgroup: &Cgroup,
) -> Result<Outcome> {
    // How many processes there may be is limited only when the container is made.
    let warnings = cgroup.limit(&Limits { pids_max: None, ..request.limits.clone() })?;
    let directory = cgroup.open_unified()?;
    become_clean()?;
    // The creator's children become ours when it exits.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).context("becoming a subreaper")?;
    let (ours, theirs) = UnixStream::pair().context("making a socket pair")?;
    let own = rustix::process::getpid();
    // SAFETY: the forge's children are single-threaded; the creator leaves with _exit.
    let (creator, ended) = match unsafe { sys::fork(0, Some(directory.as_fd())) } {
        Ok(Forked::Parent { pid, pidfd }) => (pid, pidfd),
        Ok(Forked::Child) => {
            drop(ours);
            let creation = Creation { connection, request, cgroup, warnings, guard: own };
            creation.carry_out(fds, &theirs)
        }
        Err(error) => return Err(error).context("making the creator"),
    };
    drop(theirs);
    drop(fds);
    failpoint::reach("guard.creator-forked");

    // While the creator is at work.
    let run_dir = open_directory(&request.run_dir)?;
    let listen = keeper::listen(&run_dir)?;
    let record_dir = open_directory(&request.record_dir)?;
    let log_dir = open_directory(&request.log.dir)?;

    let (made, fds) = match listen_to(&ours, &ended)? {
        Some((Word::Made(made), fds)) => (made, fds),
        Some((Word::Failed(failure), _)) => return Ok(Outcome::Failed(failure)),
        None => return Ok(Outcome::Failed(killed())),
    };
    failpoint::reach("guard.container-made");
    // From here on init is our child, dead or alive, and nothing but the container is in its cgroup.
    sys::wait(creator).context("waiting for the creator")?;
    let mut parts: Vec<_> = made.parts.into_iter().zip(fds).collect();
    let mut take = |part| {
        let at = parts.iter().position(|(found, _)| *found == part)?;
        Some(parts.swap_remove(at).1)
    };
    let launch = Launch::from(take(Part::Launch).context("no socket to release the container")?);
    let rootfs = take(Part::Rootfs);
    let init = take(Part::Init).context("no pidfd")?;
    let descriptors = Descriptors {
        init: init.try_clone().context("keeping the pidfd")?,
        listen,
        record_dir,
        log_dir,
        stdout: take(Part::Stdout).context("no standard output")?,
        stderr: take(Part::Stderr),
        stdin: take(Part::Stdin),
        attach_stdout: take(Part::AttachStdout),
        attach_stderr: take(Part::AttachStderr),
    };

    // The keeper cares for init alone; what a container without a pid namespace leaves is the forge's to reap.
    rustix::process::set_child_subreaper(None).context("ceasing to be a subreaper")?;
    // From the release on there is a container, and it shall have a keeper.
    let handover = Handover::prepare(keeper, request, made.pid, descriptors)?;
    let started_boottime_ns = sys::boottime_ns();
    launch.go(&made.explanation)?;
    failpoint::reach("guard.released");
    let reply = Reply::Started { pid: made.pid as u32, started_boottime_ns, warnings: made.warnings };
    // Whoever asked may have been killed, and the next wharfd finds the keeper. One that lives and does not hear the
    // answer removes the cgroup, with all that is in it.
    let fds: Vec<_> = [&init].into_iter().chain(&rootfs).map(AsFd::as_fd).collect();
    if let Err(error) = frame::send(connection, &reply, &fds) {
        sys::say(format_args!("answering: {error}, ignoring"));
    }
    drop(rootfs);
    failpoint::reach("guard.answered");
    Ok(Outcome::Abandoned(crate::failure(&handover.become_keeper())))
}

/// What the creator says; `None` if it dies without a word.
fn listen_to(socket: &UnixStream, ended: &OwnedFd) -> Result<Option<(Word, Vec<OwnedFd>)>> {
    // It writes in one go. What it has started holds copies of its end, so without it there is no end to wait for.
    socket.set_read_timeout(Some(WRITING))?;
    match sys::wait_readable(&[socket.as_fd(), ended.as_fd()], CREATING)? {
        Some(0) => match frame::receive(socket) {
            Ok(word) => Ok(Some(word)),
            // Killed in the midst of it.
            Err(_) if sys::has_ended(ended.as_fd()) => Ok(None),
            Err(error) => Err(error).context("listening to the creator"),
        },
        Some(_) => Ok(None),
        None => bail!("the container was not made within {} s", CREATING.as_secs()),
    }
}

fn killed() -> Failure {
    Failure {
        kind: FailureKind::Failed,
        message: "the process that makes the container was killed; is the memory limit large enough?".into(),
        detail: Vec::new(),
    }
}

/// In the creator.
struct Creation<'a> {
    connection: &'a UnixStream,
    request: &'a Create,
    cgroup: &'a Cgroup,
    warnings: Vec<String>,
    guard: rustix::process::Pid,
}

impl Creation<'_> {
    fn carry_out(mut self, fds: Vec<OwnedFd>, to_guard: &UnixStream) -> ! {
        let mut sources = Vec::new();
        let mut lines = Vec::new();
        let result = self.obey_guard().and_then(|()| {
            let journal = Journal::install().context("making the journal")?;
            self.run(fds, &journal, &mut sources, to_guard).inspect_err(|_| lines = journal.lines())
        });
        if let Err(error) = result {
            let mut failure = crate::failure(&error);
            failure.detail = lines;
            for (staged, given) in &sources {
                // The stage's names mean nothing to the user.
                failure.message =
                    failure.message.replace(&format!("{staged} "), &format!("{} ", given.display()));
            }
            // Undoing is the guard's. To one that is gone nothing needs to be said.
            let _ = frame::send(to_guard, &Word::Failed(failure), &[]);
            sys::exit(1)
        }
        sys::exit(0)
    }

    /// Without a guard there would be nobody to undo what we do, and init dies with us.
    fn obey_guard(&self) -> Result<()> {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
            .context("asking to die with the guard")?;
        if rustix::process::getppid() != Some(self.guard) {
            bail!("the guard has gone");
        }
        Ok(())
    }

    fn run(
        &mut self,
        fds: Vec<OwnedFd>,
        journal: &Journal,
        sources: &mut Vec<(String, PathBuf)>,
        to_guard: &UnixStream,
    ) -> Result<()> {
        let request = self.request;
        let mut given = Given::sort(request, fds)?;
        let mut spec: Spec = serde_json::from_str(&request.spec)
            .map_err(|error| invalid(format!("the runtime spec cannot be read: {error}")))?;
        let mut late = self.cgroup.late(&request.limits, device_rules(&spec))?;
        self.cgroup.join_v1()?;

        let run_dir = open_directory(&request.run_dir)?;
        let user_namespace = request.id_map.map(idmap::user_namespace).transpose()?;
        let (kept, translation) = (given.rootfs.take(), user_namespace.as_ref());
        let stage = Stage::enter(request, &run_dir, self.cgroup, &mut spec, translation, kept)?;
        sources.clone_from(&stage.sources);
        failpoint::reach("creator.staged");

        let ids = request.id_map.map_or(u32::MAX, |map| map.size);
        let identity = users::identify(&stage.rootfs, &request.user, &request.groups, ids)?;
        let capabilities = fill_in(&mut spec, request, &identity, &mut self.warnings)?;
        if request.make_cwd {
            let cwd = spec.process().as_ref().map(|process| process.cwd().clone()).unwrap_or_default();
            stage::make_working_directory(&stage.rootfs, &cwd, user_namespace.as_ref())?;
        }
        drop(user_namespace);

        let program = Rc::new(program_of(&spec, std::mem::take(&mut given.filters), capabilities)?);
        let expected = Expected {
            uid: stage::host_id(request.id_map, identity.uid),
            gid: stage::host_id(request.id_map, identity.gid),
            capabilities,
            no_new_privileges: no_new_privileges(&spec),
            filters: program.filters(),
        };
        let console =
            request.terminal.is_some().then(|| ConsoleSocket::listen(CONSOLE_SOCKET)).transpose()?;
        let streams = Streams::make(request, &mut given, expected.uid)?;
        widen(&mut spec, &program, capabilities)?;
        spec.save(Path::new(stage::BUNDLE).join("config.json")).context("writing config.json")?;

        let (launch, socket) = Launch::pair()?;
        let entrance = Entrance {
            program: Rc::clone(&program),
            socket: socket.as_raw_fd(),
            not_for_init: [self.connection.as_raw_fd(), to_guard.as_raw_fd(), launch.as_raw_fd()],
        };
        let mut builder = ContainerBuilder::new(request.id.clone(), SyscallType::default())
            .with_root_path(stage::STATE)
            .and_then(ContainerBuilder::validate_id)
            .map_err(|error| invalid(error.to_string()))?
            .with_executor(entrance);
        if console.is_some() {
            builder = builder.with_console_socket(Some(CONSOLE_SOCKET));
        }
        let Streams { stdin, stdout, stderr, .. } = streams.theirs;
        if let (Some(stdin), Some(stdout), Some(stderr)) = (stdin, stdout, stderr) {
            builder = builder.with_stdin(stdin).with_stdout(stdout).with_stderr(stderr);
        }
        let built = builder.as_init(stage::BUNDLE).with_systemd(false).with_detach(true).build();
        drop(socket);
        failpoint::reach("creator.cloned");
        let mut container = built.map_err(|error| library_failure(&error, journal))?;

        let pid = container.pid().context("the container library names no process")?.as_raw();
        let pidfd = pidfd_open(pid)?;
        let master = console.map(|console| console.receive()).transpose()?;
        if let (Some(master), Some(size)) = (&master, request.terminal) {
            console::resize(master, size)?;
            let tty_group = stage::host_id(request.id_map, 5);
            console::give(&console::slave_of(master)?, expected.uid, tty_group)?;
        }
        // That of the forge, which a service manager may spare (OOMScoreAdjust), is not for containers.
        let spared = || limits::own_oom_score_adjustment().is_some_and(|own| own < 0).then_some(0);
        if let Some(adjustment) = request.oom_score_adj.or_else(spared) {
            self.warnings.extend(limits::adjust_oom_score(pid, adjustment)?);
        }

        container.start().map_err(|error| library_failure(&error, journal))?;
        if launch.await_ready(&program)?.is_none() {
            return Err(died(pid, journal).into());
        }
        inspection::check_process(pid, &expected)
            .and_then(|()| inspection::check_container(pid, &spec, stage.home()))
            .context("the container is not confined as asked and was not started")?;
        inspection::check_cgroup(pid, self.cgroup)?;
        failpoint::reach("creator.checked");
        late.set()?;
        if let Err(error) = late.guard_devices() {
            // Root of a user namespace can make no devices, and volumes are mounted without.
            if request.id_map.is_none() {
                return Err(
                    error.context("without a user namespace only this keeps it from the host's disks")
                );
            }
            self.warnings.push(format!("devices are kept away by the user namespace only: {error:#}"));
        }

        if has_own_network(&spec) {
            network::raise_loopback(&pidfd)?;
        }

        let (stdout, stderr) = match master {
            Some(master) => (Some(master), None),
            None => (streams.stdout, streams.stderr),
        };
        let parts = [
            (Part::Init, Some(pidfd)),
            (Part::Launch, Some(launch.into())),
            (Part::Stdout, stdout),
            (Part::Stderr, stderr),
            (Part::Stdin, streams.stdin),
            (Part::AttachStdout, given.attach_terminal.or(given.attach_stdout)),
            (Part::AttachStderr, given.attach_stderr),
            (Part::Rootfs, stage.keep),
        ];
        let (parts, fds): (Vec<_>, Vec<_>) =
            parts.iter().filter_map(|(part, fd)| Some((*part, fd.as_ref()?.as_fd()))).unzip();
        let warnings = std::mem::take(&mut self.warnings);
        let made = Made { pid, warnings, explanation: program.explanation(), parts };
        frame::send(to_guard, &Word::Made(made), &fds).context("handing the container to the guard")?;
        failpoint::reach("creator.handed");
        Ok(())
    }
}

/// Why init ended without a word.
fn died(pid: i32, journal: &Journal) -> Failure {
    let status = sys::wait(pid).unwrap_or(0);
    let code = wharf_protocol::exit::exit_code(status);
    let message = match (status.into(), journal.lines().first()) {
        (WaitStatus::Signal(libc::SIGKILL), _) => {
            "the container was killed while it was being made; is its memory limit large enough?".to_owned()
        }
        (WaitStatus::Signal(libc::SIGSYS), _) => {
            "the seccomp filter forbids what starting a program needs".to_owned()
        }
        (_, Some(line)) => format!("starting the container failed: {line}"),
        (_, None) => format!("the container's first process ended early with code {code}"),
    };
    Failure { kind: FailureKind::Failed, message, detail: Vec::new() }
}

fn library_failure(error: &dyn std::error::Error, journal: &Journal) -> anyhow::Error {
    let mut returned = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !returned.contains(&text) {
            returned = format!("{returned}: {text}");
        }
        source = cause.source();
    }
    let message = journal::sentence(&returned, &journal.lines());
    Failure { kind: FailureKind::Failed, message, detail: Vec::new() }.into()
}

fn has_own_network(spec: &Spec) -> bool {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    namespaces.is_some_and(|namespaces| {
        let own = |namespace: &LinuxNamespace| {
            namespace.typ() == LinuxNamespaceType::Network && namespace.path().is_none()
        };
        namespaces.iter().any(own)
    })
}

/// A session of our own, no groups, an umask for what the library makes; the rest the forge has seen to.
fn become_clean() -> Result<()> {
    rustix::process::setsid().context("making a session")?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    rustix::thread::set_thread_groups(&[]).context("dropping groups")?;
    Ok(())
}

fn open_directory(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).with_context(|| format!("opening {}", path.display()))
}

fn pidfd_open(pid: i32) -> Result<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid).context("no pid")?;
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).context("opening a pidfd")
}

/// The descriptors that came with the request.
#[derive(Default)]
struct Given {
    filters: Vec<Filter>,
    stdin: Option<OwnedFd>,
    attach_stdout: Option<OwnedFd>,
    attach_stderr: Option<OwnedFd>,
    attach_terminal: Option<OwnedFd>,
    rootfs: Option<OwnedFd>,
}

impl Given {
    fn sort(request: &Create, fds: Vec<OwnedFd>) -> Result<Self> {
        if request.version != VERSION {
            bail!("the request is of version {}, this forge understands {VERSION}", request.version);
        }
        if request.fds.len() != fds.len() {
            bail!("{} descriptors came instead of {}", fds.len(), request.fds.len());
        }
        let mut given = Self::default();
        for (what, fd) in request.fds.iter().zip(fds) {
            match what {
                CreateFd::Seccomp => given.filters.push(read_filter(&fd)?),
                CreateFd::Stdin => given.stdin = Some(fd),
                CreateFd::AttachStdout => given.attach_stdout = Some(fd),
                CreateFd::AttachStderr => given.attach_stderr = Some(fd),
                CreateFd::AttachTerminal => given.attach_terminal = Some(fd),
                CreateFd::Rootfs => given.rootfs = Some(fd),
            }
        }
        Ok(given)
    }
}

/// What only the creator can know, and what must not depend on who wrote the spec.
fn fill_in(
    spec: &mut Spec,
    request: &Create,
    identity: &users::Identity,
    warnings: &mut Vec<String>,
) -> Result<Sets> {
    if let Some(root) = spec.root_mut() {
        root.set_path(PathBuf::from(stage::ROOTFS));
    } else {
        bail!("the spec has no root");
    }
    let Some(process) = spec.process_mut() else { bail!("the spec has no process") };
    process.set_terminal(Some(request.terminal.is_some()));
    if !process.cwd().is_absolute() {
        return Err(invalid(format!("the working directory {} is not absolute", process.cwd().display())));
    }
    let user = process.user_mut();
    user.set_uid(identity.uid);
    user.set_gid(identity.gid);
    user.set_additional_gids(Some(identity.groups.clone()));
    let mut env = process.env().clone().unwrap_or_default();
    complete_home(&mut env, &identity.home)?;
    process.set_env(Some(env));
    // The library tests for presence, not for the value.
    if process.no_new_privileges() != Some(true) {
        process.set_no_new_privileges(None);
    }
    // The library would write it to our own process, and fail where it may not be lowered.
    process.set_oom_score_adj(None);
    let rlimits = process.rlimits().clone().unwrap_or_default();
    process.set_rlimits(Some(clamp(rlimits, warnings)?));
    let capabilities = sets_of(spec)?;

    let Some(linux) = spec.linux_mut() else { bail!("the spec has no linux section") };
    if linux.seccomp().is_some() {
        bail!("the spec has a seccomp profile; it must come compiled, as a descriptor");
    }
    linux.set_cgroups_path(Some(PathBuf::from(&request.cgroup)));
    // All limits are set by us.
    linux.set_resources(None);
    let has_user_namespace =
        linux.namespaces().iter().flatten().any(|namespace| namespace.typ() == LinuxNamespaceType::User);
    if has_user_namespace != request.id_map.is_some() {
        bail!("a user namespace and a range of ids belong together, the request has only one of them");
    }
    let mappings = match request.id_map {
        Some(IdMap { host, size }) => {
            let mapping =
                LinuxIdMappingBuilder::default().container_id(0u32).host_id(host).size(size).build();
            Some(vec![mapping.context("id mapping")?])
        }
        None => None,
    };
    linux.set_uid_mappings(mappings.clone());
    linux.set_gid_mappings(mappings);
    Ok(capabilities)
}

fn device_rules(spec: &Spec) -> &[LinuxDeviceCgroup] {
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    resources.and_then(|resources| resources.devices().as_deref()).unwrap_or_default()
}

/// HOME must be there: without it the library would ask NSS, which runs code of the image's.
pub fn complete_home(env: &mut Vec<String>, home: &str) -> Result<()> {
    match env.iter().find_map(|entry| entry.strip_prefix("HOME=")) {
        Some(given) if given.chars().any(char::is_control) => {
            Err(invalid("HOME in the environment has a control character".into()))
        }
        Some(_) => Ok(()),
        None => {
            env.push(format!("HOME={home}"));
            Ok(())
        }
    }
}

fn clamp(rlimits: Vec<PosixRlimit>, warnings: &mut Vec<String>) -> Result<Vec<PosixRlimit>> {
    let mut clamped = Vec::with_capacity(rlimits.len());
    for rlimit in rlimits {
        let resource = rlimit.typ() as u32;
        let (soft, hard, warning) =
            limits::clamp(resource, &rlimit.typ().to_string(), rlimit.soft(), rlimit.hard())?;
        warnings.extend(warning);
        let rlimit = PosixRlimitBuilder::default().typ(rlimit.typ()).soft(soft).hard(hard).build();
        clamped.push(rlimit.context("resource limit")?);
    }
    Ok(clamped)
}

fn no_new_privileges(spec: &Spec) -> bool {
    spec.process().as_ref().and_then(|process| process.no_new_privileges()) == Some(true)
}

/// The capability sets, which must be explicit: the library takes absence for "all".
fn sets_of(spec: &Spec) -> Result<Sets> {
    let capabilities = spec.process().as_ref().and_then(|process| process.capabilities().as_ref());
    let Some(capabilities) = capabilities else { bail!("the spec has no process.capabilities") };
    let mask = |set: &Option<Capabilities>| -> Result<u64> {
        let Some(set) = set else { bail!("a set is missing in process.capabilities") };
        let names: Vec<String> = serde_json::from_value(serde_json::to_value(set)?)?;
        capabilities::mask(names.iter().map(String::as_str))
            .map_err(|name| invalid(format!("no capability {name}")))
    };
    if mask(capabilities.inheritable())? != 0 || mask(capabilities.ambient())? != 0 {
        return Err(invalid("inheritable and ambient capabilities must be empty".into()));
    }
    Ok(Sets {
        bounding: mask(capabilities.bounding())?,
        effective: mask(capabilities.effective())?,
        permitted: mask(capabilities.permitted())?,
    })
}

/// Without no_new_privs only CAP_SYS_ADMIN may load a filter, and our filters are loaded after the library has
/// dropped what the container shall not have. So it keeps two more, which [`Program::become_program`] drops.
fn widen(spec: &mut Spec, program: &Program, sets: Sets) -> Result<()> {
    if program.filters() == 0 || no_new_privileges(spec) {
        return Ok(());
    }
    let more = capabilities::SYS_ADMIN | capabilities::SETPCAP;
    let set = |mask: u64| -> Result<Option<Capabilities>> {
        let names: Vec<&str> = capabilities::names(mask | more).collect();
        Ok(Some(serde_json::from_value(serde_json::to_value(names)?)?))
    };
    if let Some(process) = spec.process_mut()
        && let Some(mut capabilities) = process.capabilities().clone()
    {
        capabilities.set_bounding(set(sets.bounding)?);
        capabilities.set_effective(set(sets.effective)?);
        capabilities.set_permitted(set(sets.permitted)?);
        process.set_capabilities(Some(capabilities));
    }
    Ok(())
}

fn program_of(spec: &Spec, filters: Vec<Filter>, capabilities: Sets) -> Result<Program> {
    let process = spec.process().as_ref().context("the spec has no process")?;
    let args = process.args().clone().unwrap_or_default();
    let env = process.env().clone().unwrap_or_default();
    Program::new(&args, &env, filters, capabilities, no_new_privileges(spec))
}

/// The pipes between a container and its keeper: our ends, and `theirs`.
#[derive(Default)]
struct Streams<T = ()> {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    theirs: T,
}

impl Streams<Streams> {
    fn make(request: &Create, given: &mut Given, uid: u32) -> Result<Self> {
        let mut streams = Self::default();
        if request.terminal.is_some() {
            return Ok(streams);
        }
        let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context("making a pipe");
        let (stdout, their_stdout) = pipe()?;
        let (stderr, their_stderr) = pipe()?;
        (streams.stdout, streams.stderr) = (Some(stdout), Some(stderr));
        let their_stdin = match request.stdin {
            Stdin::Null => {
                let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
                null.context("opening /dev/null")?
            }
            Stdin::Pipe => given.stdin.take().context("the request says stdin: pipe, but has none")?,
            Stdin::Kept => {
                let (theirs, ours) = pipe()?;
                streams.stdin = Some(ours);
                theirs
            }
        };
        for fd in [&their_stdin, &their_stdout, &their_stderr] {
            own_pipe(fd, uid)?;
        }
        streams.theirs = Streams {
            stdin: Some(their_stdin),
            stdout: Some(their_stdout),
            stderr: Some(their_stderr),
            theirs: (),
        };
        Ok(streams)
    }
}

/// Give a pipe to the container's user, who could not open it again by /dev/stdout otherwise.
pub fn own_pipe(fd: impl AsFd, uid: u32) -> Result<()> {
    if FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) == FileType::Fifo {
        rustix::fs::fchown(&fd, Some(rustix::fs::Uid::from_raw(uid)), None)
            .context("giving a pipe to the container's user")?;
    }
    Ok(())
}

/// The way of the library's init process into the program, inside the container.
#[derive(Clone)]
struct Entrance {
    program: Rc<Program>,
    socket: RawFd,
    /// Copies that would keep others from seeing the end of the one who owns the descriptor.
    not_for_init: [RawFd; 3],
}

impl Executor for Entrance {
    fn exec(&self, _: &Spec) -> Result<(), ExecutorError> {
        // From here on the end of the launch's other side tells us that nobody is there. The filters that are now
        // loaded may forbid this call; and when the creator exits the program shall not go with it.
        // SAFETY: prctl with plain numbers.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, 0, 0, 0, 0) };
        // SAFETY: the creator keeps its copy until the library returns, and this process has one of its own.
        let socket = unsafe { BorrowedFd::borrow_raw(self.socket) };
        Err(ExecutorError::Other(self.program.become_program(socket).to_string()))
    }

    /// The library would look for the program here, before the inspection; we look when we execute it. But from
    /// here on init waits for its creator, and must not do so when that one is gone.
    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        // SAFETY: plain system calls on what this clone owns; the descriptors are not used here again.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
            for descriptor in self.not_for_init {
                libc::close(descriptor);
            }
        }
        Ok(())
    }

    /// The program's environment is an argument of execve; ours is empty.
    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }
}

fn invalid(message: String) -> anyhow::Error {
    Failure { kind: FailureKind::InvalidInput, message, detail: Vec::new() }.into()
}
