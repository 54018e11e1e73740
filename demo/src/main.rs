//! `/bin/demo`: the one program of the embedded image `wharf/demo`.
//!
//! It serves HTTP and can be told, by arguments or over HTTP, to behave in every way a supervisor has to deal
//! with: exit, crash, hang, leak memory, burn CPU, print, fork. It depends on nothing but the kernel, so its image
//! is small and needs no shell and no libraries. It is written to run as pid 1.

// The whole point of most commands is what they print.
#![allow(clippy::print_stdout)]

mod serve;
mod signals;

use std::io::{Read, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

const HELP: &str = "\
demo, the program of the image wharf/demo

  serve [OPTIONS]         serve HTTP (the default); GET / says what it can be told
      --port N            listen on this port instead of 8080
      --ready-after S     answer /readyz with 503 for S seconds
      --unready           answer /readyz with 503 until told otherwise
      --unhealthy         answer /healthz with 503 until told otherwise
      --ignore-term       do not end on SIGTERM or SIGINT
  tell PATH [--port N]    GET PATH from the one that serves in the same network, such as /control/hang
  notify LINES...         say so to NOTIFY_SOCKET, such as READY=1 or STATUS=TEXT (sd_notify)
  true                    exit with 0
  exit N                  exit with N
  crash                   abort (SIGABRT; as pid 1 the kernel makes it SIGSEGV)
  hang                    do nothing, for ever, whatever the signal
  sleep SECONDS           do nothing for a while
  leak MIB_PER_S          take memory and touch it, until killed
  burn [SECONDS]          keep one CPU busy
  print N [TEXT] [--alternate] [--interval MS]
                          print N lines, with --alternate every second one on standard error
  echo ARGS...            print the arguments
  env                     print the environment
  id                      print user, groups, pid, host name and working directory
  cat                     copy standard input to standard output
  forkbomb                fork until it fails, and say how far it came
  socket FAMILY           open a stream socket of this family, by its number
";

fn main() -> ExitCode {
    let args: Vec<String> =
        std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    let (command, rest) = match args.split_first() {
        None => ("serve", &[][..]),
        Some((first, _)) if first.starts_with("--") && first != "--help" => ("serve", &args[..]),
        Some((first, rest)) => (first.as_str(), rest),
    };
    match run(command, rest) {
        Ok(code) => code,
        Err(message) => {
            eprintln!("demo {command}: {message}");
            ExitCode::from(2)
        }
    }
}

fn run(command: &str, args: &[String]) -> Result<ExitCode, String> {
    // As pid 1 a signal without a handler is lost; whatever can be asked to end should.
    if !matches!(command, "hang" | "serve") {
        signals::end_with_128_plus_n();
    }
    match command {
        "serve" => serve::serve(args),
        "tell" => serve::tell(args),
        "notify" => notify(args),
        "true" => Ok(ExitCode::SUCCESS),
        "exit" => Ok(ExitCode::from(number::<u8>(args.first(), "exit code")?)),
        "crash" => std::process::abort(),
        "hang" => {
            signals::ignore();
            loop {
                std::thread::sleep(Duration::from_secs(3600));
            }
        }
        "sleep" => {
            let seconds: f64 = number(args.first(), "seconds")?;
            std::thread::sleep(duration(seconds)?);
            Ok(ExitCode::SUCCESS)
        }
        "leak" => leak(number(args.first(), "MiB per second")?),
        "burn" => {
            match args.first() {
                Some(_) => burn(Some(duration(number(args.first(), "seconds")?)?)),
                None => burn(None),
            }
            Ok(ExitCode::SUCCESS)
        }
        "print" => print(args),
        "echo" => {
            println!("{}", args.join(" "));
            Ok(ExitCode::SUCCESS)
        }
        "env" => {
            for (key, value) in std::env::vars_os() {
                println!("{}={}", key.to_string_lossy(), value.to_string_lossy());
            }
            Ok(ExitCode::SUCCESS)
        }
        "id" => id(),
        "cat" => {
            let mut buffer = [0; 64 << 10];
            let mut stdout = std::io::stdout();
            loop {
                let count = std::io::stdin().read(&mut buffer).map_err(|e| e.to_string())?;
                if count == 0 {
                    return Ok(ExitCode::SUCCESS);
                }
                stdout
                    .write_all(&buffer[..count])
                    .and_then(|()| stdout.flush())
                    .map_err(|e| e.to_string())?;
            }
        }
        "forkbomb" => forkbomb(),
        "socket" => match signals::socket_of(number(args.first(), "family")?) {
            Ok(()) => Ok(ExitCode::SUCCESS),
            Err(error) => Err(error.to_string()),
        },
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(ExitCode::SUCCESS)
        }
        _ => {
            eprint!("{HELP}");
            Err("no such command".to_owned())
        }
    }
}

