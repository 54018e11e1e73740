//! The demo program, as a supervisor sees it.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

fn demo(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wharf-demo"));
    command.args(args).stdin(Stdio::null());
    command
}

fn output(args: &[&str]) -> Output {
    demo(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn commands_end_as_they_say() {
    assert_eq!(output(&["true"]).status.code(), Some(0));
    assert_eq!(output(&["exit", "7"]).status.code(), Some(7));
    assert_eq!(output(&["crash"]).status.signal(), Some(6));
    assert_eq!(output(&["burn", "0.01"]).status.code(), Some(0));
    assert_eq!(output(&["sleep", "0.01"]).status.code(), Some(0));
    assert_eq!(output(&["socket", "1"]).status.code(), Some(0));
    for wrong in [
        &["exit"][..],
        &["exit", "300"],
        &["sleep", "-1"],
        &["socket", "9999"],
        &["nonsense"],
        &["serve", "--port", "x"],
    ] {
        let output = output(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(!output.stderr.is_empty());
    }
    assert!(text(&output(&["help"]).stdout).contains("forkbomb"));
}

#[test]
fn lines_go_where_they_are_sent() {
    assert_eq!(text(&output(&["echo", "a", "b c"]).stdout), "a b c\n");
    let both = output(&["print", "4", "some", "text", "--alternate"]);
    assert_eq!(text(&both.stdout), "some text 1\nsome text 3\n");
    assert_eq!(text(&both.stderr), "some text 2\nsome text 4\n");
    let env = demo(&["env"]).env_clear().env("A", "b").output().unwrap();
    assert_eq!(text(&env.stdout), "A=b\n");
    assert!(text(&output(&["id"]).stdout).contains("NoNewPrivs:"));
    let mut cat = demo(&["cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    cat.stdin.take().unwrap().write_all(b"through").unwrap();
    assert_eq!(text(&cat.wait_with_output().unwrap().stdout), "through");
}

/// A server on a free port, killed when the test ends.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(args: &[&str]) -> Server {
        // Bound and let go again: free, unless somebody is very quick.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let port_arg = port.to_string();
        let args = [&["serve", "--port", &port_arg], args].concat();
        let mut child = demo(&args).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, format!("serving on port {port}\n"));
        Server { child, port }
    }

    fn get(&self, path: &str) -> u16 {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).unwrap()
    }

    fn ask(&self, request: &str) -> Option<u16> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.split(' ').nth(1)?.parse().ok()
    }

    fn signal(&mut self, signal: &str) -> Option<i32> {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(2) {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn health_can_be_turned_on_and_off() {
    let mut server = Server::start(&["--unready"]);
    assert_eq!((server.get("/"), server.get("/healthz"), server.get("/readyz")), (200, 200, 503));
    assert_eq!((server.get("/control/ready"), server.get("/readyz")), (200, 200));
    assert_eq!((server.get("/control/unhealthy"), server.get("/healthz")), (200, 503));
    assert_eq!((server.get("/nowhere"), server.get("/control/nothing")), (404, 404));
    assert_eq!(server.get("/control/slow/x"), 400);
    assert_eq!(server.ask("DELETE / HTTP/1.1\r\nConnection: close\r\n\r\n"), Some(405));
    let post = "POST /control/healthy HTTP/1.1\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody";
    assert_eq!((server.ask(post), server.get("/healthz")), (Some(200), 200));
    assert_eq!(server.ask("nonsense\r\n\r\n"), None);
    assert_eq!(server.signal("-TERM"), Some(0));
}

#[test]
fn it_can_be_told_to_hang_and_to_end() {
    let mut server = Server::start(&["--ignore-term"]);
    assert_eq!(server.ask("GET /control/hang HTTP/1.1\r\n\r\n"), None);
    assert_eq!(server.ask("GET /healthz HTTP/1.1\r\n\r\n"), None);
    assert_eq!(server.signal("-TERM"), None);
    let mut server = Server::start(&[]);
    server.ask("GET /control/exit/9 HTTP/1.1\r\n\r\n");
    assert_eq!(server.child.wait().unwrap().code(), Some(9));
}

#[test]
fn commands_can_be_stopped() {
    let mut server = Server { child: demo(&["sleep", "60"]).spawn().unwrap(), port: 0 };
    // It needs a moment to get ready for signals.
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(server.signal("-TERM"), Some(143));
    let mut server = Server { child: demo(&["hang"]).spawn().unwrap(), port: 0 };
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(server.signal("-TERM"), None);
}
