//! gRPC health checks (`grpc.health.v1.Health/Check`), as small as they are: one field out, one field back.

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::chain;

/// The most that is read of an answer, in bytes.
const ANSWER_BYTES: usize = 4096;
/// The names of `HealthCheckResponse.ServingStatus`.
const STATUSES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];
const SERVING: usize = 1;
/// gRPC status codes that are told in words of their own.
const OK: i64 = 0;
const UNIMPLEMENTED: i64 = 12;

/// Asks a server over an open connection whether `service` (empty: all of it) serves. The error is what the probe says.
pub(super) async fn check(stream: TcpStream, at: &str, service: &str) -> Result<(), String> {
    let failed = |why: String| format!("error: health rpc probe failed: {why}");
    let shaken = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|e| failed(chain(&e)))?;
    let driver = tokio::spawn(connection);
    let request = request(at, service).map_err(|e| failed(e.to_string()))?;
    let answer = async {
        let answer = sender.send_request(request).await.map_err(|e| chain(&e))?;
        read(answer).await
    };
    let answer = answer.await;
    driver.abort();
    let (code, message, body) = answer.map_err(failed)?;
    match code {
        OK => judge(serving(&body)),
        UNIMPLEMENTED => Err(format!(
            "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}"
        )),
        code => Err(failed(format!("rpc error: code = {code} desc = {message}"))),
    }
}

fn judge(status: usize) -> Result<(), String> {
    match status {
        SERVING => Ok(()),
        other => {
            let name = STATUSES.get(other).map_or_else(|| other.to_string(), |name| (*name).to_owned());
            Err(format!("service unhealthy (responded with {name:?})"))
        }
    }
}

fn request(at: &str, service: &str) -> Result<http::Request<Full<Bytes>>, http::Error> {
    http::Request::post(format!("http://{at}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.37")
        .body(Full::new(Bytes::from(framed(service))))
}

/// `HealthCheckRequest { service = 1 }` in gRPC's frame: not compressed, length, message.
fn framed(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.push(u8::try_from(length & 0x7f).unwrap_or_default() | 0x80);
            length >>= 7;
        }
        message.push(u8::try_from(length).unwrap_or_default());
        message.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(message.len()).unwrap_or_default();
    [&[0], length.to_be_bytes().as_slice(), &message].concat()
}

/// Status code, its message, and the body; an answer without a body has its status in the head.
async fn read(answer: http::Response<hyper::body::Incoming>) -> Result<(i64, String, Vec<u8>), String> {
    let (head, mut incoming) = answer.into_parts();
    let (mut body, mut headers) = (Vec::new(), head.headers);
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|e| chain(&e))?;
        match frame.into_data() {
            Ok(data) if body.len() + data.len() <= ANSWER_BYTES => body.extend_from_slice(&data),
            Ok(_) => return Err("the answer is too large".into()),
            Err(frame) => headers.extend(frame.into_trailers().unwrap_or_default()),
        }
    }
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let code = text("grpc-status").and_then(|code| code.parse().ok());
    let code = code.ok_or_else(|| format!("unexpected HTTP status code received from server: {}", head.status))?;
    Ok((code, text("grpc-message").unwrap_or_default(), body))
}

/// `HealthCheckResponse { status = 1 }` after five bytes of frame; a field that is not there is 0.
fn serving(body: &[u8]) -> usize {
    match body.get(5..) {
        Some([0x08, status, ..]) => usize::from(*status),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_framed() {
        assert_eq!(framed(""), [0, 0, 0, 0, 0]);
        assert_eq!(framed("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(framed(&"x".repeat(300)).get(..8), Some([0, 0, 0, 1, 47, 0x0a, 0xac, 2].as_slice()));
        assert_eq!(serving(&[0, 0, 0, 0, 2, 8, 1]), SERVING);
        assert_eq!(
            judge(serving(&[0, 0, 0, 0, 2, 8, 2])),
            Err("service unhealthy (responded with \"NOT_SERVING\")".into())
        );
        assert_eq!(judge(serving(&[0, 0, 0, 0, 0])), Err("service unhealthy (responded with \"UNKNOWN\")".into()));
    }

    /// A server that answers every check with `status`, or with a gRPC error.
    async fn server(body: &'static [u8], code: &'static str) -> std::net::SocketAddr {
        use hyper::service::service_fn;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let answer = service_fn(move |request: http::Request<hyper::body::Incoming>| async move {
                assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                let asked = request.into_body().collect().await.unwrap().to_bytes();
                assert_eq!(asked.as_ref(), framed("live"));
                let trailers = http::HeaderMap::from_iter([("grpc-status".parse().unwrap(), code.parse().unwrap())]);
                let body = Full::new(Bytes::from_static(body)).with_trailers(async move { Some(Ok(trailers)) });
                Ok::<_, hyper::Error>(http::Response::new(body))
            });
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = builder.serve_connection(TokioIo::new(stream), answer).await;
        });
        at
    }

    #[tokio::test]
    async fn servers_are_asked() {
        let cases = [
            (&[0, 0, 0, 0, 2, 8, 1][..], "0", Ok(())),
            (&[0, 0, 0, 0, 2, 8, 2], "0", Err("service unhealthy (responded with \"NOT_SERVING\")")),
            (
                &[],
                "12",
                Err("error: this server does not implement the grpc health protocol (grpc.health.v1.Health): "),
            ),
            (&[], "5", Err("error: health rpc probe failed: rpc error: code = 5 desc = ")),
        ];
        for (body, code, want) in cases {
            let at = server(body, code).await;
            let stream = TcpStream::connect(at).await.unwrap();
            let said = check(stream, &at.to_string(), "live").await;
            assert_eq!(said, want.map_err(str::to_owned));
        }
    }
}
