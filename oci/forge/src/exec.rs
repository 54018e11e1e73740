//! One more process in a running container: with its namespaces, ids, cgroup, terminal and filters.
//!
//! ```text
//! monitor ──clone into the exec's cgroup──► joiner ──setns, clone as the monitor's child──► process ──execve──►
//!    ▲                                        │ exits                                          │
//!    └───────────── waits, kills what is left in the exec's cgroup, answers ◄──────────────────┘
//! ```
//! The library's own way (TenantContainerBuilder) drops the seccomp filter, skips the user namespace and defaults to
//! root. The monitor does all that needs files or memory beforehand; the two clones only make system calls.

use crate::capabilities::{self, Sets};
use crate::cgroup::Cgroup;
use crate::inspection::{self, Expected};
use crate::program::{Filter, Launch, Program, read_filter, report_unready, step};
use crate::sys::{self, Forked};
use crate::{console, creator, limits, stage, users};
use anyhow::{Context, Result, bail};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use std::ffi::CString;
use std::io::Write;
use std::os::linux::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use wharf_protocol::{Exec, ExecFd, Failure, FailureKind, Reply, VERSION, failpoint, frame};

/// Namespaces that can be joined, with the flag of setns(2) and the name in /proc.
const NAMESPACES: [(libc::c_int, &str); 7] = [
    (libc::CLONE_NEWUSER, "user"),
    (libc::CLONE_NEWNS, "mnt"),
    (libc::CLONE_NEWPID, "pid"),
    (libc::CLONE_NEWNET, "net"),
    (libc::CLONE_NEWIPC, "ipc"),
    (libc::CLONE_NEWUTS, "uts"),
    (libc::CLONE_NEWCGROUP, "cgroup"),
];

/// For setns(2) and a clone; longer only if the container is frozen meanwhile.
const JOINING: Duration = Duration::from_secs(10);

/// Carry out [`wharf_protocol::Request::Exec`] to its end, including the process' end.
pub fn exec(connection: &UnixStream, request: &Exec, fds: Vec<OwnedFd>) -> Result<()> {
    let given = Given::sort(request, fds)?;
    let cgroup = Cgroup::at(&request.cgroup)?.below(&request.name)?;
    let outcome = run(connection, request, given, &cgroup);
    // Whatever the process has left running ends with it; a failure leaves nothing either.
    failpoint::reach("exec.ended");
    let removed = cgroup.kill().and_then(|()| cgroup.remove());
    let wait_status = outcome?;
    if let Err(error) = removed {
        sys::say(format_args!("{error:#}"));
    }
    // The asker may have gone; that does not concern the container.
    let _ = frame::send(connection, &Reply::ExecExited { wait_status }, &[]);
    Ok(())
}

/// The descriptors that came with the request.
struct Given {
    container: OwnedFd,
    filters: Vec<Filter>,
    streams: [Option<OwnedFd>; 3],
}

impl Given {
    fn sort(request: &Exec, fds: Vec<OwnedFd>) -> Result<Self> {
        if request.version != VERSION {
            bail!("the request is of version {}, this forge understands {VERSION}", request.version);
        }
        if request.fds.len() + 1 != fds.len() {
            bail!("{} descriptors came instead of {}", fds.len(), request.fds.len() + 1);
        }
        let mut fds = fds.into_iter();
        let container = fds.next().context("no pidfd")?;
        let mut given = Self { container, filters: Vec::new(), streams: [None, None, None] };
        for (what, fd) in request.fds.iter().zip(fds) {
            match what {
                ExecFd::Seccomp => given.filters.push(read_filter(&fd)?),
                ExecFd::Stdin => given.streams[0] = Some(fd),
                ExecFd::Stdout => given.streams[1] = Some(fd),
                ExecFd::Stderr => given.streams[2] = Some(fd),
            }
        }
        Ok(given)
    }
}

/// Everything that the clones need.
struct Plan {
    program: Program,
    container: OwnedFd,
    namespaces: libc::c_int,
    tasks: Vec<std::fs::File>,
    oom_score_adj: Vec<u8>,
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    rlimits: Vec<(u32, libc::rlimit)>,
    cwd: CString,
    streams: [OwnedFd; 3],
    terminal: bool,
}

