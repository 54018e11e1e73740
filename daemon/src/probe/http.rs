//! GET a page over HTTP/1.1, one connection for each request.
//!
//! As in the kubelet: no proxy, no compression, no keep-alive, no look at certificates; 10 KiB of the body are read and
//! the rest is left; redirects are followed to the same host name only, whatever the port. Of its two opinions on more
//! than ten redirects we take the code's, a failure. Where its library lets a body that breaks off count as
//! «unknown», it is a failure here.

use super::means::Means;
use super::{Scheme, Trouble, USER_AGENT, Verdict, plain, tcp};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::uri::Authority;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::fmt::{self, Write};
use std::io;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{ClientConfig, DigitallySignedStruct, Error as TlsError, SignatureScheme};

/// How much of a body is read, in bytes; more is no error.
const BODY_MAX: usize = 10 << 10;
/// A head much longer than this, in bytes, is an error: the server is not trusted.
const HEAD_MAX: usize = 64 << 10;
/// One more is a failure.
const REDIRECTS_MAX: usize = 10;

/// What to get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    scheme: Scheme,
    host: String,
    port: u16,
    /// Path and query, as in a request line.
    path: String,
}

impl Target {
    /// `path` as a user writes it, with a query perhaps.
    pub fn new(scheme: Scheme, host: &str, port: u16, path: &str) -> Self {
        let path = path.split('#').next().unwrap_or_default();
        let slash = if path.starts_with('/') { "" } else { "/" };
        Self {
            scheme,
            host: tcp::unbracketed(host).to_owned(),
            port,
            path: encoded(&format!("{slash}{path}")),
        }
    }

    /// Where `location`, met at this place, leads to. `None` if nobody can go there.
    fn follow(&self, location: &str) -> Option<Self> {
        let location = location.split('#').next().unwrap_or_default();
        let end_of_scheme = location.find([':', '/', '?']).filter(|at| location[*at..].starts_with(':'));
        let (scheme, rest) = match end_of_scheme {
            Some(at) if location[..at].eq_ignore_ascii_case("http") => (Scheme::Http, &location[at + 1..]),
            Some(at) if location[..at].eq_ignore_ascii_case("https") => (Scheme::Https, &location[at + 1..]),
            Some(_) => return None,
            None => (self.scheme, location),
        };
        if let Some(rest) = rest.strip_prefix("//") {
            let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            let authority: Authority = authority.parse().ok()?;
            let (_, port) = authority.as_str().rsplit_once(authority.host())?;
            let port = match (port, scheme) {
                ("" | ":", Scheme::Http) => 80,
                ("" | ":", Scheme::Https) => 443,
                (port, Scheme::Http | Scheme::Https) => port.strip_prefix(':')?.parse().ok()?,
            };
            return Some(Self::new(scheme, authority.host(), port, path));
        }
        if end_of_scheme.is_some() {
            return None;
        }
        let own = self.path.split('?').next().unwrap_or_default();
        let path = match rest.chars().next() {
            None => self.path.clone(),
            Some('/') => rest.to_owned(),
            Some('?') => format!("{own}{rest}"),
            Some(_) => format!("{}/{rest}", own.rsplit_once('/').map_or("", |(directory, _)| directory)),
        };
        Some(Self { path: encoded(&without_dots(&path)), ..self.clone() })
    }

    fn same_host(&self, other: &Self) -> bool {
        self.host.eq_ignore_ascii_case(&other.host)
    }
}

