//! Probes of servers on this host's loopback.

use super::*;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

const SECOND: Duration = Duration::from_secs(1);

// ---- what tests run with -------------------------------------------------------------------------------------

/// A server that ends with the test.
struct Server {
    port: u16,
    /// The heads of all requests.
    requests: Arc<Mutex<Vec<String>>>,
    task: AbortHandle,
}

impl Server {
    async fn on(address: &str, tls: bool, answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        let answer = Arc::new(answer);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (seen, answer) = (seen.clone(), answer.clone());
                tokio::spawn(async move {
                    match tls {
                        true => {
                            let Ok(stream) = acceptor().accept(stream).await else { return };
                            talk(stream, &seen, &*answer).await;
                        }
                        false => talk(stream, &seen, &*answer).await,
                    }
                });
            }
        });
        Self { port, requests, task: task.abort_handle() }
    }

    async fn new(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        Self::on("127.0.0.1:0", false, answer).await
    }

    async fn get(&self, path: &str) -> Outcome {
        carry_out(&Means::in_host_network(), &self.handler(path, &[]), SECOND).await
    }

    fn handler(&self, path: &str, headers: &[(&str, &str)]) -> Handler {
        Handler::Http {
            scheme: Scheme::Http,
            host: None,
            port: self.port,
            path: path.to_owned(),
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        }
    }

    fn count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }

    fn last(&self) -> String {
        self.requests.lock().unwrap().last().cloned().unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn talk(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    seen: &Mutex<Vec<String>>,
    answer: &(impl Fn(&str) -> String + ?Sized),
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) if byte.is_ascii() => head.push(byte),
            // Something else than HTTP, or nothing.
            Ok(_) | Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    seen.lock().unwrap().push(head);
    let text = answer(&path);
    // What ends in this goes on for ever.
    let begun = text.strip_suffix("...");
    let _ = stream.write_all(begun.unwrap_or(&text).as_bytes()).await;
    let _ = stream.flush().await;
    if begun.is_some() {
        std::future::pending::<()>().await;
    }
    let _ = stream.shutdown().await;
}

fn plain_answer(status: u16) -> String {
    format!("HTTP/1.1 {status} Whatever\r\nContent-Length: 6\r\n\r\nsecret")
}

fn redirect(to: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n")
}

/// Signed by itself, for another name, and expired.
fn acceptor() -> TlsAcceptor {
    let certificate = CertificateDer::from(include_bytes!("fixtures/certificate.der").as_slice());
    let key = PrivatePkcs8KeyDer::from(include_bytes!("fixtures/key.der").as_slice());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key.into())
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

fn failure(outcome: Outcome) -> String {
    let Outcome::Failure(why) = &outcome else { panic!("{outcome:?}") };
    why.clone()
}

fn warning(outcome: Outcome) -> String {
    let Outcome::Success { warning: Some(warning) } = &outcome else { panic!("{outcome:?}") };
    warning.clone()
}

const GOOD: Outcome = Outcome::Success { warning: None };

// ---- http ----------------------------------------------------------------------------------------------------

#[tokio::test]
async fn status_from_200_to_399_is_success() {
    let server = Server::new(|path| plain_answer(path[1..].parse().unwrap())).await;
    for status in [200, 204, 299] {
        assert_eq!(server.get(&format!("/{status}")).await, GOOD, "{status}");
    }
    for status in [300, 304, 399] {
        let warning = warning(server.get(&format!("/{status}")).await);
        assert!(warning.contains(&status.to_string()), "{warning}");
    }
    for status in [400, 404, 500, 503, 599] {
        let why = failure(server.get(&format!("/{status}")).await);
        assert!(why.contains(&status.to_string()) && !why.contains("secret"), "{why}");
    }
    assert_eq!(failure(server.get("/503").await), "HTTP status 503 Service Unavailable");
    assert_eq!(failure(server.get("/599").await), "HTTP status 599");
    // 1xx but for 101 is not an answer yet.
    let odd = Server::new(|_| "HTTP/1.1 199 Odd\r\n\r\n".to_owned() + &plain_answer(199)).await;
    failure(odd.get("/").await);
}