fn run(connection: &UnixStream, request: &Exec, given: Given, cgroup: &Cgroup) -> Result<i32> {
    let pid = sys::pid_of(&given.container)?.ok_or_else(not_running)?;
    let root = rustix::fs::open(
        format!("/proc/{pid}/root"),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|_| not_running())?;
    let ids = request.id_map.map_or(u32::MAX, |map| map.size);
    let identity = users::identify(&root, &request.user, &request.groups, ids)?;
    let host_uid = stage::host_id(request.id_map, identity.uid);

    let mut env = request.env.clone();
    creator::complete_home(&mut env, &identity.home)?;
    let mask = capabilities::mask(request.capabilities.iter().map(String::as_str))
        .map_err(|name| invalid(format!("there is no capability {name}")))?;
    let sets = Sets { bounding: mask, effective: mask, permitted: mask };
    let program = Program::new(&request.args, &env, given.filters, sets, request.no_new_privileges)?;
    if !request.cwd.starts_with('/') {
        return Err(invalid(format!("the working directory {:?} is not absolute", request.cwd)));
    }
    let mut rlimits = Vec::new();
    for (name, soft, hard) in &request.rlimits {
        let resource =
            limits::resource(name).ok_or_else(|| invalid(format!("there is no resource limit {name}")))?;
        let (soft, hard, _) = limits::clamp(resource, name, *soft, *hard)?;
        rlimits.push((resource, libc::rlimit { rlim_cur: soft, rlim_max: hard }));
    }

    let (streams, master) = match request.terminal {
        Some(size) => {
            let gid = |gid| stage::host_id(request.id_map, gid);
            let (master, slave) = console::open_in(&root, size, host_uid, gid)?;
            ([slave.try_clone()?, slave.try_clone()?, slave], Some(master))
        }
        None => (streams(given.streams, host_uid)?, None),
    };

    let mut namespaces = 0;
    for (flag, name) in NAMESPACES {
        let its = inode(&format!("/proc/{pid}/ns/{name}"))?;
        if its != inode(&format!("/proc/self/ns/{name}"))? {
            namespaces |= flag;
        }
    }
    if (namespaces & libc::CLONE_NEWUSER != 0) != request.id_map.is_some() {
        bail!("the container's user namespace is not as the request says");
    }
    let oom_score_adj = std::fs::read(format!("/proc/{pid}/oom_score_adj")).unwrap_or_default();
    let container_cgroup = Cgroup::at(&request.cgroup)?;
    let tasks = container_cgroup.v1_tasks()?;
    // All of the above was about this pid; if its process is gone it may have been about another one.
    if sys::has_ended(given.container.as_fd()) {
        return Err(not_running());
    }
    drop(root);

    if container_cgroup.is_frozen()? {
        return Err(invalid("the container is paused; unpause it first".into()));
    }
    let directory = cgroup.make_unified()?;
    let plan = Plan {
        program,
        container: given.container,
        namespaces,
        tasks,
        oom_score_adj,
        uid: identity.uid,
        gid: identity.gid,
        groups: identity.groups,
        rlimits,
        cwd: CString::new(request.cwd.as_str())
            .map_err(|_| invalid("the working directory has a NUL".into()))?,
        streams,
        terminal: master.is_some(),
    };
    let expected = Expected {
        uid: host_uid,
        gid: stage::host_id(request.id_map, plan.gid),
        capabilities: sets,
        no_new_privileges: request.no_new_privileges,
        filters: plan.program.filters(),
    };
    let (launch, socket) = Launch::pair()?;
    let process = plan.start(&directory, &socket)?;
    failpoint::reach("exec.started");
    drop(socket);
    // Ours would keep pipes and the terminal open beyond the process' end.
    let Plan { program, streams, .. } = plan;
    drop(streams);

    let started = match launch.await_ready(&program)? {
        Some(()) => inspection::check_process(process.pid, &expected)
            .context("the process is not confined as asked and was not started")
            .and_then(|()| launch.go(&program.explanation())),
        None if process.container_gone() => Err(not_running()),
        None => Err(anyhow::anyhow!("the process ended before it could start")),
    };
    if let Err(error) = started {
        let _ = sys::signal(&process.pidfd, libc::SIGKILL);
        let _ = sys::wait(process.pid);
        return Err(error);
    }

    let mut fds = vec![process.pidfd.as_fd()];
    fds.extend(master.as_ref().map(AsFd::as_fd));
    let answered = frame::send(connection, &Reply::ExecStarted { pid: process.pid as u32 }, &fds);
    drop(master);
    if answered.is_err() && request.kill_on_disconnect {
        cgroup.kill()?;
    }
    wait_for_end(connection, &process, request.kill_on_disconnect, cgroup)
}

