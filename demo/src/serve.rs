//! A small HTTP/1.1 server whose health can be turned on and off.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::{duration, number, signals};

/// Whoever opens more connections than this at once waits.
const CONNECTIONS_MAX: usize = 64;
/// A client that says nothing for so long is cut off.
const PATIENCE: Duration = Duration::from_secs(10);
const REQUEST_MAX: u64 = 16 << 10;

const HELP: &str = "\
wharf/demo

GET /                      this text
GET /healthz               200, or 503 when unhealthy
GET /readyz                200, or 503 when not ready
GET /stats                 requests served, seconds up, pid
GET /echo?TEXT             TEXT

GET or POST
/control/ready             /readyz answers 200
/control/unready           /readyz answers 503
/control/healthy           /healthz answers 200
/control/unhealthy         /healthz answers 503
/control/hang              no request is answered any more
/control/slow/MS           every answer takes that long
/control/exit/N            exit with N
/control/crash             abort
/control/leak/MIB          take that much memory and keep it
/control/burn/SECONDS      keep one CPU busy
/control/print/N           print N lines
";

struct State {
    start: Instant,
    ready_at: Instant,
    ready: AtomicBool,
    healthy: AtomicBool,
    hanging: AtomicBool,
    slow_ms: AtomicU64,
    requests: AtomicU64,
    connections: AtomicUsize,
}

pub fn serve(args: &[String]) -> Result<ExitCode, String> {
    let mut port = 8080_u16;
    let mut ready_after = Duration::ZERO;
    let (mut ready, mut healthy, mut ignore) = (true, true, false);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--port" => port = number(args.next(), "port")?,
            "--ready-after" => ready_after = duration(number(args.next(), "seconds")?)?,
            "--unready" => ready = false,
            "--unhealthy" => healthy = false,
            "--ignore-term" => ignore = true,
            other => return Err(format!("unknown option {other:?}; `demo help` lists them")),
        }
    }
    if ignore {
        signals::ignore();
    } else {
        signals::end_with_success();
    }
    let listener =
        TcpListener::bind(("0.0.0.0", port)).map_err(|e| format!("listening on port {port}: {e}"))?;
    println!("serving on port {port}");
    let start = Instant::now();
    let state = Arc::new(State {
        start,
        ready_at: start + ready_after,
        ready: AtomicBool::new(ready),
        healthy: AtomicBool::new(healthy),
        hanging: AtomicBool::new(false),
        slow_ms: AtomicU64::new(0),
        requests: AtomicU64::new(0),
        connections: AtomicUsize::new(0),
    });
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            // Out of descriptors, most likely: give the others time to finish.
            std::thread::sleep(Duration::from_millis(50));
            continue;
        };
        while state.connections.load(Ordering::Relaxed) >= CONNECTIONS_MAX {
            std::thread::sleep(Duration::from_millis(5));
        }
        state.connections.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::clone(&state);
        let spawned = std::thread::Builder::new().stack_size(128 << 10).spawn(move || {
            // A client that goes away is none of our business.
            let _ = talk(&shared, stream);
            shared.connections.fetch_sub(1, Ordering::Relaxed);
        });
        if spawned.is_err() {
            state.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Ask the one that serves, and print what it answers: so a container can be driven by `ctl exec`.
pub fn tell(args: &[String]) -> Result<ExitCode, String> {
    let mut port = 8080_u16;
    let mut path = None;
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--port" => port = number(args.next(), "port")?,
            given if given.starts_with('/') && path.is_none() => path = Some(given),
            other => return Err(format!("what is {other:?}? give one PATH that begins with '/'")),
        }
    }
    let path = path.ok_or("give a PATH, such as /control/hang")?;
    let failed = |error: std::io::Error| format!("asking port {port}: {error}");
    let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n").map_err(failed)?;
    let mut answer = String::new();
    match stream.take(REQUEST_MAX).read_to_string(&mut answer) {
        Ok(_) => {}
        // It was told to end, and did.
        Err(_) if !path.contains("/control/") => return Err(format!("port {port} does not answer")),
        Err(_) => {}
    }
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    print!("{body}");
    let good = head.is_empty() || head.split(' ').nth(1).is_some_and(|status| status.starts_with('2'));
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn talk(state: &State, stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    loop {
        let Some(request) = request(&mut reader)? else { return Ok(()) };
        state.requests.fetch_add(1, Ordering::Relaxed);
        let (status, body) = answer(state, &request);
        std::thread::sleep(Duration::from_millis(state.slow_ms.load(Ordering::Relaxed)));
        while state.hanging.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_secs(1));
        }
        let reason = match status {
            200 => "OK",
            400 => "Bad Request",
            404 => "Not Found",
            405 => "Method Not Allowed",
            _ => "Service Unavailable",
        };
        let connection = if request.keep { "keep-alive" } else { "close" };
        let shown = if request.method == "HEAD" { "" } else { &body };
        write!(
            writer,
            "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
             Connection: {connection}\r\n\r\n{shown}",
            body.len(),
        )?;
        writer.flush()?;
        if !request.keep {
            return Ok(());
        }
    }
}