#[tokio::test]
async fn redirects_are_followed_on_the_same_host_only() {
    let other = Server::new(|_| plain_answer(200)).await;
    let (port, there) = (other.port, other.requests.clone());
    let server = Server::new(move |path| match path {
        "/port" => redirect(&format!("http://127.0.0.1:{port}/there?x=1")),
        "/host" => redirect(&format!("http://localhost:{port}/")),
        "/relative/a" => redirect("../end"),
        "/end" => plain_answer(200),
        "/bad" => redirect("ftp://127.0.0.1/"),
        "/nowhere" => "HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
        path => {
            let left: u32 = path[1..].parse().unwrap();
            if left == 0 { plain_answer(200) } else { redirect(&format!("/{}", left - 1)) }
        }
    })
    .await;
    assert_eq!(server.get("/port").await, GOOD);
    assert!(there.lock().unwrap()[0].starts_with("GET /there?x=1 HTTP/1.1\r\n"));
    assert_eq!(warning(server.get("/host").await), "HTTP status 302 Found to another host, not followed");
    assert_eq!(other.count(), 1, "nobody went there");
    assert_eq!(server.get("/relative/a").await, GOOD);
    assert!(failure(server.get("/bad").await).contains("cannot be understood"));
    assert_eq!(warning(server.get("/nowhere").await), "HTTP status 302 Found");

    assert_eq!(server.get("/10").await, GOOD);
    let before = server.count();
    assert_eq!(failure(server.get("/11").await), "more than 10 redirects");
    assert_eq!(server.count() - before, 11, "a failure is not tried again");
}

#[tokio::test]
async fn long_body_is_no_error_and_a_broken_or_slow_one_is() {
    let server = Server::new(|path| match path {
        "/long" => format!("HTTP/1.1 200 OK\r\nContent-Length: 10241\r\n\r\n{}", "x".repeat(10_241)),
        "/longer" => format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(5 << 20)),
        "/endless" => format!("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n{}...", "x".repeat(10_300)),
        "/broken" => "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx".to_owned(),
        "/slow" => "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n...".to_owned(),
        "/silent" => "...".to_owned(),
        "/close" => String::new(),
        "/noise" => "SSH-2.0-OpenSSH\r\n".to_owned(),
        "/head" => format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(300 << 10)),
        "/old" => "HTTP/1.0 200 OK\r\n\r\nwell".to_owned(),
        path => panic!("{path}"),
    })
    .await;
    for path in ["/long", "/longer", "/endless", "/old"] {
        assert_eq!(server.get(path).await, GOOD, "{path}");
    }
    for (path, word) in [
        ("/broken", "closed before"),
        ("/close", "closed before"),
        ("/noise", "no HTTP answer"),
        ("/head", "no HTTP answer"),
    ] {
        let why = failure(server.get(path).await);
        assert!(why.contains(word) && why.len() < 100, "{path}: {why}");
    }
    for path in ["/slow", "/silent"] {
        let (begin, short) = (Instant::now(), Duration::from_millis(200));
        let why = failure(carry_out(&Means::in_host_network(), &server.handler(path, &[]), short).await);
        assert_eq!(why, "timeout: no answer within 200ms");
        assert!(begin.elapsed() < Duration::from_millis(900), "{path}: {:?}", begin.elapsed());
    }
}

#[tokio::test]
async fn headers_are_those_of_the_kubelet_unless_given() {
    let server = Server::new(|path| match path {
        "/relative" => redirect("/"),
        "/absolute" => redirect("http://127.0.0.1:1/"),
        _ => plain_answer(200),
    })
    .await;
    let means = Means::in_host_network();
    let head = async |path: &str, headers: &[(&str, &str)]| {
        carry_out(&means, &server.handler(path, headers), SECOND).await;
        server.last().to_ascii_lowercase()
    };
    let port = server.port;
    let plain = head("", &[]).await;
    assert!(plain.starts_with("get / http/1.1\r\n"), "{plain}");
    for line in [
        format!("host: 127.0.0.1:{port}"),
        format!("user-agent: wharf-probe/{}", env!("CARGO_PKG_VERSION")),
        "accept: */*".to_owned(),
        "connection: close".to_owned(),
    ] {
        assert!(plain.contains(&format!("\r\n{line}\r\n")), "{line} in {plain}");
    }
    assert!(!plain.contains("encoding") && !plain.contains("content-length"), "{plain}");
    assert!(!head("/", &[("Accept", "")]).await.contains("accept"));
    assert!(head("/", &[("Accept", "text/x")]).await.contains("\r\naccept: text/x\r\n"));
    assert!(head("/", &[("user-agent", "")]).await.contains("\r\nuser-agent: \r\n"));
    assert!(head("/", &[("X", "1"), ("X", "2")]).await.contains("\r\nx: 1\r\nx: 2\r\n"));
    assert!(head("/", &[("Host", "example.org")]).await.contains("\r\nhost: example.org\r\n"));
    // It stays with a redirect that names no host, and here nobody is at the one that names one.
    assert!(head("/relative", &[("Host", "example.org")]).await.contains("\r\nhost: example.org\r\n"));
    assert!(head("/absolute", &[("Host", "example.org")]).await.contains("get /absolute"));
    let bad = carry_out(&means, &server.handler("/", &[("a b", "")]), SECOND).await;
    assert!(matches!(&bad, Outcome::Unknown(why) if why.contains("\"a b\"")), "{bad:?}");
}