fn wait_for_end(connection: &UnixStream, process: &Process, kill: bool, cgroup: &Cgroup) -> Result<i32> {
    let mut watched: Vec<BorrowedFd<'_>> = vec![process.pidfd.as_fd()];
    if kill {
        watched.push(connection.as_fd());
    }
    loop {
        match sys::wait_readable(&watched, Duration::from_secs(3600))? {
            Some(0) => return sys::wait(process.pid).context("waiting for the process"),
            // Nothing is to be said on this connection any more, so it is closed.
            Some(_) => {
                cgroup.kill()?;
                watched.truncate(1);
            }
            None => {}
        }
    }
}

/// The process, a child of ours.
struct Process {
    pid: i32,
    pidfd: OwnedFd,
    container: OwnedFd,
}

impl Process {
    fn container_gone(&self) -> bool {
        sys::has_ended(self.container.as_fd())
    }
}

impl Plan {
    /// Make the process; it confines itself and waits for the word.
    fn start(&self, cgroup: &OwnedFd, socket: &OwnedFd) -> Result<Process> {
        let (mut report, report_out) = std::io::pipe().context("making a pipe")?;
        // SAFETY: single-threaded; the child makes system calls on what was prepared, and leaves with _exit.
        let joiner = unsafe { sys::fork(0, Some(cgroup.as_fd())) };
        let (joiner, joiner_fd) = match joiner.context("making a process in the exec's cgroup")? {
            Forked::Parent { pid, pidfd } => (pid, pidfd),
            Forked::Child => {
                let report = Report::new(report_out.as_fd());
                match self.join(socket, &report) {
                    Ok(pid) => report.pid(pid),
                    Err((step, error)) => report.failure(step, &error),
                }
                sys::exit(0);
            }
        };
        drop(report_out);
        let mut bytes = [0; REPORT];
        // A container that is being frozen takes the joiner with it.
        let answered = sys::wait_readable(&[report.as_fd()], JOINING)?.is_some();
        if !answered {
            let _ = sys::signal(&joiner_fd, libc::SIGKILL);
        }
        let read = std::io::Read::read_exact(&mut report, &mut bytes);
        sys::wait(joiner).context("waiting for a child")?;
        if read.is_err() {
            bail!("the process that joins the container was killed");
        }
        let (step, value) = Report::parse(bytes);
        match (step, value) {
            (Report::PID, pid) => {
                let of = rustix::process::Pid::from_raw(pid).context("no pid")?;
                let pidfd = rustix::process::pidfd_open(of, rustix::process::PidfdFlags::empty())
                    .context("opening a pidfd")?;
                Ok(Process { pid, pidfd, container: self.container.try_clone()? })
            }
            (b'n', libc::ESRCH) => Err(not_running()),
            // A pid namespace whose init has ended takes no more processes.
            (b'f', libc::ENOMEM) if sys::has_ended(self.container.as_fd()) => Err(not_running()),
            (step, errno) => {
                let what = match step {
                    b't' => "joining the container's cgroup",
                    b'n' => "joining the container's namespaces",
                    _ => "making the process",
                };
                Err(std::io::Error::from_raw_os_error(errno)).context(what)
            }
        }
    }

    /// In the joiner.
    fn join(&self, socket: &OwnedFd, report: &Report<'_>) -> Result<i32, (u8, std::io::Error)> {
        // SAFETY: plain system calls. Not dumpable: the container's processes must not look into this one.
        unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
        for mut tasks in &self.tasks {
            tasks.write_all(b"0").map_err(|error| (b't', error))?;
        }
        if !self.oom_score_adj.is_empty() {
            // Raising is always allowed; where lowering is not, the present value must do.
            let _ = std::fs::write("/proc/self/oom_score_adj", &self.oom_score_adj);
        }
        // SAFETY: a pidfd and flags.
        if unsafe { libc::setns(self.container.as_raw_fd(), self.namespaces) } == -1 {
            return Err((b'n', std::io::Error::last_os_error()));
        }
        // The process is to be the monitor's child, and in the pid namespace that only children enter.
        // SAFETY: as for the joiner.
        match unsafe { sys::fork(libc::CLONE_PARENT, None) }.map_err(|error| (b'f', error))? {
            Forked::Parent { pid, .. } => Ok(pid),
            Forked::Child => {
                report.close();
                if let Err((step, error)) = self.become_user() {
                    report_unready(socket.as_fd(), step, &error);
                    sys::exit(1);
                }
                let _ = self.program.become_program(socket.as_fd());
                sys::exit(1);
            }
        }
    }

