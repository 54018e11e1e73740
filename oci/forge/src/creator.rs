//! Makes one container and becomes its keeper. The only user of the container library.
//!
//! ```text
//! cgroup, limits ─► stage (rootfs, volumes) ─► user, spec ─► library: create ─► start ─► inspection ─► go
//!                                                                                                      │
//!                                              keeper ◄─ execve ◄─ reply ◄─ the program is executed ◄──┘
//! ```
//! The library changes the process that calls it, and leaves descriptors and children behind when it fails; both
//! end here, with execve or exit. Whatever goes wrong before the reply, [`Creation::undo`] leaves nothing.

use crate::capabilities::{self, Sets};
use crate::cgroup::Cgroup;
use crate::console::{self, ConsoleSocket};
use crate::inspection::{self, Expected};
use crate::journal::{self, Journal};
use crate::keeper::{self, Descriptors};
use crate::program::{Filter, Launch, Program, read_filter};
use crate::stage::{self, Stage};
use crate::{idmap, limits, sys, users};
use anyhow::{Context, Result, bail};
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::oci_spec::runtime::{
    Capabilities, LinuxIdMappingBuilder, LinuxNamespaceType, LinuxResourcesBuilder, PosixRlimit,
    PosixRlimitBuilder, Spec,
};
use libcontainer::syscall::syscall::SyscallType;
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use rustix::fs::{FileType, Mode, OFlags};
use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use wharf_protocol::{Create, CreateFd, Failure, FailureKind, IdMap, Reply, Stdin, VERSION, frame};

const CONSOLE_SOCKET: &str = "/console.sock";

/// Carry out [`wharf_protocol::Request::Create`]. Returns only if that failed, with everything undone.
pub fn create(connection: &UnixStream, request: &Create, fds: Vec<OwnedFd>, keeper: &OwnedFd) -> Failure {
    let journal = match Journal::install() {
        Ok(journal) => journal,
        Err(error) => return crate::failure(&error.context("making the journal")),
    };
    let mut creation = Creation::default();
    let error = match creation.run(connection, request, fds, &journal) {
        Ok(descriptors) => creation.hand_over(keeper, request, descriptors),
        Err(error) => error,
    };
    let mut failure = crate::failure(&error);
    failure.detail = journal.lines();
    if let Some(stage) = &creation.stage {
        // The stage's names mean nothing to the user.
        for (staged, given) in &stage.sources {
            failure.message = failure.message.replace(&format!("{staged} "), &format!("{} ", given.display()));
        }
    }
    creation.undo();
    failure
}

/// How far a creation has come; what is there must be undone.
#[derive(Default)]
struct Creation {
    cgroup: Option<Cgroup>,
    stage: Option<Stage>,
    run_dir: Option<OwnedFd>,
    init: Option<Init>,
}

struct Init {
    pid: i32,
    pidfd: OwnedFd,
}

impl Creation {
    fn run(
        &mut self,
        connection: &UnixStream,
        request: &Create,
        fds: Vec<OwnedFd>,
        journal: &Journal,
    ) -> Result<Descriptors> {
        let mut given = Given::sort(request, fds)?;
        let mut spec: Spec = serde_json::from_str(&request.spec)
            .map_err(|error| invalid(format!("the runtime spec cannot be read: {error}")))?;
        become_clean()?;

        let cgroup = self.cgroup.insert(Cgroup::at(&request.cgroup)?);
        if let Err(error) = cgroup.make() {
            // Somebody else's, or nothing: not ours to remove.
            self.cgroup = None;
            return Err(error);
        }
        let mut warnings = cgroup.limit(&request.limits)?;

        let run_dir = self.run_dir.insert(open_directory(&request.run_dir)?);
        let record_dir = open_directory(&request.record_dir)?;
        let log_dir = open_directory(&request.log.dir)?;
        let user_namespace = request.id_map.map(idmap::user_namespace).transpose()?;
        let stage = self.stage.insert(Stage::enter(request, &mut spec, user_namespace.as_ref())?);

        let ids = request.id_map.map_or(u32::MAX, |map| map.size);
        let identity = users::identify(&stage.rootfs, &request.user, &request.groups, ids)?;
        let capabilities = fill_in(&mut spec, request, &identity, &mut warnings)?;
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
        let console = request.terminal.is_some().then(|| ConsoleSocket::listen(CONSOLE_SOCKET)).transpose()?;
        let streams = Streams::make(request, &mut given, expected.uid)?;
        widen(&mut spec, &program, capabilities)?;
        spec.save(Path::new(stage::BUNDLE).join("config.json")).context("writing config.json")?;

        let (launch, socket) = Launch::pair()?;
        let entrance =
            Entrance { program: Rc::clone(&program), socket: socket.as_raw_fd(), connection: connection.as_raw_fd() };
        let mut builder = ContainerBuilder::new(request.id.clone(), SyscallType::default())
            .with_root_path(stage::STATE)
            .and_then(ContainerBuilder::validate_id)
            .map_err(|error| invalid(error.to_string()))?
            .with_executor(entrance);
        if console.is_some() {
            builder = builder.with_console_socket(Some(CONSOLE_SOCKET));
        } else {
            let Streams { stdin, stdout, stderr, .. } = streams.theirs;
            builder = match stdin {
                Some(stdin) => builder.with_stdin(stdin),
                None => builder,
            };
            if let (Some(stdout), Some(stderr)) = (stdout, stderr) {
                builder = builder.with_stdout(stdout).with_stderr(stderr);
            }
        }
        let built = builder.as_init(stage::BUNDLE).with_systemd(false).with_detach(true).build();
        drop(socket);
        let mut container = built.map_err(|error| library_failure(&error, journal))?;

        let pid = container.pid().context("the container library names no process")?.as_raw();
        let pidfd = pidfd_open(pid)?;
        let init = self.init.insert(Init { pid, pidfd });
        if let Some(cgroup) = self.cgroup.as_ref().filter(|cgroup| cgroup.is_hybrid()) {
            let file = cgroup.unified().join("cgroup.procs");
            std::fs::write(&file, pid.to_string()).with_context(|| format!("moving to {}", file.display()))?;
        }
        let master = console.map(|console| console.receive()).transpose()?;
        if let (Some(master), Some(size)) = (&master, request.terminal) {
            console::resize(master, size)?;
            let tty_group = stage::host_id(request.id_map, 5);
            console::give(&console::slave_of(master)?, expected.uid, tty_group)?;
        }
        if let Some(adjustment) = request.oom_score_adj {
            warnings.extend(limits::adjust_oom_score(init.pid, adjustment)?);
        }

        container.start().map_err(|error| library_failure(&error, journal))?;
        if launch.await_ready(&program)?.is_none() {
            bail!(died(init, journal));
        }
        inspection::check_process(init.pid, &expected)
            .and_then(|()| inspection::check_container(init.pid, &spec, stage.home()))
            .context("the container is not confined as asked and was not started")?;

        let listen = keeper::listen(run_dir)?;
        let started_boottime_ns = sys::boottime_ns();
        launch.go(&program)?;

        let reply = Reply::Started { pid: init.pid as u32, started_boottime_ns, warnings };
        frame::send(connection, &reply, &[init.pidfd.as_fd()]).context("answering")?;
        let (stdout, stderr) = match master {
            Some(master) => (master, None),
            None => (streams.stdout.context("no standard output")?, streams.stderr),
        };
        Ok(Descriptors {
            init: init.pidfd.try_clone()?,
            listen,
            record_dir,
            log_dir,
            stdout,
            stderr,
            stdin: streams.stdin,
            attach_stdout: given.attach_terminal.or(given.attach_stdout),
            attach_stderr: given.attach_stderr,
        })
    }

