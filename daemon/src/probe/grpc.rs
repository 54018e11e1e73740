//! `grpc.health.v1.Health/Check` over HTTP/2 without TLS. Only SERVING is success; whatever else comes of the call, an
//! error of it included, is a failure.

use super::means::Means;
use super::{LOOPBACK, Trouble, USER_AGENT, Verdict, tcp};
use h2::client::SendRequest;
use hyper::body::Bytes;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Request, StatusCode, Version};
use prost::Message;
use std::pin::pin;
use std::time::Duration;

/// A flag that says «not compressed», and the length.
const PREFIX: usize = 5;
/// The answer has two bytes; more than this, in bytes, is something else.
const ANSWER_MAX: usize = 1 << 10;
/// So much we let a server send before it has to wait.
const WINDOW: u32 = 16 << 10;

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// Ask for the health of a service; the empty name is that of the server.
pub async fn probe(means: &Means, port: u16, service: &str, timeout: Duration) -> Verdict {
    let request = HealthCheckRequest { service: service.to_owned() }.encode_to_vec();
    let stream = tcp::connect(means, LOOPBACK, port).await?;
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW).enable_push(false);
    let (client, connection) = builder.handshake(stream).await.map_err(|error| broken(&error))?;
    // The connection is driven here and not in a task of its own, so that it ends with the probe.
    let mut call = pin!(call(client, port, framed(&request), timeout));
    let answer = tokio::select! {
        answer = &mut call => answer?,
        _ = connection => call.await?,
    };
    judge(answer, service)
}

/// What a call came to: a message, or the number of an error.
enum Answer {
    Message(HealthCheckResponse),
    Refused(u32),
}

async fn call(
    client: SendRequest<Bytes>,
    port: u16,
    message: Bytes,
    timeout: Duration,
) -> Result<Answer, Trouble> {
    let broken = |error: h2::Error| broken(&error);
    // The unit with eight digits, as the format has it, lasts for more than a day.
    let patience = format!("{}m", timeout.as_millis().clamp(1, 99_999_999));
    let request = Request::post(format!("http://{LOOPBACK}:{port}/grpc.health.v1.Health/Check"))
        .version(Version::HTTP_2)
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .header(header::USER_AGENT, USER_AGENT)
        .header("grpc-timeout", patience)
        .body(())
        .map_err(|error| Trouble::Unknown(format!("making the request: {error}")))?;
    let mut client = client.ready().await.map_err(broken)?;
    let (response, mut body) = client.send_request(request, false).map_err(broken)?;
    body.send_data(message, true).map_err(broken)?;

    let response = response.await.map_err(broken)?;
    if response.status() != StatusCode::OK {
        let code = response.status().as_u16();
        return Err(Trouble::Bad(format!("no gRPC server: it answered with HTTP status {code}")));
    }
    // An error without a message comes all in one.
    if let Some(code) = code(response.headers()).filter(|code| *code != 0) {
        return Ok(Answer::Refused(code));
    }
    let mut body = response.into_body();
    let mut received = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(broken)?;
        if received.len() + data.len() > ANSWER_MAX {
            return Err(Trouble::Bad("the answer is far too long".to_owned()));
        }
        received.extend_from_slice(&data);
        body.flow_control().release_capacity(data.len()).map_err(broken)?;
    }
    let trailers = body.trailers().await.map_err(broken)?;
    match trailers.as_ref().and_then(code) {
        Some(0) => {}
        Some(code) => return Ok(Answer::Refused(code)),
        None => return Err(Trouble::Bad("no gRPC server: its answer has no grpc-status".to_owned())),
    }
    let message = unframed(&received).and_then(|message| HealthCheckResponse::decode(message).ok());
    message.map(Answer::Message).ok_or_else(|| Trouble::Bad("the answer cannot be understood".to_owned()))
}

fn judge(answer: Answer, service: &str) -> Verdict {
    let why = match answer {
        Answer::Message(HealthCheckResponse { status: 1 }) => return Ok(None),
        Answer::Message(HealthCheckResponse { status }) => {
            let word = match status {
                0 => "UNKNOWN",
                2 => "NOT_SERVING",
                3 => "SERVICE_UNKNOWN",
                _ => return Err(Trouble::Bad(format!("the service is unhealthy: status {status}"))),
            };
            format!("the service is unhealthy: {word}")
        }
        Answer::Refused(5) => format!("the server knows no service {service:?} (NOT_FOUND)"),
        Answer::Refused(12) => "the server does not offer grpc.health.v1.Health (UNIMPLEMENTED)".to_owned(),
        Answer::Refused(code) => format!("the call failed with gRPC status {code} ({})", name(code)),
    };
    Err(Trouble::Bad(why))
}

fn code(headers: &HeaderMap) -> Option<u32> {
    headers
        .get("grpc-status")
        .map(HeaderValue::as_bytes)
        .and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok())
}

fn name(code: u32) -> &'static str {
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];
    usize::try_from(code).ok().and_then(|code| NAMES.get(code).copied()).unwrap_or("no known code")
}

fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let mut frame = Vec::with_capacity(PREFIX + message.len());
    frame.push(0);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(message);
    frame.into()
}

fn unframed(frame: &[u8]) -> Option<&[u8]> {
    let (prefix, message) = frame.split_first_chunk::<PREFIX>()?;
    let [flag, length @ ..] = *prefix;
    (flag == 0 && usize::try_from(u32::from_be_bytes(length)) == Ok(message.len())).then_some(message)
}

fn broken(error: &h2::Error) -> Trouble {
    Trouble::Bad(match error.get_io() {
        Some(error) => format!("no gRPC answer, the connection broke off: {}", super::plain(error)),
        None => format!("no gRPC server: {error}"),
    })
}