struct Request {
    method: String,
    target: String,
    keep: bool,
}

fn request(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<Request>> {
    let bad = || std::io::Error::from(std::io::ErrorKind::InvalidData);
    let mut head = reader.by_ref().take(REQUEST_MAX);
    let mut line = String::new();
    if head.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (method, target, version) = match (words.next(), words.next(), words.next()) {
        (Some(method), Some(target), Some(version)) => (method.to_owned(), target.to_owned(), version),
        _ => return Err(bad()),
    };
    let mut keep = version == "HTTP/1.1";
    let mut body = 0_u64;
    loop {
        let mut header = String::new();
        if head.read_line(&mut header)? == 0 {
            return Err(bad());
        }
        let header = header.trim();
        if header.is_empty() {
            break;
        }
        let (key, value) = header.split_once(':').ok_or_else(bad)?;
        let value = value.trim();
        if key.eq_ignore_ascii_case("connection") {
            keep = value.eq_ignore_ascii_case("keep-alive") || keep && !value.eq_ignore_ascii_case("close");
        } else if key.eq_ignore_ascii_case("content-length") {
            body = value.parse().map_err(|_| bad())?;
        } else if key.eq_ignore_ascii_case("transfer-encoding") {
            keep = false;
        }
    }
    std::io::copy(&mut reader.by_ref().take(body), &mut std::io::sink())?;
    Ok(Some(Request { method, target, keep }))
}

fn answer(state: &State, request: &Request) -> (u16, String) {
    if !matches!(request.method.as_str(), "GET" | "HEAD" | "POST") {
        return (405, "GET, HEAD or POST\n".to_owned());
    }
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    let health = |good: bool, word: &str| {
        if good { (200, format!("{word}\n")) } else { (503, format!("not {word}\n")) }
    };
    if let Some(order) = path.strip_prefix("/control/") {
        return control(state, order);
    }
    match path {
        "/" => (200, HELP.to_owned()),
        "/healthz" => health(state.healthy.load(Ordering::Relaxed), "healthy"),
        "/readyz" => health(state.ready.load(Ordering::Relaxed) && Instant::now() >= state.ready_at, "ready"),
        "/stats" => {
            let requests = state.requests.load(Ordering::Relaxed);
            let seconds = state.start.elapsed().as_secs();
            (200, format!("requests {requests}\nseconds {seconds}\npid {}\n", std::process::id()))
        }
        "/echo" => (200, format!("{query}\n")),
        _ => (404, "not found; GET / lists what is there\n".to_owned()),
    }
}

fn control(state: &State, order: &str) -> (u16, String) {
    let (order, value) = order.split_once('/').unwrap_or((order, ""));
    let done = || (200, "done\n".to_owned());
    let bad = || (400, format!("{value:?} is no number for {order}\n"));
    match order {
        "ready" => state.ready.store(true, Ordering::Relaxed),
        "unready" => state.ready.store(false, Ordering::Relaxed),
        "healthy" => state.healthy.store(true, Ordering::Relaxed),
        "unhealthy" => state.healthy.store(false, Ordering::Relaxed),
        "hang" => state.hanging.store(true, Ordering::Relaxed),
        "slow" => match value.parse() {
            Ok(ms) => state.slow_ms.store(ms, Ordering::Relaxed),
            Err(_) => return bad(),
        },
        "exit" => match value.parse() {
            Ok(code) => std::process::exit(code),
            Err(_) => return bad(),
        },
        "crash" => std::process::abort(),
        "leak" => match value.parse::<usize>() {
            // Kept until the program ends, as a leak is.
            Ok(mib) if mib <= 1 << 20 => std::mem::forget(vec![0xa5_u8; mib << 20]),
            Ok(_) | Err(_) => return bad(),
        },
        "burn" => match value.parse().ok().and_then(|seconds| duration(seconds).ok()) {
            Some(time) => {
                std::thread::spawn(move || crate::burn(Some(time)));
            }
            None => return bad(),
        },
        "print" => match value.parse::<u64>() {
            Ok(lines) => {
                for line in 1..=lines {
                    println!("line {line}");
                }
            }
            Err(_) => return bad(),
        },
        _ => return (404, "no such order; GET / lists them\n".to_owned()),
    }
    done()
}
