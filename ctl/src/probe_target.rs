//! What a probe or hook does, as users type it: a URL, or a word with arguments.

use crate::quantity;
use wharf_bus::spec::{Exec, Grpc, Hook, HttpGet, Probe, Scheme, Sleep, TcpSocket};

/// What a probe or hook does.
#[derive(Debug, Clone, PartialEq)]
enum Target {
    Exec(Exec),
    Http(HttpGet),
    Tcp(TcpSocket),
    Grpc(Grpc),
    Sleep(Sleep),
}

/// `http://[HOST]:PORT/PATH`, `https://…`, `tcp://[HOST]:PORT`, `grpc://:PORT[/SERVICE]` or `exec:COMMAND`.
pub fn probe(text: &str) -> Result<Probe, String> {
    let nothing = Probe::default();
    match target(text)? {
        Target::Exec(exec) => Ok(Probe { exec: Some(exec), ..nothing }),
        Target::Http(request) => Ok(Probe { http_get: Some(request), ..nothing }),
        Target::Tcp(socket) => Ok(Probe { tcp_socket: Some(socket), ..nothing }),
        Target::Grpc(check) => Ok(Probe { grpc: Some(check), ..nothing }),
        Target::Sleep(_) => {
            Err("a probe cannot sleep; use http://, https://, tcp://, grpc:// or exec:".into())
        }
    }
}

/// `http://[HOST]:PORT/PATH`, `https://…`, `exec:COMMAND` or `sleep:TIME`.
pub fn hook(text: &str) -> Result<Hook, String> {
    let nothing = Hook::default();
    match target(text)? {
        Target::Exec(exec) => Ok(Hook { exec: Some(exec), ..nothing }),
        Target::Http(request) => Ok(Hook { http_get: Some(request), ..nothing }),
        Target::Sleep(pause) => Ok(Hook { sleep: Some(pause), ..nothing }),
        Target::Tcp(_) | Target::Grpc(_) => {
            Err(format!("a hook is http://, https://, exec: or sleep:; got '{text}'"))
        }
    }
}

fn target(text: &str) -> Result<Target, String> {
    if let Some(command) = text.strip_prefix("exec:") {
        return Ok(Target::Exec(Exec { command: words(command)? }));
    }
    if let Some(time) = text.strip_prefix("sleep:") {
        return Ok(Target::Sleep(Sleep { seconds: quantity::duration(time)?.as_secs_f64() }));
    }
    let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong(text))?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (host, port) = host_and_port(text, authority)?;
    let needed =
        || port.ok_or_else(|| format!("the port is missing, such as {scheme}://:8080; got '{text}'"));
    match scheme.to_ascii_lowercase().as_str() {
        "http" | "https" => {
            let secure = scheme.eq_ignore_ascii_case("https");
            let path = match path {
                "" => None,
                path if path.starts_with('?') => Some(format!("/{path}")),
                path => Some(path.to_owned()),
            };
            Ok(Target::Http(HttpGet {
                path,
                port: port.unwrap_or(if secure { 443 } else { 80 }),
                host,
                scheme: secure.then_some(Scheme::Https),
                http_headers: Vec::new(),
            }))
        }
        "tcp" if matches!(path, "" | "/") => Ok(Target::Tcp(TcpSocket { port: needed()?, host })),
        "tcp" => Err(format!("a TCP connection has no path; got '{text}'")),
        "grpc" if host.is_some() => {
            Err(format!("a gRPC check asks the container itself, such as grpc://:9000; got '{text}'"))
        }
        "grpc" => {
            let service = path.trim_start_matches('/');
            let service = (!service.is_empty()).then(|| service.to_owned());
            Ok(Target::Grpc(Grpc { port: needed()?, service }))
        }
        _ => Err(wrong(text)),
    }
}

fn wrong(text: &str) -> String {
    format!(
        "it must be such as http://:8080/healthz, https://:8443/, tcp://:5432, grpc://:9000/SERVICE or 'exec:PROGRAM ARGUMENT'; got '{text}'"
    )
}

/// `[HOST][:PORT]`, where an IPv6 address is in brackets.
fn host_and_port(text: &str, authority: &str) -> Result<(Option<String>, Option<i64>), String> {
    if authority.contains('@') {
        return Err(format!("user and password cannot be given here; got '{text}'"));
    }
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, port)) => (host, Some(port.strip_prefix(':').ok_or_else(|| wrong(text))?)),
        None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
    };
    let number = |port: &str| match port.parse::<u16>() {
        Ok(port) if port > 0 => Ok(i64::from(port)),
        Ok(_) | Err(_) => Err(format!("a port is a number from 1 to 65535; got '{port}'")),
    };
    Ok(((!host.is_empty()).then(|| host.to_owned()), port.map(number).transpose()?))
}