impl fmt::Display for Target {
    /// As in a Host header: with the port, even if it is the usual one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// What may not stand in a request line, as %XX.
fn encoded(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:/?[]@!$&'()*+,;=%".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

/// A path without its `.` and `..`; the query stays as it is.
fn without_dots(target: &str) -> String {
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    let mut segments = Vec::new();
    for segment in path.split('/').skip(1) {
        match segment {
            "." => {}
            ".." => drop(segments.pop()),
            _ => segments.push(segment),
        }
    }
    // What ends in a directory goes on ending in one.
    if path.ends_with("/.") || path.ends_with("/..") {
        segments.push("");
    }
    format!("/{}{query}", segments.join("/"))
}

/// Get it, and whatever it leads to on the same host.
pub async fn probe(means: &Means, first: Target, headers: &[(String, String)]) -> Verdict {
    let mut asked = Asked::new(headers)?;
    let mut target = first.clone();
    for _ in 0..=REDIRECTS_MAX {
        let answer = get(means, &target, &asked).await?;
        let Some(location) = answer.location else { return judge(answer.status) };
        let next = location.to_str().ok().and_then(|location| Some((location, target.follow(location)?)));
        let Some((location, next)) = next else {
            return Err(Trouble::Bad(format!(
                "{} to a place that cannot be understood",
                status(answer.status)
            )));
        };
        if !next.same_host(&first) {
            return Ok(Some(format!("{} to another host, not followed", status(answer.status))));
        }
        // A host that was asked for by name is asked for again only where the place is relative to it.
        if location.contains("://") {
            asked.host = None;
        }
        target = next;
    }
    Err(Trouble::Bad(format!("more than {REDIRECTS_MAX} redirects")))
}

fn judge(code: StatusCode) -> Verdict {
    match code.as_u16() {
        200..300 => Ok(None),
        300..400 => Ok(Some(status(code))),
        _ => Err(Trouble::Bad(status(code))),
    }
}

fn status(code: StatusCode) -> String {
    // Its own word for one that nobody has named is not for users.
    match code.canonical_reason() {
        Some(reason) => format!("HTTP status {} {reason}", code.as_u16()),
        None => format!("HTTP status {}", code.as_u16()),
    }
}

/// What each request of a probe says.
struct Asked {
    headers: HeaderMap,
    host: Option<HeaderValue>,
}

impl Asked {
    fn new(given: &[(String, String)]) -> Result<Self, Trouble> {
        let mut headers = HeaderMap::with_capacity(given.len() + 4);
        let mut host = None;
        for (name, value) in given {
            let bad = || Trouble::Unknown(format!("the header {name:?} cannot be sent"));
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
            let value = HeaderValue::from_str(value).map_err(|_| bad())?;
            match name {
                header::HOST => host = host.or(Some(value).filter(|value| !value.is_empty())),
                // There is no body.
                header::CONTENT_LENGTH | header::TRANSFER_ENCODING | header::TRAILER => {}
                name => drop(headers.append(name, value)),
            }
        }
        let missing = |headers: &HeaderMap, name: &HeaderName| !headers.contains_key(name);
        if missing(&headers, &header::USER_AGENT) {
            headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        }
        if missing(&headers, &header::ACCEPT) {
            headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        } else if headers.get(header::ACCEPT).is_some_and(HeaderValue::is_empty) {
            headers.remove(header::ACCEPT);
        }
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        Ok(Self { headers, host })
    }
}

/// What counts of an answer.
struct Answer {
    status: StatusCode,
    /// If it sends us on.
    location: Option<HeaderValue>,
}

async fn get(means: &Means, target: &Target, asked: &Asked) -> Result<Answer, Trouble> {
    let unknown = |error: &dyn fmt::Display| Trouble::Unknown(format!("making the request: {error}"));
    let mut request = Request::get(&target.path).body(Empty::new()).map_err(|error| unknown(&error))?;
    request.headers_mut().clone_from(&asked.headers);
    let host = match &asked.host {
        Some(host) => host.clone(),
        None => HeaderValue::try_from(target.to_string()).map_err(|error| unknown(&error))?,
    };
    request.headers_mut().insert(header::HOST, host);

    let stream = tcp::connect(means, &target.host, target.port).await?;
    match target.scheme {
        Scheme::Http => exchange(stream, request).await,
        Scheme::Https => {
            // An address, or a name that no certificate could bear, is not announced.
            let nobody = || ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into());
            let name = ServerName::try_from(target.host.clone()).unwrap_or_else(|_| nobody());
            let connector = TlsConnector::from(trusting()?);
            let connected = connector.connect(name, stream).await;
            let stream = connected.map_err(|error| Trouble::Bad(format!("TLS: {}", plain(&error))))?;
            exchange(stream, request).await
        }
    }
}

/// Send the request and read the answer. The connection is driven here and not in a task of its own, so that it ends
/// with the probe.
async fn exchange<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<Answer, Trouble>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let bad = |error: hyper::Error| Trouble::Bad(reason(&error));
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_MAX).title_case_headers(true);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(bad)?;
    let conversation = async move {
        let mut response = sender.send_request(request).await.map_err(bad)?;
        let answer = Answer { status: response.status(), location: location(&response) };
        if answer.location.is_none() {
            let mut length = 0;
            while length <= BODY_MAX
                && let Some(frame) = response.frame().await
            {
                length += frame.map_err(bad)?.data_ref().map_or(0, Bytes::len);
            }
        }
        Ok(answer)
    };
    let mut conversation = pin!(conversation);
    tokio::select! {
        answer = &mut conversation => answer,
        // All there is to read has been read; the conversation knows better than the connection what it misses.
        _ = connection => conversation.await,
    }
}