    /// In the process: session, terminal, streams, ids, limits, working directory.
    fn become_user(&self) -> Result<(), (u8, std::io::Error)> {
        let last = || std::io::Error::last_os_error();
        let check = |step: u8, result: libc::c_long| if result == -1 { Err((step, last())) } else { Ok(()) };
        let at = |step: u8| move |error: std::io::Error| (step, error);
        // SAFETY: plain system calls with local values; raw ones where glibc would tell threads that are not there.
        unsafe {
            check(step::STREAMS, libc::setsid().into())?;
            if self.terminal {
                check(step::STREAMS, libc::ioctl(self.streams[0].as_raw_fd(), libc::TIOCSCTTY, 0).into())?;
            }
            for (standard, stream) in self.streams.iter().enumerate() {
                check(step::STREAMS, libc::dup2(stream.as_raw_fd(), standard as i32).into())?;
            }
            sys::close_range(3, i32::MAX, libc::CLOSE_RANGE_CLOEXEC).map_err(at(step::STREAMS))?;
            for (resource, limit) in &self.rlimits {
                check(step::LIMITS, libc::setrlimit(*resource, limit).into())?;
            }
            libc::umask(0o022);
            // As for init: before the ids change, and if that is refused once more as the user.
            let entered = libc::chdir(self.cwd.as_ptr());
            check(step::IDS, libc::syscall(libc::SYS_setgroups, self.groups.len(), self.groups.as_ptr()))?;
            check(step::IDS, libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0).into())?;
            check(step::IDS, libc::syscall(libc::SYS_setresgid, self.gid, self.gid, self.gid))?;
            check(step::IDS, libc::syscall(libc::SYS_setresuid, self.uid, self.uid, self.uid))?;
            // With another id the effective set is empty; what remains to be done needs it.
            let all = permitted().map_err(at(step::CAPABILITIES))?;
            capabilities::set(all, all).map_err(at(step::CAPABILITIES))?;
            if entered == -1 {
                check(step::DIRECTORY, libc::chdir(self.cwd.as_ptr()).into())?;
            }
            // A working directory outside the container shows as "(unreachable)".
            let mut buffer = [0u8; libc::PATH_MAX as usize];
            check(step::DIRECTORY, libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()))?;
            if buffer[0] != b'/' {
                return Err((step::DIRECTORY, std::io::Error::from_raw_os_error(libc::ENOENT)));
            }
        }
        Ok(())
    }
}

/// Our permitted capabilities, without /proc.
fn permitted() -> Result<u64, std::io::Error> {
    let header = [0x2008_0522u32, 0];
    let mut data = [[0u32; 3]; 2];
    // SAFETY: header and data are as capget(2) version 3 expects them.
    if unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), data.as_mut_ptr()) } == -1 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(u64::from(data[0][1]) | u64::from(data[1][1]) << 32)
}

/// How the joiner says what became of it: a step and a number.
struct Report<'a>(BorrowedFd<'a>);

/// Bytes of a report.
const REPORT: usize = 5;

impl<'a> Report<'a> {
    const PID: u8 = b'p';

    fn new(fd: BorrowedFd<'a>) -> Self {
        Self(fd)
    }

    fn pid(&self, pid: i32) {
        self.write(Self::PID, pid);
    }

    fn failure(&self, step: u8, error: &std::io::Error) {
        self.write(step, error.raw_os_error().unwrap_or(libc::EIO));
    }

    fn write(&self, step: u8, value: i32) {
        let value = value.to_le_bytes();
        let _ = rustix::io::write(self.0, &[step, value[0], value[1], value[2], value[3]]);
    }

    /// In a clone that has nothing to report.
    fn close(&self) {
        // SAFETY: the clone has its own copy and does not use it again.
        unsafe { libc::close(self.0.as_raw_fd()) };
    }

    fn parse(bytes: [u8; REPORT]) -> (u8, i32) {
        (bytes[0], i32::from_le_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]))
    }
}

fn streams(given: [Option<OwnedFd>; 3], uid: u32) -> Result<[OwnedFd; 3]> {
    let [stdin, stdout, stderr] = given.map(|stream| -> Result<OwnedFd> {
        match stream {
            Some(stream) => {
                creator::own_pipe(&stream, uid)?;
                Ok(stream)
            }
            None => {
                let flags = OFlags::RDWR | OFlags::CLOEXEC;
                rustix::fs::open("/dev/null", flags, Mode::empty()).context("opening /dev/null")
            }
        }
    });
    Ok([stdin?, stdout?, stderr?])
}

fn inode(path: &str) -> Result<u64> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(metadata.st_ino()),
        Err(_) => Err(not_running()),
    }
}

fn not_running() -> anyhow::Error {
    let message = "the container is not running".to_owned();
    Failure { kind: FailureKind::NotRunning, message, detail: Vec::new() }.into()
}

fn invalid(message: String) -> anyhow::Error {
    Failure { kind: FailureKind::InvalidInput, message, detail: Vec::new() }.into()
}