    /// Returns only on failure.
    fn hand_over(&self, keeper: &OwnedFd, request: &Create, descriptors: Descriptors) -> anyhow::Error {
        let (Some(stage), Some(init)) = (&self.stage, &self.init) else {
            return anyhow::anyhow!("nothing to keep");
        };
        if let Err(error) = stage.leave().and_then(|()| Ok(rustix::process::chdir("/")?)) {
            return error;
        }
        keeper::become_keeper(keeper, request, init.pid, descriptors)
    }

    fn undo(&self) {
        if let Some(init) = &self.init {
            let _ = sys::signal(&init.pidfd, libc::SIGKILL);
        }
        if let Some(stage) = &self.stage {
            let _ = stage.leave();
        }
        if let Some(cgroup) = &self.cgroup {
            // What the library has started is in there, whether it told us or not.
            let _ = cgroup.kill();
            if let Err(error) = cgroup.remove() {
                sys::say(format_args!("{error:#}"));
            }
        }
        if let Some(run_dir) = &self.run_dir {
            keeper::unlisten(run_dir);
        }
    }
}

/// Why init ended without a word.
fn died(init: &Init, journal: &Journal) -> Failure {
    let status = sys::wait(init.pid).unwrap_or(0);
    let code = wharf_protocol::exit::exit_code(status);
    let message = match (status & 0x7f, journal.lines().first()) {
        (libc::SIGKILL, _) => {
            "the container was killed while it was being made; is its memory limit large enough?".to_owned()
        }
        (libc::SIGSYS, _) => "the seccomp filter forbids what starting a program needs".to_owned(),
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
    let devices = linux.resources().as_ref().and_then(|resources| resources.devices().clone());
    let mut resources = LinuxResourcesBuilder::default();
    if let Some(devices) = devices {
        resources = resources.devices(devices);
    }
    linux.set_resources(Some(resources.build().context("device rules")?));
    let has_user_namespace = linux
        .namespaces()
        .iter()
        .flatten()
        .any(|namespace| namespace.typ() == LinuxNamespaceType::User);
    if has_user_namespace != request.id_map.is_some() {
        bail!("a user namespace and a range of ids belong together, the request has only one of them");
    }
    let mappings = match request.id_map {
        Some(IdMap { host, size }) => {
            let mapping = LinuxIdMappingBuilder::default().container_id(0u32).host_id(host).size(size).build();
            Some(vec![mapping.context("id mapping")?])
        }
        None => None,
    };
    linux.set_uid_mappings(mappings.clone());
    linux.set_gid_mappings(mappings);
    Ok(capabilities)
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
        let (soft, hard, warning) = limits::clamp(resource, &rlimit.typ().to_string(), rlimit.soft(), rlimit.hard())?;
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
        capabilities::mask(names.iter().map(String::as_str)).map_err(|name| invalid(format!("no capability {name}")))
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
    connection: RawFd,
}

impl Executor for Entrance {
    fn exec(&self, _: &Spec) -> Result<(), ExecutorError> {
        // SAFETY: the creator keeps its copy until the library returns, and this process has one of its own.
        let socket = unsafe { BorrowedFd::borrow_raw(self.socket) };
        Err(ExecutorError::Other(self.program.become_program(socket).to_string()))
    }

    /// The library would look for the program here, before the inspection; we look when we execute it. But from
    /// here on init waits for its creator, and must not do so when that one is gone.
    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        // SAFETY: plain system calls on what this clone owns; the descriptor is not used here again.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
            libc::close(self.connection);
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