#[tokio::test]
async fn nobody_looks_at_certificates() {
    let server = Server::on("127.0.0.1:0", true, |path| plain_answer(path[1..].parse().unwrap())).await;
    let clear = Server::new(|_| plain_answer(200)).await;
    let means = Means::in_host_network();
    let get = async |port: u16, host: Option<&str>, path: &str| {
        let handler = Handler::Http {
            scheme: Scheme::Https,
            host: host.map(str::to_owned),
            port,
            path: path.to_owned(),
            headers: Vec::new(),
        };
        carry_out(&means, &handler, SECOND).await
    };
    assert_eq!(get(server.port, None, "/200").await, GOOD);
    assert_eq!(get(server.port, Some("localhost"), "/200").await, GOOD);
    assert!(failure(get(server.port, None, "/500").await).contains("500"));
    let why = failure(get(clear.port, None, "/").await);
    assert!(why.starts_with("TLS: "), "{why}");
    assert!(failure(server.get("/").await).contains("no HTTP answer"), "TLS where nobody expects it");
}

#[tokio::test]
async fn localhost_is_127_0_0_1_and_then_the_other_one() {
    let server = Server::on("[::1]:0", false, |_| plain_answer(200)).await;
    let means = Means::in_host_network();
    for (host, good) in
        [("localhost", true), ("LOCALHOST", true), ("::1", true), ("[::1]", true), ("127.0.0.1", false)]
    {
        let handler = Handler::Tcp { host: Some(host.to_owned()), port: server.port };
        let outcome = carry_out(&means, &handler, SECOND).await;
        assert_eq!(outcome == GOOD, good, "{host}: {outcome:?}");
    }
    let named = Handler::Tcp { host: Some("no-such-host.invalid".to_owned()), port: 1 };
    let why = failure(carry_out(&means, &named, 5 * SECOND).await);
    assert!(why.contains("no-such-host.invalid") || why.contains("timeout"), "{why}");
}

// ---- tcp and sleep -------------------------------------------------------------------------------------------

#[tokio::test]
async fn connection_is_all_that_tcp_asks() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let handler = Handler::Tcp { host: None, port };
    let means = Means::in_host_network();
    // Nobody accepts it.
    assert_eq!(carry_out(&means, &handler, SECOND).await, GOOD);
    drop(listener);
    let why = failure(carry_out(&means, &handler, SECOND).await);
    assert_eq!(why, format!("connecting to 127.0.0.1:{port}: Connection refused"));
}

#[tokio::test]
async fn sleep_lasts_no_longer_than_its_time() {
    let means = Means::in_host_network();
    let sleep = |ms| Handler::Sleep { duration: Duration::from_millis(ms) };
    let begin = Instant::now();
    assert_eq!(carry_out(&means, &sleep(50), SECOND).await, GOOD);
    assert!(begin.elapsed() >= Duration::from_millis(50));
    failure(carry_out(&means, &sleep(100_000), Duration::from_millis(50)).await);
    assert!(begin.elapsed() < 5 * SECOND);
}

// ---- what is ours --------------------------------------------------------------------------------------------

#[tokio::test]
async fn forge_that_cannot_be_reached_says_nothing_of_the_container() {
    let container = std::fs::File::open("/dev/null").unwrap().into();
    let means = Means::new(wharf_oci::forge::Forge::at("/nonexistent/forge.sock"), Arc::new(container));
    let tcp = carry_out(&means, &Handler::Tcp { host: None, port: 1 }, SECOND).await;
    assert!(matches!(&tcp, Outcome::Unknown(why) if why.contains("/nonexistent/forge.sock")), "{tcp:?}");
    let exec = carry_out(&means, &Handler::Exec { command: vec!["true".to_owned()] }, SECOND).await;
    assert!(matches!(exec, Outcome::Unknown(_)), "{exec:?}");
}

// ---- gRPC ----------------------------------------------------------------------------------------------------

/// What a health server says to a service's name.
enum Says {
    Status(u8),
    Error(u32),
    ErrorAfterHead(u32),
    Http(u16),
    Nothing,
}

async fn health(answer: fn(&[u8]) -> Says) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            tokio::spawn(serve_health(stream, answer));
        }
    });
    port
}