fn number<T: std::str::FromStr>(arg: Option<&String>, what: &str) -> Result<T, String> {
    let arg = arg.ok_or_else(|| format!("{what} missing"))?;
    arg.parse().map_err(|_| format!("{arg:?} is no {what}"))
}

fn duration(seconds: f64) -> Result<Duration, String> {
    Duration::try_from_secs_f64(seconds).map_err(|e| e.to_string())
}

/// Take and touch memory until somebody makes an end of it.
fn leak(mib_per_second: f64) -> Result<ExitCode, String> {
    // A tenth of a second's worth at a time, so that a limit is met close to where it is.
    let piece = (mib_per_second * 1024.0 * 1024.0 / 10.0).max(4096.0);
    if !piece.is_finite() || piece > 64e9 {
        return Err("that is not a rate of memory".to_owned());
    }
    let mut kept: Vec<Vec<u8>> = Vec::new();
    let mut total = 0_usize;
    let mut next_line = 0;
    loop {
        // Non-zero, or the kernel gives us its page of zeros.
        kept.push(vec![0xa5; piece as usize]);
        total += piece as usize;
        if total >> 20 >= next_line {
            println!("leaked {} MiB", total >> 20);
            next_line = (total >> 20) + 8;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn burn(time: Option<Duration>) {
    let start = Instant::now();
    let mut x = 1_u64;
    while time.is_none_or(|time| start.elapsed() < time) {
        for _ in 0..100_000 {
            x = std::hint::black_box(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        }
    }
}

fn print(args: &[String]) -> Result<ExitCode, String> {
    let mut words = Vec::new();
    let mut alternate = false;
    let mut interval = Duration::ZERO;
    let mut args = args.iter();
    let lines: u64 = number(args.next(), "number of lines")?;
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--alternate" => alternate = true,
            "--interval" => interval = Duration::from_millis(number(args.next(), "milliseconds")?),
            word => words.push(word),
        }
    }
    let text = if words.is_empty() { "line".to_owned() } else { words.join(" ") };
    let mut stdout = std::io::stdout().lock();
    let mut stderr = std::io::stderr().lock();
    for line in 1..=lines {
        let result = if alternate && line % 2 == 0 {
            writeln!(stderr, "{text} {line}")
        } else {
            writeln!(stdout, "{text} {line}")
        };
        result.map_err(|e| e.to_string())?;
        if !interval.is_zero() {
            std::thread::sleep(interval);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn id() -> Result<ExitCode, String> {
    let status =
        std::fs::read_to_string("/proc/self/status").map_err(|e| format!("/proc/self/status: {e}"))?;
    let wanted = ["Uid:", "Gid:", "Groups:", "Pid:", "NoNewPrivs:", "Seccomp:", "CapEff:"];
    for line in status.lines().filter(|line| wanted.iter().any(|key| line.starts_with(key))) {
        println!("{line}");
    }
    if let Ok(name) = std::fs::read_to_string("/proc/sys/kernel/hostname") {
        println!("Hostname:\t{}", name.trim());
    }
    if let Ok(dir) = std::env::current_dir() {
        println!("Directory:\t{}", dir.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// Every process forks on, as in the real thing; the first says when no more could be made.
fn forkbomb() -> Result<ExitCode, String> {
    let mut children = 0_u64;
    loop {
        match signals::forked() {
            signals::Forked::Child => {
                // Two levels are enough to fill any limit, and leave one process that can tell of it.
                while let signals::Forked::Parent = signals::forked() {}
                loop {
                    std::thread::sleep(Duration::from_secs(3600));
                }
            }
            signals::Forked::Parent => children += 1,
            signals::Forked::Failed(error) => {
                println!("fork failed after {children} children: {error}");
                // The limit holds; stay, so that whoever looks can see it.
                loop {
                    std::thread::sleep(Duration::from_secs(3600));
                }
            }
        }
    }
}

/// One datagram, as sd_notify(3) sends it.
fn notify(lines: &[String]) -> Result<ExitCode, String> {
    let address = std::env::var_os("NOTIFY_SOCKET").ok_or("NOTIFY_SOCKET is not set; nobody listens")?;
    let sent = std::os::unix::net::UnixDatagram::unbound()
        .and_then(|socket| socket.send_to(lines.join("\n").as_bytes(), &address));
    sent.map_err(|error| format!("telling {}: {error}", address.to_string_lossy()))?;
    Ok(ExitCode::SUCCESS)
}