fn location<B>(response: &Response<B>) -> Option<HeaderValue> {
    let leads_on = matches!(
        response.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    // An empty one is none; without any the status stands for itself.
    let location = response.headers().get(header::LOCATION).filter(|location| !location.is_empty());
    location.filter(|_| leads_on).cloned()
}

/// The innermost cause says it; the outer ones only say that something was.
fn reason(error: &hyper::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let cause = innermost.downcast_ref::<io::Error>();
    if error.is_incomplete_message()
        || cause.is_some_and(|cause| cause.kind() == io::ErrorKind::UnexpectedEof)
    {
        return "the connection was closed before the answer was complete".to_owned();
    }
    match cause {
        Some(cause) => format!("reading the answer: {}", plain(cause)),
        None => format!("no HTTP answer: {innermost}"),
    }
}

/// Made for the first probe that needs it.
fn trusting() -> Result<Arc<ClientConfig>, Trouble> {
    static MADE: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(made) = MADE.get() {
        return Ok(made.clone());
    }
    let provider = Arc::new(ring::default_provider());
    let trust = Arc::new(Trust(provider.clone()));
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Trouble::Unknown(format!("TLS: {error}")))?
        .dangerous()
        .with_custom_certificate_verifier(trust)
        .with_no_client_auth();
    // What one container has said is not for the next.
    config.resumption = Resumption::disabled();
    Ok(MADE.get_or_init(|| Arc::new(config)).clone())
}

/// A probe asks whether a server answers, not who it is: its certificate is for its clients, under a name that is not
/// 127.0.0.1.
#[derive(Debug)]
struct Trust(Arc<CryptoProvider>);

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &str) -> Target {
        Target::new(Scheme::Http, "127.0.0.1", 8080, path)
    }

    #[test]
    fn path_is_made_fit_for_a_request_line() {
        for (given, sent) in [
            ("", "/"),
            ("/", "/"),
            ("healthz", "/healthz"),
            ("/a?b=c&d=%20#e", "/a?b=c&d=%20"),
            ("/a b/\u{e4}", "/a%20b/%C3%A4"),
            ("?q", "/?q"),
        ] {
            assert_eq!(at(given).path, sent, "{given:?}");
        }
        assert_eq!(at("/").to_string(), "127.0.0.1:8080");
        assert_eq!(Target::new(Scheme::Https, "[::1]", 443, "/").to_string(), "[::1]:443");
    }

    #[test]
    fn redirects_lead_where_they_say() {
        let here = at("/a/b?q=1");
        for (location, host, port, path) in [
            ("/x", "127.0.0.1", 8080, "/x"),
            ("x?y", "127.0.0.1", 8080, "/a/x?y"),
            ("../x", "127.0.0.1", 8080, "/x"),
            ("../../../x/.", "127.0.0.1", 8080, "/x/"),
            ("?z", "127.0.0.1", 8080, "/a/b?z"),
            ("", "127.0.0.1", 8080, "/a/b?q=1"),
            ("x?u=http://y", "127.0.0.1", 8080, "/a/x?u=http://y"),
            ("//other/x", "other", 80, "/x"),
            ("http://127.0.0.1:9/x#f", "127.0.0.1", 9, "/x"),
            ("HTTPS://user@[::1]", "::1", 443, "/"),
            ("https://h?x", "h", 443, "/?x"),
        ] {
            let next = here.follow(location).unwrap_or_else(|| panic!("{location:?}"));
            assert_eq!(
                (next.host.as_str(), next.port, next.path.as_str()),
                (host, port, path),
                "{location:?}"
            );
        }
        for location in ["mailto:a@b", "ftp://h/", "http:x", "http://a b/", "http://h:99999/"] {
            assert_eq!(here.follow(location), None, "{location:?}");
        }
    }
}