async fn serve_health(stream: TcpStream, answer: fn(&[u8]) -> Says) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        tokio::spawn(async move {
            assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
            assert_eq!(request.headers()["content-type"], "application/grpc");
            assert_eq!(request.headers()["te"], "trailers");
            assert_eq!(request.headers()["grpc-timeout"], "300m");
            let mut body = request.into_body();
            let mut received = Vec::new();
            while let Some(data) = body.data().await {
                received.extend_from_slice(&data.unwrap());
            }
            let head = |status: u16| {
                let builder = hyper::Response::builder().status(status);
                builder.header("content-type", "application/grpc")
            };
            let trailers =
                |code: u32| hyper::HeaderMap::from_iter([("grpc-status".parse().unwrap(), code.into())]);
            match answer(&received) {
                Says::Status(status) => {
                    let mut stream = respond.send_response(head(200).body(()).unwrap(), false).unwrap();
                    stream.send_data(vec![0, 0, 0, 0, 2, 8, status].into(), false).unwrap();
                    stream.send_trailers(trailers(0)).unwrap();
                }
                Says::Error(code) => {
                    let head = head(200).header("grpc-status", code.to_string()).body(()).unwrap();
                    respond.send_response(head, true).unwrap();
                }
                Says::ErrorAfterHead(code) => {
                    let mut stream = respond.send_response(head(200).body(()).unwrap(), false).unwrap();
                    stream.send_trailers(trailers(code)).unwrap();
                }
                Says::Http(status) => {
                    respond.send_response(head(status).body(()).unwrap(), true).unwrap();
                }
                Says::Nothing => std::future::pending::<()>().await,
            }
        });
    }
}

#[tokio::test]
async fn only_serving_is_success() {
    let port = health(|request| match request {
        [0, 0, 0, 0, 0] => Says::Status(1),
        [0, 0, 0, 0, 3, 0x0a, 1, name] => match name {
            b'a' => Says::Status(1),
            b'b' => Says::Status(2),
            b'c' => Says::Status(0),
            b'd' => Says::Error(5),
            b'e' => Says::Error(12),
            b'f' => Says::ErrorAfterHead(14),
            b'g' => Says::Http(404),
            b'h' => Says::Status(77),
            _ => Says::Nothing,
        },
        other => panic!("{other:?}"),
    })
    .await;
    let means = Means::in_host_network();
    let ask = async |port: u16, service: &str| {
        let handler = Handler::Grpc { port, service: service.to_owned() };
        carry_out(&means, &handler, Duration::from_millis(300)).await
    };
    assert_eq!(ask(port, "").await, GOOD);
    assert_eq!(ask(port, "a").await, GOOD);
    for (service, word) in [
        ("b", "unhealthy: NOT_SERVING"),
        ("c", "unhealthy: UNKNOWN"),
        ("d", "no service \"d\" (NOT_FOUND)"),
        ("e", "UNIMPLEMENTED"),
        ("f", "status 14 (UNAVAILABLE)"),
        ("g", "HTTP status 404"),
        ("h", "status 77"),
        ("i", "timeout: no answer within 300ms"),
    ] {
        let why = failure(ask(port, service).await);
        assert!(why.contains(word), "{service}: {why}");
    }
    // Who speaks no HTTP/2 at all, and who is not there.
    let clear = Server::new(|_| plain_answer(200)).await;
    let why = failure(ask(clear.port, "").await);
    assert!(why.contains("gRPC"), "{why}");
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    assert!(failure(ask(nobody, "").await).contains("refused"));
}

// ---- what it costs -------------------------------------------------------------------------------------------

/// CPU time of this thread.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// `cargo test --release -p wharfd cost_of -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn cost_of_probes_in_the_network() {
    let (sender, ports) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let clear = Server::new(|_| plain_answer(200)).await;
            let tls = Server::on("127.0.0.1:0", true, |_| plain_answer(200)).await;
            let grpc = health(|_| Says::Status(1)).await;
            sender.send([clear.port, tls.port, grpc]).unwrap();
            std::future::pending::<()>().await;
        });
    });
    let [clear, tls, grpc] = ports.recv().unwrap();
    let http = |scheme, port| Handler::Http {
        scheme,
        host: None,
        port,
        path: "/healthz".to_owned(),
        headers: Vec::new(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let means = Means::in_host_network();
        // The queue of a listener holds a hundred connections, and a tcp probe is faster than any server.
        for (name, probes, handler) in [
            ("tcp", 100, Handler::Tcp { host: None, port: clear }),
            ("http", 2000, http(Scheme::Http, clear)),
            ("https", 2000, http(Scheme::Https, tls)),
            ("grpc", 2000, Handler::Grpc { port: grpc, service: String::new() }),
        ] {
            let timeout = Duration::from_millis(300);
            assert_eq!(carry_out(&means, &handler, timeout).await, GOOD);
            let (begin, before) = (Instant::now(), cpu());
            for _ in 0..probes {
                assert_eq!(carry_out(&means, &handler, timeout).await, GOOD);
            }
            let (wall, used) = (begin.elapsed() / probes, (cpu() - before) / probes);
            eprintln!("{name}: {wall:?} wall, {used:?} CPU per probe");
        }
    });
}