/// A command as a JSON list, or in words as a shell takes them apart: quotes and backslashes count, nothing
/// else does.
pub fn words(line: &str) -> Result<Vec<String>, String> {
    let line = line.trim();
    let found = if line.starts_with('[') {
        serde_json::from_str(line).map_err(|_| format!("it is no JSON list of strings: {line}"))?
    } else {
        split(line)?
    };
    if found.first().is_none_or(String::is_empty) {
        return Err("there is no command; give a program and its arguments".into());
    }
    Ok(found)
}

fn split(line: &str) -> Result<Vec<String>, String> {
    let unfinished = |what: &str| format!("{what} is missing at the end of: {line}");
    let mut found = Vec::new();
    let mut word: Option<String> = None;
    let mut rest = line.chars();
    while let Some(letter) = rest.next() {
        match letter {
            c if c.is_whitespace() => found.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match rest.next() {
                        Some('\'') => break,
                        Some(letter) => word.push(letter),
                        None => return Err(unfinished("a '")),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match rest.next() {
                        Some('"') => break,
                        Some('\\') => match rest.next() {
                            Some(letter @ ('"' | '\\' | '$' | '`')) => word.push(letter),
                            Some(letter) => word.extend(['\\', letter]),
                            None => return Err(unfinished("a \"")),
                        },
                        Some(letter) => word.push(letter),
                        None => return Err(unfinished("a \"")),
                    }
                }
            }
            '\\' => {
                let letter = rest.next().ok_or_else(|| unfinished("a character after \\"))?;
                word.get_or_insert_default().push(letter);
            }
            letter => word.get_or_insert_default().push(letter),
        }
    }
    found.extend(word);
    Ok(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn http(text: &str) -> HttpGet {
        probe(text).unwrap().http_get.unwrap()
    }

    #[test]
    fn urls_say_what_is_asked() {
        let plain = HttpGet { port: 8080, ..HttpGet::default() };
        assert_eq!(http("http://:8080"), plain);
        assert_eq!(http("http://:8080/a/b?c=d"), HttpGet { path: Some("/a/b?c=d".into()), ..plain.clone() });
        assert_eq!(http("http://:8080?c=d"), HttpGet { path: Some("/?c=d".into()), ..plain.clone() });
        assert_eq!(http("http://[::1]:8080"), HttpGet { host: Some("::1".into()), ..plain.clone() });
        assert_eq!(
            http("https://web.example/x"),
            HttpGet {
                path: Some("/x".into()),
                port: 443,
                host: Some("web.example".into()),
                scheme: Some(Scheme::Https),
                ..plain
            }
        );
        assert_eq!(probe("tcp://:5432").unwrap().tcp_socket, Some(TcpSocket { port: 5432, host: None }));
        assert_eq!(probe("grpc://:9000").unwrap().grpc, Some(Grpc { port: 9000, service: None }));
        assert_eq!(
            probe("grpc://:9000/shop.v1").unwrap().grpc,
            Some(Grpc { port: 9000, service: Some("shop.v1".into()) })
        );
        assert_eq!(probe("exec:cat /tmp/ready").unwrap().exec.unwrap().command, ["cat", "/tmp/ready"]);
    }

    #[test]
    fn hooks_may_sleep() {
        assert_eq!(hook("sleep:500ms").unwrap().sleep, Some(Sleep { seconds: 0.5 }));
        assert_eq!(hook("exec:/bye").unwrap().exec.unwrap().command, ["/bye"]);
        assert!(hook("http://:80/bye").unwrap().http_get.is_some());
    }

    #[test]
    fn what_is_wrong_is_refused_with_the_fix() {
        for (text, fix) in [
            ("/healthz", "http://:8080/healthz"),
            ("ftp://:21", "http://:8080/healthz"),
            ("http://:0/", "1 to 65535"),
            ("http://:65536/", "1 to 65535"),
            ("http://:web/", "1 to 65535"),
            ("http://me:secret@:80/", "password"),
            ("tcp://:5432/x", "no path"),
            ("tcp://db", "the port is missing"),
            ("grpc://db:9000", "grpc://:9000"),
            ("exec:", "no command"),
            ("exec:sh -c 'true", "a '"),
            ("sleep:5s", "cannot sleep"),
        ] {
            let error = probe(text).unwrap_err();
            assert!(error.contains(fix), "{text}: {error}");
        }
        assert!(hook("tcp://:80").unwrap_err().contains("sleep:"));
    }

    #[test]
    fn words_are_a_shells() {
        for (line, expected) in [
            ("a b  c", &["a", "b", "c"][..]),
            ("sh -c 'exit 1; $x'", &["sh", "-c", "exit 1; $x"]),
            (r#"a"b \" \n"c'd'"#, &[r#"ab " \ncd"#]),
            (r"a\ b ''", &["a b", ""]),
            (r#"["sh", "-c", "a b"]"#, &["sh", "-c", "a b"]),
        ] {
            assert_eq!(words(line).unwrap(), expected, "{line}");
        }
        for line in ["", "  ", "''", "\"a", "a\\", "[1]", "[]"] {
            assert!(words(line).is_err(), "{line}");
        }
    }
}
