//! Other programs, with a limit in time: a test that hangs says what it waited for.

use std::ffi::OsStr;
use std::io::Write;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a program may take unless the test says otherwise: far above what any of ours needs on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A program that is about to be run.
#[derive(Debug)]
pub struct Tool {
    command: Command,
    input: Vec<u8>,
    patience: Duration,
}

/// What a program has said.
#[derive(Debug, Clone)]
pub struct Output {
    /// The exit status, or 128 + the signal.
    pub status: i32,
    /// Standard output, lossy.
    pub stdout: String,
    /// Standard error, lossy.
    pub stderr: String,
}

impl Tool {
    /// A program by name or path.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self { command: Command::new(program), input: Vec::new(), patience: PATIENCE }
    }

    /// A program and its arguments.
    pub fn with<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, arguments: impl IntoIterator<Item = S>) -> Self {
        let mut tool = Self::new(program);
        tool.command.args(arguments);
        tool
    }

    /// To set more of it.
    pub fn command(&mut self) -> &mut Command {
        &mut self.command
    }

    /// Its standard input; nothing by default.
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = bytes.into();
        self
    }

    /// One more variable of its environment.
    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// How long it may take.
    pub fn patience(mut self, seconds: u64) -> Self {
        self.patience = Duration::from_secs(seconds);
        self
    }

    /// Run it to its end.
    pub fn output(mut self) -> Output {
        let mut child = self
            .command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{:?}: {error}", self.command));
        let mut stdin = child.stdin.take().expect("a pipe");
        let input = std::mem::take(&mut self.input);
        let writer = std::thread::spawn(move || {
            // A program that does not read its input is its own business.
            let _ = stdin.write_all(&input);
        });
        let stdout = super::drain(child.stdout.take().expect("a pipe"));
        let stderr = super::drain(child.stderr.take().expect("a pipe"));
        let status = wait(&mut child, self.patience);
        if status.is_none() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let text = |reader: std::thread::JoinHandle<Vec<u8>>| {
            String::from_utf8_lossy(&reader.join().expect("a reader")).into_owned()
        };
        let (stdout, stderr) = (text(stdout), text(stderr));
        writer.join().expect("a writer");
        let Some(status) = status else {
            panic!("{:?} took more than {:?}\n{stdout}\n{stderr}", self.command, self.patience);
        };
        Output { status: code(status), stdout, stderr }
    }

    /// Run it; it must succeed. Its standard output without the last newline.
    pub fn ok(self) -> String {
        let shown = format!("{:?}", self.command);
        let output = self.output();
        assert_eq!(output.status, 0, "{shown}\n{}{}", output.stdout, output.stderr);
        output.stdout.strip_suffix('\n').map(str::to_owned).unwrap_or(output.stdout)
    }

    /// Start it with pipes for its standard streams.
    pub fn spawn(mut self) -> Running {
        let child = self
            .command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{:?}: {error}", self.command));
        Running { child: Some(child) }
    }
}

/// A program that runs; killed when it is dropped.
#[derive(Debug)]
pub struct Running {
    child: Option<Child>,
}

impl Running {
    /// The process, for its streams.
    pub fn child(&mut self) -> &mut Child {
        self.child.as_mut().expect("not finished yet")
    }

    /// Send it a signal.
    pub fn signal(&mut self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child().id() as i32);
        nix::sys::signal::kill(pid, signal).expect("our child, not reaped yet");
    }

    /// Close its input and wait for its end.
    pub fn finish(mut self) -> Output {
        let mut child = self.child.take().expect("not finished yet");
        drop(child.stdin.take());
        let stdout = child.stdout.take().map(super::drain);
        let stderr = child.stderr.take().map(super::drain);
        let status = wait(&mut child, PATIENCE);
        if status.is_none() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let text = |reader: Option<std::thread::JoinHandle<Vec<u8>>>| {
            let bytes = reader.map(|reader| reader.join().expect("a reader")).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let (stdout, stderr) = (text(stdout), text(stderr));
        let status =
            status.unwrap_or_else(|| panic!("it did not end within {PATIENCE:?}\n{stdout}\n{stderr}"));
        Output { status: code(status), stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// SIGTERM and a limited wait; the exit status.
pub(super) fn terminate(mut child: Child, patience: Duration) -> i32 {
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
    match wait(&mut child, patience) {
        Some(status) => code(status),
        None => {
            let _ = child.kill();
            let _ = child.wait();
            panic!("pid {pid} did not end within {patience:?} of SIGTERM");
        }
    }
}

fn wait(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + patience;
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait().expect("our child") {
            return Some(status);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

/// Ask again until it is so, for at most so many seconds.
pub fn eventually(seconds: u64, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while !condition() {
        assert!(Instant::now() < deadline, "not within {seconds} seconds: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
